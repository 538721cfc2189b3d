"""Csv as other programs write it: right values, and what is decided by a rule is told."""

from __future__ import annotations

import datetime
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from monge.data.naming import flag, names_in
from monge.data.reading import Reading
from monge.data.sources import load
from monge.data.tables import csv_files, table_files, tables
from monge.data.tables.compared_columns import as_matrices
from monge.data.tables.csv_files import advice_of, notes_of, read_csv
from monge.errors import UserError


def written(folder: Path, text: str, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8", newline="")
    return path


WHOLE = [21.0, 18.5, 0.19]

VALUES: list[Any] = [
    # How cells are cut, and how numbers are written.
    ("a;b\n21;x\n18,5;y\n,19;z\n", "a", WHOLE, ""),
    ("a;b\n2,1E+01;x\n18,5;y\n1,9e-1;z\n", "a", WHOLE, ""),
    ("a\tb\n21\tx\n18,5\ty\n 0,19\tz\n", "a", WHOLE, ""),
    ('a;b\n"21";x\n"18,5";y\n"0,19";z\n', "a", WHOLE, ""),
    ('a,b\n"21",x\n"18,5",y\n"0,19",z\n', "a", WHOLE, ""),
    ("a, b\n21, x\n18.5, y\n.19, z\n", "a", WHOLE, ""),
    ("a|b\n21|x\n18.5|y\n0.19|z\n", "a", WHOLE, ""),
    ("  a    b\n 21    2\n 18.5  3\n  .19  4\n", "a", WHOLE, ""),
    ("sep=;\na;b\n21;x\n18.5;y\n0.19;z\n", "a", WHOLE, ""),
    ("\n\n;;\na;b\n21;x\n18.5;y\n0.19;z\n", "a", WHOLE, ""),
    ("a,b,\n21,x,\n18.5,y,\n0.19,z,\n", "a", WHOLE, "neither a name nor a value: left out"),
    ("a,b,,\n21,x,,\n18.5,y,,\n0.19,z,,\n", "a", WHOLE, "2 columns with neither a name"),
    ("a,b\n21,x,\n18.5,y,\n0.19,z,\n", "a", WHOLE, "neither a name"),
    ("a,b,\n21,x\n18.5,y\n0.19,z\n", "a", WHOLE, ""),
    ("a,b\n+21,x\n+18.5,y\n+.19,z\n", "a", WHOLE, ""),
    ("a,a\n1,21\n2,18.5\n3,0.19\n", "a.1", WHOLE, "several columns 'a'"),
    # Codes that look like numbers stay what they are.
    ("a,b\n02134,1\n00501,2\n10001,3\n", "a", ["02134", "00501", "10001"], "leading zeros"),
    ("a,b\n+4930123456,1\n+4930123457,2\n", "a", ["+4930123456", "+4930123457"], "plus"),
    ("a,b\n12E3,1\n4567,2\n", "a", ["12E3", "4567"], "codes of one width"),
    ("a,b\n12E3,1\n456700,2\n", "a", [12000.0, 456700.0], ""),
    ("a,b\n89000000000000000001,1\n7,2\n", "a", ["89000000000000000001", "7"], "64 bits"),
    ("a,b\n123456789012345678,1\n7,2\n", "a", [123456789012345678, 7], ""),
    ("a,b\n12345678901234567890,1\n7.5,2\n", "a", [12345678901234567890.0, 7.5], "16 digits"),
    ("a,b\n1e5,1\n2e4,2\n", "a", [1e5, 2e4], "'1e5' is read as a number with an exponent"),
    ("a,b\n1.10,1\n1.9,2\n", "a", [1.1, 1.9], "'1.10' is read as a number, without the zero"),
    ("a,b\n2.0,1\n1.95,2\n", "a", [2.0, 1.95], ""),
    ("a,b\n1.10,1\n1.90,2\n", "a", [1.1, 1.9], ""),
    ("a;b\n1.636;x\n12.899;y\n", "a", [1.636, 12.899], "is read as a decimal point, not as"),
    ("a;b\n0.636;x\n12.899;y\n", "a", [0.636, 12.899], ""),
    ("a;b\n1.636;0,5\n12.899;1,25\n", "a", [1636, 12899], "'.' separates thousands"),
    ("a;b\n1.6;0,5\n12.899;1,25\n", "a", [1.6, 12.899], ""),
    # Missing values.
    ("a,b\n?,1\n18,2\n-,3\n", "a", [None, 18, None], "'?' 1 times, first in row 0, '-' 1 times"),
    ("a,b\nNA,1\n18,2\n,3\n", "a", [None, 18, None], ""),
    ('a,b\n"NA",1\n18,2\n"",3\n', "a", [None, 18, None], ""),
    ("a,b\n?,1\nx,2\ny,3\n", "a", ["?", "x", "y"], "is a value of its own in it"),
    ("a,b\nNA,1\nDE,2\nFR,3\nUS,4\nFR,5\n", "a", ["NA", "DE", "FR", "US", "FR"],
     "NA is taken for a code (1 times)"),
    ("a,b\nNA,1\nDE,2\nFRA,3\nUS,4\nUS,5\n", "a", [None, "DE", "FRA", "US", "US"], ""),
    # Truth values, dates and times.
    ("a,b\nTRUE,1\nFALSE,2\n", "a", [True, False], ""),
    ("a,b\n2020-06-30,1\n2020-01-01,2\n", "a",
     [datetime.date(2020, 6, 30), datetime.date(2020, 1, 1)], ""),
    ("a,b\n2020-06-31,1\n2020-01-01,2\n", "a", ["2020-06-31", "2020-01-01"], ""),
    ("a,b\n12:30,1\n01:00,2\n", "a", [datetime.time(12, 30), datetime.time(1)], ""),
    ("a,b\n25:30,1\n01:00,2\n", "a",
     [datetime.timedelta(hours=25.5), datetime.timedelta(hours=1)], "is read as a duration"),
    ("a,b\n2020-06-30T12:00,1\n2020-01-01T01:30,2\n", "a",
     [datetime.datetime(2020, 6, 30, 12), datetime.datetime(2020, 1, 1, 1, 30)], ""),
    # Names.
    ("c,1990,1991\nx,21,1\ny,18.5,2\nz,.19,3\n", "1990", WHOLE, "taken for names: they count up"),
    ('a,"5.1"\nx,21\ny,18.5\nz,.19\n', "5.1", WHOLE, ""),
]  # fmt: skip


@pytest.mark.parametrize(("text", "column", "values", "note"), VALUES)
def test_right_values(tmp_path: Path, text: str, column: str, values: Any, note: str) -> None:
    for ends in ("\n", "\r\n"):
        table = read_csv(written(tmp_path, text.replace("\n", ends)))
        assert table[column].to_pylist() == values
        assert note in "\n".join(notes_of(table)) and (note or not notes_of(table))


def test_blocks_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is read in blocks; what a late block holds decides for all."""
    lines = [f"{k},{k % 7},w{k % 3},2020-01-{k % 28 + 1:02d},{k}" for k in range(2000)]
    lines[1700] = "0.5,?,?,2020-02-01,007"
    path = written(tmp_path, "a,b,c,d,e\n" + "\n".join(lines) + "\n")
    whole = read_csv(path)
    monkeypatch.setattr(csv_files, "BLOCK_BYTES", 512)
    small = read_csv(path)
    assert small.equals(whole) and notes_of(small) == notes_of(whole)
    assert [str(t) for t in small.schema.types] == [
        "double", "int64", "string", "date32[day]", "string",
    ]  # fmt: skip
    assert small["b"][1700].as_py() is None and small["e"][1700].as_py() == "007"
    assert "first in row 1700" in notes_of(small)[0]
    assert read_csv(path, limit=100)["e"].to_pylist() == list(range(100))


DATA = [
    ("5.1,3.5,alba\n4.9,3.0,alba\n", "its cell 1 is '5.1', and the cells below are numbers too"),
    ("5.1,3.5\n4.9,3.0\n", "has numbers only (5.1, 3.5, ...)"),
    ("39, State, 77516\n50, Self, 83311\n", "its cell 1 is '39'"),
    ("x,red\n" * 6 + "y,blue\nx,red\n" * 6, "each of its cells (x, red, ...) occurs again"),
]


@pytest.mark.parametrize(("text", "message"), DATA)
def test_a_first_example_is_not_taken_for_names(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError) as raised:
        read_csv(written(tmp_path, text))
    assert message in str(raised.value) and "names of the columns" in str(raised.value)


ADVICE = [
    ("45 %", "percentages, such as '45 %'"),
    ("1,234,567", "numbers with thousands separators, such as '1,234,567'"),
    ("31/12/2020", "dates that do not begin with the year, such as '31/12/2020': write 2020-12-31"),
    ("31.12.2020", "dates that do not begin with the year"),
    ("2020/12/31", "dates with strokes"),
    ("$4.50", "amounts of money"),
    ("(4.50)", "negative numbers in brackets, such as '(4.50)'"),
    ("\u22124.50", "minus signs that are none, such as '\u22124.50'"),
]


@pytest.mark.parametrize(("cell", "message"), ADVICE)
def test_foreign_numbers_are_named(tmp_path: Path, cell: str, message: str) -> None:
    """Where one cell in five has no notation in common with the others."""
    rows = [f'{k},"{cell if k % 5 else f"{k} or so"}"' for k in range(20)]
    path = written(tmp_path, "k,odd\n" + "\n".join(rows))
    assert message in advice_of(read_csv(path))["odd"]
    with pytest.raises(UserError) as raised:
        load(str(path))
    assert message in str(raised.value) and "--drop odd" in str(raised.value)


def test_the_cell_that_makes_a_column_text_is_named(tmp_path: Path) -> None:
    rows = [f"{'about 7' if k == 5 else k},{k % 2},{'x' if k == 8 else k / 7}" for k in range(30)]
    path = written(tmp_path, "a,n,b\n" + "\n".join(rows))
    with pytest.raises(UserError) as raised:
        load(str(path))
    text = str(raised.value)
    assert text.startswith("2 problems:")  # all at once
    assert "column 'a' has numbers except for 1 cells, the first is 'about 7' in row 5" in text
    assert "column 'b' has numbers except for 1 cells, the first is 'x' in row 8" in text


def test_text_is_categories_by_its_number_of_values(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [f"{rng.normal():.3f},{'uvw'[k % 3]},note {k}" for k in range(40)]
    path = written(tmp_path, 'x,"kind, sort",notes\n' + "\n".join(rows))
    with pytest.raises(UserError) as raised:
        load(str(path))
    assert "'notes' (40 different values) in 40 rows" in str(raised.value)
    assert "--drop notes" in str(raised.value) and "--categorical" not in str(raised.value)
    data = load(str(path), Reading(drop="notes"))
    assert data.codec is not None and data.codec.categories == ("kind, sort",)
    advice = "--drop '\"kind, sort\"'"
    assert any(f"learned as categories ({advice} leaves it out)" in n for n in data.summary)
    assert load(str(path), Reading(drop='notes,"kind, sort"')).shape == (1,)


def test_lists_of_names_come_back_from_their_flags() -> None:
    import shlex

    for names in (["a"], ["size, cm", "b"], ['say "x"', " blank", ""], [""], ["it's"]):
        assert names_in(shlex.split(flag("--drop", names))[1]) == names


INDEXES = [
    (",a\n0,{}\n", "''", "row numbers"),
    ("Unnamed: 0,a\n5,{}\n", "'Unnamed: 0'", "row numbers"),
    ('"",a\nrow0,{}\n', "''", "row names"),
]


@pytest.mark.parametrize(("head", "name", "what"), INDEXES)
def test_row_numbers_without_a_name(tmp_path: Path, head: str, name: str, what: str) -> None:
    title, first = head.splitlines()
    start = first.partition(",")[0]
    step = (lambda k: f"row{k}") if start.startswith("row") else (lambda k: str(int(start) + k))
    rng = np.random.default_rng(1)
    rows = [f"{step(k)},{rng.normal():.3f},{rng.normal():.3f}" for k in range(30)]
    path = written(tmp_path, f"{title},b\n" + "\n".join(rows))
    data = load(str(path))
    assert data.shape == (2,) and any(what in n and name in n for n in data.summary)
    named = load(str(path), Reading(columns='"",a,b' if name == "''" else "Unnamed: 0,a,b")
                 if what == "row numbers" else Reading())  # fmt: skip
    assert named.shape == ((3,) if what == "row numbers" else (2,))
    with pytest.raises(UserError, match="--drop: no column 'c'"):
        load(str(path), Reading(drop="c"))


def test_the_index_of_a_data_frame_in_parquet(tmp_path: Path) -> None:
    pandas = b'{"index_columns": ["__index_level_0__"], "columns": []}'
    values = np.random.default_rng(0).normal(size=30)
    table = pa.table({"a": values, "__index_level_0__": np.arange(30)[::-1] * 3})
    parquet.write_table(table.replace_schema_metadata({b"pandas": pandas}), tmp_path / "t.parquet")
    data = load(str(tmp_path / "t.parquet"))
    assert data.shape == (1,) and any("row numbers" in n for n in data.summary)
    counted = load(
        str(written(tmp_path, "id,a\n" + "\n".join(f"{k},{k * 0.3}" for k in range(30))))
    )
    assert any("'id' counts the rows" in n and "--drop id" in n for n in counted.summary)


# Spelling: samples are written as the file is


SPELLINGS = [
    ["0.933", "12.500", "-7.125"],
    ["20.00", "31.50", "7.25"],
    ["0.5", "0.25", "3.0"],
    ["1.500e-05", "3.250e+02", "7.125e+00"],
    ["TRUE", "FALSE", "TRUE"],
    ["True", "False", "False"],
    ["02134", "00501", "10001"],
    ["12:30", "01:00", "23:59"],
    ["12:30:05", "01:00:00", "23:59:00"],
    ["2020-06-30", "2020-01-01", "1999-12-31"],
    ["2020-06-30T12:00:00", "2020-06-30T00:00:07", "2020-07-01T23:59:59"],
    ["2020-06-30T12:00Z", "2020-01-01T00:00Z", "1999-12-31T23:59Z"],
    ["2020-06-30 12:00", "2020-01-01 00:00", "1999-12-31 23:59"],
]


@pytest.mark.parametrize("cells", SPELLINGS, ids=lambda cells: cells[0])
def test_cells_come_back_as_they_were_written(tmp_path: Path, cells: list[str]) -> None:
    text = "k,c\n" + "".join(f"{k},{cells[k % 3]}\n" for k in range(30))
    data = load(str(written(tmp_path, text)))
    assert data.codec is not None and data.rows is not None
    codec = type(data.codec).from_json(data.codec.to_json())
    back = table_files.csv_of(codec.decode(data.train)).splitlines()  # type: ignore[arg-type]
    lines = text.splitlines()
    assert back == ["k,c", *(lines[1 + row] for row in data.rows[0].tolist())]


@pytest.mark.parametrize("cells", [["TRUE", "FALSE"], ["1.0", "2.0"], ["02", "10"], ["a, b", "c"]])
def test_labels_are_called_as_the_file_calls_them(tmp_path: Path, cells: list[str]) -> None:
    rows = [f'{k * 0.37:.3f},"{cells[k % 2]}"' for k in range(30)]
    data = load(str(written(tmp_path, "x,y\n" + "\n".join(rows))), Reading(label_column="y"))
    assert sorted(data.label_names) == sorted(cells)


def test_missing_labels_are_no_class(tmp_path: Path) -> None:
    rows = [f"{k * 0.37:.3f},{['u', 'v', '?'][k % 3]}" for k in range(30)]
    path = written(tmp_path, "x,y\n" + "\n".join(rows))
    with pytest.raises(UserError, match="missing values or NaN: 'y' 10"):
        load(str(path), Reading(label_column="y"))
    data = load(str(path), Reading(label_column="y", missing="drop"))
    assert data.label_names == ("u", "v")


def test_decimals_of_databases_are_numbers() -> None:
    import decimal

    cents = np.random.default_rng(0).integers(100, 99999, 60)
    for dtype in (pa.decimal128(10, 2), pa.decimal128(38, 4), pa.decimal256(50, 2)):
        amounts = [decimal.Decimal(int(c)).scaleb(-2) for c in cents]
        table = pa.table({"price": pa.array(amounts, dtype), "b": np.arange(60) / 7})
        data = tables.from_table(table, Reading())
        assert data.codec is not None and data.rows is not None
        back = data.codec.decode(data.train)  # type: ignore[arg-type]
        assert back.schema.field("price").type == dtype
        assert back["price"].to_pylist() == table["price"].take(data.rows[0].numpy()).to_pylist()
    wide = pa.table({"p": pa.array([decimal.Decimal(10**20 + k) for k in range(60)])})
    with pytest.raises(UserError, match=r"more than 15 digits .* --drop p leaves it out"):
        tables.from_table(wide, Reading())


@pytest.mark.parametrize(("scale", "ok"), [(3e-46, False), (1e-35, False), (1e-25, True)])
def test_numbers_that_vanish_in_float32(scale: float, ok: bool) -> None:
    values = scale * (1 + np.random.default_rng(0).random(40))
    table = pa.table({"section": values, "b": values / scale})
    if ok:
        assert tables.from_table(table, Reading()).shape == (2,)
    else:
        with pytest.raises(UserError, match=r"'section' has numbers too small .* multiply it by"):
            tables.from_table(table, Reading())


# Comparing


def test_truth_values_and_codes_are_compared_by_their_values() -> None:
    def compared(a: Any, b: Any, **settings: Any) -> list[str]:
        named = [("A", pa.table({"m": a})), ("B", pa.table({"m": b}))]
        return as_matrices(named, Reading(**settings))[1]

    assert compared([True, False], [1, 0]) == ["m=true", "m=false"]
    assert compared([1.0, 0.0], [True, False]) == ["m=true", "m=false"]
    assert compared(["02134", "10001"], [10001, 2134]) == ["m=02134", "m=10001", "m=2134"]
    assert compared([1, 2], [1.0, 2.0], categorical="m") == ["m=1", "m=2"]
    for a, b in (([True, False], ["yes", "no"]), ([True, False], [1, 2]), (["a", "b"], [1, 2])):
        with pytest.raises(UserError, match=r"column 'm' is .* convert it to one type"):
            compared(a, b)


# Bounds


def test_no_reader_waits_for_a_pipe_or_a_device(tmp_path: Path) -> None:
    for name in ("t.csv", "t.parquet", "t.npz", "t.npy", "t.tsv"):
        os.mkfifo(tmp_path / name)
        start = time.monotonic()
        with pytest.raises(UserError, match=r"neither a file nor a folder"):
            load(str(tmp_path / name))
        assert time.monotonic() - start < 5
    with pytest.raises(UserError, match="neither a file nor a folder"):
        load("/dev/zero")


def test_sizes_are_looked_at_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, "a,b\n1,2\n")
    os.truncate(path, 50 * 2**30)
    monkeypatch.setattr(csv_files, "memory", lambda: 8 * 2**30)
    with pytest.raises(UserError, match=r"zero byte|50\.0 GB, more than the memory of 8\.0 GB"):
        load(str(path))
    monkeypatch.setattr(csv_files, "memory", lambda: 1000)
    many = written(tmp_path, "a,b\n" + "".join(f"{k / 7},{k}\n" for k in range(300)), "many.csv")
    with pytest.raises(UserError, match="more than the memory"):
        load(str(many))
    assert load(str(many), Reading(limit=50)).report["rows_used"] == 50
    parquet.write_table(pa.table({"a": np.zeros(10**6)}), tmp_path / "t.parquet")
    with pytest.raises(UserError, match="more than the memory"):
        load(str(tmp_path / "t.parquet"))


@pytest.mark.parametrize("name", ["T.CSV", "T.TSV", "T.Parquet", "T.NPZ", "T.NPY"])
def test_endings_in_capitals(tmp_path: Path, name: str) -> None:
    x = np.random.default_rng(0).normal(size=(30, 2))
    path = tmp_path / name
    if name.endswith(("SV",)):
        mark = "," if "CSV" in name else "\t"
        written(tmp_path, f"a{mark}b\n" + "".join(f"{a}{mark}{b}\n" for a, b in x), name)
    elif name.endswith("quet"):
        parquet.write_table(pa.table({"a": x[:, 0], "b": x[:, 1]}), path)
    else:
        with open(path, "wb") as file:
            np.savez(file, x=x) if name.endswith("NPZ") else np.save(file, x)
    assert load(str(path)).shape == (2,)
