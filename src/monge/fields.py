r"""Velocity fields built from networks and from other fields.

Whatever a network outputs, `Predict` makes a velocity field of it; nothing downstream knows.
A field may declare ``restrict(lo, hi)``: the field that is smooth on that piece of time, which
solvers ask for so that no stage is evaluated on the wrong side of a breakpoint.

References:
    | Classifier-free guidance (Ho & Salimans, 2022) -- https://arxiv.org/abs/2207.12598
    | Guidance in an interval (Kynkaanniemi et al., 2024) -- https://arxiv.org/abs/2404.07724
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from monge.couplings import Coupling
from monge.errors import UserError
from monge.paths import MARGIN, Kind, Path
from monge.system.own_faults import shaped_like
from monge.tensors import as_time, expand
from monge.types import Cond, State, Time, VelocityField, breakpoints_of, domain_of

__all__ = [
    "Counted",
    "Guided",
    "Piecewise",
    "Predict",
    "breakpoints_of",
    "domain_of",
    "guided",
    "posterior_mean",
    "restrict",
    "score_of",
    "with_label",
]

Network = Callable[[State, Time, Cond], State]
"""What stands in a network's seat: ``net(x, t, cond)`` shaped like x."""


@dataclass(frozen=True)
class Predict:
    """The velocity field of a network that outputs velocity, data, noise or score.

    Attributes:
        net: ``net(x, t, cond)``, shaped like x.
        path: the path it was trained on.
        output: what it outputs.
    """

    net: Network
    path: Path
    output: Kind = "velocity"

    @property
    def domain(self) -> tuple[float, float]:
        """Where the output determines the velocity, and the network can be called."""
        lo, hi = self.path.output_domain(self.output)
        first, last = domain_of(self.net)
        return max(lo, first), min(hi, last)

    @property
    def breakpoints(self) -> tuple[float, ...]:
        """Those of a network that has pieces of time."""
        lo, hi = self.domain
        return tuple(t for t in breakpoints_of(self.net) if lo < t < hi)

    def restrict(self, lo: float, hi: float) -> VelocityField:
        if not self.breakpoints:
            return self
        return dataclasses.replace(self, net=restrict(self.net, lo, hi))  # type: ignore[arg-type]

    def __call__(self, x: State, t: Time, cond: Cond = None) -> State:
        if not isinstance(t, Tensor):  # flows check those, once per walk
            check_time(t, self.domain, self)
        output = shaped_like(self.net(x, t, cond), x, self.net)
        return self.path.to_velocity(self.output, output, x, t)

    def __repr__(self) -> str:
        net = getattr(self.net, "name", type(self.net).__name__)
        return f"Predict({net}, {self.path}, {self.output})"


def check_time(t: Time, domain: tuple[float, float], what: object) -> None:
    """Refuse a time outside the domain. Tensors are checked by `flows`, once per walk."""
    lo, hi = domain
    if not isinstance(t, Tensor) and not lo <= t <= hi:
        raise UserError(f"t = {t:g} lies outside the domain [{lo:g}, {hi:g}] of {what}")


def posterior_mean(velocity: VelocityField, path: Path) -> VelocityField:
    """E[x1 | x_t], as a function (x, t, cond), from a velocity field on the path."""

    def mean(x: State, t: Time, cond: Cond = None) -> State:
        if isinstance(velocity, Predict) and velocity.output == "data":
            return velocity.net(x, t, cond)
        alpha, sigma, _, _ = path.coefficients(t, x)
        data = path.endpoints(x, velocity(x, t, cond), t)[1]
        # Where no noise is left x is the data, and the inversion may be 0/0.
        return torch.where(sigma == 0, x / alpha, data)

    return mean


Final = Literal["none", "divide", "posterior_mean"]
"""The map from the end of a walk to data: nothing, x / alpha, or E[x1 | x_T]."""


def final_map(choice: Final, velocity: VelocityField, path: Path, end: float) -> VelocityField:
    """The final map of a flow that ends at time `end`, as a function (x, t, cond) of x and cond."""

    def finish(x: State, t: Time = end, cond: Cond = None) -> State:
        if choice == "divide":
            return x / path.coefficients(t, x)[0]
        if choice == "posterior_mean":
            return posterior_mean(velocity, path)(x, t, cond)
        return x

    return finish


def score_of(velocity: VelocityField, path: Path, coupling: Coupling) -> VelocityField:
    r"""The score grad log p_t(x) = -E[x0 | x_t = x] / sigma_t, as a function (x, t, cond).

    It cannot be read off a velocity at t = 1, where sigma vanishes.

    Raises:
        UserError: the coupling is not Gaussian given x1, so the velocity holds no score.
    """
    if not coupling.gaussian:
        raise UserError(
            f"no score for the coupling {coupling}: it makes x0 depend on x1; "
            "train with --coupling independent"
        )

    predicted = isinstance(velocity, Predict) and velocity.output == "score"
    lo, hi = domain_of(velocity)
    domain = (lo, hi if predicted else min(hi, 1 - MARGIN))

    def score(x: State, t: Time, cond: Cond = None) -> State:
        check_time(t, domain, "the score")
        if isinstance(velocity, Predict) and velocity.output == "score":
            return velocity.net(x, t, cond)
        noise, _ = path.endpoints(x, velocity(x, t, cond), t)
        sigma = path.coefficients(t, x)[1]
        return -noise / sigma

    return score


@dataclass(frozen=True)
class Guided:
    """Classifier-free guidance: v_null + scale (v_cond - v_null) inside the interval.

    scale = 1 is no guidance. A guided flow does not aim at the law of the data.
    Both velocities are computed in one call on twice the batch.
    """

    field: VelocityField
    scale: float = 1.0
    interval: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        lo, hi = self.interval
        if not 0 <= lo < hi <= 1:
            raise UserError(f"guidance interval must satisfy 0 <= lo < hi <= 1, not {lo}, {hi}")

    @property
    def domain(self) -> tuple[float, float]:
        return domain_of(self.field)

    @property
    def breakpoints(self) -> tuple[float, ...]:
        inner = [t for t in self.interval if 0 < t < 1] if self.scale != 1 else []
        return tuple(sorted({*breakpoints_of(self.field), *inner}))

    def restrict(self, lo: float, hi: float) -> VelocityField:
        inner = restrict(self.field, lo, hi)
        start, stop = self.interval
        if self.scale == 1 or not start <= (lo + hi) / 2 < stop:
            return inner
        return Guided(inner, self.scale)

    def __call__(self, x: State, t: Time, cond: Cond = None) -> State:
        if self.scale == 1:
            return self.field(x, t, cond)
        v, null = conditioned_and_not(self.field, x, t, cond)
        moved = torch.lerp(null, v, self.scale)
        if self.interval == (0.0, 1.0):
            return moved
        at = as_time(t, x)
        lo, hi = self.interval
        before_end = at <= hi if hi == 1 else at < hi
        inside = expand((at >= lo) & before_end, x)
        return torch.where(inside, moved, v)


def guided(field: VelocityField, scale: Tensor, x: State, t: Time, cond: Cond) -> State:
    """The guided velocity with a scale for each example, (B,)."""
    v, null = conditioned_and_not(field, x, t, cond)
    return torch.lerp(null, v, expand(scale, x).to(x.dtype))


def conditioned_and_not(field: VelocityField, x: State, t: Time, cond: Cond) -> tuple[State, State]:
    """The velocities with the condition and without, in one call on twice the batch."""
    if cond is None or not set(cond) & {"label", "vector"}:
        raise UserError("guidance needs a condition (a label or a vector)")
    both = {k: torch.cat([c, null_like(k, c)]) for k, c in cond.items()}
    times = t if not isinstance(t, Tensor) or t.ndim == 0 else torch.cat([t, t])
    v, null = field(torch.cat([x, x]), times, both).chunk(2)
    return v, null


def null_like(name: str, value: Tensor) -> Tensor:
    """The empty condition: label -1, vector of NaN."""
    return torch.full_like(value, -1 if name == "label" else math.nan)


@dataclass(frozen=True)
class Piecewise:
    """A field for each piece of time: fields[k] on [knots[k], knots[k + 1])."""

    fields: tuple[VelocityField, ...]
    knots: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.knots) != len(self.fields) + 1 or list(self.knots) != sorted(set(self.knots)):
            raise UserError(
                f"{len(self.fields)} fields need {len(self.fields) + 1} increasing knots, "
                f"not {self.knots}"
            )

    @property
    def domain(self) -> tuple[float, float]:
        return self.knots[0], self.knots[-1]

    @property
    def breakpoints(self) -> tuple[float, ...]:
        inner = [
            t
            for piece, (lo, hi) in zip(self.fields, itertools.pairwise(self.knots), strict=True)
            for t in breakpoints_of(piece)
            if lo < t < hi
        ]
        return tuple(sorted({*self.knots[1:-1], *inner}))

    def restrict(self, lo: float, hi: float) -> VelocityField:
        return restrict(self.fields[self._piece((lo + hi) / 2)], lo, hi)

    def __call__(self, x: State, t: Time, cond: Cond = None) -> State:
        if not isinstance(t, Tensor) or t.ndim == 0:
            check_time(float(t), self.domain, self)
            return self.fields[self._piece(float(t))](x, t, cond)
        inner = torch.tensor(self.knots[1:-1], dtype=t.dtype, device=t.device)
        piece = torch.bucketize(t, inner, right=True)
        out = torch.empty_like(x)
        for k in piece.unique().tolist():
            rows = piece == k
            out[rows] = self.fields[k](x[rows], t[rows], take(cond, rows))
        return out

    def _piece(self, t: float) -> int:
        return sum(t >= knot for knot in self.knots[1:-1])


def restrict(velocity: VelocityField, lo: float, hi: float) -> VelocityField:
    """The field on one piece of time between breakpoints, ends included."""
    method = getattr(velocity, "restrict", None)
    return velocity if method is None else method(lo, hi)


def take(cond: Cond, rows: Tensor | None) -> Cond:
    """The conditions of some examples; None for all."""
    if cond is None or rows is None:
        return cond
    return {k: c[rows] for k, c in cond.items()}


@dataclass(frozen=True)
class Counted:
    """A field that counts how many examples it was evaluated on."""

    field: VelocityField
    counts: dict[str, int] = dataclasses.field(default_factory=lambda: {"calls": 0, "rows": 0})

    @property
    def domain(self) -> tuple[float, float]:
        return domain_of(self.field)

    @property
    def breakpoints(self) -> tuple[float, ...]:
        return breakpoints_of(self.field)

    def restrict(self, lo: float, hi: float) -> VelocityField:
        return Counted(restrict(self.field, lo, hi), self.counts)

    def __call__(self, x: State, t: Time, cond: Cond = None) -> State:
        self.counts["calls"] += 1
        self.counts["rows"] += len(x)
        return self.field(x, t, cond)


def with_label(label: int | Tensor, n: int) -> Mapping[str, Tensor]:
    """The condition that gives n examples one label, or a label each."""
    if isinstance(label, Tensor):
        return {"label": label.long()}
    return {"label": torch.full((n,), label, dtype=torch.int64)}


def __dir__() -> list[str]:
    return __all__
