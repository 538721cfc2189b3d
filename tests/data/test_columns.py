"""Columns and their coordinates: grids, dequantisation, types, and the codec's round trips."""

from __future__ import annotations

import datetime
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from monge.data.base import Data
from monge.data.columns.grids import Grid, grid_of_floats, grid_of_integers
from monge.data.columns.schema import TableCodec
from monge.data.reading import Reading
from monge.data.tables import table_files, tables
from monge.data.tables.csv_dialect import is_number
from monge.data.tables.indexes import UNNAMED
from monge.errors import UserError

RNG = np.random.default_rng(0)
N = 60
PLAIN = Reading()


def codec_of(data: Data) -> TableCodec:
    assert data.codec is not None
    return data.codec


def again(codec: TableCodec) -> TableCodec:
    """The codec after a travel through JSON."""
    return TableCodec.from_json(json.loads(json.dumps(codec.to_json())))


def round_trip(table: pa.Table, reading: Reading = PLAIN) -> pa.Table:
    """A table encoded and decoded again, by a codec that was written and read."""
    codec = again(codec_of(tables.from_table(table, reading)))
    x, label, vector = codec.encode(table)
    condition = None if vector is None else codec.condition_of(vector)
    return codec.decode(x, label, condition)


def equal(a: pa.Table, b: pa.Table) -> bool:
    return a.schema == b.schema and a.to_pydict() == b.to_pydict()


# Grids


@pytest.mark.parametrize(
    ("values", "grid"),
    [
        (np.array([2015.3, 2015.4, 2016.1]), Grid(20153, 1, 1)),
        (np.array([0.25, 0.5, 1.0]), Grid(25, 25, 2)),
        (np.array([-30.0, 0.0, 50.0]), Grid(-30, 10, 0)),
        (np.array([0.1, 0.2, 0.7], np.float32), Grid(1, 1, 1)),
        (np.array([1e-6, 3e-6, 5e-6]), Grid(1, 2, 6)),
        (np.array([1e-7, 2e-7, 3e-7]), Grid(1, 1, 7)),
        (np.array([0.1, np.pi, 0.3]), None),
        # Every float32 near 5000 is the one nearest to some multiple of 1e-4.
        (np.array([4356.7998, 4999.1234, 1.5], np.float32), None),
        (np.array([1e14, 3e14, 2e14]), Grid(10**14, 10**14, 0)),
        (np.array([1e15, 3e15, 2e15]), None),
        (np.array([1e300, 1.0, 2.0]), None),
    ],
)
def test_decimal_grids(values: np.ndarray, grid: Grid | None) -> None:
    assert grid_of_floats(np.tile(values, 4)) == grid
    if grid is not None:
        back = grid.values(grid.levels(values), whole=False).astype(values.dtype)
        assert np.array_equal(back, values)


def test_the_decimals_of_a_column_do_not_need_ties() -> None:
    assert grid_of_floats(np.arange(100) / 10) == Grid(0, 1, 1)
    assert grid_of_floats(np.round(RNG.normal(500, 120, 400), 3)).decimals == 3  # type: ignore[union-attr]
    for dtype in (np.float32, np.float64):
        assert grid_of_floats(RNG.normal(size=12).astype(dtype)) is None


def test_integers_and_their_step() -> None:
    assert grid_of_integers(np.array([7, 19, 13]), "a") == Grid(7, 6)
    assert grid_of_integers(np.array([-5, -5]), "a") == Grid(-5, 1)
    with pytest.raises(UserError, match="look like identifiers"):
        grid_of_integers(np.array([-(2**62), 2**62]), "a")


# Types


def days(n: int) -> list[datetime.date]:
    return [datetime.date(2020, 1, 1) + datetime.timedelta(int(k)) for k in RNG.integers(0, 99, n)]


TYPED: dict[str, pa.Array] = {
    **{f"int{b}": pa.array(RNG.integers(-100, 100, N), getattr(pa, f"int{b}")())
       for b in (8, 16, 32, 64)},
    **{f"uint{b}": pa.array(RNG.integers(0, 200, N), getattr(pa, f"uint{b}")())
       for b in (8, 16, 32, 64)},
    "large": pa.array(RNG.integers(10**15, 10**15 + 999, N)),
    "grid": pa.array(np.round(RNG.normal(size=N), 1) + 2015),
    "grid32": pa.array((np.round(RNG.normal(size=N), 1)).astype(np.float32)),
    "half": pa.array(np.round(RNG.normal(size=N), 0).astype(np.float16)),
    "bool": pa.array(RNG.integers(0, 2, N).astype(bool)),
    "date32": pa.array(days(N)),
    "date64": pa.array(days(N), pa.date64()),
    "timestamp": pa.array(RNG.integers(0, 10**6, N) + 1_700_000_000).cast(pa.timestamp("s")),
    "zoned": pa.array(1_700_000_000_000 + RNG.integers(0, 10**6, N)).cast(
        pa.timestamp("ms", "Europe/Zurich")),
    "time32": pa.array(RNG.integers(0, 86400, N), pa.int32()).cast(pa.time32("s")),
    "duration": pa.array(RNG.integers(0, 500, N)).cast(pa.duration("us")),
    "dictionary": pa.array(np.array(["x", "y", "ü,\n\""])[RNG.integers(0, 3, N)])
    .dictionary_encode(),
    "constant": pa.array([datetime.date(2020, 5, 17)] * N),
    "constant text": pa.array(["all the same"] * N),
    "constant float": pa.array([0.1] * N, pa.float32()),
}  # fmt: skip


def test_every_type_comes_back_exactly() -> None:
    table = pa.table(TYPED)
    back = round_trip(table)
    for name in table.column_names:
        assert back[name].type == table[name].type, name
        assert back[name].combine_chunks().equals(table[name].combine_chunks()), name
    assert back.column_names == table.column_names


def test_continuous_numbers_come_back_to_float32_about_their_mean() -> None:
    values = RNG.normal(size=N) + 1e6
    back = round_trip(pa.table({"a": values, "b": values.astype(np.float32)}))
    assert np.abs(back["a"].to_numpy() - values).max() < 1e-6
    assert back["b"].type == pa.float32()
    assert np.abs(back["b"].to_numpy() - values.astype(np.float32)).max() <= 0.0625


def test_labels_categories_and_conditions_come_back() -> None:
    words = np.array(["b", "a", "NA", "-"])[RNG.integers(0, 4, N)]
    table = pa.table(
        {
            "x": RNG.normal(size=N).astype(np.float32) / 64,
            "species": words,
            "code": np.array([10, 2, 33])[RNG.integers(0, 3, N)],
            "c": np.round(RNG.normal(size=N), 2),
            "k": pa.array(RNG.integers(0, 9, N), pa.uint8()),
            "c32": RNG.normal(size=N).astype(np.float32),
        }
    )
    reading = Reading(
        label_column="species", categorical="code", condition_columns="k,c,c32", drop=None
    )
    data = tables.from_table(table, reading)
    assert data.label_names == ("-", "NA", "a", "b")
    assert data.shape == (4,)  # x and three codes
    assert codec_of(data).coordinate_names == ["x", "code=2", "code=10", "code=33"]
    # Conditions in the table's order, of mean 0 and deviation 1 over the training rows.
    assert data.train_vector is not None and data.rows is not None
    torch.testing.assert_close(
        data.train_vector.mean(0), torch.zeros(3).double(), atol=1e-9, rtol=0
    )
    torch.testing.assert_close(data.train_vector.std(0, unbiased=False), torch.ones(3).double())
    back = round_trip(table, reading)
    for name in table.column_names[1:]:
        assert back[name].combine_chunks().equals(table[name].combine_chunks()), name
    c = table["c"].to_numpy()[data.rows[0]]
    torch.testing.assert_close(
        data.train_vector[:, 0], torch.from_numpy((c - c.mean()) / c.std()), atol=1e-9, rtol=0
    )


def test_samples_are_rounded_clipped_and_take_the_largest_category() -> None:
    table = pa.table(
        {
            "small": pa.array(RNG.integers(0, 256, N), pa.uint8()),
            "tens": RNG.integers(-5, 5, N) * 10,
            "kind": np.array(["p", "q", "r"])[np.arange(N) % 3],
        }
    )
    data = tables.from_table(table, Reading(categorical="kind"))
    codec = codec_of(data)
    offsets = codec.natural(torch.zeros(1, 5))[0]
    asked = torch.tensor([[300.0, 14.0, 0.2, 0.9, 0.1], [-7.4, -26.0, 0.5, -1, 0.4]])
    asked[:, :2] -= offsets[:2].float()
    back = codec.decode(asked)
    assert back.to_pydict() == {"small": [255, 0], "tens": [10, -30], "kind": ["q", "p"]}
    assert codec.harden(asked)[:, 2:].tolist() == [[0, 1, 0], [1, 0, 0]]
    assert torch.equal(codec.harden(asked)[:, :2], asked[:, :2])
    with pytest.raises(UserError, match="1 of 2 rows hold NaN"):
        codec.decode(
            asked.index_put((torch.tensor([0]), torch.tensor([1])), torch.tensor(torch.nan))
        )
    with pytest.raises(UserError, match="rows of this table have 5 numbers"):
        codec.decode(asked[:, :3])


def test_dequantisation_is_uniform_over_the_cell_and_undone_by_rounding() -> None:
    values = RNG.integers(0, 40, 20_000) * 3 + 7
    data = tables.from_table(pa.table({"a": values, "b": values / 100}), Reading())
    codec = codec_of(data)
    x = codec.encode(pa.table({"a": values, "b": values / 100})).x
    noise = (codec.natural(x)[:, 0].numpy() - values) / 3
    assert np.abs(noise).max() <= 0.5 + 1e-5
    assert abs(noise.mean()) < 4 / np.sqrt(12 * 20_000)
    assert abs(noise.var() - 1 / 12) < 4 * np.sqrt(1 / 180 / 20_000)
    other = (codec.natural(x)[:, 1].numpy() * 100 - values) / 3
    assert abs(np.corrcoef(noise, other)[0, 1]) < 0.03  # another column, another stream
    assert codec.decode(x)["a"].to_numpy().tolist() == values.tolist()
    assert codec.decode(x)["b"].to_numpy().tolist() == (values / 100).tolist()
    assert abs(float(data.train[:, 0].mean())) < 0.1 < float(data.train[:, 0].std())  # centred


def test_more_levels_than_float32_has_are_left_undithered() -> None:
    values = np.concatenate([RNG.integers(0, 10**12, 50), RNG.integers(0, 10**12, 50)])
    data = tables.from_table(pa.table({"a": values, "b": RNG.normal(size=100)}), Reading())
    back = codec_of(data).decode(codec_of(data).encode(pa.table({"a": values, "b": values})).x)
    assert back["a"].type == pa.int64()
    assert np.abs(back["a"].to_numpy() - values).max() < 1e12 * 2**-23
    assert any("more steps than float32" in note for note in data.report["notes"])


# Encoding new rows


def small() -> tuple[pa.Table, TableCodec]:
    table = pa.table(
        {
            "a": RNG.normal(size=N),
            "n": RNG.integers(0, 5, N),
            "s": np.array(["cat", "dog"])[np.arange(N) % 2],
        }
    )
    return table, codec_of(tables.from_table(table, Reading(label_column="s")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a": None}, "no column 'a'"),
        ({"a": [None, 1.0]}, "column 'a' has 1 missing"),
        ({"a": [1.0, np.inf]}, "1 NaN or infinite numbers, the first in row 1"),
        ({"a": ["one", "two"]}, "column 'a' is string, not double"),
        ({"n": [1.0, 1.5]}, "column 'n' is double, not int64"),
        ({"s": ["cat", "dot"]}, "column 's', row 1: 'dot' is none of its values: did you mean"),
    ],
)
def test_new_rows_that_do_not_fit(change: dict[str, Any], message: str) -> None:
    _, codec = small()
    rows = {"a": [1.0, 2.0], "n": [1, 2], "s": ["cat", "dog"], **change}
    with pytest.raises(UserError) as raised:
        codec.encode(pa.table({k: v for k, v in rows.items() if v is not None}))
    assert message in str(raised.value)


def test_new_rows_may_have_other_columns_order_and_widths() -> None:
    _, codec = small()
    rows = pa.table({"extra": [0], "s": ["dog"], "n": pa.array([3], pa.int8()), "a": [0.25]})
    x, label, _ = codec.encode(rows)
    assert label is not None and label.tolist() == [1]
    assert codec.decode(x, label).to_pydict() == {
        "a": [pytest.approx(0.25)],
        "n": [3],
        "s": ["dog"],
    }
    assert codec.decode(x)["s"].to_pylist() == [None]
    assert codec.decode(x, torch.tensor([-1]))["s"].to_pylist() == [None]


@pytest.mark.parametrize(
    "damage",
    [
        lambda c: c.pop("columns"),
        lambda c: c["columns"].pop(),
        lambda c: c["columns"][0].pop("centre"),
        lambda c: c.update(arrow_schema="nothing"),
        lambda c: c.update(arrow_schema=c["arrow_schema"][:40]),
        lambda c: c.update(format_version=99),
    ],
)
def test_damaged_files_are_refused(damage: Any) -> None:
    content = small()[1].to_json()
    damage(content)
    with pytest.raises(UserError, match=r"damaged|format version 99"):
        TableCodec.from_json(content)


# Round trips through files

NAMES = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), include_characters=',"\n;\t '), min_size=1
).filter(lambda s: s.strip() == s and not is_number(s) and s not in UNNAMED)
# Numbers are no names in a csv, and these are row numbers.
WORDS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0\r"))


@st.composite
def any_table(draw: st.DrawFn) -> pa.Table:
    """Integers, decimals, truth values and words (constant or not) under any names."""
    n = draw(st.integers(12, 30))
    kinds = draw(st.lists(st.sampled_from("idbwk"), min_size=2, max_size=5))
    names = draw(st.lists(NAMES, min_size=len(kinds), max_size=len(kinds), unique=True))
    columns: dict[str, pa.Array] = {"first one": pa.array(np.arange(n))}
    for name, kind in zip(names, kinds, strict=True):
        rng = np.random.default_rng(draw(st.integers(0, 2**32)))
        word = draw(st.lists(WORDS, min_size=2, max_size=3, unique=True))
        columns[name] = {
            "i": pa.array(rng.integers(-50, 50, n) * 10 ** int(rng.integers(0, 9))),
            "d": pa.array(np.repeat(rng.integers(-99, 99, -(-n // 2)) / 8, 2)[:n]),
            "b": pa.array(np.arange(n) % 3 == 0),
            "w": pa.array([word[k % len(word)] for k in range(n)], pa.string()),
            "k": pa.array([word[0]] * n, pa.string()),
        }[kind]
    return pa.table(columns)


def reading_of(table: pa.Table) -> Reading:
    words = ['"' + f.name.replace('"', '""') + '"' for f in table.schema if f.type == pa.string()]
    return Reading(categorical=",".join(words) or None)


@pytest.mark.parametrize("mark", ["\n", "\r", "\r\n", "\x0b", "\x1e", "\x85", "\u2028"])
def test_blanks_behind_any_line_end_within_quotes_are_kept(tmp_path: Path, mark: str) -> None:
    table = pa.table({"a": list(range(12)), "b": [f"{mark} x", "y"] * 6})
    (tmp_path / "t.csv").write_bytes(table_files.csv_of(table).encode())
    assert_csv_equal(table_files.read(tmp_path / "t.csv"), table)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(any_table())
def test_any_table_comes_back_through_parquet_and_csv(
    tmp_path_factory: pytest.TempPathFactory, table: pa.Table
) -> None:
    back = round_trip(table, reading_of(table))
    assert equal(back, table)
    folder = tmp_path_factory.mktemp("files")
    sink = io.BytesIO()
    parquet.write_table(back, sink)
    (folder / "t.parquet").write_bytes(sink.getvalue())
    assert equal(table_files.read(folder / "t.parquet"), table)
    (folder / "t.csv").write_bytes(table_files.csv_of(back).encode())
    assert_csv_equal(table_files.read(folder / "t.csv"), table)


def assert_csv_equal(read: pa.Table, table: pa.Table) -> None:
    """Equal names, order and values; csv cannot say that a word of digits is a word."""
    assert read.column_names == table.column_names
    for name in table.column_names:
        if table[name].type == pa.string() and read[name].type != pa.string():
            continue
        assert read[name].type == table[name].type, name
        assert read[name].to_pylist() == table[name].to_pylist(), name


def test_whole_floats_stay_floats_in_csv(tmp_path: Path) -> None:
    table = pa.table({"a": [1.0, 2.0], "b": pa.array([0.1, 3.0], pa.float32()), "c": [1e20, 1e-9]})
    text = table_files.csv_of(table)
    assert text == "a,b,c\n1.0,0.1,1e+20\n2.0,3.0,1e-09\n"
    (tmp_path / "t.csv").write_text(text)
    assert table_files.read(tmp_path / "t.csv").schema.types == [pa.float64()] * 3
