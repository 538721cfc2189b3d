"""The cells of a csv file exactly as they are written, so that single ones can be replaced."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from monge.data.columns.spelling import NULLS
from monge.data.tables.csv_dialect import BLANK, DELIMITERS, Dialect, sniff
from monge.data.tables.text_bytes import not_utf8, open_bytes, read_bytes, zero_byte
from monge.errors import UserError

QUOTE = '"'

MARK = "\ufeff"
"""The byte order mark as a sign."""


@dataclass(frozen=True)
class RawCsv:
    """A csv file in memory.

    Attributes:
        dialect: see `csv_dialect.Dialect`.
        head: the text before the first row, with the header.
        rows: the cells of each row, with their quotes and blanks.
        ends: what follows each row: a line end, or nothing at the end of the file.
    """

    dialect: Dialect
    head: str
    rows: list[list[str]]
    ends: list[str]

    def texts(self, column: int) -> list[str | None]:
        """The content of a column's cells; None for those that are missing unless quoted."""
        return [content(row[column]) for row in self.rows]

    def text(self) -> str:
        """The file as text; if nothing was replaced, that of the file itself."""
        mark = self.dialect.delimiter
        lines = (mark.join(row) + end for row, end in zip(self.rows, self.ends, strict=True))
        return self.head + "".join(lines)

    def parts_of_head(self) -> tuple[str, str]:
        """What stands before the header, such as an empty line, and the header."""
        lines = self.head.splitlines(keepends=True)
        for k, line in enumerate(lines):
            bare = line.lstrip(MARK).strip().strip(DELIMITERS)
            if bare and not bare.lower().lstrip(QUOTE).startswith("sep="):
                header = "".join(lines[k:])
                mark = MARK * header.startswith(MARK)
                return "".join(lines[:k]) + mark, header.removeprefix(MARK)
        return "", self.head

    def quoted(self, cell: str) -> str:
        """A cell ready to be written."""
        signs = (self.dialect.delimiter, QUOTE, "\n", "\r")
        if cell in NULLS or cell != cell.strip() or any(sign in cell for sign in signs):
            return QUOTE + cell.replace(QUOTE, QUOTE * 2) + QUOTE
        return cell


def content(cell: str) -> str | None:
    """The content of a cell, without blanks and quotes; None for a missing value.

    >>> content(' 4'), content('"a ""b"" c"'), content("NA"), content('"NA" ')
    ('4', 'a "b" c', None, 'NA')
    """
    bare = cell.strip()
    if len(bare) > 1 and bare[0] == QUOTE == bare[-1]:
        return bare[1:-1].replace(QUOTE * 2, QUOTE)
    return None if bare in NULLS else bare


def read_raw(path: Path) -> RawCsv:
    """The cells of a csv file as they are written.

    Raises:
        UserError: not a csv file, cells separated by blanks, or rows of unequal length.
    """
    dialect = sniff(path)
    if dialect.delimiter == BLANK:
        raise UserError(f"{path} is delimited by blanks: write it with commas")
    head, text = _text(path, dialect)
    rows: list[list[str]] = []
    ends: list[str] = []
    for row, end in _rows(text, dialect.delimiter):
        if row == [""]:
            if rows:
                ends[-1] += end  # an empty line
            else:
                head += end
            continue
        rows.append(row)
        ends.append(end)
    n = len(dialect.names)
    for k, row in enumerate(rows):
        if len(row) != n:
            raise UserError(
                f"cannot read {path} as csv: row {k} has {len(row)} cells; {n} are expected"
            )
    return RawCsv(dialect, head, rows, ends)


def _text(path: Path, dialect: Dialect) -> tuple[str, str]:
    """The text before the first row, and the rest."""
    with open_bytes(path) as file:
        content = read_bytes(file, -1, path)
    try:
        parts = content[: dialect.offset], content[dialect.offset :]
        head, rest = (part.decode(dialect.encoding) for part in parts)
    except UnicodeDecodeError as error:
        raise not_utf8(path, content, error.start, 0) from None
    if "\0" in rest:
        raise zero_byte(path, head.count("\n") + rest[: rest.index("\0")].count("\n"))
    return head, rest


def _rows(text: str, delimiter: str) -> Iterator[tuple[list[str], str]]:
    """Rows of raw cells, with the line end of each; quoted cells may contain both."""
    row: list[str] = []
    start = at = 0
    n, following = len(text), re.compile(f"[{re.escape(delimiter)}\r\n]")
    while at < n:
        sign = text[at]
        if sign == QUOTE and not text[start:at].strip():
            at = _after_quotes(text, at)
        elif sign == delimiter:
            row.append(text[start:at])
            at += 1
            start = at
        elif sign in "\r\n":
            end = "\r\n" if text.startswith("\r\n", at) else sign
            yield [*row, text[start:at]], end
            row = []
            at += len(end)
            start = at
        else:
            found = following.search(text, at + 1)
            at = n if found is None else found.start()
    if row or start < n:
        yield [*row, text[start:]], ""


def _after_quotes(text: str, at: int) -> int:
    """The position after a quoted part that begins at `at`."""
    while True:
        end = text.find(QUOTE, at + 1)
        if end < 0:
            return len(text)
        if not text.startswith(QUOTE, end + 1):
            return end + 1
        at = end + 1
