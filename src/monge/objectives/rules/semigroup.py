r"""The semigroup identity: one jump is two.

.. math:: X_{u,t}(X_{s,u}(x)) = X_{s,t}(x)

References:
    | Flow map matching (Boffi et al., 2024), Sec. 3 -- https://arxiv.org/abs/2406.07507
    | Self-distillation (Boffi et al., 2025), Sec. 3 -- https://arxiv.org/abs/2505.18825
    | Shortcut models (Frans et al., 2024), Eq. 4 -- https://arxiv.org/abs/2410.12557
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from monge.errors import UserError
from monge.objectives.rules.base import Rows, Rule, heun, only
from monge.tensors import expand
from monge.types import State

UNPLANNED = 500
"""Steps before progressive spans double, in a run of an unknown number of steps."""


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
        only(self, "full", "none")

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
        only(self, "full")
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
                taught = heun(at.velocity, taught, a, b)
            target = torch.where(short, (taught - at.x) / at.gap, _two_jumps(at))
        return (at.towards(at.mean(at.x, at.s, at.t), target),)


def _two_jumps(at: Rows) -> State:
    """The mean velocity of two jumps of the network, cut at the fraction."""
    middle = at.s + at.fraction * (at.t - at.s)
    first = at.mean(at.x, at.s, middle)
    part = expand(at.fraction, at.x).to(at.x.dtype)
    second = at.mean(at.x + part * at.gap * first, middle, at.t)
    return part * first + (1 - part) * second
