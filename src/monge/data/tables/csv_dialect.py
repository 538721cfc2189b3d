"""Finds delimiter, column names and first row of a csv file from its first lines."""

from __future__ import annotations

import csv
import io
import itertools
import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from monge.data.tables.text_bytes import (
    MARK,
    UTF8,
    WINDOWS,
    NotUtf8,
    is_gzip,
    not_utf8,
    open_bytes,
    read_bytes,
    zero_byte,
)
from monge.errors import UserError

DELIMITERS = ",;\t|"
BLANK = " "
"""The delimiter if there is no other and most cells are numbers."""

SNIFFED = 100
"""Most lines examined."""

HEAD = 2**20
"""Most bytes examined."""

NUMBER = re.compile(r"[+-]?(\d+[.,]?\d*|[.,]\d+)([eE][+-]?\d+)?|[+-]?(inf|infinity)|nan", re.I)
QUOTED = re.compile(r'"(?:[^"]|"")*"')
YEARS = (1500, 2200)


@dataclass(frozen=True)
class Dialect:
    """The format of a csv file.

    Attributes:
        delimiter: a blank means runs of blanks.
        names: of the columns, stripped of blanks and unique; "" for a missing name.
        first: line of the file at which the rows begin, counted from 0.
        offset: bytes before that line.
        padded: whether cells are surrounded by blanks.
        quoted_behind_blanks: whether quotes follow the blanks after a delimiter.
        encoding: of the text, utf-8 or cp1252.
        notes: on decisions by a rule.
    """

    delimiter: str
    names: tuple[str, ...]
    first: int
    offset: int
    padded: bool = False
    quoted_behind_blanks: bool = False
    encoding: str = UTF8
    notes: tuple[str, ...] = field(default=())


def sniff(path: Path) -> Dialect:
    """The dialect of a csv file, by its first bytes; see `text_bytes` for encodings.

    Raises:
        UserError: not a regular file of text, empty, or a first line without names.
    """
    try:
        return with_encoding(path, UTF8)
    except NotUtf8 as error:
        if not error.plain:
            raise
    return with_encoding(path, WINDOWS)


def with_encoding(path: Path, encoding: str) -> Dialect:
    """The dialect of a csv file in this encoding; see `sniff`."""
    text, whole = _head(path, encoding)
    lines = _lines(text)
    if not whole and len(lines) > 1:
        lines.pop()  # an incomplete line
    at = 0
    while at < len(lines) and not lines[at].strip().strip(",;\t|"):
        at += 1  # empty lines before the header
    if at == len(lines):
        raise UserError(f"{path} is empty")
    told = re.fullmatch(r'"?sep=(.)"?\s*', lines[at])
    if told:
        at += 1
        while at < len(lines) and not lines[at].strip():
            at += 1
    body = "".join(lines[at:])
    if not body.strip():
        raise UserError(f"{path} is empty")
    forced = told[1] if told else "\t" if ".tsv" in path.suffixes[-2:] else None
    delimiter = forced or _delimiter(body)
    rows = _rows(body, delimiter)
    header, below = [name.strip() for name in rows[0]], [row for row in rows[1:] if row]
    consumed = _lines_of_header(lines[at:], delimiter)
    first = at + consumed
    header, notes = _fitted(header, below)
    if not _are_quoted(header, lines[at:], consumed):
        _refuse_data(header, below, path)
        notes += _numbered(header, below)
    header, more = _once_each(header)
    padding = re.compile(
        rf"(^|{re.escape(delimiter)}) +[^\s\"]|[^\s\"] +({re.escape(delimiter)}|$)"
    )
    quoted = re.compile(rf"{re.escape(delimiter)} +\"")
    unquoted = QUOTED.sub('""', "".join(lines[at : at + SNIFFED]))
    sample = [line.rstrip("\r\n") for line in _lines(unquoted)]
    return Dialect(
        delimiter,
        tuple(header),
        first,
        sum(len(line.encode(encoding)) for line in lines[:first]) + _mark(path),
        padded=delimiter != BLANK and any(padding.search(line) for line in sample),
        quoted_behind_blanks=delimiter != BLANK and any(quoted.search(line) for line in sample),
        encoding=encoding,
        notes=(*_said_of_bytes(path, encoding), *notes, *more),
    )


def _said_of_bytes(path: Path, encoding: str) -> list[str]:
    """Notes on compression and encoding."""
    said = ["the file is compressed by gzip"] if is_gzip(path) else []
    if encoding != UTF8:
        said.append("the file is not UTF-8: it is read as Windows-1252, as Latin-1 is")
    if encoding == UTF8 and _mark(path):
        said.append("the file begins with a byte order mark, which is left out")
    return said


def _lines(text: str) -> list[str]:
    """Lines with their ends; only line feeds and carriage returns end a line.

    `str.splitlines` also splits at control characters that a cell may contain.
    """
    return list(io.StringIO(text, newline=""))


def is_number(cell: str) -> bool:
    """Whether a cell is a number, with a decimal point or comma."""
    return NUMBER.fullmatch(cell.strip()) is not None


def _mark(path: Path) -> int:
    with open_bytes(path) as file:
        return len(MARK) if read_bytes(file, len(MARK), path) == MARK else 0


def _head(path: Path, encoding: str) -> tuple[str, bool]:
    """The first lines of a file as text, and whether they are the whole file."""
    with open_bytes(path) as file:
        content = read_bytes(file, HEAD, path)
        whole = not read_bytes(file, 1, path)
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise UserError(f"{path} is UTF-16: save it as UTF-8")
    try:
        text = content.decode("utf-8-sig" if encoding == UTF8 else encoding)
    except UnicodeDecodeError as error:
        if whole or error.start < len(content) - 3 or encoding != UTF8:
            raise not_utf8(path, content, error.start, 0, b"\0" not in content) from None
        text = content[: error.start].decode("utf-8-sig")
    if "\0" in text:
        raise zero_byte(path, text.count("\n", 0, text.index("\0")))
    return text, whole


def _rows(text: str, delimiter: str) -> list[list[str]]:
    """The first rows, split by the delimiter."""
    found = []
    source = io.StringIO(text, newline="")
    lines = (line.strip() for line in source) if delimiter == BLANK else source
    try:
        for row in csv.reader(lines, delimiter=delimiter, skipinitialspace=True):
            if row:
                found.append(row)
            if len(found) > SNIFFED:
                break
    except csv.Error:
        return found or [[]]
    return found


def _lines_of_header(lines: list[str], delimiter: str) -> int:
    """The number of lines of the header: names may contain line breaks."""
    reader = csv.reader(iter(lines), delimiter=delimiter, skipinitialspace=True)
    with suppress(csv.Error):
        next(reader)
    return reader.line_num


def _delimiter(text: str) -> str:
    """The delimiter that splits the first lines into the most cells, equally many in each.

    The header may have one cell more or less than the rows.
    """
    best, most = "", 1
    for delimiter in DELIMITERS:
        sizes = [len(row) for row in _rows(text, delimiter)]
        if sizes[0] > most and len(set(sizes[1:])) <= 1 and abs(sizes[-1] - sizes[0]) <= 1:
            best, most = delimiter, sizes[0]
    if best:
        return best
    header, *below = _rows(text, BLANK)
    cells = [cell for row in below for cell in row]
    equal = len({len(row) for row in below}) == 1 and len(below[0]) - len(header) in (0, 1)
    if len(header) > 1 and equal and 2 * sum(map(is_number, cells)) >= len(cells):
        return BLANK
    header, *below = _rows(text, ";")
    if len(header) == 1 and below and all(is_number(row[0]) for row in below):
        return ";"  # a single column, perhaps with decimal commas
    return ","


def _fitted(header: list[str], below: list[list[str]]) -> tuple[list[str], list[str]]:
    """The names, and notes, for rows with one cell more or less than the header."""
    sizes = {len(row) for row in below}
    if len(sizes) != 1:
        return header, []
    n = sizes.pop()
    if n == len(header) - 1 and header[-1] == "":
        return header[:-1], []
    if n == len(header) + 1:
        if all(row[-1].strip() == "" for row in below):
            return [*header, ""], []
        return ["", *header], [
            "the first line has one name less than the rows have cells: the first column has no "
            "name, like a column of row names"
        ]
    return header, []


def _are_quoted(header: list[str], lines: list[str], consumed: int) -> bool:
    """Whether numbers in the header are quoted, as words are, and those below are not."""
    raw = "".join(lines[:consumed])
    numbers = [cell for cell in header if is_number(cell)]
    below = "".join(lines[consumed : consumed + SNIFFED])
    plain = not re.search(r"\"[+-]?[\d.,]+\"", below)
    return bool(numbers) and plain and all(f'"{cell}"' in raw for cell in numbers)


def _refuse_data(header: list[str], below: list[list[str]], path: Path) -> None:
    """Refuse a first line that holds an example instead of names."""
    numbers = [j for j, cell in enumerate(header) if is_number(cell)]
    remedy = (
        "write the names of the columns into a line before it (a table without them loses its "
        "first example)"
    )
    if numbers and len(numbers) == len([c for c in header if c]) and not _counted(header, numbers):
        raise UserError(
            f"the first line of {path} has numbers only ({', '.join(header[:3])}, ...): it should "
            f"have the names of the columns; {remedy}"
        )
    columns = [[row[j].strip() for row in below if len(row) > j] for j in range(len(header))]
    numeric = [j for j in numbers if columns[j] and all(map(_may_be_number, columns[j]))]
    if numeric and not _counted(header, numbers):
        j = numeric[0]
        raise UserError(
            f"the first line of {path} looks like data, not like the names of the columns: its "
            f"cell {j + 1} is {header[j]!r}, and the cells below are numbers too; {remedy}"
        )
    known = [cell for cell in header if cell]
    if len(below) >= 10 and known and all(
        cell in column for cell, column in zip(header, columns, strict=True) if cell
    ):  # fmt: skip
        raise UserError(
            f"the first line of {path} looks like data, not like the names of the columns: each "
            f"of its cells ({', '.join(known[:3])}, ...) occurs again in its column; {remedy}"
        )


def _may_be_number(cell: str) -> bool:
    return cell in ("", "?", "-", "NA", "nan", "NaN") or is_number(cell)


def _counted(header: list[str], numbers: list[int]) -> bool:
    """Whether the numbers in a header count up: three or more in steps of 1 from 0 or 1, or years
    in equal steps."""
    if not all(header[j].isdigit() for j in numbers):
        return False
    values = [int(header[j]) for j in numbers]
    steps = {b - a for a, b in itertools.pairwise(values)}
    years = all(YEARS[0] <= value <= YEARS[1] for value in values)
    start = values[0] in (0, 1) and steps == {1}
    return len(steps) == 1 and min(steps) > 0 and ((len(values) > 2 and start) or years)


def _numbered(header: list[str], below: list[list[str]]) -> list[str]:
    numbers = [cell for cell in header if is_number(cell)]
    if not numbers or not below:
        return []
    listed = ", ".join(numbers[:3])
    return [f"numbers in the first line ({listed}, ...) are taken for names: they count up"]


def _once_each(header: list[str]) -> tuple[list[str], list[str]]:
    """Unique names, with notes: a, a.1, a.2."""
    made: list[str] = []
    notes = []
    for name in header:
        new, k = name, 0
        while new in made or (k and new in header):
            k += 1
            new = f"{name}.{k}"
        if k and name:
            notes.append(f"there are several columns {name!r}: one of them is read as {new!r}")
        made.append(new if name else "")
    return made, notes
