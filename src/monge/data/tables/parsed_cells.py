"""Text cells as values of a known column, in the notation of the column's file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from monge.data.columns import arrow
from monge.data.columns.arrow import compute
from monge.data.columns.spelling import spelling_of
from monge.data.tables.cell_forms import MARKS
from monge.data.tables.cell_values import convert
from monge.data.tables.csv_cells import Kind
from monge.errors import UserError


def parsed(cells: Sequence[str | None], field: pa.Field) -> pa.Array:
    """Cells as an array of the field's values; null for missing ones.

    Args:
        cells: None for a missing value. Among numbers and dates, so are NA, ? and the like.

    Raises:
        UserError: the first cell that is none of the field's values, with its row from 0.
    """
    dtype = arrow.plain_type(field.type)
    texts = pa.array(cells, pa.string())
    if arrow.is_text(dtype):
        return texts.cast(dtype)
    kind = Kind(dtype, marks=MARKS, spelling=spelling_of(field))
    try:
        return _converted(texts, kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError):
        pass
    for row, cell in enumerate(cells):
        try:
            _converted(pa.array([cell], pa.string()), kind)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError):
            raise UserError(
                f"column {field.name!r}, row {row}: {cell!r} is no {_noun(dtype)}"
            ) from None
    raise UserError(f"column {field.name!r} cannot be read as {dtype}")


def _converted(texts: pa.Array, kind: Kind) -> pa.Array:
    found = convert(texts, kind)
    if pa.types.is_boolean(kind.dtype):
        words = compute.utf8_lower(compute.utf8_trim_whitespace(texts.filter(found.is_valid())))
        if not all(word in ("true", "false") for word in words.to_pylist()):
            raise ValueError("neither true nor false")
    if pa.types.is_floating(kind.dtype) and not np.isfinite(found.drop_null().to_numpy()).all():
        raise ValueError("not finite")
    return found


def _noun(dtype: pa.DataType) -> str:
    if pa.types.is_integer(dtype):
        return "whole number of 64 bits"
    if pa.types.is_boolean(dtype):
        return "true or false"
    return "number" if arrow.is_fraction(dtype) else f"{dtype} in the notation of the table"
