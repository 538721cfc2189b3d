r"""The Eulerian identity: the end of a jump stays, whichever point of the flow it starts from.

.. math:: u_{s,t}(x) = b_s(x) + (t - s)\, D u_{s,t}(x)

References:
    | Flow map matching (Boffi et al., 2024), Sec. 3 -- https://arxiv.org/abs/2406.07507
    | Self-distillation (Boffi et al., 2025), Sec. 3 -- https://arxiv.org/abs/2505.18825
    | MeanFlow (Geng et al., 2025), Eq. 6 -- https://arxiv.org/abs/2505.13447
    | Improved MeanFlow (Geng et al., 2025) -- https://arxiv.org/abs/2512.02012
    | Align your flow (Sabour et al., 2025), Eq. 5 -- https://arxiv.org/abs/2506.14603
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from monge.objectives.rules.base import Rows, Rule, only
from monge.types import State


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
        only(self, "full")

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
        only(self, "full")

    def residuals(self, at: Rows) -> tuple[State, ...]:
        with torch.no_grad():
            own = at.mean(at.x, at.s, at.s)
        u, slope = self._along(at, at.x, ds=1.0, dt=0.0, dx=own, constant=True)
        return (at.towards(u, at.rate + at.gap * slope),)
