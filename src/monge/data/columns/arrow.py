"""Converts Arrow columns to numbers or plain values, and back to their type."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from monge.data.naming import drop
from monge.errors import UserError

compute: Any = pyarrow.compute
"""Arrow's functions; they are created on import, so type checkers do not know them."""

DAY = 24 * 60 * 60
UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}

LARGEST = 2**62
"""Bound of whole numbers; differences of two then fit int64."""


def is_temporal(dtype: pa.DataType) -> bool:
    """Whether the type is a date, time, timestamp or duration: a whole number of its unit."""
    return pa.types.is_temporal(dtype) and not pa.types.is_interval(dtype)


def is_number(dtype: pa.DataType) -> bool:
    """Whether a column of this type is learned as a number."""
    return (
        pa.types.is_integer(dtype)
        or pa.types.is_floating(dtype)
        or pa.types.is_decimal(dtype)
        or is_temporal(dtype)
    )


def is_fraction(dtype: pa.DataType) -> bool:
    """Whether `numbers_of` returns floating-point: floating-point numbers and decimals."""
    return pa.types.is_floating(dtype) or pa.types.is_decimal(dtype)


def is_plain_number(dtype: pa.DataType) -> bool:
    """Whether numpy computes with the type: integers, floating-point numbers and truth values."""
    return (is_number(dtype) and not is_temporal(dtype)) or pa.types.is_boolean(dtype)


def is_text(dtype: pa.DataType) -> bool:
    """Whether the type is a string; dictionaries are not."""
    return pa.types.is_string(dtype) or pa.types.is_large_string(dtype) or dtype == pa.string_view()


def is_categories(dtype: pa.DataType) -> bool:
    """Whether values of the type are always categories: booleans and dictionaries."""
    return pa.types.is_boolean(dtype) or pa.types.is_dictionary(dtype)


def may_be_categories(dtype: pa.DataType) -> bool:
    """Whether values of the type can be categories or labels."""
    plain = dtype.value_type if pa.types.is_dictionary(dtype) else dtype
    return is_number(plain) or is_text(plain) or pa.types.is_boolean(plain)


def numbers_of(column: pa.ChunkedArray, name: str) -> np.ndarray:
    """A column without nulls as (N,) int64, or in its floating-point type; decimals as float64.

    Raises:
        UserError: whole numbers of 2^63 or more, or decimals with more digits than float64.
    """
    dtype = column.type
    if pa.types.is_floating(dtype):
        return column.to_numpy()
    if pa.types.is_decimal(dtype):
        numbers = column.cast(pa.float64()).to_numpy()
        if len(numbers) and np.abs(numbers).max() * 10.0**dtype.scale >= 2**53:
            raise UserError(
                f"column {name!r} has decimals of more than 15 digits ({dtype}), which numbers of "
                f"64 bits do not hold: give it fewer digits, or {drop([name])} leaves it out"
            )
        return numbers
    if is_temporal(dtype) and dtype.bit_width == 32:
        column = column.cast(pa.int32())
    try:
        return column.cast(pa.int64()).to_numpy()
    except pa.ArrowInvalid:
        raise UserError(
            f"column {name!r} has integers of 2^63 or more, which look like identifiers: "
            f"{drop([name])} leaves it out"
        ) from None


def bounds_of(dtype: pa.DataType) -> tuple[int, int]:
    """The smallest and largest whole number of a type (within 2^62)."""
    if pa.types.is_time(dtype):
        return 0, DAY * UNITS[dtype.unit] - 1
    if is_fraction(dtype):
        return -LARGEST, LARGEST
    integer = np.iinfo(np.dtype(f"i{dtype.bit_width // 8}"))
    if pa.types.is_unsigned_integer(dtype):
        integer = np.iinfo(np.dtype(f"u{dtype.bit_width // 8}"))
    return max(int(integer.min), -LARGEST), min(int(integer.max), LARGEST)


def column_of(numbers: np.ndarray, dtype: pa.DataType) -> pa.Array:
    """Numbers (N,) as a column of a type; whole numbers must lie within its bounds."""
    if pa.types.is_floating(dtype):
        return pa.array(numbers.astype(dtype.to_pandas_dtype()), dtype)
    if pa.types.is_decimal(dtype):
        most = 10.0 ** (dtype.precision - dtype.scale) - 10.0**-dtype.scale
        wide = pa.decimal128(38, dtype.scale)
        return pa.array(np.clip(numbers, -most, most)).cast(wide).cast(dtype)
    if not is_temporal(dtype):
        return pa.array(numbers.astype(np.int64)).cast(dtype)
    integers = pa.array(numbers.astype(np.int64))
    return (integers.cast(pa.int32()) if dtype.bit_width == 32 else integers).cast(dtype)


def plain_type(dtype: pa.DataType) -> pa.DataType:
    """The type of a column's values: a dictionary's own, else the same."""
    return dtype.value_type if pa.types.is_dictionary(dtype) else dtype


def plain_values(values: pa.Array) -> list[Any]:
    """Values of a column for JSON; dates and times as whole numbers of their unit."""
    if is_temporal(values.type):
        return numbers_of(pa.chunked_array([values]), "").tolist()
    return values.to_pylist()


def array_of(values: list[Any] | tuple[Any, ...], dtype: pa.DataType) -> pa.Array:
    """An array of a (plain) type from the result of `plain_values`."""
    if is_temporal(dtype):
        return column_of(np.asarray(values, np.int64), dtype)
    return pa.array(values, dtype)


def chosen(values: pa.Array, index: np.ndarray, dtype: pa.DataType) -> pa.Array:
    """The values at an index (N,), -1 for null, as a column of the type, also of a dictionary."""
    rows = pa.array(np.where(index < 0, 0, index), mask=index < 0)
    if not pa.types.is_dictionary(dtype):
        return values.take(rows)
    return pa.DictionaryArray.from_arrays(
        rows.cast(dtype.index_type), values, ordered=dtype.ordered
    )


def schema_text(schema: pa.Schema) -> str:
    """A schema as text, exact for every type: Arrow's format in base64."""
    return base64.b64encode(schema.serialize().to_pybytes()).decode()


def schema_of(text: str) -> pa.Schema:
    """The schema that `schema_text` wrote.

    Raises:
        ValueError: the text is no schema.
    """
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text, validate=True)))
