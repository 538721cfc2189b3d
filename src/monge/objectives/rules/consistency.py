r"""Consistency: jumps to the data alone, t = 1, by two near starts or by the Eulerian identity.

References:
    | Consistency models (Song et al., 2023), Eqs. 7, 10 -- https://arxiv.org/abs/2303.01469
    | Align your flow (Sabour et al., 2025), Eq. 5 -- https://arxiv.org/abs/2506.14603
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from monge.errors import UserError
from monge.objectives.rules.base import Rows, Rule, heun, only
from monge.objectives.rules.eulerian import Eulerian, MeanFlow
from monge.types import State


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
        only(self, "full")
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
        return heun(at.velocity, at.x, at.s, near)


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
        only(self, "full")


@dataclass(frozen=True, repr=False)
class ContinuousConsistencyTraining(MeanFlow):
    """sCT: MeanFlow with t = 1. Without rows at s = t the network may collapse to a constant."""

    diagonal: float = 0.5

    name = "continuous-consistency-training"
    follows_itself = False
    pairs = "to_data"
