"""How a column's cells are written in its file, so that samples are written likewise.

Numbers keep their decimals or their exponent, truth values their words, times their signs. A
spelling is kept as metadata of the Arrow field, and so travels with a run's codec.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

import pyarrow as pa
from pyarrow import csv as arrow_csv

from monge.data.columns import arrow

KEY = b"monge"
"""Of a field's metadata."""

NULLS = frozenset(arrow_csv.ConvertOptions().null_values)
"""Cells that are missing values where they stand without quotes."""


@dataclass(frozen=True)
class Spelling:
    """How the cells of a column are written.

    Attributes:
        decimals: digits behind the point, where all cells have equally many.
        exponent: digits behind the point of numbers that are all written with an exponent.
        true, false: words of truth values.
        between: what stands between date and time.
        zone: what stands behind a time: "Z" or nothing.
        seconds: whether times have them.
    """

    decimals: int | None = None
    exponent: int | None = None
    true: str = "true"
    false: str = "false"
    between: str = " "
    zone: str = ""
    seconds: bool = True


PLAIN = Spelling()


def spelt(field: pa.Field, spelling: Spelling) -> pa.Field:
    """The field with a spelling; a plain one is not kept."""
    if spelling == PLAIN:
        return field
    return field.with_metadata({KEY: json.dumps(dataclasses.asdict(spelling)).encode()})


def spelling_of(field: pa.Field) -> Spelling:
    """What `spelt` kept.

    Raises:
        ValueError: it is damaged.
    """
    kept = (field.metadata or {}).get(KEY)
    if kept is None:
        return PLAIN
    try:
        return Spelling(**json.loads(kept))
    except TypeError as error:
        raise ValueError(f"spelling of column {field.name!r}: {error}") from None


def cells_of(column: pa.ChunkedArray | pa.Array, field: pa.Field) -> list[str | None]:
    """The cells of a column as its file writes them, None for a missing value."""
    dtype, how = arrow.plain_type(column.type), spelling_of(field)
    plain = column.cast(dtype)
    if pa.types.is_floating(dtype):
        return _numbers(plain, how)
    if pa.types.is_boolean(dtype):
        words = {True: how.true, False: how.false, None: None}
        return [words[value] for value in plain.to_pylist()]
    texts = plain.cast(pa.string()).to_pylist()
    if pa.types.is_timestamp(dtype):
        return [text and _stamp(text, how) for text in texts]
    if pa.types.is_time(dtype) and not how.seconds:
        return [text and text.removesuffix(":00") for text in texts]
    return texts


def _numbers(column: pa.ChunkedArray | pa.Array, how: Spelling) -> list[str | None]:
    """A point or an exponent is kept, so that a column of whole ones stays floating-point."""
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
    """Values of a column, none of them missing, as its file writes them."""
    return tuple("" if text is None else text for text in cells_of(values, field))
