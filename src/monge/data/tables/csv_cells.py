"""Decides whether the cells of a csv column are numbers, codes, truth values, dates or text.

A column is read twice. First `Cells` counts, block by block, the forms of its cells. Then `decide`
chooses the type by the rules below, and in the second pass each block is converted.

The rules for ambiguous cells:

- whole numbers are codes, and so text, if one has a leading zero; likewise numbers that begin with
  a plus and have seven digits or more; and numbers of one width, some with an E, as 12E3;
- whole numbers that do not fit 64 bits are text, digit for digit;
- a comma is the decimal mark if all cells are numbers with commas or whole numbers. In a file
  delimited by commas, three digits after every comma are thousands instead, and the column is text;
  likewise three digits after every point, if another column has decimal commas;
- signs such as ? and - are missing values among numbers, and values among words.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from monge.data.columns.arrow import compute
from monge.data.columns.spelling import NULLS, PLAIN, Spelling
from monge.data.tables.cell_forms import (
    CLOCK,
    COMMA,
    DATE,
    DIALLED,
    ENDS_IN_ZERO,
    FOREIGN,
    LETTERED,
    MARKS,
    POINT,
    STAMP,
    THREE,
    TIME,
    TRUTH,
    WHOLE,
    ZEROS,
)

ODD = 64
"""Most distinct cells, neither numbers nor dates, whose rows are recorded."""

FEW_ODD = 0.2
"""Largest share of cells that are no numbers for which each of them is named."""


@dataclass
class Cells:
    """Counts of the forms of one column's cells, over the blocks so far.

    Attributes:
        total: cells that are neither missing nor quoted words for missing values.
        quoted: quoted words for missing values.
        point, comma, truth, date, time, stamp: cells of that form; each cell has one form.
        whole, zeros, dialled, lettered, three, trailing: special kinds of those numbers.
        odd: other cells, up to `ODD` distinct ones: the count, and the row of the first.
        foreign: other cells by the meaning in other programs, with an example.
    """

    total: int = 0
    quoted: int = 0
    point: int = 0
    comma: int = 0
    truth: int = 0
    date: int = 0
    time: int = 0
    stamp: int = 0
    whole: int = 0
    zeros: int = 0
    dialled: int = 0
    lettered: int = 0
    three: int = 0
    trailing: int = 0
    exponents: int = 0
    overflow: bool = False
    widths: set[int] = field(default_factory=set)
    longest_whole: int = 0
    decimals: set[int] = field(default_factory=set)
    mantissas: set[int] = field(default_factory=set)
    words: set[str] = field(default_factory=set)
    examples: dict[str, str] = field(default_factory=dict)
    odd: dict[str, tuple[int, int]] = field(default_factory=dict)
    n_odd: int = 0
    foreign: dict[str, tuple[int, str]] = field(default_factory=dict)

    def add(self, column: pa.Array, row: int) -> None:
        """Count the cells of a block, stripped of blanks; its first cell is in row `row`."""
        here = column.drop_null()
        here = here.filter(compute.invert(compute.is_in(here, value_set=_NULLS)))
        self.quoted += len(column) - column.null_count - len(here)
        self.total += len(here)
        rest = here
        for kind, pattern in (("point", POINT), ("comma", COMMA), ("truth", TRUTH), ("date", DATE),
                              ("time", TIME), ("stamp", STAMP)):  # fmt: skip
            if not len(rest):
                return
            fits = compute.match_substring_regex(rest, pattern)
            n = fits.true_count
            if n:
                found = rest if n == len(rest) else rest.filter(fits)
                if kind in ("date", "time", "stamp") and not _is_temporal(kind, found):
                    continue  # not a date, such as a 31st of June
                setattr(self, kind, getattr(self, kind) + n)
                self._look(kind, found)
                rest = rest.filter(compute.invert(fits))
        if len(rest):
            self._add_odd(column, rest, row)

    def _look(self, kind: str, found: pa.Array) -> None:
        if kind in ("point", "comma"):
            self._look_at_numbers(kind, found)
        elif len(self.words) <= 2 * ODD:
            if kind == "truth":
                self.words.update(compute.unique(found).to_pylist())
            elif kind == "stamp":
                between = compute.utf8_slice_codeunits(found, 10, 11)
                zones = compute.replace_substring_regex(found, r"^.{13}[0-9:.]*", "")
                for part in (between, zones):
                    self.words.update(compute.unique(part).to_pylist())
        if kind in ("time", "stamp"):
            self.widths.update(compute.unique(compute.utf8_length(found)).to_pylist())

    def _look_at_numbers(self, kind: str, found: pa.Array) -> None:
        widths = compute.unique(compute.utf8_length(found)).to_pylist()
        if len(self.widths) <= ODD:
            self.widths.update(widths)
        fits = compute.match_substring_regex(found, WHOLE)
        if kind == "point" and fits.true_count:
            whole = found if fits.true_count == len(found) else found.filter(fits)
            self.whole += len(whole)
            self.longest_whole = max(
                self.longest_whole, compute.max(compute.utf8_length(whole)).as_py()
            )
            for name, pattern in (("zeros", ZEROS), ("dialled", DIALLED)):
                special = compute.match_substring_regex(whole, pattern)
                if special.true_count:
                    setattr(self, name, getattr(self, name) + special.true_count)
                    self.examples.setdefault(name, whole.filter(special)[0].as_py())
            if compute.max(compute.utf8_length(whole)).as_py() > 18 and not self.overflow:
                self.overflow = not _casts(compute.utf8_ltrim(whole, "+"), pa.int64())
                long = compute.greater(compute.utf8_length(whole), 18)
                self.examples.setdefault("long", whole.filter(long)[0].as_py())
        if kind == "comma":
            self.examples.setdefault("comma", found[0].as_py())
        for name, pattern in (("lettered", LETTERED), ("three", THREE), ("trailing", ENDS_IN_ZERO)):
            special = compute.match_substring_regex(found, pattern)
            if special.true_count:
                setattr(self, name, getattr(self, name) + special.true_count)
                self.examples.setdefault(name, found.filter(special)[0].as_py())
        self._look_at_decimals(found, "." if kind == "point" else ",")

    def _look_at_decimals(self, found: pa.Array, mark: str) -> None:
        """Record the digits after the point, with and without an exponent."""
        powers = compute.match_substring_regex(found, "[eE]")
        self.exponents += powers.true_count
        for cells, kept in (
            (found.filter(compute.invert(powers)), self.decimals),
            (found.filter(powers), self.mantissas),
        ):
            if not len(cells) or len(kept) > 1:
                continue
            if kept is self.mantissas:
                cells = compute.replace_substring_regex(cells, "[eE].*$", "")
            at = compute.find_substring(cells, mark)
            behind = compute.subtract(compute.utf8_length(cells), compute.add(at, 1))
            behind = compute.if_else(compute.equal(at, -1), 0, behind)
            kept.update(compute.unique(behind).to_pylist())

    def _add_odd(self, column: pa.Array, rest: pa.Array, row: int) -> None:
        self.n_odd += len(rest)
        for name, pattern in FOREIGN.items():
            fits = compute.match_substring_regex(rest, pattern)
            if fits.true_count:
                n, example = self.foreign.get(name, (0, rest.filter(fits)[0].as_py()))
                self.foreign[name] = n + fits.true_count, example
        if len(self.odd) > ODD:
            return
        for entry in compute.value_counts(rest).slice(0, ODD + 1):
            value, n = entry["values"].as_py(), entry["counts"].as_py()
            if value in self.odd:
                self.odd[value] = self.odd[value][0] + n, self.odd[value][1]
            else:
                first = row + compute.index(column, value).as_py()
                self.odd[value] = n, first

    def has_decimal_commas(self, delimiter: str) -> bool:
        """Whether all cells are numbers, some with a comma that cannot separate thousands."""
        numbers = self.comma + self.point + len(self.marks) >= self.total
        thousands = delimiter == "," and self.three == self.comma
        return bool(self.comma) and numbers and not thousands

    @property
    def marks(self) -> dict[str, tuple[int, int]]:
        """Signs for missing values: their count, and the row of the first."""
        return {cell: found for cell, found in self.odd.items() if cell in MARKS}


_NULLS = pa.array(sorted(NULLS))


@dataclass(frozen=True)
class Kind:
    """The type of a column.

    Attributes:
        dtype: the Arrow type to convert to.
        marks: cells that are missing values.
        spelling: the notation of the cells.
        notes: on decisions by a rule, for people.
        advice: why the column is text although it looks like another type, and what to do.
    """

    dtype: pa.DataType
    marks: tuple[str, ...] = ()
    spelling: Spelling = PLAIN
    notes: tuple[str, ...] = ()
    advice: str = ""


def decide(cells: Cells, name: str, delimiter: str, commas: bool = False) -> Kind:
    """The type of a column, by its cells.

    Args:
        commas: whether a column of the same file has decimal commas.
    """
    marks = cells.marks
    n_marks = sum(n for n, _ in marks.values())
    n = cells.total - n_marks
    if cells.total == 0:
        return Kind(pa.string() if cells.quoted else pa.null())
    told = marks_notes(cells, name)
    kind = None
    if n and cells.point + cells.comma == n:
        kind = _number(cells, name, delimiter, n, commas)
    elif n and cells.truth == n:
        low, high = (
            sorted(word for word in cells.words if word.lower() == truth)
            for truth in ("false", "true")
        )
        words = Spelling(true=high[0] if high else "true", false=low[0] if low else "false")
        kind = Kind(pa.bool_(), spelling=words)
    elif n and cells.date == n:
        kind = Kind(pa.date32())
    elif n and cells.time == n:
        kind = Kind(pa.time32("s"), spelling=Spelling(seconds=max(cells.widths) > 5))
    elif n and cells.date + cells.stamp == n:
        kind = _stamp(cells)
    if kind is None or pa.types.is_string(kind.dtype):
        kind = kind or Kind(pa.string(), advice=_advice(cells, name))
        if marks:
            listed = ", ".join(f"{c!r} ({k} times)" for c, (k, _) in marks.items())
            note = f"column {name!r} is text: {listed} is a value of its own in it"
            return Kind(pa.string(), notes=(*kind.notes, note), advice=kind.advice)
        return kind
    return Kind(kind.dtype, tuple(marks), kind.spelling, (*told, *kind.notes), kind.advice)


def marks_notes(cells: Cells, name: str) -> list[str]:
    """A note on signs for missing values, if there are some."""
    listed = [f"{c!r} {k} times, first in row {row}" for c, (k, row) in cells.marks.items()]
    if not listed:
        return []
    return [f"column {name!r}: cells that count as missing values: {', '.join(listed)}"]


def _number(cells: Cells, name: str, delimiter: str, n: int, commas: bool) -> Kind | None:
    def code(why: str, example: str) -> Kind:
        note = f"column {name!r} is read as text, not as numbers: {why}, such as {example!r}"
        return Kind(pa.string(), notes=(note,))

    if cells.zeros and cells.whole == n:
        return code("it has whole numbers with leading zeros", cells.examples["zeros"])
    if cells.dialled and cells.whole == n:
        return code("it has numbers that begin with a plus", cells.examples["dialled"])
    if cells.lettered and cells.lettered < n and len(cells.widths) == 1:
        return code("it has codes of one width, some with an E", cells.examples["lettered"])
    pointed = cells.point - cells.whole - cells.lettered
    if cells.comma:
        if pointed > cells.exponents or (delimiter == "," and cells.three == cells.comma):
            return _with_thousands(cells, cells.comma, cells.examples["comma"])
    elif commas and 0 < pointed == cells.three:
        return _with_thousands(cells, pointed, cells.examples["three"])
    if cells.whole == n:
        if cells.overflow:
            return code("it has whole numbers of more than 64 bits", cells.examples["long"])
        return Kind(pa.int64())
    notes = _doubts(cells, name, delimiter, n)
    spelling = PLAIN
    if cells.exponents == n and len(cells.mantissas) == 1:
        spelling = Spelling(exponent=next(iter(cells.mantissas)))
    elif not cells.exponents and len(cells.decimals) == 1 and min(cells.decimals) > 0:
        spelling = Spelling(decimals=next(iter(cells.decimals)))
    if cells.comma:
        spelling = dataclasses.replace(spelling, point=",")
    return Kind(pa.float64(), spelling=spelling, notes=notes)


THOUSANDS = "numbers with thousands separators"


def _with_thousands(cells: Cells, count: int, example: str) -> None:
    """Note that numbers are written with thousands separators, which makes them text."""
    n_before, example = cells.foreign.get(THOUSANDS, (0, example))
    cells.foreign[THOUSANDS] = n_before + count, example


def _doubts(cells: Cells, name: str, delimiter: str, n: int) -> tuple[str, ...]:
    """What is said of fractions that may be meant as something else."""
    if cells.longest_whole > 17:
        return (
            f"column {name!r} has numbers of {cells.longest_whole} digits beside fractions: of "
            "each 16 digits are kept",
        )
    kept = f"(--categorical {name!r} keeps them as they are written)"
    if cells.lettered == n:
        example = cells.examples["lettered"]
        return (f"column {name!r}: {example!r} is read as a number with an exponent {kept}",)
    if cells.trailing and len(cells.decimals) > 1 and not cells.exponents:
        example = cells.examples["trailing"]
        told = f"{example!r} is read as a number, without the zero at its end {kept}"
        return (f"column {name!r}: {told}",)
    if delimiter == ";" and not cells.comma and cells.three == n - cells.whole > 0:
        example = cells.examples["three"]
        told = f"the point of {example!r} is read as a decimal point, not as that of thousands"
        return (f"column {name!r}: {told}",)
    return ()


def _stamp(cells: Cells) -> Kind | None:
    zones = cells.words - {"T", " "}
    if "" in zones and len(zones) > 1:
        return None  # some with a zone and some without
    zoned = zones > {""} or "" not in zones
    longest = max(cells.widths) - max(map(len, zones))
    spelling = Spelling(
        between="T" if "T" in cells.words else " ",
        zone="Z" if zoned else "",
        seconds=longest > 16,
    )
    return Kind(pa.timestamp("ns" if longest > 19 else "s", "UTC" if zoned else None),
                spelling=spelling)  # fmt: skip


def _advice(cells: Cells, name: str) -> str:
    """Why a column is text although most of its cells have another form."""
    n_marks = sum(n for n, _ in cells.marks.values())
    others = {cell: found for cell, found in cells.odd.items() if cell not in MARKS}
    for what, (n, example) in cells.foreign.items():
        others_fit = n + cells.point + cells.comma == cells.total - n_marks
        if others_fit or n >= 0.5 * (cells.total - n_marks):
            plain = "2020-12-31" if "dates" in what else "plain numbers with a decimal point"
            return f"column {name!r} has {what}, such as {example!r}: write {plain}"
    strange = cells.n_odd - n_marks
    if strange and cells.n_odd <= FEW_ODD * cells.total and cells.point + cells.comma > strange:
        cell, (_, row) = min(others.items(), key=lambda entry: entry[1][1])
        return (
            f"column {name!r} has numbers except for {strange} cells, the first is {cell!r} in row "
            f"{row}: correct them, or leave them empty, which counts as missing"
        )
    return ""


def _is_temporal(kind: str, found: pa.Array) -> bool:
    if kind == "date":
        return _casts(found, pa.date32())
    if kind == "time":
        return compute.all(compute.match_substring_regex(found, CLOCK)).as_py()
    return _casts(found, pa.timestamp("ns")) or _casts(found, pa.timestamp("ns", "UTC"))


def _casts(column: pa.Array, dtype: pa.DataType) -> bool:
    try:
        column.cast(dtype)
    except pa.ArrowInvalid:
        return False
    return True


def is_country_codes(values: Sequence[str]) -> bool:
    """Whether words are country codes of two capitals, so that NA is Namibia."""
    return len(values) > 2 and all(len(v) == 2 and v.isalpha() and v.isupper() for v in values)
