"""What theory says about a quantity: a rate, an upper bound of a rate, a ceiling or a value.

A rate is an equality, so both a shallower and a steeper slope contradict it. An upper bound is
contradicted only by an error that falls more slowly, or grows faster, than the bound does; an
error that falls faster shows that the bound is not attained here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Towards = Literal["zero", "infinity"]


@dataclass(frozen=True)
class Slope:
    """A power law: quantity ~ against^slope (a rate), or at most that (a bound).

    Attributes:
        name: for people, one line.
        quantity: column of the error.
        against: column of the abscissa, positive.
        slope: the predicted power; a function of a row where it depends on the row's coordinates.
        kind: whether it is an equality or an upper bound.
        source: paper and place, or the derivation.
        towards: where the abscissa goes in the limit.
        by: columns that separate the lines; each line gets a verdict.
        where: column to the values that the claim is about; of all, where a column is not named.
        tolerance: differences of slopes that are no contradiction, for finite ranges.
        resolution: a wider interval, plus or minus, decides nothing about slopes inside it.
        floor: column of the value that no error at all would show.
        stiffness: column of step times Lipschitz constant, to be below one half.
        finest: only so many points nearest to the limit are fitted; 0 for all.
        semilog: the logarithm of the quantity is linear in the abscissa itself.
        panel: the column whose values get figures of their own.
    """

    name: str
    quantity: str
    against: str
    slope: float | Callable[[Mapping[str, Any]], float]
    kind: Literal["rate", "bound"]
    source: str
    towards: Towards
    by: tuple[str, ...]
    where: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    tolerance: float = 0.1
    resolution: float = 0.25
    floor: str | None = None
    stiffness: str | None = None
    finest: int = 0
    semilog: bool = False
    panel: str | None = None

    def predicted(self, row: Mapping[str, Any]) -> float:
        """The slope for the coordinates of a row."""
        return self.slope(row) if callable(self.slope) else self.slope

    @property
    def columns(self) -> tuple[str, ...]:
        """What a row needs so that the claim is about it."""
        return tuple(c for c in (self.quantity, self.against, self.floor, self.stiffness) if c)


@dataclass(frozen=True)
class Ceiling:
    """A bound with its constant: the quantity is at most another column, in every row.

    Attributes:
        slack: how much more is allowed for rounding or noise, relative.
    """

    name: str
    quantity: str
    ceiling: str
    source: str
    by: tuple[str, ...]
    where: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    slack: float = 1e-9

    @property
    def columns(self) -> tuple[str, ...]:
        return self.quantity, self.ceiling


@dataclass(frozen=True)
class Equal:
    """A value: the quantity equals another column in every row, to a relative tolerance."""

    name: str
    quantity: str
    expected: str
    source: str
    by: tuple[str, ...]
    where: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    tolerance: float = 0.05

    @property
    def columns(self) -> tuple[str, ...]:
        return self.quantity, self.expected


Claim: TypeAlias = Slope | Ceiling | Equal


def about(claim: Claim, row: Mapping[str, Any]) -> bool:
    """Whether a claim says something about a row."""
    if any(row.get(column) is None for column in claim.columns):
        return False
    return all(row.get(column) in values for column, values in claim.where.items())
