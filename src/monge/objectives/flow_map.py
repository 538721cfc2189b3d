r"""Flow maps: train a network of two times to jump, by every identity that a flow map obeys.

The map is :math:`X_{s,t}(x) = x + (t - s)\, u_{s,t}(x)`, so it is the identity at s = t, and its
velocity there is :math:`u_{t,t}`. Given that velocity, b, X is the flow map of b if and only if one
of the following holds, in which D is the derivative along :math:`(\dot s, \dot x) = (1, b_s(x))`:

.. math::
    \text{Lagrangian} \quad & \partial_t X_{s,t}(x) = b_t(X_{s,t}(x)) \\
    \text{Eulerian}   \quad & u_{s,t}(x) = b_s(x) + (t - s)\, D u_{s,t}(x) \\
    \text{semigroup}  \quad & X_{u,t}(X_{s,u}(x)) = X_{s,t}(x)

A `Rule` turns one of them into a residual in units of velocity. The velocity b is a trained
teacher's, or the network's own at s = t, which a part of the rows then learns by flow matching.
How much of a residual is differentiated is the rule's ``stop``:

    none     everything: the residual itself, whose gradient needs double backward
    convex   all but the velocity and what it is taken at (of the Eulerian one, all that b moves)
    full     the residual is a regression on a fixed target: no double backward

References:
    | Flow map matching (Boffi et al., 2024), Sec. 3 -- https://arxiv.org/abs/2406.07507
    | Self-distillation (Boffi et al., 2025), Sec. 3 -- https://arxiv.org/abs/2505.18825
    | MeanFlow (Geng et al., 2025), Eq. 6 -- https://arxiv.org/abs/2505.13447
    | Improved MeanFlow (Geng et al., 2025) -- https://arxiv.org/abs/2512.02012
    | Shortcut models (Frans et al., 2024), Eq. 4 -- https://arxiv.org/abs/2410.12557
    | Consistency models (Song et al., 2023), Eqs. 7, 10 -- https://arxiv.org/abs/2303.01469
    | Align your flow (Sabour et al., 2025), Eq. 5 -- https://arxiv.org/abs/2506.14603
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, TypeAlias

import torch
from torch import Tensor, nn

from monge import dual_numbers
from monge.components import Component, build
from monge.couplings import Coupling
from monge.errors import UserError
from monge.fields import guided
from monge.flows import MeanVelocity
from monge.objectives.base import Batch, Loss, Objective
from monge.objectives.flow_matching import FlowMatching, conditions
from monge.tensors import expand, forward_mode
from monge.time_pairs import PairLaw
from monge.types import State, VelocityField

Stop: TypeAlias = Literal["none", "convex", "full"]
Derivative: TypeAlias = Literal["auto", "jvp", "difference"]
Weight: TypeAlias = Literal["none", "learned", "adaptive"]

STEP = 5e-3
"""Half the span of a central difference in time."""

UNPLANNED = 500
"""Steps before progressive spans double, in a run of an unknown number of steps."""

ADAPTIVE_FLOOR = 1e-3
"""Added to the squared residual that an adaptive weight divides by (MeanFlow, Sec. 4)."""


@dataclass(frozen=True)
class Rows:
    """The rows of a batch with s != t, and what a rule may ask at them.

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

    teacher: ClassVar[bool] = True
    """Whether a teacher gives the velocity; else the network's own is learned beside."""

    anchor: ClassVar[Literal["start", "end"]] = "start"
    """Which time a network's embedding may turn fast in: not the one that is differentiated in."""

    follows_itself: ClassVar[bool] = False
    """Whether it asks for the network's own velocity, which rows with s = t must then teach."""

    pairs: ClassVar[str] = "triangle"
    """The law of (s, t), unless another is asked for."""

    one_end: ClassVar[bool] = False
    """Whether it determines the jumps to one time t from those to no other, as to the data."""

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


@dataclass(frozen=True, repr=False)
class Lagrangian(Rule):
    """LMD: follow a teacher's velocity along the jump. d_t X = b_t(X).

    Fully stopped it costs 0.6 as much, and may run away: u is then regressed on -(t - s) d_t u,
    which enlarges whatever changes fast in t.
    """

    stop: Stop = "convex"

    name = "lagrangian"

    def residuals(self, at: Rows) -> tuple[State, ...]:
        if self.stop == "full":
            u, rate = self._along(at, at.x, ds=0.0, dt=1.0, dx=None, constant=True)
            with torch.no_grad():
                velocity = at.velocity(at.x + at.gap * u, at.t)
            return (at.towards(u, velocity - at.gap * rate),)
        u, rate = self._in_t(at, at.x)
        end = at.x + at.gap * u
        if self.stop == "none":
            return (u + at.gap * rate - at.velocity(end, at.t),)
        with torch.no_grad():
            velocity = at.velocity(end.detach(), at.t)
        return (u + at.gap * rate - velocity,)


@dataclass(frozen=True, repr=False)
class SelfLagrangian(Lagrangian):
    """LSD: the same with the network's own velocity, learned by flow matching."""

    diagonal: float = 0.75

    name = "self-lagrangian"
    teacher = False
    follows_itself = True


@dataclass(frozen=True, repr=False)
class Eulerian(Rule):
    """EMD: the jump does not change along the teacher's flow. d_s X + grad X b_s = 0."""

    name = "eulerian"
    one_end = True
    anchor = "end"

    def residuals(self, at: Rows) -> tuple[State, ...]:
        if self.stop == "full":
            with torch.no_grad():
                velocity = at.velocity(at.x, at.s)
            u, slope = self._along(at, at.x, ds=1.0, dt=0.0, dx=velocity, constant=True)
            return (at.towards(u, velocity + at.gap * slope),)
        if self.stop == "none":
            velocity = at.velocity(at.x, at.s)
            u, slope = self._along(at, at.x, ds=1.0, dt=0.0, dx=velocity)
            return (u - velocity - at.gap * slope,)
        with torch.no_grad():
            velocity = at.velocity(at.x, at.s)
            both = self._along(at, at.x, ds=1.0, dt=0.0, dx=velocity)[1]
        u, in_s = self._along(at, at.x, ds=1.0, dt=0.0, dx=None)
        moved = velocity + at.gap * (both - in_s.detach())  # grad X b
        return (u - at.gap * in_s - moved,)


@dataclass(frozen=True, repr=False)
class SelfEulerian(Eulerian):
    """ESD: the same with the network's own velocity, learned by flow matching."""

    diagonal: float = 0.75

    name = "self-eulerian"
    teacher = False
    follows_itself = True


@dataclass(frozen=True, repr=False)
class MeanFlow(Rule):
    """MeanFlow: Eulerian with the path's own velocity in place of its mean.

    Published with adaptive weights; but a weight that depends on the row's own residual, noise
    included, moves the minimum off the mean, and does harm in tens of dimensions (docs/log.md).
    """

    diagonal: float = 0.75

    name = "meanflow"
    one_end = True
    teacher = False
    anchor = "end"
    follows_itself = True

    def __post_init__(self) -> None:
        super().__post_init__()
        _only(self, "full")

    def residuals(self, at: Rows) -> tuple[State, ...]:
        u, slope = self._along(at, at.x, ds=1.0, dt=0.0, dx=at.rate, constant=True)
        return (at.towards(u, at.rate + at.gap * slope),)


@dataclass(frozen=True, repr=False)
class ImprovedMeanFlow(Rule):
    """iMF: u - (t - s) sg(Du) is regressed on the path's velocity, D along the network's own."""

    diagonal: float = 0.75

    name = "improved-meanflow"
    one_end = True
    teacher = False
    anchor = "end"
    follows_itself = True

    def __post_init__(self) -> None:
        super().__post_init__()
        _only(self, "full")

    def residuals(self, at: Rows) -> tuple[State, ...]:
        with torch.no_grad():
            own = at.mean(at.x, at.s, at.s)
        u, slope = self._along(at, at.x, ds=1.0, dt=0.0, dx=own, constant=True)
        return (at.towards(u, at.rate + at.gap * slope),)


@dataclass(frozen=True, repr=False)
class SelfSemigroup(Rule):
    """PSD: one jump is two. cut=midpoint is PSD-M, cut=uniform PSD-U."""

    diagonal: float = 0.75
    cut: Literal["midpoint", "uniform"] = "midpoint"

    name = "self-semigroup"
    teacher = False
    follows_itself = True

    def __post_init__(self) -> None:
        super().__post_init__()
        _only(self, "full", "none")

    def fraction(self, n: int, rng: torch.Generator) -> Tensor:
        return torch.rand(n, generator=rng) if self.cut == "uniform" else torch.full((n,), 0.5)

    def residuals(self, at: Rows) -> tuple[State, ...]:
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.stop == "none"):
            target = _two_jumps(at)
        u = at.mean(at.x, at.s, at.t)
        return (u - target if self.stop == "none" else at.towards(u, target),)


@dataclass(frozen=True, repr=False)
class Shortcut(SelfSemigroup):
    """Shortcut models: the semigroup rule at midpoints, on spans of 2^-k."""

    name = "shortcut"
    pairs = "dyadic"


@dataclass(frozen=True, repr=False)
class Progressive(Rule):
    """PFMM: one jump is two, on spans that double every `round` steps.

    The shortest spans, up to `first`, are two Heun steps of the teacher; longer ones two jumps of
    the network itself, as it stands. Without rows at s = t it diverges. A `round` of 0 is such a
    part of a run's steps that the whole span has the last third of them; 500 if they are not known.
    """

    diagonal: float = 0.5
    first: float = 1 / 16
    round: int = 0

    name = "progressive"

    def __post_init__(self) -> None:
        super().__post_init__()
        _only(self, "full")
        if not 0 < self.first <= 1 or self.round < 0:
            raise UserError(f"objective {self}: first must lie in (0, 1], round be 0 at least")

    def planned(self, steps: int | None) -> Progressive:
        if self.round:
            return self
        doublings = math.ceil(math.log2(1 / self.first))
        whole = UNPLANNED if steps is None else max(1, 2 * steps // (3 * max(doublings, 1)))
        return replace(self, round=whole)

    def span(self, step: int) -> float:
        return min(1.0, self.first * 2.0 ** (step // (self.round or UNPLANNED)))

    def residuals(self, at: Rows) -> tuple[State, ...]:
        lo, hi = at.domain
        short = expand((at.t - at.s).abs() <= 1.0001 * self.first * (hi - lo), at.x)
        with torch.no_grad():
            middle = at.s + at.fraction * (at.t - at.s)
            taught = at.x
            for a, b in ((at.s, middle), (middle, at.t)):
                taught = _heun(at.velocity, taught, a, b)
            target = torch.where(short, (taught - at.x) / at.gap, _two_jumps(at))
        return (at.towards(at.mean(at.x, at.s, at.t), target),)


@dataclass(frozen=True, repr=False)
class Consistency(Rule):
    """CD: jumps to the data from two near points of the teacher's flow end alike.

    `step` is how near, as part of the domain.
    """

    step: float = 1 / 32

    name = "consistency"
    one_end = True
    pairs = "to_data"

    def __post_init__(self) -> None:
        super().__post_init__()
        _only(self, "full")
        if not 0 < self.step <= 1:
            raise UserError(f"objective {self}: step must lie in (0, 1]")

    def residuals(self, at: Rows) -> tuple[State, ...]:
        step = self.step * (at.domain[1] - at.domain[0])
        near = at.s + (at.t - at.s).clamp(-step, step)
        with torch.no_grad():
            x = self._near(at, near)
            target = (at.jump(x, near, at.t) - at.x) / at.gap
        return (at.towards(at.mean(at.x, at.s, at.t), target),)

    def _near(self, at: Rows, near: Tensor) -> State:
        if not self.teacher:
            return at.state(near)
        return _heun(at.velocity, at.x, at.s, near)


@dataclass(frozen=True, repr=False)
class ConsistencyTraining(Consistency):
    """CT: the same without a teacher; the near point has the same noise and data."""

    name = "consistency-training"
    teacher = False


@dataclass(frozen=True, repr=False)
class ContinuousConsistency(Eulerian):
    """sCD: the Eulerian rule, fully stopped, with t = 1, and rows at s = t, which steady it."""

    diagonal: float = 0.5

    name = "continuous-consistency"
    pairs = "to_data"

    def __post_init__(self) -> None:
        super().__post_init__()
        _only(self, "full")


@dataclass(frozen=True, repr=False)
class ContinuousConsistencyTraining(MeanFlow):
    """sCT: MeanFlow with t = 1. Without rows at s = t the network may collapse to a constant."""

    diagonal: float = 0.5

    name = "continuous-consistency-training"
    follows_itself = False
    pairs = "to_data"


@dataclass(frozen=True, repr=False)
class FlowMapRule(Rule):
    """FMM: both orders of times; a point taken back to s moves at t as its path, and returns."""

    stop: Stop = "none"

    name = "flow-map-matching"
    teacher = False
    pairs = "triangle:both=true"

    def __post_init__(self) -> None:
        super().__post_init__()
        _only(self, "none")

    def residuals(self, at: Rows) -> tuple[State, ...]:
        # Here x and its rate are at s, where the walk there and back ends.
        turned = replace(at, s=at.t, t=at.s)
        back = at.jump(at.x, at.s, at.t)
        u, rate = self._in_t(turned, back)
        return u + turned.gap * rate - at.rate, back + turned.gap * u - at.x


def _only(rule: Rule, *stops: Stop) -> None:
    """Refuse a `stop` that would change nothing, or mean nothing."""
    if rule.stop not in stops:
        raise UserError(f"objective {rule.name} has stop={' or '.join(stops)} alone")


def _two_jumps(at: Rows) -> State:
    """The mean velocity of two jumps of the network, cut at the fraction."""
    middle = at.s + at.fraction * (at.t - at.s)
    first = at.mean(at.x, at.s, middle)
    part = expand(at.fraction, at.x).to(at.x.dtype)
    second = at.mean(at.x + part * at.gap * first, middle, at.t)
    return part * first + (1 - part) * second


def _heun(velocity: Callable[[State, Tensor], State], x: State, s: Tensor, t: Tensor) -> State:
    """One Heun step of a velocity from s to t, (B,) each."""
    h = expand(t - s, x).to(x.dtype)
    v = velocity(x, s)
    return x + h / 2 * (v + velocity(x + h * v, t))


@dataclass(frozen=True)
class FlowMapMatching(Objective):
    """Trains `MeanVelocity(network, ...)`, the u of a flow map, by a rule.

    Attributes:
        rule: what the map is to obey where s != t.
        matching: the path, the output, the coupling, and the flow matching where s = t.
        law: of (s, t); None for the rule's own.
        teacher: the velocity field that a rule with a teacher follows.
        guidance: least and greatest guidance scale of the teacher, drawn for each row and given
            to the network as an input; None for a teacher as it is.
    """

    rule: Rule
    matching: FlowMatching
    law: PairLaw | None = None
    teacher: VelocityField | None = None
    guidance: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.rule.teacher != (self.teacher is not None):
            raise UserError(
                f"objective {self.rule.name} needs a teacher: monge distil RUN --objective ..."
                if self.rule.teacher
                else f"objective {self.rule.name} has no teacher: monge train ... --objective ..."
            )
        if self.guidance and not self.teacher:
            raise UserError("guidance as an input is distilled from a teacher: use monge distil")
        if self.pairs.only_to_data and not self.rule.one_end:
            raise UserError(
                f"objective {self.rule.name} compares jumps to different times, which pairs "
                f"{self.pairs} do not have: use an Eulerian rule or a consistency one for them"
            )
        if self.rule.diagonal == 0 and self.rule.follows_itself:
            raise UserError(
                f"objective {self.rule.name} learns its velocity where s = t: diagonal must be "
                "greater than 0"
            )

    @property
    def pairs(self) -> PairLaw:
        """The law of (s, t)."""
        return self.law or build("pairs", self.rule.pairs)

    @property
    def domain(self) -> tuple[float, float]:
        """The times that are trained."""
        lo, hi = self.matching.domain
        first, last = getattr(self.teacher, "domain", (0.0, 1.0))
        return max(lo, first), min(hi, last)

    @property
    def coupling(self) -> Coupling:
        """How noise and data are joined."""
        return self.matching.coupling

    def draw(self, batch: Batch, rng: torch.Generator, step: int = 0) -> Batch:
        """Adds x0, the times s and t, and the rule's own draws."""
        drawn = {**self.matching.draw(batch, rng)}
        n, device = len(drawn["x1"]), drawn["x1"].device
        s, t = self.pairs.draw(n, self.domain, rng, self.rule.span(step))
        drawn["fraction"] = self.rule.fraction(n, rng).to(device)
        # Spread evenly, so that processes and micro-batches have equal work.
        kept, first = 1 - self.rule.diagonal, 0.0
        if abs(n * kept - round(n * kept)) > 1e-6:  # right on average
            first = float(torch.rand((), generator=rng, dtype=torch.float64))
        edges = torch.floor(first + kept * torch.arange(n + 1, dtype=torch.float64) + 1e-9)
        on = edges[1:] == edges[:-1]
        times = drawn["t"].cpu().clamp(*self.domain)
        drawn["s"] = torch.where(on, times, s).to(device)
        drawn["t"] = torch.where(on, times, t).to(device)
        if self.guidance:
            lo, hi = self.guidance
            drawn["guidance"] = (lo + (hi - lo) * torch.rand(n, generator=rng)).to(device)
        return drawn

    def loss(self, network: nn.Module, batch: Batch) -> Loss:
        on = batch["s"] == batch["t"]
        rows = [on.nonzero().squeeze(1), (~on).nonzero().squeeze(1)]
        made, errors, clipped = [], [], []
        for index, error in zip(rows, (self._on_diagonal, self._off_diagonal), strict=True):
            if len(index):
                part = {name: x[index] for name, x in batch.items()}
                squared, scaled = error(network, part)
                made.append(self._weighted(network, part, squared))
                errors.append(squared.detach())
                clipped.append(scaled)
        order = torch.argsort(torch.cat([r for r in rows if len(r)]))
        squared = torch.cat(errors)[order]
        parts = {"map": squared * ~on / (1 - self.rule.diagonal)}
        if self.rule.diagonal:
            parts["velocity"] = squared * on / self.rule.diagonal
        if self.rule.clip:
            parts["clipped"] = torch.cat(clipped)[order].to(squared.dtype)
        return Loss(torch.cat(made)[order], parts)

    def _on_diagonal(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        if self.teacher is None:
            found = self.matching.loss(network, batch).per_example
        else:
            at = self._rows(network, batch)
            with torch.no_grad():
                target = at.velocity(at.x, at.s)
            found = (at.mean(at.x, at.s, at.s) - target).square().flatten(1).mean(1)
        return found, torch.zeros_like(found, dtype=torch.bool)

    def _off_diagonal(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """The squared residual of each row, and whether it was clipped."""
        at = self._rows(network, batch)
        if self.rule.clip:
            at = replace(at, limit=self.rule.clip)
        with _without_dropout(network):
            residuals = self.rule.residuals(at)
        total = sum(r.square().flatten(1).mean(1) for r in residuals)
        assert isinstance(total, Tensor)
        clipped = [over.to(total.device) for over in at.clipped]
        if self.rule.clip:
            # |r| beyond the limit counts linearly: its gradient keeps the size that it has there.
            over = ~(total.detach() <= at.limit**2)
            size = total.detach().sqrt().clamp(min=at.limit)
            total = torch.where(over, total * (at.limit / size), total)
            clipped.append(over)
        return total, torch.stack(clipped).any(0) if clipped else torch.zeros_like(total) > 0

    def _weighted(self, network: nn.Module, batch: Batch, squared: Tensor) -> Tensor:
        if self.rule.weight == "learned":
            w = network.log_variance(batch["s"], batch["t"])  # type: ignore[operator]
            return (-w).exp() * squared + w
        if self.rule.weight == "adaptive":
            return squared / (squared.detach() + ADAPTIVE_FLOOR)
        return squared

    def _rows(self, network: nn.Module, batch: Batch) -> Rows:
        path, s, t = self.matching.path, batch["s"], batch["t"]
        x, rate = path.interpolate(batch["x0"], batch["x1"], s)
        u = MeanVelocity(network, path, self.matching.output)
        cond = {**(conditions(batch) or {})}
        if "guidance" in batch:
            cond["guidance"] = batch["guidance"]

        def mean(x: State, s: Tensor, t: Tensor) -> State:
            return u(x, s, t, cond or None)

        return Rows(
            x,
            rate,
            s,
            t,
            batch["fraction"],
            self.domain,
            mean,
            self._velocity(batch, mean),
            lambda r: path.interpolate(batch["x0"], batch["x1"], r)[0],
            self.matching.output == "velocity" and _takes_duals(network),
            _hooked(network),
        )

    def _velocity(
        self, batch: Batch, mean: Callable[[State, Tensor, Tensor], State]
    ) -> Callable[[State, Tensor], State]:
        """The teacher's velocity for these rows, guided by their scales; or the network's own."""
        teacher, cond = self.teacher, conditions(batch)
        if teacher is None:
            return lambda x, t: mean(x, t, t)
        if "guidance" not in batch:
            return lambda x, t: teacher(x, t, cond)
        return lambda x, t: guided(teacher, batch["guidance"], x, t, cond)


def _takes_duals(network: nn.Module) -> bool:
    """Whether dual numbers go through a network as it is: no hooks, not compiled.

    Its own class says so: one derived from it may compute what they do not know.
    """
    known = vars(type(network)).get("duals", False) and not torch.compiler.is_compiling()
    return known and not _hooked(network)


def _hooked(network: nn.Module) -> bool:
    """Whether modules call others first or afterwards, as those of shards do."""
    return any(m._forward_pre_hooks or m._forward_hooks for m in network.modules())


@contextmanager
def _without_dropout(network: nn.Module) -> Iterator[None]:
    """The two sides of a residual see one network."""
    was = getattr(network, "training", False)
    if was:
        network.eval()
    try:
        yield
    finally:
        if was:
            network.train()
