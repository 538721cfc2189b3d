"""Missing values as data: a score beside the value, so that samples have the same gaps.

A column with gaps has the coordinates of its value and one more, the score of its gaps: uniform on
[-0.3, 0.3] where the value is there, and on [0.7, 1.3] where it is missing. Atoms would be learned
with too few gaps, and intervals without a space between them with too little dependence on the
other columns (docs/tables.md).

A missing value still needs coordinates. It takes those of a known value of its column, drawn at
random: the coordinates keep the law of the known values. What is drawn never reaches a table, since
decoding empties the cell again.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch

from monge.data.columns import arrow
from monge.data.columns.arrow import compute
from monge.data.columns.coordinates import Column, offset
from monge.tensors import stream

WIDTH = 0.6
"""Of the interval of scores, around 0 or 1."""

THRESHOLD = 0.5
"""Scores above this are gaps."""


def name_of(c: Column) -> str:
    """The name of the coordinate that tells whether a value is missing."""
    return named(c.name)


def named(column: str) -> str:
    """The name of what tells whether a column's values are missing."""
    return f"{column} is missing"


def is_gaps(name: str, names: Sequence[str]) -> bool:
    """Whether a name is that of the gaps of another column.

    >>> is_gaps("age is missing", ["age", "age is missing"]), is_gaps("it is missing", ["x"])
    (True, False)
    """
    return any(name == named(column) for column in names)


def are_missing(scores: np.ndarray) -> np.ndarray:
    """Whether scores (N,) are those of missing values."""
    return scores > THRESHOLD


def scores(column: pa.ChunkedArray, c: Column) -> np.ndarray:
    """The score of each row (N,) float32; row i has the same noise in any table."""
    missing = np.asarray(compute.is_null(column))
    u = torch.rand(len(column), generator=stream(0, "gap scores", c.name)).numpy()
    return (missing + WIDTH * (u - 0.5)).astype(np.float32)


def filled(column: pa.ChunkedArray, c: Column) -> pa.ChunkedArray:
    """A column with random known values of its own in the place of missing ones.

    Row i takes the same value whenever the column is the same. If no value is known, a number takes
    the centre of the training rows, and a category its first value.
    """
    if column.null_count < len(column):
        return refilled(column, c.name)
    return pa.chunked_array([_middle(c, column.type).take(pa.array([0] * len(column)))])


def refilled(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """A column with random known values of its own, of which it has some, for missing ones."""
    if not column.null_count:
        return column
    known = column.drop_null()
    drawn = torch.randint(len(known), (len(column),), generator=stream(0, "gaps", name)).numpy()
    holes = np.asarray(compute.is_null(column))
    # Known rows take themselves: their numbers among the known values.
    return known.take(pa.array(np.where(holes, drawn, np.cumsum(~holes) - 1)))


def _middle(c: Column, dtype: pa.DataType) -> pa.Array:
    if c.role == "category":
        return arrow.array_of(c.values[:1], dtype)
    number = np.array([offset(c)])
    return arrow.column_of(number if arrow.is_fraction(dtype) else np.rint(number), dtype)


def emptied(column: pa.Array, missing: np.ndarray) -> pa.Array:
    """A column with null where a value is missing, (N,) bool."""
    return compute.if_else(pa.array(missing), pa.scalar(None, column.type), column)
