"""Missing values as data: exact round trips, the file's own markers, and the pattern of gaps."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

import monge
from monge.data.base import Data
from monge.data.columns import gaps
from monge.data.columns.plain_columns import plain_columns
from monge.data.columns.schema import TableCodec
from monge.data.reading import Reading
from monge.data.sources import load
from monge.data.tables import table_files, tables
from monge.data.tables.compared_columns import as_columns, as_matrices
from monge.errors import UserError

N = 80
MODEL = Reading(missing="model")


def codec_of(data: Data) -> TableCodec:
    assert data.codec is not None
    return data.codec


def holed(values: list[object], dtype: pa.DataType | None = None) -> pa.Array:
    """Values with every third one missing."""
    kept = [None if i % 3 == 1 else v for i, v in enumerate(values)]
    return pa.array(kept, dtype) if dtype else pa.array(kept)


DAY = datetime.date(2020, 1, 1)
RNG = np.random.default_rng(0)
KINDS = {
    "whole": holed(list(range(N))),
    "grid": holed([round(0.1 * i, 1) for i in range(N)]),
    "real": holed(RNG.normal(size=N).tolist()),
    "float32": holed(RNG.normal(size=N).tolist(), pa.float32()),
    "decimal": holed([i * 25 for i in range(N)], pa.decimal128(9, 2)),
    "day": holed([DAY + datetime.timedelta(days=i) for i in range(N)]),
    "time": holed([3 * i for i in range(N)], pa.time32("s")),
    "stamp": holed([datetime.datetime(2020, 1, 1, 3, i % 60) for i in range(N)]),
    "duration": holed([60 * i for i in range(N)], pa.duration("s")),
    "truth": holed([i % 2 == 0 for i in range(N)]),
    "word": holed(["ab"[i % 2] for i in range(N)]),
    "coded": holed(["xyz"[i // 2 % 3] for i in range(N)]).dictionary_encode(),
    "single": holed(["yes"] * N),
    "one number": holed([7.5] * N),
}


@pytest.mark.parametrize("marginals", ["none", "quantile"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_column_with_gaps_comes_back_exactly(kind: str, marginals: str) -> None:
    table = pa.table({"x": RNG.normal(size=N), "c": KINDS[kind]})
    reading = Reading(missing="model", marginals=marginals)  # type: ignore[arg-type]
    codec = codec_of(tables.from_table(table, reading))
    again = TableCodec.from_json(json.loads(json.dumps(codec.to_json())))
    x, _, _ = again.encode(table)
    assert x.shape == (N, codec.size) and bool(x.isfinite().all())
    found = again.decode(x)
    known = found["c"].combine_chunks()
    assert known.type == table["c"].type
    if kind in ("real", "float32"):  # float32 holds it to seven digits
        assert known.is_null().equals(table["c"].combine_chunks().is_null())
        assert known.drop_null().to_pylist() == pytest.approx(
            table["c"].drop_null().to_pylist(), abs=1e-6)  # fmt: skip
    else:
        assert known.to_pylist() == table["c"].to_pylist()
    assert len(codec.coordinate_names) == len(codec.curves) == codec.size
    values, names, codes = plain_columns(codec, x)
    assert names == ["x", "c", "c is missing"] and codes[2]
    assert values[:, 2].bool().tolist() == [i % 3 == 1 for i in range(N)]
    assert bool(values.isfinite().all())


def test_a_missing_value_takes_the_coordinates_of_a_known_one() -> None:
    table = pa.table({"x": RNG.normal(size=N), "c": KINDS["whole"]})
    codec = codec_of(tables.from_table(table, MODEL))
    column = codec.columns[1]
    filled = gaps.filled(table["c"], column).to_pylist()
    known = table["c"].to_pylist()
    assert all(f == k for f, k in zip(filled, known, strict=True) if k is not None)
    drawn = [f for f, k in zip(filled, known, strict=True) if k is None]
    assert set(drawn) <= set(known) - {None} and len(set(drawn)) > 10
    assert filled == gaps.filled(table["c"], column).to_pylist()
    empty = pa.chunked_array([pa.nulls(3, pa.int64())])
    assert gaps.filled(empty, column).null_count == 0


def test_without_gaps_nothing_changes() -> None:
    table = pa.table({"a": RNG.normal(size=N), "b": range(N)})
    one, other = tables.from_table(table, MODEL), tables.from_table(table, Reading())
    assert torch.equal(one.train[:], other.train[:]) and codec_of(one) == codec_of(other)


def test_rows_without_a_label_are_left_out_and_said() -> None:
    label = pa.array([None if i < 5 else "ab"[i % 2] for i in range(N)])
    table = pa.table({"x": RNG.normal(size=N), "c": KINDS["real"], "y": label})
    data = tables.from_table(table, Reading(missing="model", label_column="y"))
    assert len(data.train) + len(data.heldout) == N - 5
    notes = " ".join(data.report["notes"])
    assert "left out 5 of 80 rows without a label or condition: 'y'" in notes
    assert "missing values are learned: 'c' 27 of 80 rows" in notes
    (column,) = (c for c in data.report["columns"] if c["name"] == "c")
    assert column["missing"] == 27 and column["gaps"] == "learned"


def test_the_refusal_names_all_ways_and_an_empty_column_is_refused() -> None:
    table = pa.table({"x": RNG.normal(size=N), "c": KINDS["real"]})
    with pytest.raises(UserError, match="--missing model learns them"):
        tables.from_table(table, Reading())
    with pytest.raises(UserError, match="column 'c' is empty: --drop c"):
        tables.from_table(table.set_column(1, "c", pa.nulls(N, pa.float64())), MODEL)


MARKERS = ["", "NA", "NULL", "nan", "?", "-"]


@pytest.mark.parametrize("delimiter", [",", ";", " , "])
@pytest.mark.parametrize("marker", MARKERS)
def test_the_empty_marker_of_the_file_is_written_again(
    tmp_path: Path, marker: str, delimiter: str
) -> None:
    rows = [(f"{0.25 * i:.2f}", marker if i % 4 == 0 else str(i * 7 % 40)) for i in range(N)]
    path = tmp_path / "t.csv"
    path.write_text("a,b\n" + "".join(f"{delimiter.join(row)}\n" for row in rows)
                    if delimiter != ";" else
                    "a;b\n" + "".join(f"{a};{b}\n" for a, b in rows))  # fmt: skip
    data = load(str(path), MODEL)
    assert data.table is not None
    x, _, _ = codec_of(data).encode(data.table)
    written = table_files.csv_of(codec_of(data).decode(x))
    assert written == "a,b\n" + "".join(f"{a},{b}\n" for a, b in rows)


def test_words_have_their_own_marker_and_quoted_ones_are_values(tmp_path: Path) -> None:
    cells = ["NA" if i % 5 == 0 else '"NA"' if i % 5 == 1 else "word" for i in range(N)]
    path = tmp_path / "t.csv"
    path.write_text("a,b\n" + "".join(f"{i * i},{cell}\n" for i, cell in enumerate(cells)))
    data = load(str(path), MODEL)
    assert data.table is not None and data.table["b"].null_count == N / 5
    assert table_files.csv_of(data.table) == path.read_text()


def test_arrays_hold_nan_and_no_objects() -> None:
    whole = pa.array([1, None, 3])
    table = pa.table({"a": whole, "b": pa.array([True, None, False]), "c": [0.5, 1.5, None]})
    rows = table_files.arrays_of(table, None)["arr_0"]
    assert rows.dtype == np.float64
    assert np.array_equal(rows, [[1, 1, 0.5], [np.nan] * 2 + [1.5], [3, 0, np.nan]], equal_nan=True)


def test_compared_tables_have_values_and_gaps() -> None:
    """A column with missing values becomes its values and whether they are missing."""
    one = pa.table({"a": [1, None, 3], "k": ["x", None, "y"]})
    other = pa.table({"a": [4, 5, 6], "k": ["y", "x", "x"]})
    rows, titles = as_matrices([("A", one), ("B", other)], Reading())
    assert titles == ["a", "a is missing=no", "a is missing=yes",
                      *("k=x", "k=y", "k is missing=no", "k is missing=yes")]  # fmt: skip
    assert rows[0][:, 2].tolist() == rows[0][:, 6].tolist() == [0, 1, 0]
    assert rows[0][[0, 2], 0].tolist() == [1, 3] and float(rows[0][1, 0]) in (1, 3)
    assert rows[1][:, [2, 6]].sum() == 0 and bool(rows[0].isfinite().all())
    plain, names, codes = as_columns([("A", one), ("B", other)], Reading())
    assert names == ["a", "a is missing", "k", "k is missing"]
    assert codes == [False, True, True, True] and plain[0][:, 1].tolist() == [0, 1, 0]
    empty = pa.table({"a": pa.nulls(3, pa.int64()), "k": ["x", "x", "y"]})
    with pytest.raises(UserError, match="column 'a' of B is empty: --drop a"):
        as_matrices([("A", one), ("B", empty)], Reading())


# The pattern of gaps. y is missing at random: by a column that is always there. z is missing by its
# own value. k is missing only where y is, half of the time.


def patterned(n: int, seed: int, cheat: bool = False) -> pa.Table:
    """A table with this pattern; as a cheat the same shares of gaps, at random."""
    rng = np.random.default_rng(seed)
    x, z = rng.normal(size=n), rng.normal(size=n)
    y = 0.8 * x + 0.6 * rng.normal(size=n)
    k = np.array(["a", "b"])[(x + rng.normal(size=n) > 0).astype(int)]
    no_y, no_z = (rng.random(n) < 1 / (1 + np.exp(-2 * c)) for c in (x, z))
    no_k = no_y & (rng.random(n) < 0.5)
    if cheat:
        no_y, no_z, no_k = (rng.permutation(hole) for hole in (no_y, no_z, no_k))
    columns = {"y": (y, no_y), "z": (z, no_z), "k": (k, no_k)}
    return pa.table({"x": x, **{c: pa.array(v, mask=hole) for c, (v, hole) in columns.items()}})


def pattern_of(table: pa.Table) -> dict[str, tuple[float, float]]:
    """Numbers that tell the pattern, each with its standard error."""
    x = table["x"].to_numpy()
    no = {c: np.asarray(table[c].combine_chunks().is_null()) for c in "yzk"}
    z = table["z"].drop_null().to_numpy()

    def share(hole: np.ndarray) -> tuple[float, float]:
        return float(hole.mean()), float(hole.std() / len(hole) ** 0.5)

    def gap(hole: np.ndarray, by: np.ndarray) -> tuple[float, float]:
        a, b = share(hole[by]), share(hole[~by])
        return a[0] - b[0], float(np.hypot(a[1], b[1]))

    return {
        **{f"share of {c}": share(no[c]) for c in "yzk"},
        "y by x": gap(no["y"], x > 0),
        "k by y": gap(no["k"], no["y"]),
        "mean of the known z": (float(z.mean()), float(z.std() / len(z) ** 0.5)),
    }


def strangers(found: pa.Table, truth: pa.Table, errors: float = 4.0) -> list[str]:
    """The numbers of two tables' patterns that differ by more than these standard errors."""
    ours, theirs = pattern_of(found), pattern_of(truth)
    return [
        name
        for name in ours
        if abs(ours[name][0] - theirs[name][0]) > errors * np.hypot(ours[name][1], theirs[name][1])
    ]


def test_the_pattern_is_told_from_gaps_at_random() -> None:
    """The honest table passes, the cheat has the shares of gaps and none of the dependence."""
    truth = patterned(50_000, 0)
    assert strangers(patterned(1000, 1), truth) == []
    cheat = strangers(patterned(1000, 1, cheat=True), truth)
    assert cheat == ["y by x", "k by y", "mean of the known z"]


def test_encoded_rows_have_the_pattern() -> None:
    truth = patterned(2000, 2)
    codec = codec_of(tables.from_table(truth, MODEL))
    found = pattern_of(codec.decode(codec.encode(truth).x))
    for name, numbers in pattern_of(truth).items():
        assert found[name] == pytest.approx(numbers, abs=1e-6)


@pytest.mark.slow
def test_samples_of_a_trained_run_have_the_pattern(tmp_path: Path) -> None:
    """n = 1000 samples; each number within four standard errors of its truth."""
    run = monge.train(patterned(8000, 3), missing="model", steps=4000, network="mlp:width=128",
                      out=tmp_path / "run", threads=1, verbose=False)  # fmt: skip
    found = run.sample(1000).table()
    truth = patterned(50_000, 0)
    assert strangers(found, truth) == [], (pattern_of(found), pattern_of(truth))
    names = ["y", "z", "k"]
    shuffled = np.random.default_rng(0).permutation(1000)
    cheat = found.select(["x"])
    for name in names:
        cheat = cheat.append_column(name, found[name].take(pa.array(shuffled)))
    assert "y by x" in strangers(cheat, truth)
