r"""Flow maps: where a sample at time s is at time t. The heart.

`Integrated` makes a map of a velocity field by an ODE solver, `LearnedMap` is a network that
jumps, `Chain` strings maps together. `tangent` leads back to a velocity field, `inverse` undoes
a map, and `log_density` carries a density along.

References:
    | Neural ODEs and their densities (Chen et al., 2018) -- https://arxiv.org/abs/1806.07366
    | FFJORD: Hutchinson's estimator (Grathwohl et al., 2019) -- https://arxiv.org/abs/1810.01367
    | Flow map matching (Boffi et al., 2024), Sec. 2 -- https://arxiv.org/abs/2406.07507
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from monge.errors import UserError
from monge.fields import Piecewise, restrict, take
from monge.paths import Kind, Path
from monge.solvers import Heun, RightHandSide, Solver
from monge.tensors import (
    as_time,
    expand,
    forward_mode,
    noise,
    sum_except_batch,
    value_and_divergence,
)
from monge.times import Grid, Uniform
from monge.types import (
    Cond,
    FlowMap,
    PerExample,
    State,
    Time,
    VelocityField,
    breakpoints_of,
    domain_of,
)

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
        return self.path.to_velocity(self.output, self.net(x, t, cond, s), x, s)


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


@dataclass(frozen=True)
class Chain:
    """Maps one after another: block k of n carries time k/n to (k+1)/n, on its own clock.

    The knots follow from the number of blocks, so adding one moves knots, never weights.
    """

    blocks: tuple[FlowMap, ...]

    domain = (0.0, 1.0)

    @property
    def breakpoints(self) -> tuple[float, ...]:
        return self.knots[1:-1]

    @property
    def knots(self) -> tuple[float, ...]:
        n = len(self.blocks)
        return tuple(k / n for k in range(n + 1))

    def __call__(self, x: State, s: Time, t: Time, cond: Cond = None) -> State:
        check_span(s, t, self.domain, "this chain")
        order = range(len(self.blocks))
        for backwards in (False, True):
            for k in reversed(order) if backwards else order:
                a, b = self._own_times(k, s, t, backwards, x)
                if isinstance(a, Tensor) or isinstance(b, Tensor) or a != b:
                    x = self.blocks[k](x, a, b, cond)
        return x

    def tangent(self, x: State, t: Time, cond: Cond = None) -> State:
        return Piecewise(tuple(map(self._field, range(len(self.blocks)))), self.knots)(x, t, cond)

    def _field(self, k: int) -> VelocityField:
        """The velocity of block k on the chain's clock."""
        lo, hi = domain_of(self.blocks[k])
        rate, velocity = len(self.blocks) * (hi - lo), tangent(self.blocks[k])

        def rescaled(x: State, t: Time, cond: Cond = None) -> State:
            return rate * velocity(x, self._clock(k, t), cond)

        return rescaled

    def _clock(self, k: int, t: Time) -> Time:
        """The chain's time t on the clock of block k, held within the block's domain."""
        lo, hi = domain_of(self.blocks[k])
        part = t * len(self.blocks) - k
        part = part.clamp(0.0, 1.0) if isinstance(part, Tensor) else min(max(part, 0.0), 1.0)
        return lo * (1 - part) + hi * part  # the ends are met exactly

    def _own_times(self, k: int, s: Time, t: Time, backwards: bool, x: State) -> tuple[Time, Time]:
        """The part of the walk from s to t that lies in block k, on the block's clock."""
        if not isinstance(s, Tensor) and not isinstance(t, Tensor):
            start = self._clock(k, s)
            return start, self._clock(k, t) if (s > t) == backwards else start
        s, t = as_time(s, x), as_time(t, x)
        start, end = as_time(self._clock(k, s), x), as_time(self._clock(k, t), x)
        return start, torch.where((s > t) == backwards, end, start)


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


@dataclass(frozen=True)
class Density:
    """log-density of each example and the standard error of its estimate, in nats.

    Attributes:
        value, stderr: (B,); stderr is 0 where the trace was exact.
        space: where the density lives: "data" or "latent".
        units: what its volume is measured in.
    """

    value: PerExample
    stderr: PerExample
    space: str = "latent"
    units: str = "nats"


def standard_normal_log_density(x: State) -> PerExample:
    """log N(x; 0, I), (B,)."""
    size = x[0].numel()
    return -0.5 * (sum_except_batch(x.square()) + size * math.log(2 * math.pi))


def log_density(
    flow: Integrated,
    x: State,
    cond: Cond = None,
    *,
    probes: int | None = None,
    seed: int = 0,
    first: int = 0,
    source: Callable[[State], PerExample] = standard_normal_log_density,
) -> Density:
    r"""log-density at x of the law that the flow carries the source to at the end of its domain.

    .. math:: \log p_T(x) = \log p_0(x_0) - \int_0^T \mathrm{div}\, v(x_t, t)\, dt

    Args:
        flow: solved backwards from x; its steps bound the error, which is not part of stderr.
        x: (B, ...).
        probes: None for the exact trace, else the number of random signs per example for
            Hutchinson's estimator, held fixed along the way and keyed by (seed, example).
        first: the number of the first example, where x is a chunk of a larger batch.
        source: the log-density at the start, standard normal unless given.
    """
    lo, hi = flow.domain
    signs = None
    if probes is not None:
        if probes < 2:
            raise UserError(f"Hutchinson's standard error needs at least 2 probes, not {probes}")
        signs = torch.stack(
            [
                noise(seed, first, first + len(x), tuple(x.shape[1:]), "probe", k, signs=True)
                for k in range(probes)
            ]
        ).to(x)

    def rates(v: VelocityField) -> RightHandSide:
        def f(y: tuple[Tensor, ...], u: Time, rows: Tensor | None) -> tuple[Tensor, ...]:
            own = take(cond, rows)
            mine = signs if signs is None or rows is None else signs[:, rows]
            velocity, divergence = value_and_divergence(lambda z: v(z, u, own), y[0], mine)
            return velocity, divergence

        return f

    shape = (len(x),) if probes is None else (len(x), probes)
    x0, integral = flow.solve(rates, (x, x.new_zeros(shape)), hi, lo)
    log_p = source(x0)
    if probes is None:
        value = log_p + integral
        return Density(value, torch.zeros_like(value))
    stderr = integral.std(dim=1) / math.sqrt(probes)
    return Density(log_p + integral.mean(dim=1), stderr)
