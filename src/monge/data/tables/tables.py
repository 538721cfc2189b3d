"""Turns a table into data: chooses and checks columns, splits rows, and encodes them."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from monge.data.base import Data
from monge.data.columns import arrow
from monge.data.columns.arrow import compute
from monge.data.columns.coordinates import Column, condition_column, number_column, with_marginal
from monge.data.columns.schema import TableCodec
from monge.data.columns.spelling import text_of
from monge.data.naming import drop, flag
from monge.data.reading import Reading
from monge.data.split import split_by_content
from monge.data.tables import csv_files, table_files
from monge.data.tables.choosing import Asked, check_types, choose
from monge.data.tables.described import described, notes_on, shortened
from monge.data.tables.indexes import counted_notes, refuse_identifiers, without_indexes
from monge.data.tables.missing import (
    count_missing,
    filled,
    nan_as_missing,
    refuse_infinite,
    with_labels_missing,
    without_missing,
)
from monge.errors import UserError

FEWEST = 10
"""Least number of rows in a table."""

MOST_FRACTIONS = 100
"""Most distinct values of a floating-point column that holds labels or categories."""


def load(path: Path, reading: Reading) -> Data:
    """The table in a csv, tsv or parquet file, or in the parquet files of a folder.

    Raises:
        UserError: see `table_files` and `from_table`.
    """
    name, text = table_files.stem_of(path), str(path.absolute())
    if path.is_dir():
        table, n_heldout = table_files.read_folder(path)
        return from_table(table, reading, name=name, text=text, n_heldout=n_heldout)
    return from_table(
        table_files.read(path, reading.limit, reading.dates), reading, name=name, text=text
    )


def from_matrix(
    x: np.ndarray,
    reading: Reading,
    label: np.ndarray | None = None,
    heldout: np.ndarray | None = None,
    heldout_label: np.ndarray | None = None,
    *,
    titles: np.ndarray | None = None,
    name: str = "array",
    text: str | None = None,
) -> Data:
    """Data from two-dimensional arrays, such as those of an .npz or .npy file.

    Raises:
        UserError: arrays that do not match; see `from_table`.
    """
    x, label = x[: reading.limit], None if label is None else label[: reading.limit]
    table = table_files.table_of(x, label, titles)
    if label is not None and reading.label_column is None:
        reading = dataclasses.replace(reading, label_column="label")
    if heldout is None:
        return from_table(table, reading, name=name, text=text)
    if heldout.ndim != 2 or heldout.shape[1] != x.shape[1]:
        raise UserError(
            f"held-out examples have shape {heldout.shape[1:]}, training examples {x.shape[1:]}"
        )
    if (label is None) != (heldout_label is None):
        raise UserError(f"{name}: one of training and held-out examples has labels, the other not")
    other = table_files.table_of(heldout, heldout_label, titles)
    whole = pa.concat_tables([table, other], promote_options="permissive")
    return from_table(whole, reading, name=name, text=text, n_heldout=len(heldout))


def from_table(
    table: pa.Table,
    reading: Reading,
    *,
    name: str = "table",
    text: str | None = None,
    n_heldout: int | None = None,
) -> Data:
    """A table as data: rows (N, D) float32 with labels, conditions and the codec of its columns.

    A fifth of the rows is held out by content, so that equal rows stay together and the order of
    the file has no effect. If the source has a split, the last `n_heldout` rows are held out.

    Raises:
        UserError: unknown columns; text with too many values for categories; missing or infinite
            values; identifiers; too few rows, or no varying column.
    """
    n_read = table.num_rows
    if n_heldout is None:
        table = table.slice(0, reading.limit)
    cleaned = _clean(table, reading, name)
    hashes = row_hashes(cleaned.table)
    if n_heldout is None:
        train, heldout = split_by_content(hashes)
    else:
        train, heldout = _split_brought(cleaned.rows, cleaned.n_all - n_heldout, name)
    table = filled(cleaned.table) if reading.missing == "mean" else cleaned.table
    codec = TableCodec(_columns(table, cleaned.asked, train.numpy(), reading), table.schema)
    if codec.size == 0:
        raise UserError(f"{name}: no column is left to learn: all that are left are constant")
    refuse_identifiers(table, cleaned.asked.learned, reading)
    x, label, vector = codec.encode(table)
    notes = [*cleaned.notes, *counted_notes(table, codec), *notes_on(table, codec)]
    where = torch.from_numpy(cleaned.rows)
    data = Data(
        name=name,
        text=text,
        kind="table",
        train=x[train],
        heldout=x[heldout],
        train_label=None if label is None else label[train],
        heldout_label=None if label is None else label[heldout],
        label_names=() if codec.label is None else _label_names(codec),
        train_vector=None if vector is None else vector[train],
        heldout_vector=None if vector is None else vector[heldout],
        codec=codec,
        rows=(where[train], where[heldout]),
        own_split=n_heldout is not None,
        table=table,
        summary=(_counts(table, train, heldout), *shortened(notes)),
    )
    duplicates = table.num_rows - len(np.unique(hashes))
    report = _report(data, codec, cleaned, {"rows_read": n_read, "duplicates": duplicates}, notes)
    return dataclasses.replace(data, report=report)


def _report(
    data: Data,
    codec: TableCodec,
    cleaned: _Usable,
    counts: Mapping[str, int],
    notes: Sequence[str],
) -> dict[str, Any]:
    """The content of ``data_report.json``."""
    assert data.table is not None
    return {
        "kind": "table",
        "rows_read": counts["rows_read"],
        "rows_used": data.table.num_rows,
        "train": len(data.train),
        "heldout": len(data.heldout),
        "duplicates": counts["duplicates"],
        "left_out": list(cleaned.asked.left_out),
        "columns": [
            described(c, data.table[c.name], cleaned.missing.get(c.name, 0)) for c in codec.columns
        ],
        "notes": list(notes),
    }


@dataclass(frozen=True)
class _Usable:
    """A table reduced to the columns and rows in use, with notes.

    Attributes:
        table: the learned, given and label columns; only labels may have missing values.
        asked: the role of each column.
        rows: the position of each remaining row in the source.
        n_all: number of rows before those with missing values were dropped.
        missing: number of missing values by column.
        notes: for the data report.
    """

    table: pa.Table
    asked: Asked
    rows: np.ndarray
    n_all: int
    missing: Mapping[str, int]
    notes: list[str]


def _clean(table: pa.Table, reading: Reading, name: str) -> _Usable:
    """The checked columns in use, without the rows that cannot be used.

    Raises:
        UserError: see `from_table`.
    """
    table_files.check_names(table.column_names, name)
    told = csv_files.notes_of(table)
    table, indexes = without_indexes(table, reading)
    asked = choose(table.column_names, reading)
    table = table.select([c for c in table.column_names if c in asked.used])
    _refuse_few(table, name)
    asked, of_text = check_types(table, asked)
    table = table.replace_schema_metadata(None)
    table, unlabelled = with_labels_missing(nan_as_missing(table), asked.label)
    n_all, missing = table.num_rows, count_missing(table)
    table, rows, notes = without_missing(table, asked, reading, missing)
    _refuse_few(table, name)
    refuse_infinite(table)
    notes = [*told, *indexes, *of_text, *unlabelled, *notes]
    return _Usable(table, asked, rows, n_all, missing, notes)


def _split_brought(rows: np.ndarray, first: int, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions of the training and the held-out rows, if the source holds out all from `first`.

    Raises:
        UserError: no rows remain on one side.
    """
    brought = torch.from_numpy(rows) >= first
    train, heldout = (~brought).nonzero().flatten(), brought.nonzero().flatten()
    if min(len(train), len(heldout)) == 0:
        raise UserError(f"{name}: no rows are left to train on or to hold out")
    return train, heldout


def _counts(table: pa.Table, train: torch.Tensor, heldout: torch.Tensor) -> str:
    return (
        f"{table.num_rows} rows of {table.num_columns} columns: {len(train)} for training, "
        f"{len(heldout)} held out"
    )


def _refuse_few(table: pa.Table, name: str) -> None:
    if table.num_rows < FEWEST:
        raise UserError(
            f"{name}: {table.num_rows} examples are too few; at least {FEWEST} are needed"
        )


def row_hashes(table: pa.Table) -> np.ndarray:
    """A hash of the values of each row, (N,) uint64; it does not depend on their types."""
    hashes = np.empty(table.num_rows, np.uint64)
    holed = {n for n, c in zip(table.column_names, table.columns, strict=True) if c.null_count}
    for start in range(0, table.num_rows, HASHED):
        part = table.slice(start, HASHED)
        hashes[start : start + part.num_rows] = _hashes(part, holed)
    return hashes


HASHED = 2**15
"""Rows hashed at once; hashing copies their numbers."""


def _hashes(table: pa.Table, holed: set[str]) -> np.ndarray:
    """Hashes of rows.

    Args:
        holed: columns with missing values anywhere in the table.
    """
    parts = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        holes = np.asarray(compute.is_null(column))
        if arrow.is_number(column.type):
            zero = arrow.column_of(np.zeros(1), column.type)[0]
            numbers = arrow.numbers_of(compute.fill_null(column, zero), name)
            parts.append(_bits(numbers))
        else:
            plain = column.cast(arrow.plain_type(column.type)).combine_chunks()
            coded = compute.dictionary_encode(plain.cast(pa.string()))
            marks = [_hash(str(value).encode()) for value in coded.dictionary.to_pylist()]
            index = compute.fill_null(coded.indices, 0).to_numpy()
            parts.append(np.asarray([*marks, 0], np.uint64)[index])
        if name in holed:
            parts.append(holes.astype(np.uint64))
    return np.asarray([_hash(row.tobytes()) for row in np.stack(parts, 1)], np.uint64)


def _bits(numbers: np.ndarray) -> np.ndarray:
    """Numbers as uint64: the bits of their float64, if it is equal to the number."""
    wide = numbers.astype(np.float64) + 0.0  # makes -0.0 equal to 0.0
    if numbers.dtype.kind == "f":
        return wide.view(np.uint64)
    same = (np.abs(wide) < 2.0**63) & (wide.astype(np.int64) == numbers)
    return np.where(same, wide.view(np.uint64), numbers.view(np.uint64))


def _hash(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def _columns(
    table: pa.Table, asked: Asked, train: np.ndarray, reading: Reading
) -> tuple[Column, ...]:
    """Each column with its role, and the centre and curve from the training rows."""
    columns = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        if name == asked.label:
            columns.append(Column(name, "label", values=_values(column, name)))
        elif name in asked.conditions:
            columns.append(condition_column(name, arrow.numbers_of(column, name), train))
        elif column.null_count == len(column):
            raise UserError(f"column {name!r} is empty: {drop([name])} leaves it out")
        elif column.null_count:
            columns.append(_with_gaps(name, column, asked, train, reading))
        elif len(values := compute.unique(column)) == 1:
            plain = values.cast(arrow.plain_type(values.type))
            columns.append(Column(name, "constant", values=tuple(arrow.plain_values(plain))))
        elif name in asked.categorical or arrow.is_categories(column.type):
            columns.append(Column(name, "category", values=_values(column, name)))
        else:
            numbers = arrow.numbers_of(column, name)
            plain = number_column(name, numbers, train)
            columns.append(with_marginal(plain, numbers, train, reading.marginals))
    return tuple(columns)


def _with_gaps(
    name: str, column: pa.ChunkedArray, asked: Asked, train: np.ndarray, reading: Reading
) -> Column:
    """A learned column with missing values; a single known value is a category of its own."""
    known, here = column.drop_null(), np.asarray(compute.is_valid(column))
    train = (np.cumsum(here) - 1)[train[here[train]]]
    if not len(train):
        raise UserError(
            f"column {name!r} has no value in the rows for training: {drop([name])} leaves it out"
        )
    single = len(compute.unique(known)) == 1
    if single or name in asked.categorical or arrow.is_categories(column.type):
        return Column(name, "category", values=_values(known, name), gaps=True)
    numbers = arrow.numbers_of(known, name)
    plain = with_marginal(number_column(name, numbers, train), numbers, train, reading.marginals)
    return dataclasses.replace(plain, gaps=True)


def _values(column: pa.ChunkedArray, name: str) -> tuple[Any, ...]:
    """The categories of a column, in order.

    Raises:
        UserError: too many distinct values.
    """
    plain = column.cast(arrow.plain_type(column.type))
    found = arrow.plain_values(compute.unique(plain))
    if pa.types.is_dictionary(column.type):  # its order is kept, since it may have a meaning
        whole = column.unify_dictionaries().combine_chunks()
        present = set(found)
        values = [v for v in arrow.plain_values(whole.dictionary) if v in present]
    else:
        values = sorted(found)
    most = max(2, len(column) // 2)
    if pa.types.is_floating(column.type):
        most = min(most, MOST_FRACTIONS)
    if len(values) > most:
        raise UserError(
            f"column {name!r} has {len(values)} different values in {len(column)} rows, too many "
            f"for categories or labels: {_instead(column, name)}"
        )
    return tuple(values)


def _instead(column: pa.ChunkedArray, name: str) -> str:
    """Advice on a column with too many values."""
    if arrow.is_text(arrow.plain_type(column.type)):
        return f"{drop([name])} leaves it out"
    given = flag("--condition-columns", [name])
    return f"learn it as a number, give it by {given}, or leave it out with {drop([name])}"


def _label_names(codec: TableCodec) -> tuple[str, ...]:
    assert codec.label is not None
    field = codec.schema.field(codec.label.name)
    return text_of(arrow.array_of(codec.label.values, arrow.plain_type(field.type)), field)
