"""Reads csv files in blocks as Arrow tables; memory holds the table and one block of text.

The file is read twice: once to find the types of its columns (`csv_cells`), once to convert them.
Decisions by a rule are recorded in notes, in the metadata of the schema.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import re
import resource
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from pyarrow import csv as arrow_csv

from monge.data.columns.arrow import compute
from monge.data.columns.spelling import NULLS, spelling_of, spelt
from monge.data.naming import drop
from monge.data.tables import csv_cells
from monge.data.tables.cell_formats import Dates
from monge.data.tables.cell_values import convert, without_blanks
from monge.data.tables.csv_cells import Cells, Kind
from monge.data.tables.csv_dialect import BLANK, Dialect, sniff, with_encoding
from monge.data.tables.csv_formats import with_formats
from monge.data.tables.text_bytes import WINDOWS, NotUtf8, Utf8Stream, open_bytes, size_of
from monge.errors import UserError, reason

BLOCK_BYTES = 2**22
"""Bytes parsed at once; a row must be shorter."""

BLOCK_ROWS = 2**14
"""Rows converted at once if Arrow's parser cannot be used."""

NOTES = b"monge_notes"
"""Key of a schema's metadata: notes on decisions by a rule, as a JSON list."""

ADVICE = b"monge_advice"
"""Key of a schema's metadata: for text columns that look like another type, the reason."""


def read_csv(path: Path, limit: int | None = None, dates: Dates = "auto") -> pa.Table:
    """The table of a csv file, with typed columns, and notes and advice in its metadata.

    Args:
        limit: most rows to read; by default all.
        dates: the order of day and month where a column does not decide it.

    Raises:
        UserError: not a regular file of text, no header, rows of unequal length, or larger than
            memory.
    """
    try:
        return _read(path, sniff(path), limit, dates)
    except NotUtf8 as error:  # in a line that was not sniffed
        if not error.plain:
            raise
    return _read(path, with_encoding(path, WINDOWS), limit, dates)


def _read(path: Path, dialect: Dialect, limit: int | None, dates: Dates) -> pa.Table:
    if limit is None:
        refuse_beyond_memory(path, size_of(path))
    source = _Source(path, dialect, limit)
    cells, row = [Cells() for _ in dialect.names], 0
    for block in source.blocks():
        for column, found in zip(block, cells, strict=True):
            found.add(without_blanks(column), row)
        row += len(block[0])
    n = len(dialect.names)
    kept = [
        j
        for j in range(n)
        if cells[j].total or cells[j].quoted or dialect.names[j] or (row == 0 and j < n - 1)
    ]  # columns without name and values come from delimiters at the ends of lines
    notes = list(dialect.notes)
    if len(kept) < n:
        what = "a column" if n - len(kept) == 1 else f"{n - len(kept)} columns"
        notes.append(f"{what} with neither a name nor a value: left out")
    kinds = [Kind(pa.null()) for _ in cells] if row == 0 else _kinds(cells, source, dates)
    table = source.converted(kinds, kept)
    table, more = _with_codes_of_na(table, source, kept)
    table = _with_markers(table, source, kept)
    notes += [note for j in kept for note in kinds[j].notes] + more
    advice = {dialect.names[j]: kinds[j].advice for j in kept if kinds[j].advice}
    return table.replace_schema_metadata(
        {NOTES: json.dumps(notes).encode(), ADVICE: json.dumps(advice).encode()}
    )


def _kinds(cells: Sequence[Cells], source: _Source, dates: Dates) -> list[Kind]:
    """The type of each column; one column with decimal commas decides for others."""
    mark, names = source.dialect.delimiter, source.dialect.names
    commas = any(c.has_decimal_commas(mark) for c in cells)
    while True:
        kinds = [
            csv_cells.decide(c, name, mark, commas) for c, name in zip(cells, names, strict=True)
        ]
        kinds = with_formats(kinds, cells, names, source.blocks, mark, dates, commas)
        if commas or all(kind.spelling.point != "," for kind in kinds):
            return kinds
        commas = True


def notes_of(table: pa.Table) -> list[str]:
    """Notes on the decisions of reading."""
    return json.loads((table.schema.metadata or {}).get(NOTES, b"[]"))


def with_notes(table: pa.Table, notes: Sequence[str]) -> pa.Table:
    """The table with further notes."""
    if not notes:
        return table
    kept = table.schema.metadata or {}
    return table.replace_schema_metadata(
        {**kept, NOTES: json.dumps([*notes_of(table), *notes]).encode()}
    )


def advice_of(table: pa.Table) -> dict[str, str]:
    """For text columns that look like another type, the reason, by name."""
    return json.loads((table.schema.metadata or {}).get(ADVICE, b"{}"))


def refuse_beyond_memory(path: Path, size: int) -> None:
    """Refuse a table that is larger than the memory.

    Raises:
        UserError: the table is too large; names the file and its size.
    """
    most = memory()
    if size > most:
        raise UserError(
            f"{path} has {size / 2**30:.1f} GB, more than the memory of {most / 2**30:.1f} GB: "
            "take its first rows by --limit, or give a part of it"
        )


def memory() -> int:
    """Bytes of memory available to this process."""
    bounds = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        soft = resource.getrlimit(kind)[0]
        if soft != resource.RLIM_INFINITY:
            bounds.append(soft)
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            bounds.append(int(Path(name).read_text(encoding="ascii")))
    return min(bounds)


MOST_CODES = 26**2
"""Number of codes of two letters."""


@dataclass(frozen=True)
class _Source:
    """The rows of a csv file, in blocks of text columns."""

    path: Path
    dialect: Dialect
    limit: int | None

    def blocks(
        self, columns: Sequence[int] | None = None, nulls: Sequence[str] | None = None
    ) -> Iterator[list[pa.Array]]:
        """Blocks of text columns, at most `limit` rows in all.

        Blanks around cells are stripped if the file has them around all kinds of cells.

        Args:
            columns: numbers of the columns; None for all.
            nulls: cells that are missing values unless they are quoted.
        """
        left = self.limit
        slow = self.dialect.delimiter == BLANK or self.dialect.quoted_behind_blanks
        read = self._by_hand if slow else self._by_arrow
        for block in read(columns, nulls):
            if left is not None:
                block = [column[:left] for column in block]
                left -= len(block[0])
            if len(block[0]):
                yield [_stripped(c, nulls) for c in block] if self.dialect.padded else block
            if left == 0:
                return

    def _checked(self, file: io.BufferedIOBase) -> Utf8Stream:
        return Utf8Stream(file, self.path, self.dialect.first, self.dialect.encoding)

    def converted(self, kinds: Sequence[Kind], columns: Sequence[int]) -> pa.Table:
        """The table of the converted columns."""
        made: list[list[pa.Array]] = [[] for _ in columns]
        for block in self.blocks(columns):
            for chunks, column, j in zip(made, block, columns, strict=True):
                chunks.append(self._converted(column, kinds[j], j))
        fields = [
            spelt(pa.field(self.dialect.names[j], kinds[j].dtype), kinds[j].spelling)
            for j in columns
        ]
        arrays = [pa.chunked_array(c, f.type) for c, f in zip(made, fields, strict=True)]
        return pa.Table.from_arrays(arrays, schema=pa.schema(fields))

    def _converted(self, column: pa.Array, kind: Kind, j: int) -> pa.Array:
        try:
            return convert(column, kind)
        except pa.ArrowInvalid as error:
            name = self.dialect.names[j]
            raise UserError(
                f"column {name!r} has cells that look like {kind.dtype} and are none: "
                f"{reason(error)}: correct them, or {drop([name])} leaves it out"
            ) from None

    def _by_arrow(
        self, columns: Sequence[int] | None, nulls: Sequence[str] | None
    ) -> Iterator[list[pa.Array]]:
        titles = [str(j) for j in range(len(self.dialect.names))]
        wanted = titles if columns is None else [titles[j] for j in columns]
        with open_bytes(self.path) as file:
            file.seek(self.dialect.offset)
            try:
                reader = arrow_csv.open_csv(
                    pa.PythonFile(self._checked(file), "r"),
                    read_options=arrow_csv.ReadOptions(
                        use_threads=False, block_size=BLOCK_BYTES, column_names=titles
                    ),
                    parse_options=arrow_csv.ParseOptions(
                        delimiter=self.dialect.delimiter, newlines_in_values=True
                    ),
                    convert_options=arrow_csv.ConvertOptions(
                        strings_can_be_null=True,
                        quoted_strings_can_be_null=False,
                        null_values=list(NULLS if nulls is None else nulls),
                        column_types=dict.fromkeys(titles, pa.string()),
                        include_columns=wanted,
                    ),
                )
                for batch in reader:
                    yield batch.columns
            except pa.ArrowException as error:
                if "Empty CSV" in str(error):
                    return
                raise UserError(
                    f"cannot read {self.path} as csv: {_renumbered(reason(error), self.dialect)}"
                ) from None

    def _by_hand(
        self, columns: Sequence[int] | None, nulls: Sequence[str] | None
    ) -> Iterator[list[pa.Array]]:
        missing = NULLS if nulls is None else frozenset(nulls)
        n = len(self.dialect.names)
        wanted = range(n) if columns is None else columns
        with open_bytes(self.path) as file:
            file.seek(self.dialect.offset)
            checked = io.BufferedReader(self._checked(file))
            text = io.TextIOWrapper(checked, encoding="utf-8", newline="")
            blank = self.dialect.delimiter == BLANK
            lines = (line.strip(" \t\r\n") for line in text) if blank else text
            reader = csv.reader(lines, delimiter=self.dialect.delimiter, skipinitialspace=True)
            rows: list[list[str]] = []
            try:
                for k, row in enumerate(reader):
                    if not row:
                        continue
                    if len(row) != n:
                        raise UserError(
                            f"cannot read {self.path} as csv: line {self.dialect.first + k + 1}: "
                            f"{n} cells are expected, not {len(row)}"
                        )
                    rows.append(row)
                    if len(rows) == BLOCK_ROWS:
                        yield [_texts(rows, j, missing) for j in wanted]
                        rows = []
            except csv.Error as error:
                raise UserError(f"cannot read {self.path} as csv: {reason(error)}") from None
            if rows:
                yield [_texts(rows, j, missing) for j in wanted]


def _renumbered(text: str, dialect: Dialect) -> str:
    """Arrow's message with the row number counted from the top of the file."""
    return re.sub(r"Row #(\d+)", lambda m: f"Row #{int(m[1]) + dialect.first}", text)


def _texts(rows: list[list[str]], j: int, nulls: frozenset[str]) -> pa.Array:
    cells = (row[j].strip() for row in rows)
    return pa.array([None if cell in nulls else cell for cell in cells], pa.string())


def _stripped(column: pa.Array, nulls: Sequence[str] | None) -> pa.Array:
    """Cells without blanks around them, which hid missing values."""
    column = compute.utf8_trim_whitespace(column)
    marks = pa.array(sorted(NULLS if nulls is None else nulls), pa.string())
    holes = compute.is_in(column, value_set=marks)
    return compute.if_else(holes, pa.scalar(None, pa.string()), column)


def _with_markers(table: pa.Table, source: _Source, kept: Sequence[int]) -> pa.Table:
    """The table whose fields record the cell of their missing values, the most frequent of them."""
    at = [k for k, column in enumerate(table.columns) if column.null_count]
    if not at:
        return table
    counts: list[Counter[str]] = [Counter() for _ in at]
    row = 0
    for block in source.blocks([kept[k] for k in at], nulls=()):
        for k, cells, found in zip(at, block, counts, strict=True):
            holes = compute.is_null(table.column(k).slice(row, len(cells))).combine_chunks()
            for entry in compute.value_counts(cells.filter(holes)):
                found[entry["values"].as_py()] += entry["counts"].as_py()
        row += len(block[0])
    for k, found in zip(at, counts, strict=True):
        field, (marker, _) = table.schema.field(k), found.most_common(1)[0]
        how = dataclasses.replace(spelling_of(field), missing=marker.strip())
        table = table.set_column(k, spelt(field, how), table.column(k))
    return table


def _with_codes_of_na(
    table: pa.Table, source: _Source, kept: Sequence[int]
) -> tuple[pa.Table, list[str]]:
    """The table with NA restored as a country code in columns of two-letter codes, and notes."""
    notes = []
    for at, j in enumerate(kept):
        if not table.num_rows or not pa.types.is_string(table.schema.field(at).type):
            continue
        column = table.column(at)
        if (
            not 0 < column.null_count < len(column) / 2
            or compute.count_distinct(column).as_py() > MOST_CODES
        ):
            continue
        if not csv_cells.is_country_codes(compute.unique(column.drop_null()).to_pylist()):
            continue
        nulls = sorted(NULLS - {"NA"})
        chunks = [block[0] for block in source.blocks([j], nulls)]
        again = pa.chunked_array(chunks, pa.string())
        found = column.null_count - again.null_count
        if found > 0:
            table = table.set_column(at, table.schema.field(at), again)
            notes.append(
                f"column {source.dialect.names[j]!r}: NA is taken for a code ({found} times), as "
                "all other values are codes of two capitals; leave a cell empty for a missing value"
            )
    return table, notes
