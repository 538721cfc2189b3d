"""Reads csv, tsv, parquet and matrices as Arrow tables, and writes csv."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from monge.data.columns import arrow
from monge.data.columns.spelling import NULLS, cells_of, spelling_of
from monge.data.images.parquet import FAILURES, find_files, side_in, unreadable
from monge.data.tables.cell_formats import Dates
from monge.data.tables.csv_dialect import is_number
from monge.data.tables.csv_files import read_csv, refuse_beyond_memory, with_notes
from monge.data.tables.text_bytes import open_regular
from monge.errors import UserError

SUFFIXES = (".csv", ".tsv", ".parquet")
"""Suffixes of the files that `read` accepts."""


def suffix_of(path: Path) -> str:
    """The suffix of a path in lower case; of "table.csv.gz" that before ".gz".

    >>> suffix_of(Path("a.b/table.CSV.gz")), suffix_of(Path("photo.gz")), suffix_of(Path("x.csv"))
    ('.csv', '', '.csv')
    """
    return (path.with_suffix("") if path.suffix.lower() == ".gz" else path).suffix.lower()


def stem_of(path: Path) -> str:
    """The name of a table's file without its suffixes.

    >>> stem_of(Path("data/table.csv.gz")), stem_of(Path("v1.2.csv"))
    ('table', 'v1.2')
    """
    whole = path.resolve()
    return (whole.with_suffix("") if whole.suffix.lower() == ".gz" else whole).stem


def read(path: Path, limit: int | None = None, dates: Dates = "auto") -> pa.Table:
    """A table from a .csv, .tsv or .parquet file.

    In csv the first line holds the names; the delimiter is a comma, a semicolon, a tab, a vertical
    bar or blanks; cells that are empty or unquoted NA, NaN, null, ... are missing. Decisions by a
    rule are in `csv_files.notes_of`.

    Args:
        limit: most rows of a csv file to read; by default all.
        dates: the order of day and month where a column of a csv file does not decide it.

    Raises:
        UserError: another kind of file, not UTF-8, no header, rows of unequal length, repeated
            names, or a table larger than memory.
    """
    if path.suffix.lower() == ".parquet":
        return _once_named(_read_parquet(path))
    return read_csv(path, limit, dates)


def _once_named(table: pa.Table) -> pa.Table:
    """The table with unique names."""
    made: list[str] = []
    notes = []
    for name in table.column_names:
        new, k = name, 0
        while new in made or (k and new in table.column_names):
            k += 1
            new = f"{name}.{k}"
        if k:
            notes.append(f"there are several columns {name!r}: one of them is read as {new!r}")
        made.append(new)
    return with_notes(table.rename_columns(made), notes) if notes else table


def check_names(names: list[str], where: str) -> None:
    """Refuse names that occur twice."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{where} has several columns named {', '.join(map(repr, twice))}")


def read_folder(folder: Path) -> tuple[pa.Table, int | None]:
    """A folder's parquet files as one table, and the number of rows at its end that are held out.

    Files whose names begin with test or validation are held out; without any the number is None.

    Raises:
        UserError: files that are not parquet, or with different columns.
    """
    files = find_files(folder)  # training files first
    parts = [read(file) for file in files]
    for file, part in zip(files, parts, strict=True):
        if part.schema.names != parts[0].schema.names:
            raise UserError(
                f"{file} has other columns than {files[0]}: give one data set at a time"
            )
    n_heldout = sum(len(p) for f, p in zip(files, parts, strict=True) if side_in(folder, f))
    whole = pa.concat_tables(parts, promote_options="permissive")
    whole = whole.replace_schema_metadata(parts[0].schema.metadata)
    return whole, n_heldout if 0 < n_heldout < len(whole) else None


def _read_parquet(path: Path) -> pa.Table:
    open_regular(path).close()
    try:
        file = parquet.ParquetFile(path)
        groups = map(file.metadata.row_group, range(file.metadata.num_row_groups))
        size = sum(group.total_byte_size for group in groups)
        # Repeated values are compressed in the file, but not in memory.
        refuse_beyond_memory(path, max(size, file.metadata.num_rows))
        table = file.read()
        table.validate(full=True)  # finds invalid text
    except FAILURES as error:
        raise unreadable(path, error) from None
    return table


def table_of(x: np.ndarray, label: np.ndarray | None, names: np.ndarray | None) -> pa.Table:
    """A matrix (N, D) as a table with columns x0, x1, ... or the given names, and "label".

    Raises:
        UserError: values that are not numbers, or labels or names of another shape.
    """
    if x.dtype.kind not in "fiub":
        raise UserError(f"the examples have type {x.dtype}; numbers are needed")
    if 0 in x.shape:
        raise UserError(f"the examples have shape {x.shape}: there is nothing in them")
    titles = [f"x{j}" for j in range(x.shape[1])] if names is None else [str(n) for n in names]
    if len(titles) != x.shape[1]:
        raise UserError(f"{len(titles)} names of columns do not fit examples of shape {x.shape}")
    # Arrow has no long or byte-swapped floats, and few functions for half precision.
    x = x.astype(
        {2: np.float32, 16: np.float64}.get(x.dtype.itemsize, x.dtype.newbyteorder("="))
        if x.dtype.kind == "f"
        else x.dtype.newbyteorder("=")
    )
    columns = {title: np.ascontiguousarray(x[:, j]) for j, title in enumerate(titles)}
    if label is not None:
        label = label[:, 0] if label.shape == (len(x), 1) else label
        if label.shape != (len(x),):
            raise UserError(f"labels have shape {label.shape}; {len(x)} examples need ({len(x)},)")
        titles.append("label")
        columns["label"] = label
    check_names(titles, "the table")
    return pa.table(columns)


def arrays_of(table: pa.Table, label: str | None) -> dict[str, np.ndarray]:
    """The arrays of an .npz for a table of plain numbers: arr_0 (N, D), arr_1 labels, columns."""
    titles = [name for name in table.column_names if name != label]
    rows = np.column_stack([_numbers_of(table[name]) for name in titles])
    arrays = {"arr_0": rows, "columns": np.asarray(titles)}
    if label is not None:
        values = table[label].cast(arrow.plain_type(table[label].type))
        if arrow.is_text(values.type) or arrow.is_temporal(values.type):
            values = np.asarray(values.cast(pa.string()).to_pylist(), dtype=str)
        else:
            values = values.to_numpy(zero_copy_only=False)
        arrays["arr_1"] = values
    return arrays


def _numbers_of(column: pa.ChunkedArray) -> np.ndarray:
    """Plain numbers, never objects; NaN for missing values."""
    if column.null_count or pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    return column.to_numpy()


def parquet_of(table: pa.Table) -> bytes:
    """A table as the content of a parquet file."""
    sink = io.BytesIO()
    parquet.write_table(table, sink)
    return sink.getvalue()


def csv_of(table: pa.Table) -> str:
    """A table as csv in the notation of its original file; reading it back gives the same types.

    Floating-point numbers keep a point or exponent, so that a column of whole ones stays
    floating-point; strings are quoted if they would be read as missing values. With decimal commas
    the delimiter is a semicolon, else a comma.
    """
    commas = any(spelling_of(field).point == "," for field in table.schema)
    mark = ";" if commas else ","
    cells = [_cells(c, field, mark) for c, field in zip(table.columns, table.schema, strict=True)]
    header = mark.join(
        f'"{name}"' if is_number(name) else _quoted(name, mark) for name in table.column_names
    )
    return "".join(f"{line}\n" for line in [header, *map(mark.join, zip(*cells, strict=True))])


def _cells(column: pa.ChunkedArray, field: pa.Field, mark: str) -> list[str]:
    texts, how = cells_of(column, field), spelling_of(field)
    dtype = arrow.plain_type(column.type)
    if arrow.is_text(dtype) or how.pattern or not how.number.is_plain:
        return [how.missing if text is None else _quoted(text, mark) for text in texts]
    return [how.missing if text is None else text for text in texts]


def _quoted(text: str, mark: str) -> str:
    signs = ',;\t"\r\n' if mark == "," else ';\t"\r\n'
    if text in NULLS or text != text.strip() or any(c in text for c in signs):
        return '"' + text.replace('"', '""') + '"'
    return text
