"""What a flow map offers that draws samples: a walk from knot to knot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

from monge.times import Grid
from monge.types import Cond, State, Time, VelocityField


@runtime_checkable
class Walk(Protocol):
    """A flow map that is taken in steps or in jumps, and the words for them.

    Attributes:
        domain: between which times.
        knots: where it lands, the domain's ends included.
        grid: what the knots come from.
        field: the velocity whose flow it is, or is to be.
        order: of its error in the length of a step, where it is a solver's; else 0.
        name: its solver, or what stands for one; `label` is the same for a reader.
        unit: "steps" or "jumps".
        error: the name of its error in a budget, and `against`: what it is measured against.
    """

    @property
    def domain(self) -> tuple[float, float]: ...
    @property
    def knots(self) -> tuple[float, ...]: ...
    @property
    def grid(self) -> Grid: ...
    @property
    def field(self) -> VelocityField: ...
    @property
    def order(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def unit(self) -> str: ...
    @property
    def error(self) -> str: ...
    @property
    def against(self) -> str: ...

    def __call__(self, x: State, s: Time, t: Time, cond: Cond = None) -> State: ...

    def states(self, x: State, times: Sequence[float], cond: Cond = None) -> Iterator[State]:
        """Where x, at the start of the domain, is at ascending times."""
        ...

    def jumps(self, counts: Sequence[int]) -> list[Walk]:
        """The same in so many jumps each, where it is not a solver's."""
        ...
