"""Maps that jump: networks of two times, their walks, and what follows from a map.

Reference: Flow map matching (Boffi et al., 2024), Sec. 2 -- https://arxiv.org/abs/2406.07507
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from monge.errors import UserError
from monge.flows.integrated import Integrated, check_span
from monge.flows.walk import Walk
from monge.paths import Kind, Path
from monge.system.own_faults import shaped_like
from monge.tensors import as_time, expand, forward_mode
from monge.times import Grid, Uniform
from monge.types import Cond, FlowMap, State, Time, VelocityField, domain_of


@dataclass(frozen=True)
class MeanVelocity:
    """The u of a `LearnedMap` that a network of two times outputs.

    Whatever a network of one time outputs, its velocity is the u at s = t; so with two times the
    output at the start x of a walk is converted there, and the walk's end is an input.

    Attributes:
        net: ``net(x, t, cond, s)``, shaped like x.
        path, output: as for `fields.Predict`.
    """

    net: Callable[..., State]
    path: Path
    output: Kind = "velocity"

    def __call__(self, x: State, s: Time, t: Time, cond: Cond = None) -> State:
        output = shaped_like(self.net(x, t, cond, s), x, self.net)
        return self.path.to_velocity(self.output, output, x, s)


@dataclass(frozen=True)
class LearnedMap:
    """A network u that jumps: X(x, s, t) = x + (t - s) u(x, s, t), the identity at s = t.

    `net(x, s, t, cond)` is shaped like x.
    """

    net: Callable[[State, Time, Time, Cond], State]
    domain: tuple[float, float] = (0.0, 1.0)

    def __call__(self, x: State, s: Time, t: Time, cond: Cond = None) -> State:
        check_span(s, t, self.domain, "this map")
        s, t = as_time(s, x), as_time(t, x)
        return x + expand(t - s, x).to(x.dtype) * self.net(x, s, t, cond)

    def tangent(self, x: State, t: Time, cond: Cond = None) -> State:
        t = as_time(t, x)
        return self.net(x, t, t, cond)


@dataclass(frozen=True)
class Composed:
    """A map taken in jumps, from point to point of a grid, as a solver walks.

    Attributes:
        map: what jumps, in one evaluation each.
        grid: where it lands; its `stop` bounds the times that can be asked for.
        follows: the velocity whose flow the map is to be; its own at s = t where none is named.
    """

    map: FlowMap
    grid: Grid = dataclasses.field(default_factory=lambda: Uniform(1))
    follows: VelocityField | None = None

    @property
    def domain(self) -> tuple[float, float]:
        lo, hi = domain_of(self.map)
        return lo, min(hi, self.grid.stop)

    @property
    def knots(self) -> tuple[float, ...]:
        """The grid inside the domain."""
        lo, hi = self.domain
        return (lo, *(t for t in self.grid.points() if lo < t < hi), hi)

    @property
    def field(self) -> VelocityField:
        """What the map follows."""
        return tangent(self.map) if self.follows is None else self.follows

    @property
    def tangent(self) -> VelocityField:
        return tangent(self.map)

    # What a `Walk` says of itself

    order = 0
    name = "map"
    label = "learned map"
    unit = "jumps"
    error = "map"
    against = "jumps and the flow that they follow, solved finely, from the same noise"

    def states(self, x: State, times: Sequence[float], cond: Cond = None) -> Iterator[State]:
        """Where x, at the start of the domain, is at some times, in one jump each."""
        return (self.map(x, self.domain[0], t, cond) for t in times)

    def jumps(self, counts: Sequence[int]) -> list[Walk]:
        """The same map in so many jumps each."""
        grids = (dataclasses.replace(self.grid, n=n) for n in counts)  # type: ignore[call-arg]
        return [dataclasses.replace(self, grid=grid) for grid in grids]

    def __call__(self, x: State, s: Time, t: Time, cond: Cond = None) -> State:
        check_span(s, t, self.domain, "this map")
        if isinstance(s, Tensor) or isinstance(t, Tensor):
            return self._each_its_own(x, as_time(s, x), as_time(t, x), cond)
        inner = [k for k in self.knots if min(s, t) < k < max(s, t)]
        for a, b in itertools.pairwise([s, *sorted(inner, reverse=s > t), t]):
            x = self.map(x, a, b, cond)
        return x

    def _each_its_own(self, x: State, s: Tensor, t: Tensor, cond: Cond) -> State:
        """Times per example: all visit all knots, clamped to their own span."""
        back = s > t
        low, high = torch.minimum(s, t), torch.maximum(s, t)
        for a, b in itertools.pairwise(self.knots):
            lo, hi = low.clamp(a, b), high.clamp(a, b)
            # A walk backwards takes the pieces in the other order.
            x = torch.where(expand(back | (lo == hi), x), x, self.map(x, lo, hi, cond))
        for a, b in reversed(list(itertools.pairwise(self.knots))):
            lo, hi = low.clamp(a, b), high.clamp(a, b)
            x = torch.where(expand(~back | (lo == hi), x), x, self.map(x, hi, lo, cond))
        return x


def tangent(flow: FlowMap) -> VelocityField:
    """The velocity field of a map: d/du X(x, t, u) at u = t, exact where the map knows it."""
    if isinstance(flow, Integrated):
        return flow.field
    known = getattr(flow, "tangent", None)
    if known is not None:
        return known

    def velocity(x: State, t: Time, cond: Cond = None) -> State:
        t = as_time(t, x).expand(len(x)).clone()
        with forward_mode():
            return torch.func.jvp(lambda u: flow(x, t, u, cond), (t,), (torch.ones_like(t),))[1]

    return velocity


def inverse(flow: FlowMap, tolerance: float = 1e-12, max_iterations: int = 50) -> FlowMap:
    """The exact inverse of a map, not merely the map run backwards: with
    ``y = flow(x, s, t)``, ``inverse(flow)(y, t, s)`` is x.

    Backwards and forwards of a discretised map undo each other up to its order only. Starting
    from the backward map, each iteration adds the backward image of what is still missing:
    x <- x + B(y) - B(F(x)), a contraction wherever B nearly inverts F.

    Raises:
        UserError: no convergence to `tolerance` (relative, maximum norm).
    """

    def undo(x: State, s: Time, t: Time, cond: Cond = None) -> State:
        y, s, t = x, t, s  # a map's arguments; below, y at t comes from the x at s we look for
        back = flow(y, t, s, cond)
        x = back
        scale = float(back.abs().max().clamp_min(1.0))
        limit = max(tolerance, 8 * torch.finfo(y.dtype).eps)
        change = math.inf
        for _ in range(max_iterations):
            step = back - flow(flow(x, s, t, cond), t, s, cond)
            x = x + step
            last, change = change, float(step.abs().max()) / scale
            if change <= limit:
                return x
            # Rounding can keep the change just above the limit; halving has then stopped.
            if change <= 1e3 * limit and change >= last / 2:
                return x
        raise UserError(
            f"the inverse has not converged: relative change {change:.1e} after "
            f"{max_iterations} iterations; take more steps"
        )

    return undo
