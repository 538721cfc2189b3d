r"""What the rules of flow maps share: the rows that they see, their settings and derivatives.

A `Rule` turns an identity into a residual in units of velocity. The velocity b is a trained
teacher's, or the network's own at s = t, which a part of the rows then learns by flow matching.
The rule's ``stop`` says how much of a residual is differentiated:

    none     everything: the residual itself, whose gradient needs double backward
    convex   all but the velocity and what it is taken at (of the Eulerian one, all that b moves)
    full     the residual is a regression on a fixed target: no double backward
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeAlias

import torch
from torch import Tensor

from monge import dual_numbers
from monge.components import Component
from monge.errors import UserError
from monge.objectives.base import Learns
from monge.tensors import expand, forward_mode
from monge.types import State

Stop: TypeAlias = Literal["none", "convex", "full"]
Derivative: TypeAlias = Literal["auto", "jvp", "difference"]
Weight: TypeAlias = Literal["none", "learned", "adaptive"]

STEP = 5e-3
"""Half the span of a central difference in time."""


@dataclass(frozen=True)
class Rows:
    """The rows of a batch with s != t, and what a rule may evaluate at them.

    Attributes:
        x: x_s on the path, (B, ...).
        rate: the path's velocity there, whose mean given x_s is the velocity b.
        s, t: (B,).
        fraction: (B,) in (0, 1), where a walk from s to t is cut.
        domain: of the times.
        mean: u(x, s, t), differentiable.
        velocity: b(x, t): the teacher's, or the network's own.
        state: the path's state of these rows at other times (B,).
        dual: whether dual numbers can go through `mean`.
        hooked: whether an evaluation gathers weights, as of a sharded network.
        limit: of the root mean square of a target.
        clipped: which rows a limit has changed, (B,) each, as they come up.
    """

    x: State
    rate: State
    s: Tensor
    t: Tensor
    fraction: Tensor
    domain: tuple[float, float]
    mean: Callable[[State, Tensor, Tensor], State]
    velocity: Callable[[State, Tensor], State]
    state: Callable[[Tensor], State]
    dual: bool = False
    hooked: bool = False
    limit: float = math.inf
    clipped: list[Tensor] = field(default_factory=list)

    def towards(self, u: State, target: State) -> State:
        """u - target, for a fixed target within the limit."""
        target = target.detach()
        size = target.square().flatten(1).mean(1).sqrt()
        over = ~(size <= self.limit)
        self.clipped.append(over)
        bounded = target * expand(torch.where(over, self.limit / size, 1.0), target).to(u.dtype)
        return u - torch.where(expand(size.isfinite(), u), bounded, u.detach())

    @property
    def gap(self) -> Tensor:
        """t - s, shaped to multiply states."""
        return expand(self.t - self.s, self.x).to(self.x.dtype)

    def jump(self, x: State, s: Tensor, t: Tensor) -> State:
        """X_{s,t}(x)."""
        return x + expand(t - s, x).to(x.dtype) * self.mean(x, s, t)


@dataclass(frozen=True, repr=False)
class Rule(Component, abc.ABC):
    """What a flow map is trained to obey.

    Attributes:
        stop: how much of the residual is not differentiated: none, convex or full.
        derivative: jvp, or difference: central differences of two more evaluations; auto: jvp, but
            differences in t, where no embedding turns fast, if they are cheaper: for networks that
            dual numbers do not go through (see `monge.dual_numbers`), not sharded, and not in bf16.
        diagonal: part of the rows with s = t, which learn the velocity itself.
        weight: of a row: none, learned (e^-w |r|^2 + w with w of s and t), or adaptive, which
            divides by the row's own |r|^2.
        clip: a fixed target, and then a residual, of a row is scaled down to this root mean square
            (latents have variance 1), and one that is not finite is left out; 0: as it is.
        anneal: steps over which the longest span grows to the whole; 0: whole from the start.
    """

    stop: Stop = "full"
    derivative: Derivative = "auto"
    diagonal: float = 0.0
    weight: Weight = "none"
    clip: float = 10.0
    anneal: int = 0

    learns: ClassVar[Learns] = "flow map"

    teacher: ClassVar[bool] = True
    """Whether a teacher gives the velocity; else the network's own is learned beside."""

    anchor: ClassVar[Literal["start", "end"]] = "start"
    """Which time a network's embedding may turn fast in: not the one that is differentiated in."""

    follows_itself: ClassVar[bool] = False
    """Whether it uses the network's own velocity, which rows with s = t must then teach."""

    pairs: ClassVar[str] = "triangle"
    """The law of (s, t), unless another is asked for."""

    one_end: ClassVar[bool] = False
    """Whether it relates only jumps with one end time t, so that t = 1 alone can be trained."""

    def __post_init__(self) -> None:
        if not 0 <= self.diagonal < 1:
            raise UserError(f"objective {self}: diagonal must lie in [0, 1)")
        if self.clip < 0 or self.anneal < 0:
            raise UserError(f"objective {self}: clip and anneal must not be negative")

    @abc.abstractmethod
    def residuals(self, at: Rows) -> tuple[State, ...]:
        """What vanishes at the flow map, in units of velocity; squares are added up."""

    def planned(self, steps: int | None) -> Rule:
        """The rule in a run of so many steps; None if they are not known."""
        return self

    def span(self, step: int) -> float:
        """The longest span, as part of the domain, at a step."""
        return min(1.0, (step + 1) / self.anneal) if self.anneal else 1.0

    def fraction(self, n: int, rng: torch.Generator) -> Tensor:
        """Where each walk is cut, (n,); in the middle."""
        return torch.full((n,), 0.5)

    def _in_t(self, at: Rows, x: State) -> tuple[State, State]:
        """u and its derivative in t, at (x, s, t) with x held."""
        return self._along(at, x, ds=0.0, dt=1.0, dx=None)

    def _along(
        self, at: Rows, x: State, *, ds: float, dt: float, dx: State | None, constant: bool = False
    ) -> tuple[State, State]:
        """u at (x, s, t), and its derivative along (dx, ds, dt), constant or differentiable."""
        if self._differs(at, ds):
            with torch.set_grad_enabled(torch.is_grad_enabled() and not constant):
                rate = self._difference(at, x, ds, dt, dx)
            return at.mean(x, at.s, at.t), rate
        primals, one = (x, at.s, at.t), torch.ones_like(at.s)
        if at.dual:
            in_time = [rate * one if rate else None for rate in (ds, dt)]
            return dual_numbers.jvp(at.mean, primals, (dx, *in_time), constant=constant)
        tangents = (torch.zeros_like(x) if dx is None else dx, ds * one, dt * one)
        with forward_mode(), torch.set_grad_enabled(torch.is_grad_enabled() and not constant):
            u, rate = torch.func.jvp(at.mean, primals, tangents)  # type: ignore[misc]
        return (at.mean(x, at.s, at.t) if constant else u), rate

    def _differs(self, at: Rows, ds: float) -> bool:
        """Whether the derivative is a central difference."""
        if self.derivative == "auto":
            in_t = ds == 0 and not torch.is_autocast_enabled(at.x.device.type)
            return in_t and not at.dual and not at.hooked
        return self.derivative == "difference"

    def _difference(self, at: Rows, x: State, ds: float, dt: float, dx: State | None) -> State:
        if torch.is_autocast_enabled(x.device.type):
            raise UserError(
                "central differences cancel digits that bf16 does not have: use --precision "
                "float32, or derivative=jvp in the objective"
            )
        moved = at.s if ds else at.t
        lo, hi = at.domain
        # Inside the domain, so one-sided at its ends.
        up, down = (moved + STEP).clamp(lo, hi) - moved, moved - (moved - STEP).clamp(lo, hi)

        def shifted(h: Tensor) -> State:
            to = x if dx is None else x + expand(h, x).to(x.dtype) * dx
            return at.mean(to, at.s + ds * h, at.t + dt * h)

        return (shifted(up) - shifted(-down)) / expand(up + down, x).to(x.dtype)


def only(rule: Rule, *stops: Stop) -> None:
    """Refuse a `stop` that would change nothing, or mean nothing."""
    if rule.stop not in stops:
        raise UserError(f"objective {rule.name} has stop={' or '.join(stops)} alone")


def heun(velocity: Callable[[State, Tensor], State], x: State, s: Tensor, t: Tensor) -> State:
    """One Heun step of a velocity from s to t, (B,) each."""
    h = expand(t - s, x).to(x.dtype)
    v = velocity(x, s)
    return x + h / 2 * (v + velocity(x + h * v, t))
