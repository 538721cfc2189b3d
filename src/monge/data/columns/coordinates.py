"""One column of a table: its role in a model, and its conversion to coordinates and back."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch

from monge.data.columns import arrow, marginals
from monge.data.columns.grids import RESOLVED, Grid, grid_of_floats, grid_of_integers
from monge.data.columns.marginals import Choice, Marginal, Range
from monge.data.naming import drop
from monge.errors import UserError
from monge.tensors import stream

LARGEST = 1e37
"""Largest distance from the column's mean that fits float32."""

SMALLEST = 1e-30
"""Smallest useful distance from the column's mean: squares of smaller numbers underflow in
float32."""

Role = Literal["number", "category", "label", "condition", "constant"]


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        role: number and category are learned; label and condition are inputs; a constant is
            restored in samples.
        centre: subtracted from a number, in levels if it has a grid, else in its units; the
            mean of a condition.
        deviation: of a condition, in its units.
        grid: of the numbers, or None.
        spread: whether the numbers are dequantised for learning.
        values: of a category or label, in order; the single value of a constant.
        marginal: the curve between a number and its normal score, if it is learned as one.
        gaps: whether missing values are learned. The last coordinate is then the score of the
            gaps, see `columns.gaps`.
    """

    name: str
    role: Role
    centre: float = 0.0
    deviation: float = 1.0
    grid: Grid | None = None
    spread: bool = False
    values: tuple[Any, ...] = ()
    marginal: Marginal | None = None
    gaps: bool = False

    @property
    def value_size(self) -> int:
        """The number of coordinates of its value."""
        return {"number": 1, "category": len(self.values)}.get(self.role, 0)

    @property
    def size(self) -> int:
        """The number of its coordinates."""
        return self.value_size + self.gaps


def number_column(name: str, numbers: np.ndarray, train: np.ndarray) -> Column:
    """The column of numbers (N,) that are learned, centred by the rows `train`.

    Raises:
        UserError: identifiers, or numbers too large for float32.
    """
    if numbers.dtype.kind == "i":
        grid: Grid | None = grid_of_integers(numbers, name)
    else:
        grid = grid_of_floats(numbers)
    if grid is None:
        wide = numbers.astype(np.float64)
        centre = float(wide[train].mean())
        if not np.abs(wide - centre).max() < LARGEST:
            raise UserError(
                f"column {name!r} has numbers too large for float32: divide it by a power of 10, "
                f"or {drop([name])} leaves it out"
            )
        if np.abs(wide - centre).max() < SMALLEST:
            power = 10 ** -int(np.floor(np.log10(np.abs(wide - centre).max())))
            raise UserError(
                f"column {name!r} has numbers too small for float32, which differ by "
                f"{np.abs(wide - centre).max():.1e} at most: multiply it by {power:.0e}, or "
                f"{drop([name])} leaves it out"
            )
        return Column(name, "number", centre)
    levels = grid.levels(numbers)
    # With more levels than float32 resolves, the noise within a cell would be lost.
    spread = int(levels.max()) - int(levels.min()) <= RESOLVED
    return Column(name, "number", float(levels[train].mean()), grid=grid, spread=spread)


def condition_column(name: str, numbers: np.ndarray, train: np.ndarray) -> Column:
    """The column of numbers (N,) that are a condition.

    Raises:
        UserError: the numbers do not vary over the rows `train`.
    """
    if numbers.dtype.kind == "i":
        grid: Grid | None = grid_of_integers(numbers, name)
    else:
        grid = grid_of_floats(numbers)
    known = numbers[train].astype(np.float64)
    mean, deviation = float(known.mean()), float(known.std())
    if not deviation > 1e-12 * abs(mean):
        raise UserError(f"condition column {name!r} does not vary: {drop([name])} leaves it out")
    return Column(name, "condition", mean, deviation, grid)


def finite(numbers: np.ndarray, name: str) -> np.ndarray:
    bad = ~np.isfinite(numbers) if numbers.dtype.kind == "f" else np.zeros(1, bool)
    if bad.any():
        raise UserError(
            f"column {name!r} has {int(bad.sum())} NaN or infinite numbers, the first in row "
            f"{int(np.flatnonzero(bad)[0])}"
        )
    return numbers


def with_marginal(c: Column, numbers: np.ndarray, train: np.ndarray, choice: Choice) -> Column:
    """A column of numbers (N,) with the curve of its rows `train`; unchanged if it needs none.

    The possible range is that of all rows.
    """
    if choice == "none":
        return c
    x = centred(numbers[train], c).astype(np.float64)
    if c.grid is None:
        possible = marginals.possible_range(numbers.astype(np.float64))
        shift, levels = c.centre, None
    else:
        all_levels = c.grid.levels(numbers)
        values = c.grid.values(all_levels, whole=False)
        possible = marginals.possible_range(values, c.grid.width)
        known = np.unique(all_levels[train])
        levels = (known - c.centre) * c.grid.width if c.spread else None
        shift = offset(c)
    least, most = (None if end is None else end - shift for end in (possible.least, possible.most))
    return dataclasses.replace(
        c, marginal=marginals.fitted(x, Range(least, most, possible.width), choice, levels)
    )


def centred(numbers: np.ndarray, c: Column) -> np.ndarray:
    """Numbers minus their centre, dequantised, (N,) float32."""
    if c.grid is None:
        return (numbers.astype(np.float64) - c.centre).astype(np.float32)
    levels = c.grid.levels(numbers)
    middle = (levels - c.centre) * c.grid.width
    if not c.spread:
        return middle.astype(np.float32)
    rng = stream(0, "dequantise", c.name)
    u = torch.rand(len(numbers), generator=rng, dtype=torch.float64).numpy()
    x = (middle + (u - 0.5) * c.grid.width).astype(np.float32)
    # At the edge of a cell, rounding to float32 may cross it.
    left = np.rint(x.astype(np.float64) / c.grid.width + c.centre) != levels
    return np.where(left, middle.astype(np.float32), x)


def uncentred(x: np.ndarray, c: Column, dtype: pa.DataType) -> pa.Array:
    """Inverts `centred`: numbers rounded to the grid, within the range of the type and column."""
    if c.marginal is not None:
        x = np.clip(x, *c.marginal.ends)
    if c.grid is None:
        return arrow.column_of(x + c.centre, dtype)
    smallest, largest = arrow.bounds_of(dtype)
    low = -((c.grid.origin - smallest) // c.grid.step)
    high = (largest - c.grid.origin) // c.grid.step
    levels = np.clip(np.rint(x / c.grid.width + c.centre), low, high).astype(np.int64)
    return arrow.column_of(c.grid.values(levels, not arrow.is_fraction(dtype)), dtype)


def offset(c: Column) -> float:
    """The number to add to a coordinate to get the column's number."""
    if c.grid is None:
        return c.centre
    return c.grid.origin / 10**c.grid.decimals + c.centre * c.grid.width


def range_of(c: Column) -> list[float | None]:
    """The smallest and largest number in samples of a column with a curve, in its units."""
    assert c.marginal is not None
    ends = (c.marginal.least, c.marginal.most)
    return [None if end is None else float(end + offset(c)) for end in ends]


def as_given(numbers: np.ndarray, dtype: pa.DataType) -> pa.Array:
    """A condition's numbers in its type; rounded if the type is whole."""
    if arrow.is_fraction(dtype):
        return arrow.column_of(numbers, dtype)
    return arrow.column_of(np.clip(np.rint(numbers), *arrow.bounds_of(dtype)), dtype)
