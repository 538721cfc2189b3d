"""Finds the format of cells that are numbers or dates in another notation than plain or ISO.

Such a column is read once more. `Formats` counts the shapes of all its cells, and `number_of` and
`date_of` choose a format that fits every one of them, by the rules below.

- A unit, percent sign or currency stands in all cells or in none. An amount of money with three
  digits after every comma or point has thousands.
- Every number of a thousand or more has its separators, or none has.
- Day and month: a number above 12 is the day. Without one, the setting decides; else dates with
  points are day first; else another column of the file with the same separator decides. If nothing
  decides, the column is refused.
- Hours above 23 are durations.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import pyarrow as pa

from monge.data.columns.arrow import compute
from monge.data.columns.date_format import MONTHS, SHORT_MONTHS
from monge.data.columns.number_format import DIGITS, HOLE, NumberFormat

MOST_SHAPES = 64

UNIT = re.compile(
    r"|[%‰]|[$€£¥₹₩₽₺฿]|US\$|USD|EUR|GBP|CHF|JPY|CNY|INR|CAD|AUD|SEK|NOK|DKK|PLN|CZK|kr|zł"
)
MONEY = re.compile(r"[^%‰]+")
SIGNS = re.compile(r"[-\u2010-\u2015\u2212()\s]")
MINUS = re.compile(r"[-\u2010-\u2015\u2212(]")

SEPARATORS = ((",", "."), (".", ","), (" ", ","), (" ", "."), ("'", "."), ("'", ","), ("’", "."),
              ("\u00a0", ","), ("\u00a0", "."), ("\u202f", ","), ("\u202f", "."))  # fmt: skip
"""Thousands separators with their decimal marks, the more frequent first."""

Order = Literal["day-first", "month-first", "year-first"]
Dates = Literal["auto", "day-first", "month-first"]


@dataclass
class Formats:
    """Counts of the shapes of one column's cells, over the blocks so far.

    Attributes:
        total: cells that are not missing.
        around: the text around the digits, with `HOLE` in their place, with an example.
        fits: for each pair (thousands, point) the cells that it fits.
        grouped: for each separator the cells that contain it.
        fractions: for "." and "," the numbers of digits after it, if it stands once.
        marked: for both the cells in which it does.
        shapes: cells with 9 for each digit and Mon for each month, with an example.
        largest: of the first and the second number, and of the hours.
    """

    total: int = 0
    around: dict[str, str] = field(default_factory=dict)
    fits: dict[tuple[str, str], int] = field(default_factory=dict)
    grouped: dict[str, int] = field(default_factory=dict)
    fractions: dict[str, set[int]] = field(default_factory=lambda: {".": set(), ",": set()})
    marked: dict[str, int] = field(default_factory=dict)
    shapes: dict[str, str] = field(default_factory=dict)
    largest: list[int] = field(default_factory=lambda: [0, 0, 0])
    longest: int = 0

    def add(self, column: pa.Array) -> None:
        """Count the cells of a block, without blanks around them and without missing ones."""
        self.total += len(column)
        if not len(column):
            return
        around = compute.replace_substring_regex(column, DIGITS, HOLE, max_replacements=1)
        self._keep(self.around, around, column)
        digits = compute.struct_field(compute.extract_regex(column, f"(?P<n>{DIGITS})"), "n")
        digits = digits.drop_null()
        for pair in (("", "."), ("", ","), *SEPARATORS):
            pattern = f"^{NumberFormat(thousands=pair[0], point=pair[1]).digits}$"
            n = compute.match_substring_regex(digits, pattern).true_count
            self.fits[pair] = self.fits.get(pair, 0) + n
        for mark in {thousands for thousands, _ in SEPARATORS}:
            n = compute.match_substring(digits, mark).true_count
            self.grouped[mark] = self.grouped.get(mark, 0) + n
        for mark, found in self.fractions.items():
            once = digits.filter(compute.equal(compute.count_substring(digits, mark), 1))
            self.marked[mark] = self.marked.get(mark, 0) + len(once)
            behind = compute.replace_substring_regex(once, r"^.*[.,]", "")
            found.update(compute.unique(compute.utf8_length(behind)).to_pylist())
        if len(digits):
            self.longest = max(self.longest, compute.max(compute.utf8_length(digits)).as_py())
        self._look_at_dates(column)

    def _look_at_dates(self, column: pa.Array) -> None:
        shape = compute.replace_substring_regex(column, r"\d", "9")
        long = [name for name in MONTHS if name != "May"]
        for names, mark in ((long, "Month"), (SHORT_MONTHS, "Mon")):
            shape = compute.replace_substring_regex(shape, rf"\b(?:{'|'.join(names)})\b", mark)
        shape = compute.replace_substring_regex(shape, r"(?:AM|PM)$", "AM")
        shape = compute.replace_substring_regex(shape, r"(?:am|pm)$", "am")
        self._keep(self.shapes, shape, column)
        for k, pattern in enumerate(
            (r"^(?P<n>\d{1,2})[./-]\d", r"^\d{1,2}[./-](?P<n>\d{1,2})[./-]", r"(?P<n>\d{1,4}):\d\d")
        ):
            found = compute.struct_field(compute.extract_regex(column, pattern), "n").drop_null()
            if len(found):
                most = compute.max(found.cast(pa.int64())).as_py()
                self.largest[k] = max(self.largest[k], most)

    @staticmethod
    def _keep(kept: dict[str, str], found: pa.Array, column: pa.Array) -> None:
        if len(kept) > MOST_SHAPES:
            return
        for text in compute.unique(found).slice(0, MOST_SHAPES + 1).to_pylist():
            if text not in kept:
                kept[text] = column[compute.index(found, text).as_py()].as_py()


class FoundNumbers(NamedTuple):
    """The format of a column of numbers.

    Attributes:
        whole: whether no number has a fraction.
        decimals: digits after the decimal mark, if equal in all cells.
    """

    format: NumberFormat
    whole: bool
    decimals: int | None


def number_of(found: Formats, delimiter: str, commas: bool) -> FoundNumbers | None:
    """The format of a column's numbers; None if they have none in common.

    Args:
        commas: whether another column of the file has decimal commas.
    """
    texts = _texts_around(found)
    if texts is None or not found.total:
        return None
    pair = _separators(found, delimiter, commas, bool(MONEY.fullmatch(_unit(texts[0]))))
    if pair is None:
        return None
    behind = found.fractions[pair[1]]
    whole = not behind
    every = len(behind) == 1 and found.marked[pair[1]] == found.total
    decimals = next(iter(behind)) if every else None
    if whole and found.longest - found.longest // 4 > 18:
        return None
    return FoundNumbers(NumberFormat(*texts, *pair), whole, decimals)


def _texts_around(found: Formats) -> tuple[str, str] | None:
    """The text around positive and negative numbers."""
    texts = list(found.around)
    if any(text.count(HOLE) != 1 or not UNIT.fullmatch(_unit(text)) for text in texts):
        return None
    below = [text for text in texts if MINUS.search(text)]
    above = [text for text in texts if text not in below]
    bare = {SIGNS.sub("", text) for text in texts}
    if len(below) > 1 or len(above) > 1 or len(bare) != 1:
        return None
    positive = above[0] if above else re.sub(r"[-\u2010-\u2015\u2212()]", "", below[0])
    return positive, below[0] if below else f"-{positive}"


def _unit(text: str) -> str:
    return SIGNS.sub("", text).replace(HOLE, "")


def _separators(
    found: Formats, delimiter: str, commas: bool, money: bool
) -> tuple[str, str] | None:
    """The thousands separator and the decimal mark that fit all cells."""
    fitting = [pair for pair, n in found.fits.items() if n == found.total]
    three = {mark: digits == {3} for mark, digits in found.fractions.items()}
    grouped = [p for p in fitting if p[0] and found.grouped[p[0]]]
    if ("", ".") in fitting:
        dots = three["."] and (commas or money)
        return (".", ",") if dots and (".", ",") in fitting else ("", ".")
    if ("", ",") in fitting:
        thousands = three[","] and (delimiter == "," or money)
        return (",", ".") if thousands and (",", ".") in fitting else ("", ",")
    if commas and (with_comma := [p for p in grouped if p[1] == ","]):
        return with_comma[0]
    return grouped[0] if grouped else None


class FoundDates(NamedTuple):
    """The format of a column of dates, times or durations.

    Attributes:
        pattern: see `columns.date_format`.
        dtype: the Arrow type.
        sep: between the numbers of a date, if it has three.
        order: of these numbers; None if nothing decides.
        why: how the order was decided, for people.
    """

    pattern: str
    dtype: pa.DataType
    sep: str = ""
    order: Order | None = "year-first"
    why: str = ""


CLOCK = r"(?P<hour>9{1,4}):99(?P<second>:99)?(?P<half> ?(?:AM|am))?"
NUMERIC = re.compile(rf"(9{{1,4}})([./-])(9{{1,2}})\2(9{{4}}|99?)(?:(?P<gap> |T|, )(?:{CLOCK}))?$")
NAMED = re.compile(
    rf"(?:(?P<d>99?)(?P<s>[ -])(?P<m>Mon|Month)(?P=s)|(?P<m2>Mon|Month) (?P<d2>99?), )"
    rf"(?P<y>9999|99)(?:(?P<gap> |T|, )(?:{CLOCK}))?$"
)
ALONE = re.compile(rf"-?(?P<days>9+ days )?{CLOCK}$")


def date_of(found: Formats, dates: Dates, known: Mapping[str, Order]) -> FoundDates | None:
    """The format of a column's dates, times or durations; None if they have none in common.

    Args:
        dates: the setting for the order of day and month.
        known: the orders of other columns, by separator.
    """
    if not found.shapes or len(found.shapes) > MOST_SHAPES:
        return None
    for shape, read in ((ALONE, _time_of), (NAMED, _named), (NUMERIC, _numeric)):
        matches = [shape.match(text) for text in found.shapes]
        if all(matches):
            return read([m for m in matches if m], found, dates, known)
    return None


def _padded(widths: set[int]) -> str:
    return ":02" if widths == {2} else ""


def _clock(matches: list[re.Match[str]], hour: str) -> str | None:
    """The format of the times in shapes; None if they differ."""
    kinds = {(bool(m["second"]), m["half"] or "", m.groupdict().get("gap")) for m in matches}
    if len(kinds) != 1:
        return None
    seconds, half, gap = kinds.pop()
    if gap is None and any(m["hour"] is None for m in matches):
        return "" if all(m["hour"] is None for m in matches) else None
    name = f"{hour}12" if half else hour
    text = f"{{{name}{_padded({len(m['hour']) for m in matches})}}}:{{minute:02}}"
    text += ":{second:02}" if seconds else ""
    blank, word = half[:-2], half[-2:]
    text += f"{blank}{{{'AMPM' if word == 'AM' else 'ampm'}}}" if half else ""
    return (gap or "") + text


def _time_of(
    matches: list[re.Match[str]], found: Formats, _: Dates, __: Mapping[str, Order]
) -> FoundDates | None:
    days = {bool(m["days"]) for m in matches}
    if len(days) != 1:
        return None
    below = any(shape.startswith("-") for shape in found.shapes)
    lasting = found.largest[2] > 23 or below or days == {True}
    clock = _clock(matches, "hours" if lasting and days == {False} else "hour")
    if clock is None or (lasting and "12" in clock):
        return None
    if not lasting:
        return FoundDates(clock, pa.time32("s"))
    text = "{days} days " if days == {True} else ""
    return FoundDates(text + clock, pa.duration("s"))


def _type_of(clock: str) -> pa.DataType:
    return pa.timestamp("s") if clock else pa.date32()


def _named(
    matches: list[re.Match[str]], found: Formats, _: Dates, __: Mapping[str, Order]
) -> FoundDates | None:
    # May is short and long; it goes with the others.
    names = {m["m"] or m["m2"] for m in matches}
    name = "Month" if "Month" in names else "Mon"
    first = {(bool(m["d"]), m["s"], len(m["y"])) for m in matches}
    clock = _clock(matches, "hour")
    if len(first) != 1 or clock is None or (len(names) > 1 and not _only_may(found)):
        return None
    day_first, sep, digits = first.pop()
    month = "{monthname}" if name == "Month" else "{mon}"
    day = f"{{day{_padded({len(m['d'] or m['d2']) for m in matches})}}}"
    year = "{year}" if digits == 4 else "{yy}"
    date = f"{day}{sep}{month}{sep}{year}" if day_first else f"{month} {day}, {year}"
    return FoundDates(date + clock, _type_of(clock))


def _only_may(found: Formats) -> bool:
    """Whether the only short name of a month among long ones is that of May."""
    return all("May" in example for shape, example in found.shapes.items()
               if re.search(r"\bMon\b", shape))  # fmt: skip


def _numeric(
    matches: list[re.Match[str]], found: Formats, dates: Dates, known: Mapping[str, Order]
) -> FoundDates | None:
    seps, clock = {m[2] for m in matches}, _clock(matches, "hour")
    year_first = {len(m[1]) == 4 for m in matches}
    years = {len(m[1] if len(m[1]) > 2 else m[4]) for m in matches}
    wide = any(len(m[1]) == 3 or (len(m[1]) == 4 and len(m[4]) == 4) for m in matches)
    if len(seps) != 1 or len(year_first) != 1 or len(years) != 1 or clock is None or wide:
        return None
    sep, dtype = seps.pop(), _type_of(clock)
    if year_first == {True} and sep == "-" and {len(m[3]) + len(m[4]) for m in matches} == {4}:
        return None  # an ISO date that is none, such as a 31st of June
    if year_first == {True}:
        month, day = (_padded({len(m[k]) for m in matches}) for k in (3, 4))
        return FoundDates(f"{{year}}{sep}{{month{month}}}{sep}{{day{day}}}{clock}", dtype, sep)
    if years not in ({2}, {4}):
        return None
    order, why = _order(found, sep, dates, known)
    if why == "both":
        return None
    pads = [_padded({len(m[k]) for m in matches}) for k in (1, 3)]
    names = ("month", "day") if order == "month-first" else ("day", "month")
    first, second = (f"{{{n}{p}}}" for n, p in zip(names, pads, strict=True))
    year = "{year}" if years == {4} else "{yy}"
    return FoundDates(f"{first}{sep}{second}{sep}{year}{clock}", dtype, sep, order, why)


def _order(
    found: Formats, sep: str, dates: Dates, known: Mapping[str, Order]
) -> tuple[Order | None, str]:
    """The order of day and month, and how it was decided; "both" if it is neither."""
    first, second = found.largest[:2]
    if first > 12 and second > 12:
        return None, "both"
    if first > 12:
        return "day-first", f"{first} is no month"
    if second > 12:
        return "month-first", f"{second} is no month"
    if dates != "auto":
        return dates, f"--dates {dates}"
    if sep == ".":
        return "day-first", "dates with points are"
    if sep in known:
        return known[sep], f"another column with {sep!r} is"
    return None, ""
