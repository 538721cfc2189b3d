"""Which columns the tables of a comparison share, told before any of them is read in full.

A table may hold columns that no other has and that cannot be learned, such as text that a run was
trained without. They are no reason to refuse the table: only common columns are compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pyarrow import parquet

from monge.data import naming
from monge.data.reading import Reading
from monge.data.tables import table_files
from monge.data.tables.compared_columns import differing
from monge.data.tables.indexes import without_indexes
from monge.errors import UserError, nearest

LOOKED_AT = 200
"""Rows that are read to learn the names of a table's columns."""


def names_of(text: str, reading: Reading) -> list[str] | None:
    """The names of a table file's columns; None for anything else, or a file that is none."""
    path = Path(text)
    if path.suffix.lower() not in table_files.SUFFIXES or not path.is_file():
        return None
    try:
        if path.suffix.lower() == ".parquet":
            return list(parquet.read_schema(path).names)
        table = table_files.read(path, LOOKED_AT)
        return without_indexes(table, reading)[0].column_names
    except (UserError, OSError, ValueError):  # whoever reads it in full says what is wrong
        return None


def readings(
    texts: Mapping[str, str],
    runs: Mapping[str, Sequence[str]],
    reading: Reading,
    asked: Reading,
) -> dict[str, Reading]:
    """How each source is read: what --drop names and a table does not have is not asked of it.

    Args:
        texts: sources by their names in messages, without runs that are sampled.
        runs: the columns of those runs, by the same names.
        reading: as asked, completed by how a compared run was trained.
        asked: by the user.

    Raises:
        UserError: tables of different columns, with the common ones; or names of no column.
    """
    found = {name: names_of(text, reading) for name, text in texts.items()}
    known = {name: own for name, own in found.items() if own is not None} | dict(runs)
    dropped = naming.names_in(reading.drop)
    every = list(dict.fromkeys(c for own in known.values() for c in own))
    meant = {name: naming.found(name, every) for name in dropped}
    if len(known) == len(texts) + len(runs):
        for name, own in meant.items():
            if own is None and asked.drop is not None:
                raise UserError(f"--drop: no column {name!r}: {nearest(name, every)}")
        if reading.columns is None and len(known) > 1:
            # Labels and conditions of one set are no columns to compare, and may be absent.
            apart = {reading.label_column, *naming.names_in(reading.condition_columns)}
            left = {
                name: [c for c in own if c not in meant.values() and c not in apart]
                for name, own in known.items()
            }
            common = [c for c in next(iter(left.values())) if all(c in o for o in left.values())]
            if any(len(own) > len(common) for own in left.values()):
                raise UserError(differing(left, common))
    made = {}
    for name, own in found.items():
        ours = [] if own is None else [d for d in dropped if naming.found(d, own) is not None]
        kept = reading.drop if own is None else naming.joined(ours) if ours else None
        made[name] = replace(reading, drop=kept)
    return made
