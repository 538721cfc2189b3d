"""Which columns the tables of a comparison share, from the names alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from monge.comparison.common_columns import names_of, readings
from monge.data.reading import Reading
from monge.errors import UserError

PLAIN = Reading()


@pytest.fixture
def tables(tmp_path: Path) -> dict[str, str]:
    """Tables by the letters of their columns; "id" is text."""
    rows = {"u": [1.5, 2.5], "v": [3.0, 4.0], "w": [5.0, 6.0], "id": ["a", "b"]}
    found = {}
    for columns in ("u v w", "w v u", "u v", "u v w id", "id w"):
        name = columns.replace(" ", "")
        table = pa.table({c: rows[c] for c in columns.split()})
        for ending, sep in ((".csv", ","), (".tsv", "\t"), (".parquet", "")):
            path = tmp_path / f"{name}{ending}"
            if sep:
                lines = [
                    columns.split(),
                    *zip(*(map(str, rows[c]) for c in columns.split()), strict=True),
                ]
                path.write_text("".join(sep.join(line) + "\n" for line in lines))
            else:
                parquet.write_table(table, path)
            found[name + ending] = str(path)
    return found


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".parquet"])
@pytest.mark.parametrize("columns", ["u v w", "w v u", "u v", "u v w id"])
def test_names_are_read_from_every_kind_of_table(
    columns: str, ending: str, tables: dict[str, str]
) -> None:
    assert names_of(tables[columns.replace(" ", "") + ending], PLAIN) == columns.split()


def test_what_is_no_table_has_no_names(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((2, 2)))
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 but no table")
    (tmp_path / "folder.csv").mkdir()
    for name in ("x.npy", "broken.parquet", "folder.csv", "nowhere.csv", "digits"):
        assert names_of(str(tmp_path / name), PLAIN) is None


def test_an_index_is_no_column(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(",u,v\n0,1,2\n1,3,4\n2,5,6\n")
    assert names_of(str(tmp_path / "t.csv"), PLAIN) == ["u", "v"]


def _read(tables: dict[str, str], a: str, b: str, **asked: str) -> dict[str, Reading]:
    reading = replace(PLAIN, **asked)
    return readings({"A": tables[a], "B": tables[b]}, {}, reading, reading)


def test_the_same_columns_in_any_order_are_compared_as_they_are(tables: dict[str, str]) -> None:
    found = _read(tables, "uvw.csv", "wvu.parquet")
    assert found == {"A": PLAIN, "B": PLAIN}


@pytest.mark.parametrize(
    ("a", "b", "lacks", "advice"),
    [
        ("uvw.csv", "uv.csv", "B lacks 'w'", "--columns u,v"),
        ("uv.parquet", "uvwid.tsv", "A lacks 'w', 'id'", "--columns u,v"),
        ("idw.csv", "uv.csv", "A lacks 'u', 'v'", "no column in common"),
    ],
)
def test_differing_columns_are_named_with_what_to_give(
    a: str, b: str, lacks: str, advice: str, tables: dict[str, str]
) -> None:
    with pytest.raises(UserError) as caught:
        _read(tables, a, b)
    assert lacks in str(caught.value) and advice in str(caught.value)


def test_what_is_dropped_may_be_in_one_table_alone(tables: dict[str, str]) -> None:
    found = _read(tables, "uvw.csv", "uvwid.csv", drop="id")
    assert found["A"].drop is None and found["B"].drop == "id"
    with pytest.raises(UserError, match=r"no column 'idd'.*did you mean 'id'"):
        _read(tables, "uvw.csv", "uvwid.csv", drop="idd")


def test_labels_and_conditions_may_be_absent_from_one(tables: dict[str, str]) -> None:
    assert _read(tables, "uvw.csv", "uv.csv", label_column="w")["A"].label_column == "w"
    assert _read(tables, "uvw.csv", "uv.csv", condition_columns="w")["B"].condition_columns == "w"


def test_a_run_brings_the_names_of_its_columns(tables: dict[str, str]) -> None:
    source = {"B": tables["uvwid.csv"]}
    trained = replace(PLAIN, drop="id")
    found = readings(source, {"A": ["u", "v", "w"]}, trained, PLAIN)
    assert found["B"].drop == "id"
    with pytest.raises(UserError, match="A lacks 'w'"):
        readings(source, {"A": ["u", "v"]}, trained, PLAIN)
    # A reading that the run brought may name what this table never had.
    plain = readings({"B": tables["uvw.csv"]}, {"A": ["u", "v", "w"]}, trained, PLAIN)
    assert plain["B"].drop is None


def test_arrays_beside_tables_are_left_to_whoever_reads_them(
    tmp_path: Path, tables: dict[str, str]
) -> None:
    np.save(tmp_path / "x.npy", np.zeros((2, 2)))
    found = readings({"A": tables["uv.csv"], "B": str(tmp_path / "x.npy")}, {}, PLAIN, PLAIN)
    assert found == {"A": PLAIN, "B": PLAIN}
