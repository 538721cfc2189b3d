"""The notation of a column's cells in its file, so that samples are written the same way.

Numbers keep their decimals or exponent, truth values their words, times their separators. A
spelling is metadata of the Arrow field, and so part of a run's codec.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

import pyarrow as pa
from pyarrow import csv as arrow_csv

from monge.data.columns import arrow, date_format
from monge.data.columns.number_format import NumberFormat

KEY = b"monge"
"""Key of a field's metadata."""

NULLS = frozenset(arrow_csv.ConvertOptions().null_values)
"""Cells that are missing values unless they are quoted."""


@dataclass(frozen=True)
class Spelling:
    """The notation of the cells of a column.

    Attributes:
        decimals: digits after the point, if equal in all cells.
        exponent: digits after the point of numbers that are all written with an exponent.
        true, false: words of truth values.
        between: separator of date and time.
        zone: suffix of a time: "Z" or nothing.
        seconds: whether times have seconds.
        missing: the cell of a missing value.
        positive, negative, thousands, point: of numbers, see `number_format.NumberFormat`.
        pattern: of dates, times and durations that are not ISO, see `date_format`.
    """

    decimals: int | None = None
    exponent: int | None = None
    true: str = "true"
    false: str = "false"
    between: str = " "
    zone: str = ""
    seconds: bool = True
    missing: str = ""
    positive: str = "{}"
    negative: str = "-{}"
    thousands: str = ""
    point: str = "."
    pattern: str = ""

    @property
    def number(self) -> NumberFormat:
        """The notation of numbers."""
        return NumberFormat(self.positive, self.negative, self.thousands, self.point)


PLAIN = Spelling()


def spelt(field: pa.Field, spelling: Spelling) -> pa.Field:
    """The field with a spelling in its metadata; the default spelling is not stored."""
    if spelling == PLAIN:
        return field
    return field.with_metadata({KEY: json.dumps(dataclasses.asdict(spelling)).encode()})


def spelling_of(field: pa.Field) -> Spelling:
    """The spelling that `spelt` stored.

    Raises:
        ValueError: the metadata is damaged.
    """
    kept = (field.metadata or {}).get(KEY)
    if kept is None:
        return PLAIN
    try:
        return Spelling(**json.loads(kept))
    except TypeError as error:
        raise ValueError(f"spelling of column {field.name!r}: {error}") from None


def cells_of(column: pa.ChunkedArray | pa.Array, field: pa.Field) -> list[str | None]:
    """The cells of a column in the notation of its file, None for a missing value."""
    dtype, how = arrow.plain_type(column.type), spelling_of(field)
    plain = column.cast(dtype)
    if how.pattern:
        return list(date_format.written(plain, how.pattern))
    if pa.types.is_floating(dtype):
        return _formatted(_numbers(plain, how), how)
    if pa.types.is_boolean(dtype):
        words = {True: how.true, False: how.false, None: None}
        return [words[value] for value in plain.to_pylist()]
    texts = plain.cast(pa.string()).to_pylist()
    if pa.types.is_integer(dtype):
        return _formatted(texts, how)
    if pa.types.is_timestamp(dtype):
        return [text and _stamp(text, how) for text in texts]
    if pa.types.is_time(dtype) and not how.seconds:
        return [text and text.removesuffix(":00") for text in texts]
    return texts


def _formatted(texts: list[str | None], how: Spelling) -> list[str | None]:
    """Plain numbers in their file's notation."""
    number = how.number
    if number.is_plain:
        return texts
    return [None if text is None else number.written(text) for text in texts]


def _numbers(column: pa.ChunkedArray | pa.Array, how: Spelling) -> list[str | None]:
    """Cells of numbers; a point or exponent is kept, so that whole ones stay floating-point."""
    holes = column.is_null().to_numpy(zero_copy_only=False)
    numbers = column.to_numpy(zero_copy_only=False)
    if how.exponent is not None:
        texts = [f"{number:.{how.exponent}e}" for number in numbers.tolist()]
    elif how.decimals is not None:
        texts = [f"{number:.{how.decimals}f}" for number in numbers.tolist()]
        zero = f"{0:.{how.decimals}f}"
        texts = [zero if text == f"-{zero}" else text for text in texts]
    else:
        texts = numbers.astype(str).tolist()
    return [None if hole else text for text, hole in zip(texts, holes.tolist(), strict=True)]


def _stamp(text: str, how: Spelling) -> str:
    text = text.removesuffix("Z")
    if not how.seconds:
        text = text.removesuffix(":00")
    return text.replace(" ", how.between, 1) + how.zone


def text_of(values: pa.Array, field: pa.Field) -> tuple[str, ...]:
    """Values of a column without missing values, in the notation of its file."""
    return tuple("" if text is None else text for text in cells_of(values, field))
