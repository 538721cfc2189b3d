"""Files of tables: csv, tsv, parquet and matrices read as Arrow tables, and csv written."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from monge.data import arrow
from monge.data.arrow import compute
from monge.data.parquet import FAILURES, find_files, side_in, unreadable
from monge.errors import UserError, reason

SUFFIXES = (".csv", ".tsv", ".parquet")
"""Files that `read` reads."""

DELIMITERS = ",;\t"
SNIFFED = 20
"""Lines that the delimiter is told from."""

DECIMAL_COMMA = r"^[+-]?\d+,\d*$"
WHOLE = r"^\s*[+-]?\d+\s*$"


def read(path: Path) -> pa.Table:
    """A table from a .csv, .tsv or .parquet file.

    In csv the first line has the names; the delimiter is a comma, a semicolon or a tab; cells
    that are empty or NA, NaN, null, ... without quotes are missing.

    Raises:
        UserError: not such a file, not UTF-8, no header, rows of unequal length, names twice.
    """
    table = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_csv(path)
    check_names(table.column_names, str(path))
    return table


def check_names(names: list[str], where: str) -> None:
    """Refuse names that occur twice."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{where} has several columns named {', '.join(map(repr, twice))}")


def read_folder(folder: Path) -> tuple[pa.Table, int | None]:
    """The tables of a folder's parquet files as one, and how many rows at its end are held out.

    Files whose names begin with test or validation bring that split; without any it is None.

    Raises:
        UserError: files that are no parquet, or whose columns differ.
    """
    files = find_files(folder)  # those of training first
    parts = [read(file) for file in files]
    for file, part in zip(files, parts, strict=True):
        if part.schema.names != parts[0].schema.names:
            raise UserError(
                f"{file} has other columns than {files[0]}: give one data set at a time"
            )
    n_heldout = sum(len(p) for f, p in zip(files, parts, strict=True) if side_in(folder, f))
    whole = pa.concat_tables(parts, promote_options="permissive")
    return whole, n_heldout if 0 < n_heldout < len(whole) else None


def _read_parquet(path: Path) -> pa.Table:
    try:
        table = parquet.ParquetFile(path).read()
        table.validate(full=True)  # text may be none
    except FAILURES as error:
        raise unreadable(path, error) from None
    return table


def _read_csv(path: Path) -> pa.Table:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    text = _decoded(content, path)
    if not text.strip():
        raise UserError(f"{path} is empty")
    delimiter = "\t" if path.suffix.lower() == ".tsv" else _delimiter(text)
    header = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    if all(_is_number(cell) for cell in header):
        raise UserError(
            f"the first line of {path} has numbers only ({', '.join(header[:3])}, ...): it should "
            "have the names of the columns"
        )
    check_names(header, str(path))
    table = _parsed(content, delimiter, ".", path)
    if delimiter == ";" and any(_has_decimal_commas(column) for column in table.columns):
        table = _parsed(content, delimiter, ",", path)
    return _with_long_numbers_as_text(table, content, delimiter, path)


def _decoded(content: bytes, path: Path) -> str:
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise UserError(f"{path} is UTF-16: save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}, line {line}: byte {content[error.start]:#04x} is not UTF-8: save the file "
            "as UTF-8"
        ) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UserError(f"{path} is no csv file: line {line} holds a zero byte")
    return text


def _delimiter(text: str) -> str:
    """The delimiter that cuts the first lines into most cells, equally many in each."""
    best, most = ",", 1
    for delimiter in DELIMITERS:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        try:
            sizes = [len(row) for row, _ in zip(rows, range(SNIFFED), strict=False) if row]
        except csv.Error:
            continue
        if sizes and len(set(sizes)) == 1 and sizes[0] > most:
            best, most = delimiter, sizes[0]
    return best


def _with_long_numbers_as_text(
    table: pa.Table, content: bytes, delimiter: str, path: Path
) -> pa.Table:
    """Columns of whole numbers that do not fit 64 bits as they are written, digit for digit.

    Read as floating-point numbers they would lose their last digits without a word.
    """
    large = [
        name
        for name, column in zip(table.column_names, table.columns, strict=True)
        if pa.types.is_floating(column.type)
        and (compute.max(compute.abs(column)).as_py() or 0) >= 2**63
    ]
    if not large:
        return table
    texts = _parsed(content, delimiter, ".", path, large)
    for name in large:
        if compute.all(compute.match_substring_regex(texts[name], WHOLE)).as_py():
            table = table.set_column(table.column_names.index(name), name, texts[name])
    return table


def _parsed(
    content: bytes, delimiter: str, decimal_point: str, path: Path, texts: Sequence[str] = ()
) -> pa.Table:
    """A csv file's content.

    Args:
        texts: columns that are text, whatever they look like.
    """
    try:
        return arrow_csv.read_csv(
            io.BytesIO(content),
            read_options=arrow_csv.ReadOptions(use_threads=False, block_size=len(content) + 1),
            parse_options=arrow_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=arrow_csv.ConvertOptions(
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
                decimal_point=decimal_point,
                column_types=dict.fromkeys(texts, pa.string()),
            ),
        )
    except pa.ArrowException as error:
        raise UserError(f"cannot read {path} as csv: {reason(error)}") from None


def _has_decimal_commas(column: pa.ChunkedArray) -> bool:
    if not pa.types.is_string(column.type) or column.null_count == len(column):
        return False
    return bool(compute.all(compute.match_substring_regex(column, DECIMAL_COMMA)).as_py())


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def table_of(x: np.ndarray, label: np.ndarray | None, names: np.ndarray | None) -> pa.Table:
    """A matrix (N, D) as a table with columns x0, x1, ... or of the given names, and "label".

    Raises:
        UserError: not numbers, or labels or names of another shape.
    """
    if x.dtype.kind not in "fiub":
        raise UserError(f"the examples have type {x.dtype}; numbers are needed")
    if 0 in x.shape:
        raise UserError(f"the examples have shape {x.shape}: there is nothing in them")
    titles = [f"x{j}" for j in range(x.shape[1])] if names is None else [str(n) for n in names]
    if len(titles) != x.shape[1]:
        raise UserError(f"{len(titles)} names of columns do not fit examples of shape {x.shape}")
    # Arrow knows neither long nor foreign floats, and counts little with half ones.
    x = x.astype(
        {2: np.float32, 16: np.float64}.get(x.dtype.itemsize, x.dtype.newbyteorder("="))
        if x.dtype.kind == "f"
        else x.dtype.newbyteorder("=")
    )
    columns = {title: np.ascontiguousarray(x[:, j]) for j, title in enumerate(titles)}
    if label is not None:
        if label.shape != (len(x),):
            raise UserError(f"labels have shape {label.shape}; {len(x)} examples need ({len(x)},)")
        titles.append("label")
        columns["label"] = label
    check_names(titles, "the table")
    return pa.table(columns)


def arrays_of(table: pa.Table, label: str | None) -> dict[str, np.ndarray]:
    """A table of plain numbers as an .npz has it: arr_0 (N, D), arr_1 labels, columns names."""
    titles = [name for name in table.column_names if name != label]
    rows = np.column_stack([table[name].to_numpy(zero_copy_only=False) for name in titles])
    arrays = {"arr_0": rows, "columns": np.asarray(titles)}
    if label is not None:
        values = table[label].cast(arrow.plain_type(table[label].type))
        if arrow.is_text(values.type) or arrow.is_temporal(values.type):
            values = np.asarray(values.cast(pa.string()).to_pylist(), dtype=str)
        else:
            values = values.to_numpy(zero_copy_only=False)
        arrays["arr_1"] = values
    return arrays


def csv_of(table: pa.Table) -> str:
    """A table as csv that is read back with the types it has.

    Floating-point numbers keep a point or exponent, so that a column of whole ones stays
    floating-point; strings are quoted where they would be taken for a missing value.
    """
    cells = [_cells(column) for column in table.columns]
    header = ",".join(_quoted(name) for name in table.column_names)
    return "".join(f"{line}\n" for line in [header, *map(",".join, zip(*cells, strict=True))])


def _cells(column: pa.ChunkedArray) -> list[str]:
    dtype = arrow.plain_type(column.type)
    plain = column.cast(dtype)
    if pa.types.is_floating(dtype) and not plain.null_count:
        return plain.to_numpy().astype(str).tolist()
    texts = plain.cast(pa.string()).to_pylist()
    if arrow.is_text(dtype):
        return ["" if text is None else _quoted(text) for text in texts]
    return ["" if text is None else text for text in texts]


NULLS = frozenset(arrow_csv.ConvertOptions().null_values)


def _quoted(text: str) -> str:
    if text in NULLS or text != text.strip() or any(c in text for c in ',;\t"\r\n'):
        return '"' + text.replace('"', '""') + '"'
    return text
