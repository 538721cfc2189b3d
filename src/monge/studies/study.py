"""What a study is: axes, one function that measures a cell, and claims about what it measures.

A cell is a point of the grid of all axes but those marked `together`, whose values are measured
at once because they share work, such as a reference solution. A cell depends on its coordinates
and on nothing else: it draws from generators that are keyed by them.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import torch

from monge.components import read_value
from monge.errors import UserError, nearest
from monge.studies.claims import Claim
from monge.tensors import stream

Value: TypeAlias = str | int | float
Row: TypeAlias = dict[str, Any]
"""Names to numbers or texts: a row of the table of results."""


@dataclass(frozen=True)
class Axis:
    """What a study varies.

    Attributes:
        name: of the column and, with or without a final s, of the flag.
        values: in full.
        quick: in quick mode.
        meaning: one line for people.
        together: whether one cell measures all its values at once.
    """

    name: str
    values: tuple[Value, ...]
    quick: tuple[Value, ...]
    meaning: str
    together: bool = False

    def read(self, text: str) -> tuple[Value, ...]:
        """The values that a text lists, with commas between them.

        Raises:
            UserError: no value, or one of another type than the axis has.

        >>> Axis("grid", ("uniform",), (), "").read("ou:horizon=8,linear,dopri5:rtol=1,atol=2")
        ('ou:horizon=8', 'linear', 'dopri5:rtol=1,atol=2')
        """
        parts: list[str] = []
        for part in text.split(","):
            settings = "=" in part and ":" not in part.partition("=")[0]
            if parts and settings and ":" in parts[-1]:
                parts[-1] += "," + part  # one more setting of the component before
            else:
                parts.append(part)
        kinds = {type(v) for v in self.values}
        kind = float if float in kinds else kinds.pop()
        return tuple(read_value(part.strip(), kind, f"axis {self.name}") for part in parts)


@dataclass(frozen=True)
class Cell:
    """The coordinates of a cell, and its randomness.

    Attributes:
        study: the name of the study.
        at: axis to value; of an axis that is measured together, the tuple of its values.
        alone: the names of the axes that tell the cells apart.
    """

    study: str
    at: Mapping[str, Any]
    alone: tuple[str, ...]

    def __getitem__(self, axis: str) -> Any:
        return self.at[axis]

    @cached_property
    def seed(self) -> int:
        """A number that follows from the study's name and the cell's own coordinates."""
        text = json.dumps([self.study, {name: self.at[name] for name in self.alone}])
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "little")

    def stream(self, *key: int | str) -> torch.Generator:
        """A generator for one purpose; equal cells get equal draws, in any order of computing."""
        return stream(self.seed, *key)

    def text(self) -> str:
        """The coordinates for people."""
        return ", ".join(f"{name} {self.at[name]}" for name in self.alone)


@dataclass(frozen=True)
class Study:
    """A study, as a value.

    Attributes:
        name: as the command line calls it.
        title: a line.
        question: what it asks.
        axes: what it varies.
        cell: measures a cell: the rows it yields need not repeat the cell's own coordinates.
        claims: what theory says about the rows.
        reading: how to read the results, and where they say nothing.
        sources: papers.
        minutes: of one core, in full, as measured.
        repeats: the axis whose values are repetitions of the same measurement.
    """

    name: str
    title: str
    question: str
    axes: tuple[Axis, ...]
    cell: Callable[[Cell], Iterable[Row]]
    claims: tuple[Claim, ...]
    reading: str = ""
    sources: tuple[str, ...] = ()
    minutes: float | None = None
    repeats: str | None = None

    def __post_init__(self) -> None:
        names = [axis.name for axis in self.axes]
        if len(set(names)) < len(names) or not names:
            raise UserError(f"study {self.name}: needs axes of different names, not {names}")
        if self.repeats is not None and self.repeats not in names:
            raise UserError(f"study {self.name}: repeats names no axis: {self.repeats!r}")

    def axis(self, name: str) -> Axis:
        """The axis of a name, with or without a final s.

        Raises:
            UserError: no such axis, with the nearest one.
        """
        for axis in self.axes:
            if name in (axis.name, axis.name + "s"):
                return axis
        hint = nearest(name, (a.name for a in self.axes))
        raise UserError(f"study {self.name} has no axis {name!r}: {hint}")

    def chosen(
        self, given: Mapping[str, Iterable[Value]] | None = None, quick: bool = False
    ) -> dict[str, tuple[Value, ...]]:
        """The values of every axis: the given ones, else those of the mode.

        Raises:
            UserError: an unknown axis, an axis without values or with a value twice.
        """
        found = {a.name: a.quick if quick else a.values for a in self.axes}
        found |= {self.axis(name).name: tuple(values) for name, values in (given or {}).items()}
        for name, values in found.items():
            if not values or len(set(values)) < len(values):
                raise UserError(
                    f"study {self.name}: axis {name} needs values, each once, not {values}"
                )
        return found

    def cells(self, chosen: Mapping[str, tuple[Value, ...]]) -> Iterator[Cell]:
        """All cells of the chosen values, in the order of the axes."""
        alone = tuple(a.name for a in self.axes if not a.together)
        shared = {a.name: chosen[a.name] for a in self.axes if a.together}
        for point in itertools.product(*(chosen[name] for name in alone)):
            yield Cell(self.name, dict(zip(alone, point, strict=True)) | shared, alone)

    def measure(self, cell: Cell) -> list[Row]:
        """The rows of a cell, with its coordinates.

        Raises:
            UserError: a row lacks a value of an axis that is measured together.
        """
        own = {name: cell.at[name] for name in cell.alone}
        rows = [own | dict(row) for row in self.cell(cell)]
        for row in rows:
            missing = [a.name for a in self.axes if a.name not in row]
            if missing:
                raise UserError(f"study {self.name}: a row of its cell lacks {missing}")
        return rows
