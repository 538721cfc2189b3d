"""The Sinkhorn divergence: closed forms, POT, and its limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from monge.errors import UserError
from monge.metrics.sinkhorn import sinkhorn_divergence
from monge.metrics.wasserstein import exact_w2_squared
from monge.tensors import stream


def normal(n: int, d: int, *key: int) -> Tensor:
    return torch.randn(n, d, generator=stream(0, "sinkhorn", *key), dtype=torch.float64)


def clusters(n: int, key: int) -> Tensor:
    centres = 4 * normal(5, 2, 99)
    return centres[torch.randint(0, 5, (n,), generator=stream(key))] + 0.3 * normal(n, 2, key)


def by_pot(x: Tensor, y: Tensor, blur: float) -> float:
    import ot

    def transport(a: Tensor, b: Tensor) -> float:
        cost = torch.cdist(a, b).square().numpy()
        plan = ot.sinkhorn(
            [], [], cost, blur**2, method="sinkhorn_log", numItermax=2000, stopThr=1e-7
        )
        relative = plan * plan.size
        entropy = (plan * np.log(relative, where=relative > 0, out=np.zeros_like(plan))).sum()
        return float((plan * cost).sum() + blur**2 * entropy)

    return transport(x, y) - (transport(x, x) + transport(y, y)) / 2


@pytest.mark.parametrize(("blur", "sizes"), [(2.0, (40, 40)), (1.5, (40, 30))])
def test_agrees_with_pot(blur: float, sizes: tuple[int, int]) -> None:
    for d in (2, 6):
        x, y = normal(sizes[0], d, 1), 1 + 0.5 * normal(sizes[1], d, 2)
        assert sinkhorn_divergence(x, y, blur) == pytest.approx(by_pot(x, y, blur), rel=1e-3)


@pytest.mark.parametrize("blur", [0.3, 1.0, 10.0])
def test_a_shift_counts_its_squared_length_whatever_the_blur(blur: float) -> None:
    x, shift = normal(60, 3, 1), torch.tensor([1.0, -2.0, 0.5]).double()
    assert sinkhorn_divergence(x, x + shift, blur) == pytest.approx(5.25, rel=1e-3)


def test_zero_on_itself_symmetric_and_homogeneous() -> None:
    x, y = clusters(50, 1), clusters(40, 2)
    value = sinkhorn_divergence(x, y, 1.0)
    assert value > 0
    assert abs(sinkhorn_divergence(x, x.flip(0), 1.0)) < 1e-3 * value
    assert sinkhorn_divergence(y, x, 1.0) == pytest.approx(value, rel=1e-3)
    assert sinkhorn_divergence(3 * x, 3 * y, 3.0) == pytest.approx(9 * value, rel=1e-6)


def test_becomes_w2_where_the_blur_is_small_and_the_shift_of_means_where_it_is_large() -> None:
    x, y = normal(40, 2, 1), 2 + 0.5 * normal(40, 2, 2)
    assert sinkhorn_divergence(x, y, 0.1) == pytest.approx(exact_w2_squared(x, y), rel=0.02)
    means = float((x.mean(0) - y.mean(0)).square().sum())
    assert sinkhorn_divergence(x, y, 100.0) == pytest.approx(means, rel=1e-3)


def between_gaussians(a: float, b: float, blur: float) -> float:
    """S of N(0, a) and N(0, b) on the line (Janati et al., 2020, Th. 1; eps = 2 sigma^2)."""
    s2 = blur**2 / 2

    def transport(a: float, b: float) -> float:
        d = math.sqrt(4 * a * b + s2**2)
        return a + b - d + s2 * (1 - math.log(2 * s2)) + s2 * math.log(d + s2)

    return transport(a, b) - (transport(a, a) + transport(b, b)) / 2


@pytest.mark.parametrize("blur", [0.5, 2.0])
def test_closed_form_between_gaussians(blur: float) -> None:
    values = np.asarray(
        [
            sinkhorn_divergence(3 * normal(250, 1, r, 3), normal(250, 1, r, 4), blur)
            for r in range(16)
        ]
    )
    truth = between_gaussians(9, 1, blur)
    stderr = values.std() / 4
    # The upward bias of samples, of order 1/n, is below the variance 9 + 1 over 250.
    assert -3.5 * stderr < values.mean() - truth < 3.5 * stderr + 0.04
    assert between_gaussians(9, 1, 1e-3) == pytest.approx(4, rel=1e-3)


def test_bad_input_is_named() -> None:
    for blur in (0.0, -1.0, math.nan):
        with pytest.raises(UserError, match="blur of a Sinkhorn divergence must be positive"):
            sinkhorn_divergence(normal(5, 2), normal(5, 2), blur)
    with pytest.raises(UserError, match="2 numbers per example, but second set: 3"):
        sinkhorn_divergence(normal(5, 2), normal(5, 3), 1.0)


def test_equal_points_have_no_distance() -> None:
    assert sinkhorn_divergence(torch.ones(6, 2), torch.ones(4, 2), 1.0) == pytest.approx(0)
