"""The laws of ODE solvers.

Orders are fitted on the exact fields of a Gaussian and of a mixture whose covariances do not
commute, walking from 0.1 to 0.9: symmetric walks and commuting systems can hide a missing order.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import scipy.integrate
import torch
from torch import Tensor

from monge.conformance.measuring import DoesNotApply, Outcome, gap, holds, normal, within, worst
from monge.paths import Linear, Trigonometric
from monge.solvers import RightHandSide, Solver, Tuple
from monge.targets.base import ExactField
from monge.targets.gaussian import GaussianSpec
from monge.targets.mixture import MixtureSpec
from monge.tensors import expand

START, END = 0.1, 0.9

STEPS = (16, 32, 64)

GOLDEN = {
    "euler": (2.0, 0.0, 0.0),
    "midpoint": (2.5, 0.25, 0.125),
    "heun": (2.5, 0.5, 0.5),
    "rk3": (2.6666666666666667, 0.3333333333333333, 0.2222222222222222),
    "rk4": (2.7083333333333333, 0.3333333333333333, 0.25),
    "dopri5": (math.e, 0.3333333333333333, 0.25),
}
"""One step over [0, 1] of y' = y from 1, y' = t^2 and y' = t^3 from 0, worked out by hand."""


@functools.cache
def problems() -> tuple[tuple[ExactField, Tensor, Tensor], ...]:
    """Fields with where they start, and where scipy's DOP853 says they end."""
    gaussian = GaussianSpec(dim=2, condition=20.0).build().field(Trigonometric())
    mixture = MixtureSpec(dim=2, modes=3, spread=1.0, covariance="full", seed=1).build()
    found = []
    for velocity in (gaussian, mixture.field(Linear())):
        x = normal(16, 2)

        def f(t: float, y: Any, velocity: ExactField = velocity) -> Any:
            return velocity(torch.from_numpy(y).reshape(-1, 2), float(t)).flatten().numpy()

        end = scipy.integrate.solve_ivp(
            f, (START, END), x.flatten().numpy(), method="DOP853", rtol=1e-13, atol=1e-13
        ).y[:, -1]
        found.append((velocity, x, torch.from_numpy(end).reshape(-1, 2)))
    return tuple(found)


def of_field(velocity: ExactField) -> RightHandSide:
    def f(y: Tuple, t: Tensor | float, rows: Tensor | None) -> Tuple:
        return (velocity(y[0], t),)

    return f


def polynomial(y: Tuple, t: Tensor | float, degree: int) -> Tuple:
    """y' = (degree + 1) t^degree, whose solution from 0 is t^(degree + 1)."""
    rate = expand(torch.as_tensor(t, dtype=y[0].dtype), y[0])
    return (((degree + 1) * rate**degree).expand_as(y[0]),)


def fitted_order(solver: Solver, velocity: ExactField, x: Tensor, exact: Tensor) -> float:
    """Minus the slope of log error against log steps, of the median over examples."""
    points = []
    for n in STEPS:
        y: Tuple = (x,)
        for k in range(n):
            s, t = (START + (END - START) * i / n for i in (k, k + 1))
            y = solver.advance(of_field(velocity), y, s, t)
        error = float((y[0] - exact).norm(dim=1).median())
        points.append((math.log(n), math.log(max(error, 1e-300))))
    log_n, log_error = torch.tensor(points, dtype=torch.float64).T
    log_n = log_n - log_n.mean()
    return -float((log_n * log_error).sum() / log_n.square().sum())


def law_order(solver: Solver) -> Outcome:
    """The observed order is the claimed one, within 0.15."""
    if solver.adaptive:
        return DoesNotApply("it is adaptive: see the law of its tolerance")
    return worst(
        *(
            within(
                f"distance from order {solver.order} of the order {order:.2f} on {velocity.target}",
                order - solver.order,
                0.15,
            )
            for velocity, x, exact in problems()
            for order in (fitted_order(solver, velocity, x, exact),)
        )
    )


def law_tolerance(solver: Solver) -> Outcome:
    """An adaptive solver's error is about its tolerance, whatever that is."""
    if not solver.adaptive:
        return DoesNotApply("its steps are fixed")
    settings: dict[str, Any] = {f.name: f for f in dataclasses.fields(solver)}  # type: ignore[arg-type]
    if not {"rtol", "atol"} <= set(settings):
        return DoesNotApply("it has no settings rtol and atol")
    found = []
    for tolerance in (1e-4, 1e-7, 1e-10):
        tight: Any = dataclasses.replace(solver, rtol=tolerance, atol=tolerance)  # type: ignore[type-var]
        for velocity, x, exact in problems():
            (y,) = tight.advance(of_field(velocity), (x,), START, END)
            found.append(within(f"error at tolerance {tolerance:g}", y - exact, 30 * tolerance))
    return worst(*found)


def law_exact_for_polynomials(solver: Solver) -> Outcome:
    """y' = p(t) with p of degree below the order is solved exactly, forwards and backwards."""
    found = []
    for degree in range(solver.order):
        for s, t in ((0.2, 0.9), (0.9, 0.2)):
            y = torch.full((3, 2), s ** (degree + 1), dtype=torch.float64)
            (end,) = solver.advance(
                lambda y, u, rows, degree=degree: polynomial(y, u, degree), (y,), s, t
            )
            found.append(within(f"error at degree {degree}", end - t ** (degree + 1), 1e-12))
    return worst(*found)


def law_no_step_no_change(solver: Solver) -> Outcome:
    """A step of length zero changes nothing, for examples of a batch too."""
    velocity, x, _ = problems()[0]
    (still,) = solver.advance(of_field(velocity), (x,), 0.4, 0.4)
    times = torch.full((len(x),), 0.4, dtype=torch.float64)
    ends = torch.where(torch.arange(len(x)) < 8, times, 0.5)
    (some,) = solver.advance(of_field(velocity), (x,), times, ends)
    return worst(within("change", gap(still, x), 0.0), within("change", gap(some[:8], x[:8]), 0.0))


def law_times_per_example(solver: Solver) -> Outcome:
    """Times per example, forwards and backwards at once, are separate solves."""
    velocity, x, _ = problems()[1]
    s = torch.linspace(0.1, 0.8, len(x), dtype=torch.float64)
    t = torch.linspace(0.9, 0.2, len(x), dtype=torch.float64)
    (together,) = solver.advance(of_field(velocity), (x,), s, t)
    alone = [
        solver.advance(of_field(velocity), (x[i : i + 1],), float(s[i]), float(t[i]))[0]
        for i in range(len(x))
    ]
    return within("difference", gap(together, torch.cat(alone)), 1e-12)


def law_batch_independence(solver: Solver) -> Outcome:
    """An example's solution does not depend on the batch it is in."""
    velocity, x, _ = problems()[1]
    x = torch.cat([x, 30 * x[:4]])  # some examples need smaller steps than others
    (together,) = solver.advance(of_field(velocity), (x,), START, END)
    parts = [solver.advance(of_field(velocity), (part,), START, END)[0] for part in x.split(5)]
    return within("difference", gap(together, torch.cat(parts)), 1e-12)


def law_solves_tuples(solver: Solver) -> Outcome:
    """All parts of the tuple are solved, of any shape; `rows` says which examples are asked."""
    n = 6
    rate = torch.linspace(-1, 1, n, dtype=torch.float64)
    image, number = normal(n, 2, 3, 3), normal(n)

    def f(y: Tuple, t: Tensor | float, rows: Tensor | None) -> Tuple:
        own = rate if rows is None else rate[rows]
        holds(all(len(part) == len(own) for part in y), "`rows` are not the examples of y")
        return expand(own, y[0]) * y[0], own * y[1]

    images, numbers = solver.advance(f, (image, number), 0.0, 0.5)
    apart, _ = solver.advance(f, (number[:, None], number), 0.0, 0.5)
    shape = images.shape == image.shape and numbers.shape == number.shape
    holds(shape, "the parts of the tuple change their shape")
    if not solver.adaptive:
        return within("difference between parts", gap(numbers, apart[:, 0]), 1e-14)
    return within("error", gap(images, expand((rate / 2).exp(), image) * image), 1e-3)


def law_stays_between_the_ends(solver: Solver) -> Outcome:
    """The field is never asked for times beyond the step's ends; a domain may end there."""
    excess = [0.0]

    def f(y: Tuple, t: Tensor | float, rows: Tensor | None) -> Tuple:
        u = torch.as_tensor(t, dtype=torch.float64)
        excess.append(max(0.3 - float(u.min()), float(u.max()) - 0.7))
        return (torch.sin(9 * y[0]),)

    for s, t in ((0.3, 0.7), (0.7, 0.3)):
        solver.advance(f, (normal(4, 2),), s, t)
    return within("furthest evaluation beyond the ends", max(excess), 1e-15)


def law_counts_its_evaluations(solver: Solver) -> Outcome:
    """A step costs as many evaluations as the solver says."""
    claimed = getattr(solver, "evaluations_per_step", None)
    if claimed is None:
        return DoesNotApply("it does not say how many evaluations a step costs")
    calls = []

    def f(y: Tuple, t: Tensor | float, rows: Tensor | None) -> Tuple:
        calls.append(t)
        return y

    solver.advance(f, (normal(4, 2),), 0.3, 0.7)
    return holds(len(calls) == claimed, f"a step costs {len(calls)} evaluations, not {claimed}")


def law_golden_value(solver: Solver) -> Outcome:
    """A solver of monge's takes one step over [0, 1] to the values worked out by hand."""
    if solver.name not in GOLDEN:
        return DoesNotApply("no step is worked out for it")
    zero, one = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    steps = (
        solver.advance(lambda y, t, rows: y, (one,), 0.0, 1.0)[0],
        solver.advance(lambda y, t, rows: (polynomial(y, t, 2)[0] / 3,), (zero,), 0.0, 1.0)[0],
        solver.advance(lambda y, t, rows: (polynomial(y, t, 3)[0] / 4,), (zero,), 0.0, 1.0)[0],
    )
    golden = torch.tensor(GOLDEN[solver.name], dtype=torch.float64)
    tolerance = 1e-4 if solver.adaptive else 1e-14
    error = torch.cat(steps)[:, 0] - golden
    return within(f"distance from {GOLDEN[solver.name]}", error, tolerance)
