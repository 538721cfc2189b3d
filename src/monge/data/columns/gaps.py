"""Missing values as data: a score beside the value, so that samples have the same gaps.

A column with gaps has the coordinates of its value and one more, the score of its gaps: a standard
normal number that exceeds a threshold where the value is missing. The threshold is the normal
quantile of the share of known values in the training rows, and the score is random on its side of
it. So the score of gaps that occur at random is plain noise, of which a flow has nothing to learn
but how it goes together with the other columns.

A missing value still needs coordinates. It takes those of a known value of its column, drawn at
random: the coordinates keep the law of the known values. What is drawn never reaches a table, since
decoding empties the cell again.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import torch
from scipy import special

from monge.data.columns import arrow
from monge.data.columns.arrow import compute
from monge.data.columns.coordinates import Column, offset
from monge.tensors import stream


def name_of(c: Column) -> str:
    """The name of the coordinate that tells whether a value is missing."""
    return f"{c.name} is missing"


def share_of(missing: np.ndarray) -> float:
    """The share of missing values among training rows (n,), never quite 0 or 1.

    >>> share_of(np.array([True, False, False, False])), share_of(np.zeros(4, bool))
    (0.25, 0.125)
    """
    n = len(missing)
    return float(np.clip(missing.mean(), 0.5 / n, 1 - 0.5 / n))


def threshold(c: Column) -> float:
    """Scores above this are gaps."""
    return float(special.ndtri(1 - c.gaps))


def are_missing(scores: np.ndarray, c: Column) -> np.ndarray:
    """Whether scores (N,) are those of missing values."""
    return scores > threshold(c)


def scores(column: pa.ChunkedArray, c: Column) -> np.ndarray:
    """The score of each row (N, 1) float32, random on its side of the threshold."""
    missing = np.asarray(compute.is_null(column))
    rng = stream(0, "gap scores", c.name)
    u = torch.rand(len(column), generator=rng, dtype=torch.float64).numpy()
    known = 1 - c.gaps
    rank = np.where(missing, known + c.gaps * u, known * u)
    found = special.ndtri(np.clip(rank, 1e-7, 1 - 1e-7)).astype(np.float32)
    # At the threshold, rounding to float32 may cross it.
    at = threshold(c)
    over, under = np.float32(at + 1e-5 * (1 + abs(at))), np.float32(at - 1e-5 * (1 + abs(at)))
    return np.where(missing, np.maximum(found, over), np.minimum(found, under))[:, None]


def filled(column: pa.ChunkedArray, c: Column) -> pa.ChunkedArray:
    """A column with random known values of its own in the place of missing ones.

    Row i takes the same value whenever the column is the same. If no value is known, a number takes
    the centre of the training rows, and a category its first value.
    """
    known = column.drop_null()
    if not len(known):
        known = pa.chunked_array([_middle(c, column.type)])
    rng = stream(0, "gaps", c.name)
    drawn = torch.randint(len(known), (len(column),), generator=rng).numpy()
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
