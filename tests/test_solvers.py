"""Solvers beyond the laws: tableaux, another library, the adaptive pair's limits and gradients."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
import torchdiffeq
from torch import Tensor

from monge.errors import UserError
from monge.solvers import (
    _DOPRI_A,
    _DOPRI_C,
    _DOPRI_ERROR,
    RK3,
    RK4,
    Dopri5,
    Euler,
    Heun,
    Midpoint,
    RungeKutta,
)

FIXED = [Euler(), Midpoint(), Heun(), RK3(), RK4()]

X = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def pendulum(y: tuple[Tensor, ...], t: Any, rows: Any = None) -> tuple[Tensor, ...]:
    t = torch.as_tensor(t, dtype=torch.float64).reshape(-1, 1)
    return (torch.cos(3 * t) * torch.sin(y[0].roll(1, 1)) - y[0] * t,)


@pytest.mark.parametrize("solver", FIXED, ids=repr)
def test_order_conditions(solver: RungeKutta) -> None:
    """Hairer, Norsett & Wanner, Sec. II.2: one equation for each rooted tree up to the order."""
    n = len(solver.b)
    a = torch.zeros(n, n, dtype=torch.float64)
    for i, row in enumerate(solver.a):
        a[i, : len(row)] = torch.tensor(row, dtype=torch.float64)
    b, c = torch.tensor(solver.b, dtype=torch.float64), a.sum(1)
    trees = {
        1: [(b.sum(), 1)],
        2: [(b @ c, 1 / 2)],
        3: [(b @ c**2, 1 / 3), (b @ a @ c, 1 / 6)],
        4: [
            (b @ c**3, 1 / 4),
            (b * c @ a @ c, 1 / 8),
            (b @ a @ c**2, 1 / 12),
            (b @ a @ a @ c, 1 / 24),
        ],
    }
    for order in range(1, solver.order + 1):
        for value, expected in trees[order]:
            assert float(value) == pytest.approx(expected, abs=1e-15)
    if solver.order < 4:
        assert any(abs(float(v) - e) > 1e-3 for v, e in trees[solver.order + 1])


def test_dormand_prince_tableau() -> None:
    """Both members of the pair: order 5 by quadrature, and 4; nodes are row sums."""
    a = torch.zeros(7, 7, dtype=torch.float64)
    for i, row in enumerate(_DOPRI_A):
        a[i, : len(row)] = torch.tensor(row, dtype=torch.float64)
    c = torch.tensor(_DOPRI_C, dtype=torch.float64)
    torch.testing.assert_close(a.sum(1), c, rtol=0, atol=1e-14)
    b = a[6]
    embedded = b - torch.tensor(_DOPRI_ERROR, dtype=torch.float64)
    for weights, order in ((b, 5), (embedded, 4)):
        for k in range(order):
            assert float(weights @ c**k) == pytest.approx(1 / (k + 1), abs=1e-14)
    assert abs(float(embedded @ c**4) - 1 / 5) > 1e-4


@pytest.mark.parametrize(
    ("solver", "method"),
    [(Euler(), "euler"), (Midpoint(), "midpoint"), (Heun(), "heun2"), (RK3(), "heun3")],
    ids=repr,
)
def test_same_steps_as_torchdiffeq(solver: RungeKutta, method: str) -> None:
    times = torch.linspace(0, 1, 8, dtype=torch.float64)
    expected = torchdiffeq.odeint(lambda t, y: pendulum((y,), t)[0], X, times, method=method)[-1]
    y: tuple[Tensor, ...] = (X,)
    for s, t in itertools.pairwise(times.tolist()):
        y = solver.advance(pendulum, y, s, t)
    torch.testing.assert_close(y[0], expected, rtol=1e-13, atol=1e-13)


def test_adaptive_agrees_with_torchdiffeq() -> None:
    times = torch.tensor([0.0, 2.0], dtype=torch.float64)
    expected = torchdiffeq.odeint(
        lambda t, y: pendulum((y,), t)[0], X, times, method="dopri8", rtol=1e-12, atol=1e-12
    )[-1]
    for tolerance in (1e-5, 1e-9):
        (y,) = Dopri5(tolerance, tolerance).advance(pendulum, (X,), 0.0, 2.0)
        assert float((y - expected).abs().max()) < 10 * tolerance


class Recorded:
    """Counts the examples that a right-hand side is asked for."""

    def __init__(self, rate: Tensor) -> None:
        self.rate, self.calls, self.rows = rate, 0, 0

    def __call__(self, y: tuple[Tensor, ...], t: Any, rows: Tensor | None) -> tuple[Tensor, ...]:
        rate = self.rate if rows is None else self.rate[rows]
        self.calls, self.rows = self.calls + 1, self.rows + len(y[0])
        return (rate[:, None] * torch.cos(rate[:, None] * torch.as_tensor(t).reshape(-1, 1)),)


def test_arrived_examples_are_no_longer_evaluated() -> None:
    rate = torch.tensor([0.0, 1.0, 60.0], dtype=torch.float64)
    f = Recorded(rate)
    (y,) = Dopri5(1e-7, 1e-7).advance(f, (torch.zeros(3, 1, dtype=torch.float64),), 0.0, 1.0)
    torch.testing.assert_close(y[:, 0], torch.sin(rate), rtol=0, atol=1e-5)
    assert f.rows < 0.5 * 3 * f.calls
    # Each example on its own costs what it costs in the batch.
    alone = [Recorded(r[None]) for r in rate]
    for g in alone:
        Dopri5(1e-7, 1e-7).advance(g, (torch.zeros(1, 1, dtype=torch.float64),), 0.0, 1.0)
    assert sum(g.rows for g in alone) == f.rows


def test_smooth_problems_cost_few_evaluations() -> None:
    """Hairer's first step and the 0.9-safety controller: y' = cos t needs a handful of steps."""
    f = Recorded(torch.ones(1, dtype=torch.float64))
    Dopri5().advance(f, (torch.zeros(1, 1, dtype=torch.float64),), 0.0, 1.0)
    assert f.calls <= 2 + 6 * 5


def test_too_many_steps_are_an_error() -> None:
    f = Recorded(torch.tensor([1.0, 500.0], dtype=torch.float64))
    start = (torch.zeros(2, 1, dtype=torch.float64),)
    with pytest.raises(UserError, match="1 of 2 examples have not arrived after 20 steps"):
        Dopri5(max_steps=20).advance(f, start, 0.0, 1.0)


def test_a_singularity_is_an_error() -> None:
    def f(y: tuple[Tensor, ...], t: Any, rows: Any) -> tuple[Tensor, ...]:
        return (1 / (0.5 - torch.as_tensor(t).reshape(-1, 1)) ** 2 + 0 * y[0],)

    with pytest.raises(UserError, match=r"step size vanished at t = 0\.(49|5)|have not arrived"):
        Dopri5().advance(f, (torch.zeros(2, 1, dtype=torch.float64),), 0.0, 1.0)


def test_non_finite_attempts_shrink_the_step() -> None:
    """Stages that overshoot into NaN are rejected, and the solution comes out right."""

    def f(y: tuple[Tensor, ...], t: Any, rows: Any) -> tuple[Tensor, ...]:
        return (-20 * torch.sqrt(y[0]),)  # NaN below 0, which long steps reach

    (y,) = Dopri5(1e-8, 1e-8).advance(f, (torch.ones(1, 1, dtype=torch.float64),), 0.0, 0.09)
    assert float(y) == pytest.approx((1 - 10 * 0.09) ** 2, abs=1e-6)


@pytest.mark.parametrize("solver", [*FIXED, Dopri5(1e-10, 1e-10)], ids=repr)
def test_gradients_flow_through_steps(solver: Any) -> None:
    weight = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

    def f(y: tuple[Tensor, ...], t: Any, rows: Any) -> tuple[Tensor, ...]:
        return (weight * y[0],)

    x = torch.ones(2, 1, dtype=torch.float64, requires_grad=True)
    (y,) = solver.advance(f, (x,), 0.0, 0.1)
    y.sum().backward()
    exact = math.exp(0.07)
    error = 0.05 ** (solver.order + 1) if not solver.adaptive else 1e-8
    assert x.grad is not None and weight.grad is not None
    assert x.grad.flatten().tolist() == pytest.approx([exact] * 2, abs=2 * error)
    assert float(weight.grad) == pytest.approx(0.2 * exact, abs=10 * error)


@pytest.mark.parametrize("solver", [Heun(), Dopri5()], ids=repr)
def test_single_precision_stays_single(solver: Any) -> None:
    (y,) = solver.advance(lambda y, t, rows: (-y[0],), (X.float(),), 0.0, 1.0)
    assert y.dtype == torch.float32
