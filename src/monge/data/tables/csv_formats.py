"""Reads columns of numbers and dates in other notations once more, and decides their format."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import pyarrow as pa

from monge.data.columns.arrow import compute
from monge.data.columns.spelling import NULLS, Spelling
from monge.data.tables.cell_formats import (
    Dates,
    Formats,
    FoundDates,
    FoundNumbers,
    Order,
    date_of,
    number_of,
)
from monge.data.tables.cell_forms import MARKS
from monge.data.tables.cell_values import without_blanks
from monge.data.tables.csv_cells import Cells, Kind, marks_notes

LONGEST = 40
"""Characters of a cell that may be a number or a date."""

MISSING = pa.array(sorted({*NULLS, *MARKS}))

Blocks = Callable[[Sequence[int]], Iterable[list[pa.Array]]]
"""Reads columns by their numbers, in blocks of text."""


def with_formats(
    kinds: Sequence[Kind],
    cells: Sequence[Cells],
    names: Sequence[str],
    blocks: Blocks,
    delimiter: str,
    dates: Dates,
    commas: bool,
) -> list[Kind]:
    """The types of columns, where text that is numbers or dates in one notation is read as such.

    Args:
        kinds, cells, names: of each column; see `csv_cells`.
        dates: the setting for the order of day and month.
        commas: whether a column of the file has decimal commas.
    """
    made = list(kinds)
    open_ = [j for j, kind in enumerate(kinds) if may_have_format(kind, cells[j])]
    if not open_:
        return made
    found = {j: Formats() for j in open_}
    for block in blocks(open_):
        for j, column in zip(open_, block, strict=True):
            here = without_blanks(column).drop_null()
            here = here.filter(compute.invert(compute.is_in(here, value_set=MISSING)))
            found[j].add(here)
    orders: dict[str, Order] = {}
    for j in open_:  # the columns that decide for themselves
        decided = date_of(found[j], dates, {})
        if decided is not None and decided.sep and decided.order not in (None, "year-first"):
            orders.setdefault(decided.sep, decided.order)
    for j in open_:
        kind = _kind(found[j], names[j], delimiter, commas, dates, orders)
        if kind is not None:
            notes = (*marks_notes(cells[j], names[j]), *kind.notes)
            made[j] = dataclasses.replace(kind, marks=tuple(cells[j].marks), notes=notes)
    return made


def may_have_format(kind: Kind, cells: Cells) -> bool:
    """Whether the cells of a text column may be numbers or dates in another notation."""
    odd = [cell for cell in cells.odd if cell not in MARKS]
    if not pa.types.is_string(kind.dtype) or not (odd or cells.foreign):
        return False
    return all(len(cell) <= LONGEST and re.search(r"\d", cell) for cell in odd)


def _kind(
    found: Formats,
    name: str,
    delimiter: str,
    commas: bool,
    dates: Dates,
    orders: Mapping[str, Order],
) -> Kind | None:
    if (numbers := number_of(found, delimiter, commas)) is not None:
        return _of_numbers(numbers, found, name)
    if (read := date_of(found, dates, orders)) is not None:
        return _of_dates(read, found, name)
    return None


def _of_numbers(numbers: FoundNumbers, found: Formats, name: str) -> Kind:
    how = numbers.format
    spelling = Spelling(
        decimals=None if numbers.whole else numbers.decimals,
        positive=how.positive,
        negative=how.negative,
        thousands=how.thousands,
        point=how.point,
    )
    example = max(found.around.values(), key=len)
    said = f"{how.thousands!r} separates thousands, " if how.thousands else ""
    note = (
        f"column {name!r}: {example!r} is read as a number ({said}{how.point!r} is the decimal "
        "mark); samples are written in this notation"
    )
    return Kind(pa.int64() if numbers.whole else pa.float64(), spelling=spelling, notes=(note,))


def _of_dates(read: FoundDates, found: Formats, name: str) -> Kind:
    example = next(iter(found.shapes.values()))
    if read.order is None:
        advice = (
            f"column {name!r} has dates such as {example!r}, and nothing tells whether the day or "
            "the month is first: give --dates day-first or --dates month-first"
        )
        return Kind(pa.string(), advice=advice)
    what = "a duration" if pa.types.is_duration(read.dtype) else "a time"
    what = "a date" if "{day" in read.pattern and "{days}" not in read.pattern else what
    said = f", {read.order} ({read.why})" if read.why else ""
    note = f"column {name!r}: {example!r} is read as {what}{said}; samples are written the same way"
    return Kind(read.dtype, spelling=Spelling(pattern=read.pattern), notes=(note,))
