"""The flow map of a velocity field, by an ODE solver.

Reference: Neural ODEs (Chen et al., 2018) -- https://arxiv.org/abs/1806.07366
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from monge.errors import UserError
from monge.fields import restrict, take
from monge.flows.walk import Walk
from monge.solvers import Heun, RightHandSide, Solver
from monge.tensors import as_time
from monge.times import Grid, Uniform
from monge.types import Cond, PerExample, State, Time, VelocityField, breakpoints_of, domain_of

Running: TypeAlias = Callable[[State, Time, State], PerExample]
"""r(x, t, v): what to integrate along a trajectory, (B,)."""


@dataclass(frozen=True)
class Integrated:
    """The flow map of a velocity field: its ODE solved on a fixed grid, or adaptively.

    The walk from s to t is s, the grid points strictly between, t; the field's breakpoints
    are grid points too. An adaptive solver chooses its own steps between the breakpoints.

    Attributes:
        field: the velocity field.
        solver: how to step.
        grid: where; its `stop` and the field's domain bound the times that can be asked for.
        per_span: if set, this many equal steps between s and t instead of the grid.
    """

    field: VelocityField
    solver: Solver = dataclasses.field(default_factory=Heun)
    grid: Grid = dataclasses.field(default_factory=Uniform)
    per_span: int | None = None

    @property
    def domain(self) -> tuple[float, float]:
        lo, hi = domain_of(self.field)
        return lo, min(hi, self.grid.stop)

    @property
    def breakpoints(self) -> tuple[float, ...]:
        return breakpoints_of(self.field)

    @property
    def knots(self) -> tuple[float, ...]:
        """The grid inside the domain, with the breakpoints on it: where walks compose exactly."""
        lo, hi = self.domain
        if self.per_span:
            return lo, hi
        inner = {*self.breakpoints}
        if not self.solver.adaptive:
            inner |= {*self.grid.points()}
        return (lo, *sorted(t for t in inner if lo < t < hi), hi)

    # What a `Walk` says of itself

    unit = "steps"
    error = "discretisation"
    against = "sampler and fine solution from the same noise"

    @property
    def order(self) -> int:
        return self.solver.order

    @property
    def name(self) -> str:
        return str(self.solver)

    label = name

    def states(self, x: State, times: Sequence[float], cond: Cond = None) -> Iterator[State]:
        """Where x, at the start of the domain, is at ascending times."""
        now = self.domain[0]
        for t in times:
            if t > now:
                x, now = self(x, now, t, cond), t
            yield x

    def jumps(self, counts: Sequence[int]) -> list[Walk]:
        """None: other steps are those of a solver."""
        return []

    def __call__(self, x: State, s: Time, t: Time, cond: Cond = None) -> State:
        return self.trace(x, s, t, (), cond)[0]

    def trace(
        self, x: State, s: Time, t: Time, running: Sequence[Running] = (), cond: Cond = None
    ) -> tuple[Tensor, ...]:
        """(x_t, integrals): the map, and the integral of each running quantity along the way.

        Integrals change sign with the direction, as integrals do.
        """

        def rates(v: VelocityField) -> RightHandSide:
            def f(y: tuple[Tensor, ...], u: Time, rows: Tensor | None) -> tuple[Tensor, ...]:
                slope = v(y[0], u, take(cond, rows))
                return slope, *(r(y[0], u, slope) for r in running)

            return f

        zeros = (x.new_zeros(len(x)) for _ in running)
        return self.solve(rates, (x, *zeros), s, t)

    def solve(
        self,
        rates: Callable[[VelocityField], RightHandSide],
        y: tuple[Tensor, ...],
        s: Time,
        t: Time,
    ) -> tuple[Tensor, ...]:
        """Advance a state and its integrals from s to t.

        `rates` turns the field, restricted to a piece of time, into the right-hand side.
        """
        check_span(s, t, self.domain, self)
        for a, b, lo, hi in self._steps(y[0], s, t):
            y = self.solver.advance(rates(restrict(self.field, lo, hi)), y, a, b)
        return y

    def _steps(self, x: State, s: Time, t: Time):
        """(from, to, lo, hi) for each step: its ends, and the piece of time it lies in."""
        knots = self.knots
        if not isinstance(s, Tensor) and not isinstance(t, Tensor):
            if self.per_span:
                inner = [s + (t - s) * k / self.per_span for k in range(1, self.per_span)]
                inner += [b for b in self.breakpoints if min(s, t) < b < max(s, t)]
            else:
                inner = [k for k in knots if min(s, t) < k < max(s, t)]
            walk = [s, *sorted(inner, reverse=s > t), t]
            for a, b in itertools.pairwise(walk):
                if a != b:
                    yield a, b, min(a, b), max(a, b)
            return
        # Times per example: all visit all knots, clamped to their own span; steps of zero
        # length change nothing, so each example walks exactly its own walk.
        start, end = as_time(s, x), as_time(t, x)
        if self.per_span:
            if self.breakpoints:
                raise UserError("per_span with times per example needs a field without breakpoints")
            lo, hi = self.domain
            for k in range(self.per_span):
                a = torch.lerp(start, end, k / self.per_span)
                b = (
                    end
                    if k + 1 == self.per_span
                    else torch.lerp(start, end, (k + 1) / self.per_span)
                )
                yield a, b, lo, hi
            return
        low, high = torch.minimum(start, end), torch.maximum(start, end)
        for forwards in (True, False):
            going = (start <= end) if forwards else (start > end)
            if not going.any():
                continue
            pieces = list(itertools.pairwise(knots))
            for lo, hi in pieces if forwards else reversed(pieces):
                a, b = (lo, hi) if forwards else (hi, lo)
                at = torch.clamp(torch.as_tensor(a, dtype=low.dtype, device=low.device), low, high)
                to = torch.clamp(torch.as_tensor(b, dtype=low.dtype, device=low.device), low, high)
                to = torch.where(going, to, at)
                if (at != to).any():
                    yield at, to, lo, hi


def check_span(s: Time, t: Time, domain: tuple[float, float], what: object) -> None:
    """Refuse times outside the domain, naming it."""
    lo, hi = domain
    slack = 1e-6  # float32 times of a domain whose ends are float64
    for u in (s, t):
        least, most = (float(u.min()), float(u.max())) if isinstance(u, Tensor) else (u, u)
        if not (lo - slack <= least and most <= hi + slack):  # NaN is refused too
            bad = most if lo - slack <= least else least
            raise UserError(
                f"time {bad:g} lies outside the domain [{lo:g}, {hi:g}] of {what}: "
                "call it between flow.domain[0] and flow.domain[1]"
            )
