"""The lower bound of the distance to the noise: silent for noise, and near the truth elsewhere."""

from __future__ import annotations

import math

import pytest
import torch

from monge.tensors import stream
from monge.verification.chain_measures import distance_at_least


@pytest.mark.parametrize("n", [60, 400])
@pytest.mark.parametrize("size", [1, 2, 16])
def test_noise_is_at_no_distance_from_noise(size: int, n: int) -> None:
    rng = stream(0, "noise", size, n)
    draws = torch.randn(200, n, size, generator=rng)
    found = [distance_at_least(y) for y in draws]
    # Three standard errors each way: 0.5 % or so; six of 200 have a probability below 1e-3.
    assert sum(value > 0 for value in found) <= 5


@pytest.mark.parametrize(
    ("mean", "scale"), [(0.5, 1.0), (0.0, 1.6), (0.0, 0.5), (0.6, 1.5)], ids=str
)
def test_of_normal_laws_it_is_below_the_distance_and_near_it(mean: float, scale: float) -> None:
    size, n = 4, 4000
    shift = mean * torch.tensor([0.5, 0.5, -0.5, 0.5])
    truth = math.hypot(mean, math.sqrt(size) * abs(scale - 1))
    y = torch.randn(20, n, size, generator=stream(1, "law")) * scale + shift
    found = [distance_at_least(part) for part in y]
    assert all(0.75 * truth < value <= truth for value in found)
