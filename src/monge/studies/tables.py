"""Rows as a table, in parquet and in CSV: a column for each axis and each measured quantity."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from monge.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa


def table_of(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """The table; a row that lacks a column has none there.

    Raises:
        UserError: a column with numbers and texts.
    """
    import pyarrow as pa

    columns: dict[str, list[Any]] = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row.get(name) for row in rows]
        kinds = {type(v) for v in values if v is not None}
        if kinds <= {int, float} and float in kinds:
            values = [None if v is None else float(v) for v in values]
        elif len(kinds) > 1:
            raise UserError(f"column {name!r} of a study has values of several types")
        columns[name] = values
    return pa.table(columns)


def parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """The content of a parquet file."""
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(table_of(rows), buffer)
    return buffer.getvalue()


def csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """The content of a CSV file."""
    from pyarrow import csv

    buffer = io.BytesIO()
    csv.write_csv(table_of(rows), buffer)
    return buffer.getvalue()
