"""Tables as data: files read, columns chosen, what is wrong refused, rows split by content."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from monge.data.base import Data
from monge.data.images.parquet import has_images
from monge.data.reading import Reading
from monge.data.sources import load
from monge.data.tables import tables
from monge.data.tables.choosing import choose
from monge.data.tables.table_files import read
from monge.errors import UserError

RNG = np.random.default_rng(0)
N = 50
PLAIN = Reading()

COLUMNS: dict[str, Any] = {
    "id": np.arange(N),
    "a": RNG.normal(size=N),
    "b": RNG.normal(size=N).astype(np.float32),
    "n": RNG.integers(0, 9, N),
    "species": np.array(["cat", "dog"])[np.arange(N) % 2],
}
TABLE = pa.table(COLUMNS)


def loaded(table: pa.Table, **settings: Any) -> Data:
    return tables.from_table(table, Reading(**settings))


def changed(**columns: Any) -> pa.Table:
    return pa.table({**{k: v for k, v in COLUMNS.items() if k != "species"}, **columns})


def with_holes(values: np.ndarray, *rows: int) -> pa.Array:
    mask = np.zeros(len(values), bool)
    mask[list(rows)] = True
    return pa.array(values, mask=mask)


# Files


@pytest.mark.parametrize(
    "name", ["t.csv", "t.tsv", "semicolons.csv", "tabs.csv", "comma.csv", "bom.CSV"]
)
def test_delimiters_and_decimal_commas(tmp_path: Path, name: str) -> None:
    text = 'x,"a ""b"", c",w\n1.5,2,"one, two"\n-3.25,,"NA"\n4.0,7,\n'
    if name in ("t.tsv", "tabs.csv"):
        text = 'x\t"a ""b"", c"\tw\n1.5\t2\tone, two\n-3.25\t\t"NA"\n4.0\t7\t\n'
    if name in ("semicolons.csv", "comma.csv"):
        text = 'x;"a ""b"", c";w\n1.5;2;one, two\n-3.25;;"NA"\n4.0;7;\n'
    if name == "comma.csv":
        text = text.replace("1.5", "1,5").replace("3.25", "3,25").replace("4.0", "4,0")
    (tmp_path / name).write_text(text, encoding="utf-8-sig" if "bom" in name else "utf-8")
    table = read(tmp_path / name)
    assert table.to_pydict() == {
        "x": [1.5, -3.25, 4.0],
        'a "b", c': [2, None, 7],
        "w": ["one, two", "NA", None],
    }


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.csv", b"", "is empty"),
        ("blank.csv", b" \n\n", "is empty"),
        ("header.csv", b"a,b\n", "0 examples are too few; at least 10 are needed"),
        ("nine.csv", b"a,b\n" + b"1,2\n" * 9, "9 examples are too few"),
        ("ragged.csv", b"a,b\n1,2\n3,4,5\n", "cannot read {path} as csv: CSV parse error: Row #3"),
        ("headless.csv", b"1.5,2\n3,4\n", "has numbers only (1.5, 2, ...): it should"),
        ("mixed.csv", "a,b\né,2\n".encode() + b"\xfc,4\n", "line 3: byte 0xfc is not UTF-8"),
        ("wide.csv", "a,b\n1,2\n".encode("utf-16"), "is UTF-16: save it as UTF-8"),
        ("photo.csv", b"\x89PNG\r\n\x1a\n\0\0", "line 1: byte 0x89 is not UTF-8"),
        ("zeros.csv", b"a,b\n\0\0\0", "is no csv file: line 2 holds a zero byte"),
        ("prose.csv", b"It was night\n" * 20, "prose.csv looks like data, not like the names of"),
        ("text.parquet", b"not parquet at all", "cannot read {path} as parquet"),
        ("empty.parquet", b"", "cannot read {path} as parquet"),
    ],
)  # fmt: skip
def test_files_that_are_no_tables(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    if name == "prose.csv":
        content += b"and day\n" * 20
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError) as raised:
        load(str(path))
    assert message.format(path=path) in str(raised.value)


def test_parquet_with_images_is_told_from_tables(tmp_path: Path) -> None:
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    other = pa.struct([("b", pa.int8())])
    for kinds, images in (
        ([("img", struct), ("label", pa.int64())], True),
        ([("img", pa.binary())], True),
        ([("a", pa.float64()), ("s", other)], False),
    ):
        parquet.write_table(pa.schema(kinds).empty_table(), tmp_path / "i.parquet")
        assert has_images(tmp_path / "i.parquet", PLAIN) == images


def test_a_folder_of_parquet_tables_is_one_table_with_its_split(tmp_path: Path) -> None:
    numbers = TABLE.select(["a", "n"])
    parquet.write_table(numbers[:30], tmp_path / "train-0.parquet")
    parquet.write_table(numbers[30:40], tmp_path / "test-0.parquet")
    parquet.write_table(numbers[40:], tmp_path / "train-1.parquet")
    data = load(str(tmp_path))
    assert (len(data.train), len(data.heldout), data.kind) == (40, 10, "table")
    assert data.codec is not None
    held = data.codec.natural(data.heldout).numpy()
    np.testing.assert_allclose(held[:, 0], COLUMNS["a"][30:40], rtol=1e-5, atol=1e-6)
    parquet.write_table(TABLE.select(["a"]), tmp_path / "train-2.parquet")
    with pytest.raises(UserError, match=r"train-2\.parquet has other columns"):
        load(str(tmp_path))


def test_one_table_in_every_kind_of_file_is_the_same_data(tmp_path: Path) -> None:
    numbers = TABLE.select(["a", "n"])
    parquet.write_table(numbers, tmp_path / "t.parquet")
    rows = zip(*(COLUMNS[c].tolist() for c in ("a", "n")), strict=True)
    lines = ["a,n", *(f"{a!r},{n}" for a, n in rows)]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    matrix = np.stack([COLUMNS["a"], COLUMNS["n"]], 1)
    np.savez(tmp_path / "t.npz", x=matrix, columns=np.array(["a", "n"]))
    np.save(tmp_path / "t.npy", matrix)
    found = [load(str(tmp_path / f"t.{kind}")) for kind in ("csv", "parquet", "npz", "npy")]
    assert len({data.fingerprint for data in found[:2]}) == 1
    for data in found[1:]:
        assert data.rows is not None and found[0].rows is not None
        assert torch.equal(data.rows[1], found[0].rows[1])
        assert data.kind == "table" and data.name == "t" and data.codec is not None
    names = [[c.name for c in data.codec.columns] for data in found if data.codec]
    assert names == [["a", "n"]] * 3 + [["x0", "x1"]]


def test_matrices_with_labels_and_conditions(tmp_path: Path) -> None:
    x = RNG.normal(size=(40, 3))
    np.savez(tmp_path / "t.npz", x=x, y=np.array(["u", "v"])[np.arange(40) % 2])
    data = load(str(tmp_path / "t.npz"), Reading(condition_columns="x1"))
    assert data.shape == (2,) and data.label_names == ("u", "v")
    assert data.train_vector is not None and data.train_vector.shape == (len(data.train), 1)
    data = load(str(tmp_path / "t.npz"), Reading(label_column="label", columns="x0"))
    assert data.shape == (1,) and data.label_names == ("u", "v")
    np.savez(tmp_path / "few.npz", x=x, columns=np.array(["a"]))
    with pytest.raises(UserError, match="1 names of columns do not fit"):
        load(str(tmp_path / "few.npz"))
    np.savez(tmp_path / "odd.npz", x_train=x, x_test=x[:, :2])
    with pytest.raises(UserError, match="held-out examples have shape"):
        load(str(tmp_path / "odd.npz"))
    np.savez(tmp_path / "half.npz", x_train=x, x_test=x, y_train=np.arange(40) % 2)
    with pytest.raises(UserError, match="one of training and held-out examples has labels"):
        load(str(tmp_path / "half.npz"))


# Columns


def test_columns_are_chosen() -> None:
    known = ["id", "a", "b", "c, d", "e"]
    asked = choose(known, Reading(drop="id", label_column="e", condition_columns='"c, d"'))
    assert asked.learned == ("a", "b") and asked.label == "e" and asked.conditions == ("c, d",)
    assert asked.left_out == ("id",)
    asked = choose(known, Reading(columns="e, a", categorical="e"))
    assert asked.learned == ("a", "e") and asked.left_out == ("id", "b", "c, d")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"drop": "ids"}, "--drop: no column 'ids': did you mean 'id'?"),
        ({"columns": "a,spices"}, "--columns: no column 'spices': did you mean 'species'?"),
        ({"label_column": "Species"}, "--label-column: no column 'Species': did you mean"),
        ({"condition_columns": "q"}, "--condition-columns: no column 'q': known: a, b, id, n"),
        ({"categorical": "nn"}, "--categorical: no column 'nn'"),
        ({"drop": "a", "columns": "a"}, "column 'a' stands in both --columns and --drop"),
        ({"label_column": "n", "condition_columns": "n"}, "'n' stands in both --label-column and"),
        ({"drop": "n", "categorical": "n"}, "--categorical: column 'n' is not among those"),
        ({"drop": "id,a,b,n,species"}, "no column is left to learn"),
        ({"condition_columns": "species"}, "condition column 'species' has type string: numbers"),
        ({"label_column": "a", "drop": "species"}, "column 'a' has 50 different values"),
        ({"categorical": "species,id"}, "column 'id' has 50 different values in 50 rows"),
    ],
)  # fmt: skip
def test_choices_that_are_refused(settings: dict[str, str], message: str) -> None:
    with pytest.raises(UserError) as raised:
        loaded(TABLE, **settings)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([[1]] * N, "column 'c' has type list<"),
        (pa.nulls(N), "column 'c' is empty"),
        ([f"w {k}" for k in range(N)], "'c' (50 different values) in 50 rows, too many to be"),
        ([b"x"] * N, "column 'c' has type binary"),
        (pa.array([2**63 + k for k in range(N)], pa.uint64()), "integers of 2^63 or more"),
        (np.linspace(-1e300, 1e300, N), "numbers too large for float32"),
        (np.where(np.arange(N) == 7, np.inf, COLUMNS["a"]), "1 infinite values, the first in row"),
        (with_holes(COLUMNS["a"], 3, 8), "missing values or NaN: 'c' 2 (the first in row 3). "
                                         "--missing drop leaves out the 2 of 50 rows"),
        (np.where(np.arange(N) > 47, np.nan, COLUMNS["a"]), "'c' 2 (the first in row 48)"),
        (with_holes(COLUMNS["species"] == "cat", 0), "'c' 1 (the first in row 0)"),
    ],
)  # fmt: skip
def test_columns_that_are_refused(column: Any, message: str) -> None:
    with pytest.raises(UserError) as raised:
        loaded(changed(c=column))
    assert message in str(raised.value)


def test_whole_numbers_of_more_than_64_bits_keep_their_digits(tmp_path: Path) -> None:
    """In csv they would be read as fractions, and lose their last digits without a word."""
    numbers = [89 * 10**18 + 7 * k for k in range(N)]
    rows = [f"{n};{k}e19;{k},5" for k, n in enumerate(numbers)]
    path = tmp_path / "cards.csv"
    path.write_text("card;large;x\n" + "\n".join(rows) + "\n")
    table = read(path)
    assert table["card"].to_pylist() == [str(n) for n in numbers]
    assert [str(column.type) for column in table.columns] == ["string", "double", "double"]
    with pytest.raises(
        UserError, match=r"'card' .50 different values, .*identifiers. in 50 rows, .* --drop card"
    ):
        load(str(path), Reading())
    assert load(str(path), Reading(drop="card,large")).shape == (1,)


def test_two_columns_with_missing_values_are_both_named() -> None:
    table = changed(c=with_holes(COLUMNS["a"], 3), d=with_holes(COLUMNS["n"], 3, 5))
    with pytest.raises(UserError, match=r"'c' 1 .*'d' 2 .* the 2 of 50 rows"):
        loaded(table)


def test_missing_rows_are_dropped_and_told() -> None:
    table = changed(c=with_holes(COLUMNS["a"], 3, 8), d=with_holes(COLUMNS["n"], 8))
    data = loaded(table, missing="drop")
    assert data.rows is not None
    assert sorted(torch.cat(data.rows).tolist()) == [k for k in range(N) if k not in (3, 8)]
    assert data.report["rows_read"] == 50 and data.report["rows_used"] == 48
    assert data.report["notes"][0].startswith("left out 2 of 50 rows with missing values: 'c' 2")
    counts = {c["name"]: c["missing"] for c in data.report["columns"]}
    assert (counts["c"], counts["d"], counts["a"]) == (2, 1, 0)
    with pytest.raises(UserError, match="0 examples are too few"):
        loaded(changed(c=with_holes(COLUMNS["a"], *range(N))), missing="drop")


def test_missing_numbers_become_their_mean_on_their_grid() -> None:
    tenths = np.round(RNG.integers(0, 20, N) / 10, 1)
    table = changed(
        c=with_holes(COLUMNS["a"], 3), d=with_holes(COLUMNS["n"], 3, 5), e=with_holes(tenths, 4)
    )
    data = loaded(table, missing="mean")
    assert data.rows is not None and data.codec is not None
    x = torch.empty(N, data.shape[0])
    for rows, part in zip(data.rows, (data.train, data.heldout), strict=True):
        assert isinstance(part, torch.Tensor)
        x[rows] = part
    back = data.codec.decode(x)
    assert back["c"][3].as_py() == pytest.approx(np.delete(COLUMNS["a"], 3).mean(), abs=1e-6)
    assert back["d"][3].as_py() == round(np.delete(COLUMNS["n"], [3, 5]).mean())
    assert back["e"][4].as_py() == np.round(np.delete(tenths, 4).mean(), 1)
    assert back["d"].to_numpy()[6:].tolist() == COLUMNS["n"][6:].tolist()
    assert "replaced missing values" in data.report["notes"][0]
    with pytest.raises(UserError, match="'species' cannot be averaged"):
        loaded(changed(species=with_holes(COLUMNS["species"], 1)), missing="mean",
               label_column="species")  # fmt: skip
    with pytest.raises(UserError, match="'n' cannot be averaged"):
        loaded(changed(n=with_holes(COLUMNS["n"], 1)), missing="mean", categorical="n")
    with pytest.raises(UserError, match="column 'c' is empty"):
        loaded(changed(c=with_holes(COLUMNS["a"], *range(N))), missing="mean")


def test_nothing_that_varies_is_refused() -> None:
    table = pa.table({"a": [3] * N, "s": COLUMNS["species"]})
    with pytest.raises(UserError, match="no column is left to learn: all that are left are const"):
        loaded(table, label_column="s")
    with pytest.raises(UserError, match="all 50 examples are identical"):
        loaded(pa.table({"a": [3] * N}))
    with pytest.raises(UserError, match="condition column 'c' does not vary"):
        loaded(changed(c=[2.5] * N), condition_columns="c")


def test_the_report_tells_what_was_found() -> None:
    atoms = np.where(np.arange(N) % 3 == 0, 0.0, RNG.normal(size=N))
    ties = np.repeat(RNG.normal(size=20), 3)[:N]
    table = changed(
        zeros=atoms, tied=ties, same=["k"] * N, kind=COLUMNS["species"],
        day=[datetime.date(2020, 1, 1 + k % 20) for k in range(N)], flag=np.arange(N) % 2 == 0,
    )  # fmt: skip
    data = loaded(table, drop="id", categorical="kind")
    columns = {c["name"]: c for c in data.report["columns"]}
    assert columns["n"] == {"name": "n", "kind": "number", "dtype": "int64", "missing": 0,
                            "step": 1.0, "dequantised": True}  # fmt: skip
    assert columns["kind"]["categories"] == 2 and columns["flag"]["kind"] == "category"
    assert columns["same"]["constant"] == "k" and columns["day"]["dtype"] == "date32[day]"
    assert "step" not in columns["a"]
    notes = "\n".join(data.report["notes"])
    assert "constant, not learned, put back in samples: same" in notes
    assert "column 'zeros' is 0 in 34% of the rows and lies on no grid" in notes
    assert "column 'tied'" in notes and "'a'" not in notes
    assert data.report["left_out"] == ["id"] and data.report["duplicates"] == 0
    # a, b, n, zeros, tied, kind (2), day, flag (2)
    assert data.shape == (10,)


# The split


def held_values(data: Data, table: pa.Table) -> set[tuple[Any, ...]]:
    assert data.rows is not None
    rows = table.take(data.rows[1].numpy()).to_pylist()
    return {tuple(row.values()) for row in rows}


def test_the_split_follows_the_content_and_keeps_duplicates_together() -> None:
    pick = RNG.integers(0, N, 200)  # about four copies of each row
    table = TABLE.select(["a", "n", "species"]).take(pick)
    data = loaded(table, label_column="species")
    assert data.rows is not None
    assert abs(len(data.heldout) - 40) <= 8
    assert data.report["duplicates"] == 200 - len(set(pick.tolist()))
    held = held_values(data, table)
    train = {tuple(row.values()) for row in table.take(data.rows[0].numpy()).to_pylist()}
    assert not held & train
    shuffled = table.take(RNG.permutation(200))
    assert held_values(loaded(shuffled, label_column="species"), shuffled) == held
    # What is left out does not tell rows apart.
    numbered = table.append_column("id", pa.array(np.arange(200)))
    assert held_values(loaded(numbered, label_column="species", drop="id"), table) == held


def test_missing_values_do_not_make_the_split_depend_on_the_order() -> None:
    table = TABLE.select(["id", "a"]).set_column(1, "a", with_holes(COLUMNS["a"], 1, 4, 9))
    order = RNG.permutation(N)
    one, other = (loaded(t, missing="mean") for t in (table, table.take(order)))
    assert one.rows is not None and other.rows is not None
    assert set(order[other.rows[1].numpy()].tolist()) == set(one.rows[1].tolist())


def test_the_limit_takes_the_first_rows() -> None:
    data = loaded(TABLE, label_column="species", limit=20)
    assert data.rows is not None and sorted(torch.cat(data.rows).tolist()) == list(range(20))


def test_the_golden_split_of_a_table() -> None:
    """Runs are compared against these held-out rows: they must never change."""
    table = pa.table({"k": np.arange(20), "s": ["u", "v"] * 10})
    data = loaded(table, label_column="s")
    assert data.rows is not None and data.rows[1].tolist() == GOLDEN


GOLDEN = [2, 6, 9, 15]


# Real tables


def test_power_plant(shared_data: Path) -> None:
    path = shared_data / "tables" / "power_plant.csv"
    data = load(str(path))
    assert data.shape == (5,) and len(data.train) + len(data.heldout) == 9568
    assert data.report["duplicates"] == 41
    assert [c["step"] for c in data.report["columns"]] == [pytest.approx(0.01)] * 5
    assert data.rows is not None and data.codec is not None
    source = read(path)
    assert isinstance(data.heldout, torch.Tensor)
    back = data.codec.decode(data.heldout)
    assert back.schema == source.schema
    assert back.to_pydict() == source.take(data.rows[1].numpy()).to_pydict()


def test_protein(shared_data: Path) -> None:
    path = shared_data / "tables" / "protein.parquet"
    data = load(str(path))
    assert data.shape == (10,) and len(data.train) + len(data.heldout) == 45_730
    source = read(path)
    assert data.rows is not None and data.codec is not None
    assert isinstance(data.train, torch.Tensor)
    back = data.codec.decode(data.train)
    assert back.schema.types == source.schema.types
    for name in source.column_names:
        given = source[name].to_numpy()[data.rows[0].numpy()]
        span = float(np.ptp(given))
        assert np.abs(back[name].to_numpy() - given).max() < 2e-7 * span


def test_measurements_are_no_labels() -> None:
    values = np.round(RNG.normal(size=1000), 2)
    halves = RNG.integers(0, 9, 1000) / 2
    table = pa.table({"a": RNG.normal(size=1000), "t": values, "half": halves})
    with pytest.raises(UserError, match=r"column 't' has \d+ different values in 1000 rows"):
        tables.from_table(table, Reading(label_column="t"))
    data = tables.from_table(table, Reading(label_column="half"))
    assert data.label_names == ("0.0", "0.5", "1.0", "1.5", "2.0", "2.5", "3.0", "3.5", "4.0")
