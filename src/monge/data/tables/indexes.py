"""Columns that number the rows: unnamed ones are left out, named ones are reported."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from monge.data.columns import arrow
from monge.data.columns.arrow import compute
from monge.data.columns.schema import TableCodec
from monge.data.naming import drop, names_in
from monge.data.reading import Reading
from monge.errors import UserError

UNNAMED = ("", "Unnamed: 0", "Unnamed:0", "__index_level_0__", "...1", "X.1")
"""Names that programs give to an unnamed column of row numbers or row names."""


def without_indexes(table: pa.Table, reading: Reading) -> tuple[pa.Table, list[str]]:
    """The table without unnamed columns of row numbers or row names, and notes on them.

    An unnamed column is one of these if it has unique whole numbers or unique words. So is the
    index of a data frame that a parquet file records. Columns named in the settings are kept.
    """
    told = _told(table)
    asked = {
        *names_in(reading.columns), *names_in(reading.categorical), *names_in(reading.drop),
        *names_in(reading.condition_columns), reading.label_column,
    }  # fmt: skip
    notes = []
    for name in table.column_names:
        if name in asked or not (name in UNNAMED or name in told):
            continue
        column = table[name]
        if name not in told and not _numbers_rows(column):
            continue
        what = "row numbers" if arrow.is_number(column.type) else "row names"
        table = table.drop_columns([name])
        shown = "a column without a name" if name in UNNAMED else f"column {name!r}"
        notes.append(
            f"{shown} ({name!r}) holds {what}: left out (--columns learns it where it is named)"
        )
    return table, notes


def _told(table: pa.Table) -> set[str]:
    """Index columns of a data frame, recorded in parquet files of pandas."""
    try:
        kept = json.loads((table.schema.metadata or {})[b"pandas"])["index_columns"]
        return {name for name in kept if isinstance(name, str) and name in table.column_names}
    except (KeyError, ValueError, TypeError):
        return set()


def _numbers_rows(column: pa.ChunkedArray) -> bool:
    if column.null_count or not (pa.types.is_integer(column.type) or arrow.is_text(column.type)):
        return False
    return compute.count_distinct(column).as_py() == len(column)


NAMED = re.compile(
    r"(?:^|[\W_])(?i:ids?|uuid|guid|identifier)$|[a-z](?:Ids?|IDs?|Uuid|UUID|Guid|GUID)$"
)
"""Names of columns that identify rows: id, customer_id, customerId."""

FEWEST = 100
"""Least number of rows from which different values count as identifiers."""


def refuse_identifiers(table: pa.Table, learned: Sequence[str], reading: Reading) -> None:
    """Refuse whole numbers that identify rows: all different, in a column whose name says so.

    Columns named in the settings are kept.

    Raises:
        UserError: the names of such columns, with the flag that drops them.
    """
    asked = {*names_in(reading.columns), *names_in(reading.categorical)}
    found = [
        name
        for name in learned
        if name not in asked
        and NAMED.search(name.strip())
        and pa.types.is_integer(table.schema.field(name).type)
        and table.num_rows >= FEWEST
        and compute.count_distinct(table[name]).as_py() == table.num_rows
    ]
    if found:
        names, one = ", ".join(map(repr, found)), len(found) == 1
        raise UserError(
            f"column{'' if one else 's'} {names} identif{'ies' if one else 'y'} rows: whole "
            f"numbers, all of them different, under such a name. {drop(found)} leaves "
            f"{'it' if one else 'them'} out; --columns learns what it names"
        )


def counted_notes(table: pa.Table, codec: TableCodec) -> list[str]:
    """Notes on learned columns that count up from row to row."""
    counting = [
        c.name
        for c in codec.columns
        if c.role == "number"
        and pa.types.is_integer(table.schema.field(c.name).type)
        and bool((np.diff(table[c.name].to_numpy()) == 1).all())
    ]
    if not counting:
        return []
    names = ", ".join(map(repr, counting))
    return [f"{names} counts the rows and is learned like a measurement: {drop(counting)}"]
