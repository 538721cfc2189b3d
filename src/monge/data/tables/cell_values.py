"""Blocks of text cells, converted to what their column is."""

from __future__ import annotations

import pyarrow as pa

from monge.data.columns import date_format
from monge.data.columns.arrow import compute
from monge.data.columns.number_format import HOLE
from monge.data.columns.spelling import NULLS
from monge.data.tables.csv_cells import Kind


def without_blanks(column: pa.Array) -> pa.Array:
    """Cells without blanks around them."""
    blank = compute.match_substring_regex(column, r"^\s|\s$")
    return compute.utf8_trim_whitespace(column) if blank.true_count else column


def convert(column: pa.Array, kind: Kind) -> pa.Array:
    """A block of text as what its column is; words keep their blanks, nothing else does.

    Raises:
        pyarrow.ArrowInvalid: a date that is none.
    """
    if pa.types.is_string(kind.dtype):
        return column
    if pa.types.is_null(kind.dtype):
        return pa.nulls(len(column))
    column = without_blanks(column)
    holes = compute.is_in(column, value_set=pa.array([*NULLS, *kind.marks]))
    column = compute.if_else(holes, pa.scalar(None, pa.string()), column)
    if pa.types.is_boolean(kind.dtype):
        return compute.equal(compute.utf8_lower(column), "true")
    if pa.types.is_integer(kind.dtype) or pa.types.is_floating(kind.dtype):
        column = compute.utf8_ltrim(column, "+")
        if not kind.spelling.number.is_plain:
            column = _plain(column, kind)
    if kind.spelling.pattern:
        column = date_format.read(column, kind.spelling.pattern, kind.dtype)
        if pa.types.is_duration(kind.dtype):
            return column.cast(pa.int64()).cast(kind.dtype)
    return _time(column) if pa.types.is_time(kind.dtype) else column.cast(kind.dtype)


def _plain(column: pa.Array, kind: Kind) -> pa.Array:
    """Cells of numbers with a point, and nothing else."""
    number = kind.spelling.number
    if number.thousands or number.positive != HOLE or number.negative != f"-{HOLE}":
        return number.plain(column)
    return compute.replace_substring(column, number.point, ".")  # also of exponents


def _time(column: pa.Array) -> pa.Array:
    """12:30 or 12:30:15 as seconds of the day."""
    whole = compute.if_else(
        compute.equal(compute.utf8_length(column), 5),
        compute.binary_join_element_wise(column, ":00", ""),
        column,
    )
    parts = [compute.utf8_slice_codeunits(whole, at, at + 2).cast(pa.int32()) for at in (0, 3, 6)]
    seconds = compute.add(compute.multiply(parts[0], 3600), compute.multiply(parts[1], 60))
    return compute.add(seconds, parts[2]).cast(pa.int32()).cast(pa.time32("s"))
