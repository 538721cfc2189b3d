r"""Blocks: maps of a chain that know how they change volume.

A block is a flow in its own time :math:`\tau \in [0, 1]`, with the data side at 1. It is fitted
from 1 to 0 and sampled from 0 to 1. `ODEBlock` follows a velocity by one solver with one number
of steps, in training, pushing, sampling and densities alike. `ResidualBlock` is
:math:`T(x) = x + f(x)` from 1 to 0, with the exact determinant in small dimensions; between its
ends it is not defined.

References:
    | JKO-iFlow (Xu et al., 2023), Sec. 3 -- https://arxiv.org/abs/2212.14424
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from monge import dual_numbers
from monge.errors import UserError
from monge.fields import Network
from monge.flows.integrated import Integrated
from monge.flows.transport import Divergence, transported
from monge.solvers import RK4, Solver
from monge.times import Grid, Uniform
from monge.types import Cond, State, Time, VelocityField

MIDDLE = 0.5
"""The time that the network of an autonomous block is evaluated at."""


@runtime_checkable
class Block(Protocol):
    """A flow map on [0, 1], data at 1, that also returns its change of volume."""

    @property
    def domain(self) -> tuple[float, float]: ...

    def __call__(self, x: State, s: Time, t: Time, cond: Cond = None) -> State: ...

    def transport(
        self, x: State, s: float, t: float, cond: Cond = None, signs: Tensor | None = None
    ) -> tuple[State, Tensor]:
        """The image of x, and the log |det| of the map there: (B,), or (B, K) for K signs."""
        ...


@dataclass(frozen=True)
class NetworkVelocity:
    """A network as the velocity of a block.

    Attributes:
        net: ``net(x, t, cond)``, shaped like x.
        clock: the network's times at tau = 0 and 1; a part of [0, 1] for a part of a block.
        autonomous: the network is evaluated at one time.
    """

    net: Network
    clock: tuple[float, float] = (0.0, 1.0)
    autonomous: bool = False

    domain = (0.0, 1.0)

    def __call__(self, x: State, t: Time, cond: Cond = None) -> State:
        lo, hi = self.clock
        found = self.net(x, self.own_time(t), cond)
        return found if hi - lo == 1 else found * (hi - lo)

    def own_time(self, t: Time) -> Time:
        """The network's time at tau = t."""
        lo, hi = self.clock
        return MIDDLE if self.autonomous else lo + (hi - lo) * t

    def prepared(self, cond: Cond) -> WithDivergence | None:
        """The velocity and its divergence together, if the network computes both in one pass."""
        net = self.net
        if not hasattr(net, "along") or dual_numbers.are_hooked(net):  # type: ignore[arg-type]
            return None
        if torch.compiler.is_compiling():
            return None
        return _Together(self, cond)


WithDivergence = Callable[[State, float, "Tensor | None"], tuple[State, Tensor]]
"""(x, t, signs): a velocity and its divergence, (B,) or (B, K)."""


class _Together:
    """A velocity with its divergence; what its network makes of times and condition is kept."""

    def __init__(self, velocity: NetworkVelocity, cond: Cond) -> None:
        self.velocity, self.cond = velocity, cond
        self.shifts: dict[Time, Any] = {}

    def __call__(self, x: State, t: float, signs: Tensor | None) -> tuple[State, Tensor]:
        net: Any = self.velocity.net
        at = self.velocity.own_time(t)
        if at not in self.shifts:
            self.shifts[at] = net.conditioned(x, at, self.cond)
        size = x[0].numel()
        along = signs
        if along is None:
            basis = torch.eye(size, dtype=x.dtype, device=x.device)
            along = basis.reshape(size, 1, *x.shape[1:]).expand(size, *x.shape)
        value, columns = net.along(x, self.shifts[at], along)
        parts = (columns * along).flatten(2).sum(2)
        found = parts.sum(0) if signs is None else parts.T
        rate = self.velocity.clock[1] - self.velocity.clock[0]
        return (value, found) if rate == 1 else (rate * value, rate * found)


@dataclass(frozen=True, repr=False)
class Offset(Grid):
    """n - 1 equal steps of [0, 1] moved by a part of one, the first and last cut at the ends.

    A block that is trained by fixed steps learns where its solver looks, and there alone has the
    divergence that pays; by steps that begin elsewhere each time it cannot.
    """

    n: int = 4
    stop: float = 1.0
    offset: float = 0.5

    name = "offset"

    def warp(self, u: Tensor) -> Tensor:
        return ((u * self.n - 1 + self.offset) / (self.n - 1)).clamp(0, 1)


@dataclass(frozen=True)
class ODEBlock:
    """The flow of a velocity on [0, 1] by one solver and one number of steps.

    Attributes:
        velocity: on [0, 1], data at 1.
        solver, steps: equal steps; an adaptive solver chooses its own.
        divergence: how the divergence is computed; None for the cheapest one that is exact.
        offset: in training, where the equal steps begin, in (0, 1) of a step; see `Offset`.
        recompute: whether each step is computed again for its gradient, with the memory of one step
            in place of all: the adjoint of the discrete walk, whose gradient is that of
            backpropagation.
    """

    velocity: VelocityField
    solver: Solver = field(default_factory=RK4)
    steps: int = 3
    divergence: Divergence | None = None
    offset: float | None = None
    recompute: bool = False

    domain = (0.0, 1.0)

    @property
    def flow(self) -> Integrated:
        grid = Uniform(self.steps)
        if self.offset is not None:
            grid = Offset(self.steps + 1, offset=self.offset)
        return Integrated(self.velocity, self.solver, grid)

    def tangent(self, x: State, t: Time, cond: Cond = None) -> State:
        return self.velocity(x, t, cond)

    def __call__(self, x: State, s: Time, t: Time, cond: Cond = None) -> State:
        return self.flow(x, s, t, cond)

    def transport(
        self, x: State, s: float, t: float, cond: Cond = None, signs: Tensor | None = None
    ) -> tuple[State, Tensor]:
        flow = self.flow
        if not self.recompute or not torch.is_grad_enabled():
            return transported(flow, x, s, t, cond, signs, self.divergence)
        inner = [k for k in flow.knots if min(s, t) < k < max(s, t)]
        walk = [s, *sorted(inner, reverse=s > t), t]
        total: Tensor | None = None
        for a, b in itertools.pairwise(walk):
            given = (flow, x, a, b, cond, signs, self.divergence)
            x, change = checkpoint(transported, *given, use_reentrant=False)
            total = change if total is None else total + change
        assert total is not None
        return x, total


MOST_DIM = 16
"""Dimensions up to which a residual block computes its determinant."""

NEWTON = 50
"""Newton steps of an inverse, at most."""

TOLERANCE = 1e-5
"""Largest residual of an inverse, over the size of the state, in float32."""


@dataclass(frozen=True)
class ResidualBlock:
    """T(x) = x + net(x) from tau = 1 to 0, and its inverse from 0 to 1.

    The determinant is exact, from the whole Jacobian. The inverse is computed by Newton's method
    with halved steps; it refuses a state that it cannot invert.

    Attributes:
        net: ``net(x, t, cond)``, shaped like x; evaluated at one time.
    """

    net: Network

    domain = (0.0, 1.0)

    def __call__(self, x: State, s: Time, t: Time, cond: Cond = None) -> State:
        ends = _ends(s, t)
        if ends == (1.0, 0.0):
            return x + self.net(x, MIDDLE, cond)
        return x if ends[0] == ends[1] else self._inverse(x, cond)

    def transport(
        self, x: State, s: float, t: float, cond: Cond = None, signs: Tensor | None = None
    ) -> tuple[State, Tensor]:
        """Exact: signs only give the shape of the result."""
        ends = _ends(s, t)
        if ends[0] == ends[1]:
            y, log_det = x, x.new_zeros(len(x))
        elif ends == (1.0, 0.0):
            y, log_det = self._forwards(x, cond)
        else:
            y = self._inverse(x, cond)
            log_det = -self._forwards(y, cond)[1]
        return y, log_det if signs is None else log_det[:, None].expand(-1, len(signs))

    def _forwards(self, x: State, cond: Cond) -> tuple[State, Tensor]:
        y, jacobian = self._with_jacobian(x, cond)
        sign, log_det = torch.linalg.slogdet(jacobian)
        # Beyond a fold the map is no bijection: no density, and the loss is not finite there.
        return y, torch.where(sign > 0, log_det, -torch.inf)

    def _with_jacobian(self, x: State, cond: Cond) -> tuple[State, Tensor]:
        """T(x) and its Jacobian (B, D, D); rows of a batch do not depend on each other."""
        size = x[0].numel()
        if size > MOST_DIM:
            raise UserError(
                f"a residual block computes its determinant up to {MOST_DIM} dimensions, not "
                f"{size}: use block=ode"
            )
        columns: list[Tensor] = []
        y = x

        def f(z: State) -> State:
            return z + self.net(z, MIDDLE, cond)

        for k in range(size):
            direction = torch.zeros_like(x)
            direction.flatten(1)[:, k] = 1
            y, column = _jvp(self.net, f, x, direction)
            columns.append(column.flatten(1))
        return y, torch.stack(columns, 2)

    @torch.no_grad()
    def _inverse(self, y: State, cond: Cond) -> State:
        x = y.clone()
        scale = 1 + y.flatten(1).norm(dim=1)
        tolerance = TOLERANCE if y.dtype == torch.float32 else 1e-10
        error = torch.full_like(scale, torch.inf)
        for _ in range(NEWTON):
            image, jacobian = self._with_jacobian(x, cond)
            gap = (image - y).flatten(1)
            error = gap.norm(dim=1)
            if bool((error <= 0.01 * tolerance * scale).all()):
                return x
            step = torch.linalg.solve(jacobian, gap).unflatten(1, x.shape[1:])
            part = torch.ones_like(error)
            for _ in range(12):  # halved where the residual grows
                trial = x - part.reshape(-1, *[1] * (x.ndim - 1)) * step
                grown = (trial + self.net(trial, MIDDLE, cond) - y).flatten(1).norm(dim=1) > error
                if not bool(grown.any()):
                    break
                part = torch.where(grown, part / 2, part)
            x = x - part.reshape(-1, *[1] * (x.ndim - 1)) * step
        if bool((error > tolerance * scale).any()):
            raise UserError(
                "a residual block has no inverse at some state: train it for longer, or use "
                "block=ode"
            )
        return x


def _jvp(
    net: Network, f: Callable[[State], State], x: State, direction: State
) -> tuple[State, State]:
    if isinstance(net, nn.Module) and dual_numbers.are_taken_by(net):
        return dual_numbers.jvp(f, (x,), (direction,))
    from monge.tensors import forward_mode, jvp

    with forward_mode():
        return jvp(f, x, direction)


def _ends(s: Time, t: Time) -> tuple[float, float]:
    """The two times of a residual block, each 0 or 1 and one for all examples.

    Raises:
        UserError: other times.
    """
    found = []
    for u in (s, t):
        values = u.unique().tolist() if isinstance(u, Tensor) else [u]
        if len(values) != 1 or values[0] not in (0.0, 1.0):
            raise UserError(
                f"a residual block is defined at times 0 and 1 alone, not at {values[0]:g}: "
                "use block=ode for the times between"
            )
        found.append(float(values[0]))
    return found[0], found[1]
