"""What the report draws: error against steps, error of the field over time, trajectories."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from monge.fields import Counted, Guided
from monge.flows import Integrated
from monge.paths import Path
from monge.solvers import RK4, Euler, Heun, Solver
from monge.targets.base import Target
from monge.tensors import noise, sum_except_batch
from monge.times import Grid
from monge.types import Cond, Latent, VelocityField
from monge.verification.pipeline import Pipeline, in_chunks
from monge.verification.terms import (
    Points,
    as_points,
    median_length,
    root_mean_square,
    spread_of,
    switched,
)

SOLVERS: tuple[Solver, ...] = (Euler(), Heun(), RK4())

STEPS = (4, 8, 16, 32)


@dataclass(frozen=True)
class StepError:
    """The error of a solver with so many steps, in data units."""

    solver: str
    steps: int
    evaluations: float
    rms: float
    median: float
    switched: float


def errors_by_steps(
    pipeline: Pipeline,
    x0: Latent,
    cond: Cond,
    reference: Points,
    solvers: Sequence[Solver] = SOLVERS,
    steps: Sequence[int] = STEPS,
) -> list[StepError]:
    """Each solver on the sampler's kind of grid, against the fine solution, same noise."""
    spread = spread_of(reference)
    found = []
    for solver in solvers:
        for n in steps:
            counted = Counted(pipeline.sampler.field)
            grid = with_steps(pipeline.sampler.grid, n)
            flow = Integrated(counted, solver, grid)
            gap = pipeline.data(pipeline.latents(flow, x0, cond)) - reference
            evaluations = counted.counts["rows"] / len(x0)
            if isinstance(pipeline.sampler.field, Guided):
                evaluations *= 2
            found.append(
                StepError(
                    str(solver), n, evaluations, root_mean_square(gap)[0], median_length(gap),
                    switched(gap, spread),
                )
            )  # fmt: skip
    for flow in pipeline.sampler.jumps((1, 2, *steps)):
        n = len(flow.knots) - 1
        gap = pipeline.data(pipeline.latents(flow, x0, cond)) - reference
        rms, median = root_mean_square(gap)[0], median_length(gap)
        found.append(StepError(flow.name, n, n, rms, median, switched(gap, spread)))
    return found


def with_steps(grid: Grid, n: int) -> Grid:
    """The grid with another number of steps."""
    changes: dict[str, Any] = {"n": n}
    return dataclasses.replace(grid, **changes)  # type: ignore[type-var]


@dataclass(frozen=True)
class FieldError:
    """The squared error of the field over a piece of time, per example, summed over coordinates.

    Attributes:
        lo, hi: the piece.
        loss: E |x_t' - v^|^2, the flow-matching loss on held-out latents.
        least: what it is for the optimal field.
        excess, stderr: E |v^ - v|^2, their difference, and its standard error.
    """

    lo: float
    hi: float
    loss: float
    least: float
    excess: float
    stderr: float


def field_errors(
    field: VelocityField,
    path: Path,
    optimum: Target,
    z: Latent,
    cond: Cond,
    domain: tuple[float, float],
    bins: int = 10,
    seed: int = 0,
) -> list[FieldError]:
    """The error of a field against an optimal one at x_t = alpha z + sigma x0, by piece of time.

    Args:
        optimum: the law whose field is optimal: the truth, or the empirical law of the training
            data, whose field the training loss is least for.
        z: draws from that law, (N, ...), with their conditions.
        domain: times.
    """
    lo, hi = domain
    hi = min(hi, optimum.field(path).domain[1])
    exact = optimum.field(path)
    found = []
    for k in range(bins):
        a, b = lo + (hi - lo) * k / bins, lo + (hi - lo) * (k + 1) / bins
        x0 = noise(seed, 0, len(z), tuple(z.shape[1:]), "verify", "bin", k).to(z)
        u = noise(seed, 0, len(z), (1,), "verify", "time", k).to(z)[:, 0]
        t = a + (b - a) * torch.special.ndtr(u)
        x, slope = path.interpolate(x0, z, t)

        def learned(y: Tensor, part: Cond) -> Tensor:
            assert part is not None
            rest = {name: c for name, c in part.items() if name != "t"} or None
            return field(y, part["t"], rest)

        def optimal(y: Tensor, part: Cond) -> Tensor:
            assert part is not None
            rest = {name: c for name, c in part.items() if name != "t"} or None
            return exact(y.flatten(1), part["t"], rest).reshape(y.shape)

        both = {**(cond or {}), "t": t}
        v, best = in_chunks(learned, x, both), in_chunks(optimal, x, both)
        squares = sum_except_batch((v - best).double().square())
        found.append(
            FieldError(
                a, b,
                float(sum_except_batch((v - slope).double().square()).mean()),
                float(sum_except_batch((best - slope).double().square()).mean()),
                float(squares.mean()),
                float(squares.std()) / math.sqrt(len(squares)),
            )
        )  # fmt: skip
    return found


def growth_bound(
    errors: Sequence[FieldError], times: Sequence[float], rate: Sequence[float]
) -> float:
    r"""int exp(int_t^T L) eps_t dt: what Groenwall's lemma makes of the field's error.

    An estimate of the bound on W2 between the flows' latents: the rates L are those observed on
    finitely many points, which lie below their supremum.
    """
    edges = torch.tensor(times, dtype=torch.float64)
    values = torch.tensor(rate, dtype=torch.float64)
    total = 0.0
    for piece in errors:
        middle = (piece.lo + piece.hi) / 2
        inside = torch.linspace(middle, float(edges[-1]), 64, dtype=torch.float64)
        growth = torch.trapezoid(_interpolated(inside, edges, values), inside)
        total += math.sqrt(max(piece.excess, 0.0)) * (piece.hi - piece.lo) * math.exp(growth)
    return total


def _interpolated(t: Tensor, knots: Tensor, values: Tensor) -> Tensor:
    k = torch.bucketize(t, knots[1:-1])
    share = (t - knots[k]) / (knots[k + 1] - knots[k])
    return torch.lerp(values[k], values[k + 1], share)


@dataclass(frozen=True)
class Trajectories:
    """Where noises go, on the two principal axes of the latents.

    Attributes:
        times: (T,).
        points: (T, n, 2).
        target: (m, 2), real latents on the same axes.
    """

    times: list[float]
    points: list[list[list[float]]]
    target: list[list[float]]


@torch.no_grad()
def trajectories(
    pipeline: Pipeline, x0: Latent, cond: Cond, z: Latent, times: int = 21, n: int = 200
) -> Trajectories:
    """Walks of n noises at equally spaced times, beside real latents z."""
    z = z[:n].flatten(1).double()
    x0 = x0[:n]
    cond = None if cond is None else {k: c[:n] for k, c in cond.items()}
    centre = z.mean(0)
    axes = torch.linalg.svd(z - centre, full_matrices=False)[2][:2].T
    flow, end = pipeline.sampler, pipeline.end
    lo = pipeline.begin
    grid = [lo + (end - lo) * k / (times - 1) for k in range(times)]
    states = flow.states(x0, grid, cond)
    points = [_rounded((as_points(state) - centre) @ axes) for state in states]
    return Trajectories(grid, points, _rounded((z - centre) @ axes))


def _rounded(x: Tensor) -> list[list[float]]:
    if x.shape[1] == 1:
        x = torch.cat([x, torch.zeros_like(x)], 1)
    return [[round(v, 3) for v in row] for row in x.tolist()]
