"""Fixes the guidance scale of networks that take it as an input."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from monge.types import Cond, State, Time, VelocityField, domain_of


@dataclass(frozen=True)
class AtScale:
    """A field with a guidance scale as an input, at a fixed scale."""

    field: VelocityField
    scale: float

    @property
    def domain(self) -> tuple[float, float]:
        return domain_of(self.field)

    def __call__(self, x: State, t: Time, cond: Cond = None) -> State:
        return self.field(x, t, with_scale(x, cond, self.scale))


def with_scale(x: State, cond: Cond, scale: float) -> dict[str, Tensor]:
    """The condition with a guidance scale for each example."""
    return {**(cond or {}), "guidance": x.new_full((len(x),), scale)}
