"""Numbers and dates in other notations than plain ones: read as such, and written to the letter."""

from __future__ import annotations

import datetime
import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import monge
from monge.data.columns.date_format import parts_of, regex_of
from monge.data.columns.schema import TableCodec
from monge.data.columns.spelling import cells_of
from monge.data.reading import Reading
from monge.data.sources import load
from monge.data.tables import table_files
from monge.data.tables.csv_files import advice_of, notes_of, read_csv
from monge.data.tables.parsed_cells import parsed
from monge.errors import UserError

N = 40
DAYS = [datetime.date(2019, 1, 1) + datetime.timedelta(days=37 * i) for i in range(N)]
STAMPS = [datetime.datetime.combine(d, datetime.time(i % 24, 7 * i % 60, i))
          for i, d in enumerate(DAYS)]  # fmt: skip
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September",
          "October", "November", "December")  # fmt: skip


def number(i: int, thousands: str = "", point: str = ".", decimals: int = 2) -> str:
    text = f"{1234.567 * i - 3000:,.{decimals}f}"
    return text.translate(str.maketrans({",": thousands, ".": point}))


def signed(text: str, positive: str, negative: str) -> str:
    return (negative if text[0] == "-" else positive).replace("{}", text.removeprefix("-"))


NUMBERS = {
    f"{positive} {negative} {thousands!r} {point!r} {decimals}": [
        signed(number(i, thousands, point, decimals), positive, negative) for i in range(N)
    ]
    for positive, negative in (
        ("{}", "-{}"), ("{}%", "-{}%"), ("{} %", "-{} %"), ("${}", "-${}"), ("${}", "$-{}"),
        ("${}", "(${})"), ("{}", "({})"), ("{} €", "-{} €"), ("EUR {}", "-EUR {}"), ("{}", "−{}"),
        ("£{}", "−£{}"), ("{} kr", "-{} kr"),
    )
    for thousands, point in ((",", "."), (".", ","), (" ", ","), ("'", "."), ("\u202f", ","),
                             ("", "."), ("", ","))
    for decimals in (0, 2)
    if not (decimals == 0 and thousands == "" and point == ",")
}  # fmt: skip
"""Cells of a column by their notation."""


def file_of(cells: list[str], folder: Path, delimiter: str = ";") -> Path:
    path = folder / "t.csv"
    rows = [f'{i % 7}{delimiter}"{c}"' if delimiter in c else f"{i % 7}{delimiter}{c}"
            for i, c in enumerate(cells)]  # fmt: skip
    path.write_text(f"k{delimiter}v\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return path


def is_ambiguous(notation: str, delimiter: str) -> bool:
    """Whether three digits after every mark are read as decimals, by the rule for such files."""
    text, thousands, _, decimals = notation.rsplit(" ", 3)
    money = any(sign in text for sign in ("$", "€", "EUR", "£", "kr"))
    three = (thousands == "','" and delimiter != ",") or thousands == "'.'"
    return three and decimals == "0" and not money


def values_of(cells: list[str], notation: str) -> list[float]:
    return [float(number(i, "", ".", int(notation[-1]))) for i in range(len(cells))]


@pytest.mark.parametrize("notation", NUMBERS)
def test_numbers_are_read_and_written_to_the_letter(tmp_path: Path, notation: str) -> None:
    cells = NUMBERS[notation]
    for delimiter in (";", ",", "\t"):
        if is_ambiguous(notation, delimiter):
            continue
        table = read_csv(file_of(cells, tmp_path, delimiter))
        assert table["v"].type in (pa.int64(), pa.float64()), advice_of(table)
        expected = values_of(cells, notation)
        assert table["v"].to_pylist() == pytest.approx(expected)
        assert cells_of(table["v"], table.schema.field("v")) == cells
        again = tmp_path / "again.csv"
        again.write_text(table_files.csv_of(table), encoding="utf-8")
        assert read_csv(again).equals(table)
        assert parsed(cells[:3], table.schema.field("v")).to_pylist() == pytest.approx(expected[:3])


DATES = {
    "{day:02}.{month:02}.{year}": [f"{d.day:02}.{d.month:02}.{d.year}" for d in DAYS],
    "{day}.{month}.{year}": [f"{d.day}.{d.month}.{d.year}" for d in DAYS],
    "{day:02}/{month:02}/{year}": [f"{d.day:02}/{d.month:02}/{d.year}" for d in DAYS],
    "{month}/{day}/{year}": [f"{d.month}/{d.day}/{d.year}" for d in DAYS],
    "{month:02}/{day:02}/{yy}": [f"{d.month:02}/{d.day:02}/{d.year % 100:02}" for d in DAYS],
    "{day:02}-{month:02}-{year}": [f"{d.day:02}-{d.month:02}-{d.year}" for d in DAYS],
    "{year}/{month:02}/{day:02}": [f"{d.year}/{d.month:02}/{d.day:02}" for d in DAYS],
    "{year}-{month}-{day}": [f"{d.year}-{d.month}-{d.day}" for d in DAYS],
    "{day:02}-{mon}-{year}": [f"{d.day:02}-{MONTHS[d.month - 1][:3]}-{d.year}" for d in DAYS],
    "{day} {monthname} {year}": [f"{d.day} {MONTHS[d.month - 1]} {d.year}" for d in DAYS],
    "{mon} {day}, {year}": [f"{MONTHS[d.month - 1][:3]} {d.day}, {d.year}" for d in DAYS],
}
TIMES = {
    "{hour:02}:{minute:02}": [f"{t.hour:02}:{t.minute:02}" for t in STAMPS],
    "{hour:02}:{minute:02}:{second:02}": [f"{t:%H:%M:%S}" for t in STAMPS],
    "{hour}:{minute:02}": [f"{t.hour}:{t.minute:02}" for t in STAMPS],
    "{hour12}:{minute:02} {AMPM}": [f"{t.hour % 12 or 12}:{t:%M %p}" for t in STAMPS],
    "{hour12:02}:{minute:02}{ampm}": [f"{t.hour % 12 or 12:02}:{t:%M}{f'{t:%p}'.lower()}"
                                      for t in STAMPS],
}  # fmt: skip


@pytest.mark.parametrize("pattern", DATES)
def test_dates_are_read_and_written_to_the_letter(tmp_path: Path, pattern: str) -> None:
    cells = DATES[pattern]
    table = read_csv(file_of(cells, tmp_path))
    assert table["v"].type == pa.date32() and table["v"].to_pylist() == DAYS
    assert cells_of(table["v"], table.schema.field("v")) == cells
    assert f"{cells[0]!r} is read as a date" in " ".join(notes_of(table))
    assert parsed(cells[:2], table.schema.field("v")).to_pylist() == DAYS[:2]
    iso = parsed(["2020-12-31"], table.schema.field("v"))
    assert iso.to_pylist() == [datetime.date(2020, 12, 31)]


@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("pattern", DATES)
def test_dates_with_times_too(tmp_path: Path, pattern: str, time: str) -> None:
    cells = [f"{d} {t}" for d, t in zip(DATES[pattern], TIMES[time], strict=True)]
    table = read_csv(file_of(cells, tmp_path))
    seconds = "second" in time
    expected = [t if seconds else t.replace(second=0) for t in STAMPS]
    assert table["v"].type == pa.timestamp("s") and table["v"].to_pylist() == expected
    assert cells_of(table["v"], table.schema.field("v")) == cells


@pytest.mark.parametrize("time", list(TIMES))
def test_times_of_the_day(tmp_path: Path, time: str) -> None:
    table = read_csv(file_of(TIMES[time], tmp_path))
    expected = [t.time() if "second" in time else t.time().replace(second=0) for t in STAMPS]
    assert table["v"].type == pa.time32("s") and table["v"].to_pylist() == expected
    assert cells_of(table["v"], table.schema.field("v")) == TIMES[time]


SECONDS = [3661 * i for i in range(N)]
DURATIONS = {
    "h:mm:ss": [f"{s // 3600}:{s // 60 % 60:02}:{s % 60:02}" for s in SECONDS],
    "hh:mm:ss": [f"{s // 3600:02}:{s // 60 % 60:02}:{s % 60:02}" for s in SECONDS],
    "days": [f"{s // 86400} days {s // 3600 % 24:02}:{s // 60 % 60:02}:{s % 60:02}"
             for s in SECONDS],
}  # fmt: skip


@pytest.mark.parametrize("notation", DURATIONS)
def test_durations(tmp_path: Path, notation: str) -> None:
    cells = DURATIONS[notation]
    table = read_csv(file_of(cells, tmp_path))
    assert table["v"].type == pa.duration("s")
    assert [d.total_seconds() for d in table["v"].to_pylist()] == SECONDS
    assert cells_of(table["v"], table.schema.field("v")) == cells
    assert "is read as a duration" in " ".join(notes_of(table))


# Which is the day


def dates(pairs: list[tuple[int, int]], sep: str = "/") -> list[str]:
    return [f"{a:02}{sep}{b:02}{sep}2020" for a, b in pairs] * 10


AMBIGUOUS = [(3, 4), (5, 6), (7, 8)]


def read_pair(tmp_path: Path, a: list[str], b: list[str], **how: str) -> pa.Table:
    path = tmp_path / "t.csv"
    path.write_text("a,b\n" + "".join(f"{x},{y}\n" for x, y in zip(a, b, strict=True)))
    return read_csv(path, **how)  # type: ignore[arg-type]


def test_a_number_above_twelve_is_the_day(tmp_path: Path) -> None:
    first, second = dates([(13, 4), *AMBIGUOUS]), dates([(4, 13), *AMBIGUOUS], "-")
    table = read_pair(tmp_path, first, second)
    assert table["a"][0].as_py() == table["b"][0].as_py() == datetime.date(2020, 4, 13)
    assert table["a"][1].as_py() == datetime.date(2020, 4, 3)
    assert table["b"][1].as_py() == datetime.date(2020, 3, 4)
    told = " ".join(notes_of(table))
    assert "day-first (13 is no month)" in told and "month-first (13 is no month)" in told


def test_another_column_decides_by_its_separator(tmp_path: Path) -> None:
    first, second = dates([(4, 13), (3, 4), (5, 6)]), dates(AMBIGUOUS)
    table = read_pair(tmp_path, first, second)
    assert table["b"][0].as_py() == datetime.date(2020, 3, 4)
    assert "month-first (another column with '/' is)" in " ".join(notes_of(table))
    other = read_pair(tmp_path, dates([(4, 13), (3, 4), (5, 6)], "-"), second)
    assert "--dates day-first or --dates month-first" in advice_of(other)["b"]


@pytest.mark.parametrize(("order", "month"), [("day-first", 4), ("month-first", 3)])
def test_the_setting_decides_and_else_they_are_refused(
    tmp_path: Path, order: str, month: int
) -> None:
    numbers = [str(i) for i in range(30)]
    table = read_pair(tmp_path, numbers, dates(AMBIGUOUS), dates=order)
    assert table["b"][0].as_py().month == month
    with pytest.raises(UserError, match="nothing tells whether the day or the month is first"):
        load(str(tmp_path / "t.csv"))
    data = load(str(tmp_path / "t.csv"), Reading(dates=order))  # type: ignore[arg-type]
    assert data.table is not None and data.table["b"][0].as_py().month == month
    assert any(f"--dates {order}" in note for note in data.report["notes"])


def test_points_are_day_first(tmp_path: Path) -> None:
    table = read_pair(tmp_path, dates(AMBIGUOUS, "."), dates(AMBIGUOUS, "."))
    assert table["a"][0].as_py() == datetime.date(2020, 4, 3)
    assert "dates with points are" in " ".join(notes_of(table))


# Which notation


def test_three_digits_after_every_comma(tmp_path: Path) -> None:
    """Thousands in a file delimited by commas and of money, else decimals."""
    cells = [f"{i},{i:03}" for i in range(1, N + 1)]
    assert read_csv(file_of(cells, tmp_path, ","))["v"].to_pylist()[0] == 1001
    assert read_csv(file_of(cells, tmp_path, ";"))["v"].to_pylist()[0] == 1.001
    money = [f"${c}" for c in cells]
    assert read_csv(file_of(money, tmp_path, ";"))["v"].to_pylist()[0] == 1001


def test_a_column_with_decimal_commas_decides_for_others(tmp_path: Path) -> None:
    """Also one of money; thousands in a file delimited by commas decide nothing."""
    path = tmp_path / "t.csv"
    path.write_text("a;b\n" + "".join(f"{i},50 €;{i}.{i:03}\n" for i in range(1, 40)))
    assert read_csv(path)["b"].to_pylist()[:2] == [1001, 2002]
    path.write_text("a,b\n" + "".join(f'"{i},{i:03}",{i}.{i:03}\n' for i in range(1, 40)))
    table = read_csv(path)
    assert table["a"][0].as_py() == 1001 and table["b"][0].as_py() == 1.001


MIXED = {
    "two units": ["5%", "$5"] * 20,
    "with a unit and without": ["5%", "5"] * 20,
    "some with thousands": ["1,234.5", "1234.5"] * 20,
    "two separators": ["1,234.5", "1.234,5"] * 20,
    "two orders": ["13/01/2020", "01/13/2020"] * 20,
    "two separators of dates": ["13/01/2020", "13.01.2020"] * 20,
    "names and numbers": ["13 Jan 2020", "13.01.2020"] * 20,
    "codes": ["A-12", "B-13"] * 20,
    "ranges": ["10-20", "20-30"] * 20,
    "versions": ["1.2.3", "1.2.4"] * 20,
    "addresses": ["10.0.0.1", "10.0.0.2"] * 20,
    "units that are none": ["5 apples", "6 apples"] * 20,
    "plus signs": ["+5%", "-5%"] * 20,
}


@pytest.mark.parametrize("what", MIXED)
def test_what_is_in_no_single_notation_stays_text(tmp_path: Path, what: str) -> None:
    table = read_csv(file_of(MIXED[what], tmp_path))
    assert table["v"].type == pa.string() and table["v"].to_pylist() == MIXED[what]


def test_a_date_that_is_none_is_named(tmp_path: Path) -> None:
    path = file_of(dates([(31, 1), (31, 2)]), tmp_path)
    with pytest.raises(UserError, match="column 'v' has cells that look like date32"):
        read_csv(path)


def test_missing_cells_do_not_disturb_a_notation(tmp_path: Path) -> None:
    cells = ["NA" if i % 3 == 0 else "-" if i % 7 == 0 else c
             for i, c in enumerate(NUMBERS["{} % -{} % '' ',' 2"])]  # fmt: skip
    data = load(str(file_of(cells, tmp_path)), Reading(missing="model"))
    assert data.table is not None and data.codec is not None
    written = table_files.csv_of(data.codec.decode(data.codec.encode(data.table).x))
    again = [line.split(";")[1] for line in written.splitlines()[1:]]
    assert again == ["NA" if c == "-" else c for c in cells]


def test_formats_do_not_depend_on_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = [*NUMBERS["${} (${}) ',' '.' 2"], "$7.25"] * 30
    path = file_of(cells, tmp_path)
    whole = read_csv(path)
    monkeypatch.setattr("monge.data.tables.csv_files.BLOCK_BYTES", 512)
    assert read_csv(path).equals(whole) and whole["v"].type == pa.float64()


def test_a_format_names_its_parts() -> None:
    assert parts_of("{day:02}. {monthname} {yy}") == ["day", "monthname", "yy"]
    assert regex_of("{hour}:{minute:02}") == (
        r"^(?P<sign>-?)(?P<hour>[01]?\d|2[0-3]):(?P<minute>[0-5]\d)$"
    )


# Files


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "latin-1"])
@pytest.mark.parametrize("compressed", [False, True])
def test_encodings_and_gzip_are_sniffed_and_said(
    tmp_path: Path, encoding: str, compressed: bool
) -> None:
    lines = [f"{'Zürich' if i % 2 else 'Genève'};{i % 5},5" for i in range(N)]
    content = ("Städte;größe\n" + "\n".join(lines)).encode(encoding)
    path = tmp_path / ("t.csv.gz" if compressed else "t.csv")
    path.write_bytes(gzip.compress(content) if compressed else content)
    data = load(str(path))
    assert data.table is not None and data.table.column_names == ["Städte", "größe"]
    assert set(data.table["Städte"].to_pylist()) == {"Zürich", "Genève"}
    notes = " ".join(data.report["notes"])
    assert ("compressed by gzip" in notes) is compressed
    assert ("byte order mark" in notes) is (encoding == "utf-8-sig")
    assert ("Windows-1252" in notes) is (encoding in ("cp1252", "latin-1"))
    assert data.name == "t"


def test_a_late_byte_that_is_not_utf8_decides_too(tmp_path: Path) -> None:
    rows = ["1,plain"] * 200_000
    path = tmp_path / "t.csv"
    path.write_bytes(("a,b\n" + "\n".join(rows)).encode() + "\n2,café\n".encode("latin-1"))
    table = read_csv(path)
    assert table["b"][200_000].as_py() == "café" and "Windows-1252" in notes_of(table)[0]
    path.write_bytes(("a,b\n1,café\n" + "\n".join(rows)).encode() + b"\n2,caf\xe9\n")
    with pytest.raises(UserError, match="byte 0xe9 is not UTF-8"):
        read_csv(path)


@pytest.mark.parametrize("damage", [slice(0, 40), slice(0, -4)])
def test_damaged_gzip_is_named(tmp_path: Path, damage: slice) -> None:
    rows = "\n".join(f"{i},{i * 7919 % 1000}" for i in range(3000))
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(("a,b\n" + rows).encode())[damage])
    with pytest.raises(UserError, match=r"t\.csv\.gz"):
        read_csv(path)


def test_samples_have_the_notation_of_the_file(tmp_path: Path) -> None:
    """Money, percentages, dates and durations of a trained run, which reads its samples again."""
    rng = np.random.default_rng(0)
    rows = [
        f'"{signed(number(i % 30), "${}", "(${})")}",{rng.integers(0, 100)}%,'
        f"{DATES['{month}/{day}/{year}'][i % N]},{DURATIONS['hh:mm:ss'][i % N]}"
        for i in range(200)
    ]
    path = tmp_path / "t.csv"
    path.write_text("price,share,day,took\n" + "\n".join(rows) + "\n")
    settings = {"network": "mlp:width=16,depth=1", "steps": 3, "grid": "uniform:n=2", "threads": 1}
    run = monge.train(str(path), out=tmp_path / "run", verbose=False, **settings)  # type: ignore
    assert isinstance(run.codec, TableCodec)
    run.sample(50).save(tmp_path / "samples")
    text = (tmp_path / "samples" / "samples.csv").read_text()
    assert "$" in text and "%" in text
    again = read_csv(tmp_path / "samples" / "samples.csv", dates="month-first")
    assert again.schema.types == run.codec.schema.types
    assert again["price"].to_pylist() == run.sample(50).table()["price"].to_pylist()
