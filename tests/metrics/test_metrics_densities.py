"""Divergences from densities against closed forms, with measured coverage."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from monge.data.base import Data
from monge.errors import UserError
from monge.evaluation import known_target
from monge.metrics.divergences import Divergences, divergences
from monge.targets.gaussian import Gaussian
from monge.tensors import stream


def pair(q: Normal, n: int, *key: int) -> Divergences:
    """Divergences of q from p = N(0, 1), from n samples of each."""
    p, (u, v) = Normal(0.0, 1.0), torch.randn(2, n, generator=stream(0, "kl", *key)).double()

    def ratio(x: Tensor) -> Tensor:
        return q.log_prob(x) - p.log_prob(x)

    return divergences(ratio(u), ratio(q.loc + q.scale * v))


def test_closed_forms_between_gaussians_are_covered() -> None:
    # TV of N(0, 1) and N(m, 1) is 2 Phi(m / 2) - 1.
    p, q, repetitions = Normal(0.0, 1.0), Normal(0.6, 1.0), 500
    tv = math.erf(0.3 / math.sqrt(2))
    truths = (float(kl_divergence(p, q)), float(kl_divergence(q, p)), tv)
    covered = [0, 0, 0]
    for r in range(repetitions):
        for k, (found, truth) in enumerate(zip(pair(q, 60, r), truths, strict=True)):
            covered[k] += found.interval.low <= truth <= found.interval.high
    for hits in covered:
        assert hits / repetitions >= 0.95 - 3 * 0.00975


def test_directions_differ_where_variances_do() -> None:
    p, q = Normal(0.0, 1.0), Normal(0.0, 2.0)
    found = pair(q, 40_000, 1)
    for estimate, truth in (
        (found.forward_kl, kl_divergence(p, q)),
        (found.reverse_kl, kl_divergence(q, p)),
    ):
        assert abs(estimate.value - float(truth)) < 3.5 * estimate.stderr
    assert found.reverse_kl.value > 2 * found.forward_kl.value
    # Densities cross where x^2 = (8 / 3) log 2.
    x = math.sqrt(8 / 3 * math.log(2))
    tv = math.erf(x / math.sqrt(2)) - math.erf(x / math.sqrt(8))
    assert abs(found.total_variation.value - tv) < 3.5 * found.total_variation.stderr
    assert found.total_variation.stderr < 0.005


def test_equal_laws_are_at_zero_exactly_and_disjoint_ones_at_one() -> None:
    zero = torch.zeros(10)
    assert [e.value for e in divergences(zero, zero)] == [0, 0, 0]
    apart = divergences(torch.full((5,), -math.inf), torch.full((5,), math.inf))
    assert apart.total_variation.value == 1 and apart.forward_kl.value == math.inf


def test_too_few_are_refused_and_nan_is_shown() -> None:
    with pytest.raises(UserError, match="two samples of each law, not 5 and 1"):
        divergences(torch.zeros(5), torch.zeros(1))
    found = divergences(torch.tensor([0.0, math.nan]), torch.zeros(3))
    assert math.isnan(found.forward_kl.value) and found.reverse_kl.value == 0
    assert math.isnan(found.total_variation.value)


def test_the_fitted_gaussian_beside_a_known_law_has_the_moments_of_the_training_data() -> None:
    """Training data of N(m + d, C) against the law N(m, C): both divergences are d' C^-1 d / 2."""
    mean = torch.tensor([4.0, -2.0], dtype=torch.float64)
    covariance = torch.tensor([[2.0, 0.9], [0.9, 1.0]], dtype=torch.float64)
    shift = torch.tensor([0.8, -0.3], dtype=torch.float64)
    law = Gaussian(mean, covariance)
    train = Gaussian(mean + shift, covariance).sample(20_000, stream(0, "train"))
    real = law.sample(4000, stream(0, "real"))
    found = known_target._gaussian(law, Data("made", None, "table", train, real), real, 0)
    truth = float(shift @ torch.linalg.solve(covariance, shift)) / 2
    for estimate in (found.forward_kl, found.reverse_kl):
        assert abs(estimate.value - truth) < 4 * estimate.stderr
        assert estimate.stderr < 0.05 * truth
