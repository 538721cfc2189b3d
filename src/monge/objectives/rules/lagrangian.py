r"""The Lagrangian identity: the end of a jump moves in t as the velocity there.

.. math:: \partial_t X_{s,t}(x) = b_t(X_{s,t}(x))

References:
    | Flow map matching (Boffi et al., 2024), Sec. 3 -- https://arxiv.org/abs/2406.07507
    | Self-distillation (Boffi et al., 2025), Sec. 3 -- https://arxiv.org/abs/2505.18825
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from monge.objectives.rules.base import Rows, Rule, Stop, only
from monge.types import State


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
class FlowMapRule(Rule):
    """FMM: both orders of times; a point taken back to s moves at t as its path, and returns."""

    stop: Stop = "none"

    name = "flow-map-matching"
    teacher = False
    pairs = "triangle:both=true"

    def __post_init__(self) -> None:
        super().__post_init__()
        only(self, "none")

    def residuals(self, at: Rows) -> tuple[State, ...]:
        # Here x and its rate are at s, where the walk there and back ends.
        turned = replace(at, s=at.t, t=at.s)
        back = at.jump(at.x, at.s, at.t)
        u, rate = self._in_t(turned, back)
        return u + turned.gap * rate - at.rate, back + turned.gap * u - at.x
