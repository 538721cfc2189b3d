"""Dates, times and durations in other notations than ISO: read, and written the same.

A format is a text for `str.format`, such as "{day:02}.{month:02}.{year}" or "{hours}:{minute:02}",
from which both directions follow.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pyarrow as pa

from monge.data.columns.arrow import compute

MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September",
          "October", "November", "December")  # fmt: skip
SHORT_MONTHS = tuple(name[:3] for name in MONTHS)

PARTS = {
    "day": r"\d{1,2}", "month": r"\d{1,2}", "year": r"\d{4}", "yy": r"\d{2}",
    "mon": "|".join(SHORT_MONTHS), "monthname": "|".join(MONTHS),
    "hour": r"[01]?\d|2[0-3]", "hour12": r"0?[1-9]|1[0-2]", "minute": r"[0-5]\d",
    "second": r"[0-5]\d", "ampm": "am|pm", "AMPM": "AM|PM",
    "days": r"\d+", "hours": r"\d+",
}  # fmt: skip
"""The parts of formats: regular expressions for Arrow."""

CENTURY = 69
"""Years of two digits below this are of the 21st century, as in POSIX."""

TOKEN = re.compile(r"\{(\w+)(?::02)?\}")


def parts_of(pattern: str) -> list[str]:
    """The parts of a format.

    >>> parts_of("{day:02}.{month:02}.{year}")
    ['day', 'month', 'year']
    """
    return TOKEN.findall(pattern)


def regex_of(pattern: str) -> str:
    """The cells of a format, with a named group for each part; durations may begin with a minus."""
    made, at = [], 0
    for found in TOKEN.finditer(pattern):
        made += [re.escape(pattern[at : found.start()]), f"(?P<{found[1]}>{PARTS[found[1]]})"]
        at = found.end()
    return "^(?P<sign>-?)" + "".join([*made, re.escape(pattern[at:])]) + "$"


def read(cells: pa.Array, pattern: str, dtype: pa.DataType) -> pa.Array:
    """Cells as ISO text, and durations as seconds; cells of another format as they are.

    Raises:
        pyarrow.ArrowInvalid: a part that is no number.
    """
    found = compute.extract_regex(cells, regex_of(pattern))
    parts = {name: compute.struct_field(found, name) for name in parts_of(pattern)}
    if pa.types.is_duration(dtype):
        made = _seconds(parts, compute.struct_field(found, "sign"))
    else:
        both = [_date(parts), _time(parts)]
        known = [text for text in both if text is not None]
        made = known[0] if len(known) == 1 else compute.binary_join_element_wise(*known, " ")
    return compute.if_else(found.is_valid(), made, cells)


def _padded(part: pa.Array, width: int = 2) -> pa.Array:
    return compute.utf8_lpad(part, width, "0")


def _date(parts: dict[str, pa.Array]) -> pa.Array | None:
    if "day" not in parts:
        return None
    year = parts.get("year")
    if year is None:
        late = compute.less(parts["yy"].cast(pa.int32()), CENTURY)
        year = compute.binary_join_element_wise(compute.if_else(late, "20", "19"), parts["yy"], "")
    month = parts.get("month")
    for name, names in (("mon", SHORT_MONTHS), ("monthname", MONTHS)):
        if name in parts:
            place = compute.index_in(parts[name], value_set=pa.array(names))
            month = compute.add(place, 1).cast(pa.string())
    return compute.binary_join_element_wise(year, _padded(month), _padded(parts["day"]), "-")


def _time(parts: dict[str, pa.Array]) -> pa.Array | None:
    if "minute" not in parts:
        return None
    hour = parts.get("hour")
    if hour is None:
        half = parts.get("ampm", parts.get("AMPM"))
        late = compute.equal(compute.utf8_lower(half), "pm")
        whole = parts["hour12"].cast(pa.int32())
        whole = compute.if_else(compute.equal(whole, 12), 0, whole)
        hour = compute.add(whole, compute.if_else(late, 12, 0)).cast(pa.string())
    second = parts.get("second", compute.if_else(hour.is_valid(), "00", None))
    return compute.binary_join_element_wise(_padded(hour), parts["minute"], second, ":")


def _seconds(parts: dict[str, pa.Array], sign: pa.Array) -> pa.Array:
    units = {"days": 86_400, "hours": 3600, "hour": 3600, "minute": 60, "second": 1}
    total = None
    for name, part in parts.items():
        some = compute.multiply(part.cast(pa.int64()), units[name])
        total = some if total is None else compute.add(total, some)
    text = compute.cast(total, pa.string())
    return compute.binary_join_element_wise(sign, text, "")


def written(column: pa.Array | pa.ChunkedArray, pattern: str) -> Iterator[str | None]:
    """Dates, times or durations in a format; None for a missing value."""
    if pa.types.is_duration(column.type):
        seconds = column.cast(pa.duration("s")).cast(pa.int64()).to_pylist()
        yield from (None if s is None else _duration(s, pattern) for s in seconds)
        return
    parts = {name: getattr(compute, name)(column).to_pylist() for name in _held(column.type)}
    for row, valid in enumerate(column.is_valid().to_pylist()):
        yield _cell({k: v[row] for k, v in parts.items()}, pattern) if valid else None


def _held(dtype: pa.DataType) -> list[str]:
    """The parts that values of a type have."""
    date, time = ["day", "month", "year"], ["hour", "minute", "second"]
    if pa.types.is_date(dtype):
        return date
    return time if pa.types.is_time(dtype) else date + time


def _cell(at: dict[str, int], pattern: str) -> str:
    known: dict[str, int | str] = dict(at)
    if "month" in at:
        known["mon"], known["monthname"] = (n[at["month"] - 1] for n in (SHORT_MONTHS, MONTHS))
        known["yy"] = f"{at['year'] % 100:02}"
    if "hour" in at:
        known["hour12"] = at["hour"] % 12 or 12
        known["AMPM"] = "PM" if at["hour"] >= 12 else "AM"
        known["ampm"] = str(known["AMPM"]).lower()
    return pattern.format(**known)


def _duration(seconds: int, pattern: str) -> str:
    names, rest = parts_of(pattern), abs(seconds)
    known = {}
    for name, unit in (("days", 86_400), ("hours", 3600), ("hour", 3600), ("minute", 60)):
        if name in names:
            known[name], rest = divmod(rest, unit)
    return "-" * (seconds < 0) + pattern.format(**known, second=rest)
