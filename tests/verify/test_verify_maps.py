"""Laws of learned maps: slices of time bound the distance, an average over both times does not."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from monge.flows import Composed, Integrated, LearnedMap
from monge.paths import Linear
from monge.solvers import RK4
from monge.targets.gaussian import Gaussian
from monge.tensors import expand, noise
from monge.times import Uniform
from monge.types import Cond, State
from monge.verification.maps import eulerian_slice, lagrangian_slice, map_facts

PATH = Linear()
VARIANCE = 0.25
TARGET = Gaussian(torch.zeros(1).double(), torch.tensor([[VARIANCE]]).double())
EXACT = TARGET.flow_map(PATH)
REFERENCE = Integrated(TARGET.field(PATH), RK4(), Uniform(32))
N = 4000


def scaled(factor) -> LearnedMap:
    """The exact map times factor(s, t), as a learned one."""

    def u(x: State, s: Tensor, t: Tensor, cond: Cond = None) -> State:
        end = EXACT(x, s, t) * expand(factor(s, t), x)
        return (end - x) / expand(torch.where(t == s, 1e-9, t - s), x)

    return LearnedMap(u)


def x0() -> Tensor:
    return noise(0, 0, N, (1,), "x0").double()


def test_the_exact_map_has_no_defect() -> None:
    flow = Composed(scaled(lambda s, t: torch.ones_like(t)))
    found = map_facts(flow, REFERENCE, x0()[:500], None, -1.0, True)
    assert found.semigroup < 1e-6 and found.inverse is not None and found.inverse < 1e-6
    assert found.squared_error < 1e-12
    assert found.lagrangian < 1e-10 and found.eulerian < 1e-10
    assert found.lagrangian_bound < 1e-4 and found.eulerian_bound < 1e-4


def test_a_scale_error_attains_the_eulerian_bound() -> None:
    """X^ = X (1 + e (t - s)): W2^2 = e^2 l is the column's loss exactly."""
    e = 0.05
    flow = Composed(scaled(lambda s, t: 1 + e * (t - s)))
    column = eulerian_slice(flow, REFERENCE, x0())
    # The column's residual is -e X_{s,1}(x_s), of variance e^2 l whatever s is.
    assert column == pytest.approx(e**2 * VARIANCE, rel=4 * math.sqrt(2 / N / 8))
    found = map_facts(flow, REFERENCE, x0()[:2000], None, 0.0, False)
    w2 = e * math.sqrt(VARIANCE)
    assert math.sqrt(found.squared_error) == pytest.approx(w2, rel=0.05)
    assert found.inverse is None
    assert found.eulerian_bound >= 0.98 * w2 and found.lagrangian_bound >= w2


@pytest.mark.parametrize(("k", "averaged"), [(0.5, 5.7), (0.1, 23.0), (0.02, 103.0)])
def test_the_average_over_both_times_bounds_nothing(k: float, averaged: float) -> None:
    """X^ = X (1 + .2 (t - s) e^(-(1 - t)/k)): W2^2 over the mean Eulerian loss grows without end,
    while the column t = 1 still bounds it."""

    def factor(s: Tensor, t: Tensor) -> Tensor:
        return 1 + 0.2 * (t - s) * torch.exp(-(1 - t) / k)

    w2_squared = 0.2**2 * VARIANCE  # at s = 0, t = 1
    flow = Composed(scaled(factor))
    assert eulerian_slice(flow, REFERENCE, x0()) >= 0.95 * w2_squared
    # The mean over the triangle 0 <= s <= t <= 1 (Lebesgue measure), by quadrature: the residual
    # of the Eulerian equation is -.2 e^(-(1 - t)/k) X_{s,t}, of variance sigma_t^2.
    t = torch.linspace(0, 1, 200_001, dtype=torch.float64)
    sigma = (1 - t) ** 2 + t**2 * VARIANCE
    mean = torch.trapezoid(t * (0.2 * torch.exp(-(1 - t) / k)) ** 2 * sigma, t)
    assert w2_squared / float(mean) == pytest.approx(averaged, rel=0.03)


def test_the_lagrangian_row_bounds_the_distance() -> None:
    """X^ = X (1 + .2 (t - s) e^(-s/k)): only the row s = 0 sees it."""
    k = 0.05
    flow = Composed(scaled(lambda s, t: 1 + 0.2 * (t - s) * torch.exp(-s / k)))
    row = lagrangian_slice(flow, TARGET.field(PATH), x0())
    largest = max(TARGET.one_sided_lipschitz(PATH, float(t)) for t in torch.linspace(0, 1, 101))
    w2_squared = 0.2**2 * VARIANCE
    assert max(1.0, math.exp(2 * largest)) * row >= w2_squared


def test_the_column_lies_on_the_flow_that_is_followed() -> None:
    """A flow to N(3, 1/4), as guidance moves one, and a map whose error there decays for s > 0.7.

    The law of the data then says nothing about it: states on its path hardly meet the error.
    """
    moved = Gaussian(torch.full((1,), 3.0).double(), torch.tensor([[VARIANCE]]).double())
    exact = moved.flow_map(PATH)

    def u(x: State, s: Tensor, t: Tensor, cond: Cond = None) -> State:
        end = exact(x, s, t)
        left = ((1 - s) / 0.3).clamp(max=1) ** 2 * (t - s) / (1 - s).clamp(min=1e-9)
        wrong = 0.4 * expand(left, x) * torch.exp(-((end - 3) ** 2))
        return (end + wrong - x) / expand(torch.where(t == s, 1e-9, t - s), x)

    reference = Integrated(moved.field(PATH), RK4(), Uniform(32))
    found = map_facts(Composed(LearnedMap(u)), reference, x0(), None, 1.0, False)
    assert found.squared_error > 0.05
    assert found.eulerian_bound >= math.sqrt(found.squared_error)
