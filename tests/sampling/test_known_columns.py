"""Models of all columns given some: the masks, the mechanism with an exact field, and imputing."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from scipy import linalg
from torch import Tensor, nn

import monge
from monge.autoencoders import standardise
from monge.autoencoders.identity import IdentitySpec
from monge.data.base import Data
from monge.data.columns.known import known_coordinates
from monge.data.reading import Reading
from monge.data.sources import load
from monge.data.tables import tables
from monge.errors import UserError
from monge.fields import Predict
from monge.fitting.any_columns import hidden_of, masks_of
from monge.flows import Integrated
from monge.learned import LearnedVelocity
from monge.networks.known_columns import KnownColumns
from monge.objectives.column_masks import HIDDEN, KNOWN, NONE, ColumnMasks
from monge.objectives.flow_matching import FlowMatching
from monge.paths import Linear
from monge.sampling.generator import Generator
from monge.sampling.imputing import impute, impute_file
from monge.solvers import RK4
from monge.tensors import stream
from monge.times import Uniform

ROOT = np.array([[1, 0, 0, 0], [0.8, 0.6, 0, 0], [-0.5, 0.5, 0.7, 0], [0.3, 0, 0.6, 0.7]])
SCALE, MEAN = np.diag([1, 10, 0.1, 3]), np.array([5, 50, 0, -2.0])
COVARIANCE = SCALE @ ROOT @ ROOT.T @ SCALE


def law_given(known: list[int], values: np.ndarray) -> tuple[list[int], np.ndarray, np.ndarray]:
    """The unknown columns, and their conditional mean and covariance, of N(MEAN, COVARIANCE)."""
    others = [j for j in range(4) if j not in known]
    slope = COVARIANCE[np.ix_(others, known)] @ np.linalg.inv(COVARIANCE[np.ix_(known, known)])
    mean = MEAN[others] + slope @ (values - MEAN[known])
    left = COVARIANCE[np.ix_(others, others)] - slope @ COVARIANCE[np.ix_(known, others)]
    return others, mean, left


class ExactGiven(nn.Module):
    """The velocity of the linear path to N(mean, covariance) given known coordinates.

    At time t the state is N(t m, S) with S = t^2 C + (1 - t)^2 I, of the conditional law N(m, C),
    and the velocity m + (t C - (1 - t) I) S^-1 (x - t m). Of known coordinates it outputs ones,
    which must not count. As a cheat it ignores what is known.
    """

    def __init__(self, mean: Tensor, covariance: Tensor, cheat: bool = False) -> None:
        super().__init__()
        self.mean, self.covariance, self.cheat = mean.double(), covariance.double(), cheat
        self.weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, x: Tensor, t: Tensor | float, cond: dict[str, Tensor]) -> Tensor:
        given, mask = cond["vector"].double().chunk(2, 1)
        out = torch.zeros_like(x)
        patterns = mask.bool() & (not self.cheat)
        for pattern in patterns.unique(dim=0):
            rows = (patterns == pattern).all(1)
            out[rows] = self._of(pattern, x[rows].double(), given[rows], float(t)).to(x)
        return out

    def _of(self, known: Tensor, x: Tensor, given: Tensor, t: float) -> Tensor:
        k, u = known.nonzero()[:, 0], (~known).nonzero()[:, 0]
        c = self.covariance
        slope = c[u][:, k] @ torch.linalg.inv(c[k][:, k]) if len(k) else c.new_zeros(len(u), 0)
        mean = self.mean[u] + (given[:, k] - self.mean[k]) @ slope.T
        left = c[u][:, u] - slope @ c[k][:, u]
        eye = torch.eye(len(u), dtype=torch.float64)
        at = t**2 * left + (1 - t) ** 2 * eye
        gain = (t * left - (1 - t) * eye) @ torch.linalg.inv(at)
        found = torch.ones_like(x)
        found[:, u] = mean + (x[:, u] - t * mean) @ gain.T
        return found


def gaussian_table(n: int, seed: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, 4)) @ ROOT.T @ SCALE + MEAN
    return pa.table(dict(zip("abcd", rows.T, strict=True)))


def generator(data: Data, cheat: bool = False) -> Generator:
    """A model of the Gaussian table with the exact conditional field."""
    assert data.codec is not None
    bare = IdentitySpec().build(data.shape)
    wrapped = standardise(bare, data.train[:])
    mean, scale = wrapped.mean.double(), wrapped.std.double()
    centres = torch.tensor([c.centre for c in data.codec.columns if c.size], dtype=torch.float64)
    law = torch.from_numpy(MEAN) - centres
    network = ExactGiven(
        (law - mean) / scale, torch.from_numpy(COVARIANCE) / scale.outer(scale), cheat
    )
    learned = LearnedVelocity(KnownColumns(network), solver="rk4", grid="uniform:n=20")
    return Generator(wrapped, learned, data)


@pytest.fixture(scope="module")
def data() -> Data:
    return tables.from_table(gaussian_table(500, 0), Reading())


# Masks


def test_masks_are_as_likely_as_they_should_be() -> None:
    masks = ColumnMasks(((0,), (1, 2), (3,)))
    x = torch.arange(4.0).repeat(30_000, 1)
    known = masks.draw(x, stream(0, "test"))
    mask = ~known.isnan()
    assert torch.equal(known[mask], x[mask]) and torch.equal(mask[:, 1], mask[:, 2])
    units = mask[:, [0, 1, 3]]
    counts = torch.bincount(units.sum(1), minlength=4) / len(x)
    # NONE of the rows have none; 1 and 2 known units are equally frequent; never all.
    expected = [NONE, (1 - NONE) / 2, (1 - NONE) / 2, 0]
    assert counts.tolist() == pytest.approx(expected, abs=5 * 0.5 / 30_000**0.5)
    for k in (1, 2):  # every set of so many units is equally frequent
        sets = units[units.sum(1) == k].float()
        assert sets.mean(0).tolist() == pytest.approx([k / 3] * 3, abs=5 * 0.5 / 11_000**0.5)


def test_a_known_value_is_not_missing_and_a_missing_one_is_not_known() -> None:
    table = gaussian_table(400, 1)
    holes = np.arange(400) % 4 == 0
    table = table.set_column(0, "a", pa.array(table["a"].to_numpy(), mask=holes))
    data = tables.from_table(table, Reading(missing="model"))
    assert data.codec is not None
    masks, hidden = masks_of(data.codec), hidden_of(data)
    assert masks.units == ((0,), (1,), (2,), (3,), (4,)) and masks.implied == ((0, 1),)
    assert hidden is not None and int(hidden.sum()) == int((data.train[:][:, 1] > 0.5).sum())
    known = masks.draw(data.train[:].repeat(50, 1), stream(0, "test"), hidden.repeat(50, 1))
    value, score = ~known[:, 0].isnan(), ~known[:, 1].isnan()
    assert not bool((value & ~score).any()) and not bool((value & hidden[:, 0].repeat(50)).any())
    assert bool((score & hidden[:, 0].repeat(50)).any()) and bool(value.any())
    assert hidden_of(tables.from_table(gaussian_table(50, 1), Reading())) is None


def test_the_loss_is_that_of_the_unknown_columns() -> None:
    """By hand: x0 = 0 and the network 0 leave |x1|^2 of the unknown coordinates, averaged."""
    x1 = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
    known = torch.tensor([[math.nan] * 3, [1.0, math.nan, math.nan], [1.0, 2.0, 3.0]])
    batch = {"x0": torch.zeros(3, 3), "x1": x1, "t": torch.full((3,), 0.5), KNOWN: known}
    loss = FlowMatching().loss(lambda x, t, cond=None: torch.zeros_like(x), batch).per_example
    assert loss.tolist() == pytest.approx([14 / 3, 13 / 2, 0.0])


def test_draws_of_a_batch_carry_the_masks_and_hide_nothing_else() -> None:
    masks = ColumnMasks(((0,), (1,)))
    x1 = torch.randn(64, 2, generator=stream(0, "x"))
    hidden = torch.zeros(64, 2, dtype=torch.bool)
    hidden[:, 1] = True
    drawn = FlowMatching(masks=masks).draw({"x1": x1, HIDDEN: hidden}, stream(0, "draw"))
    assert HIDDEN not in drawn and bool(drawn[KNOWN][:, 1].isnan().all())
    plain = FlowMatching().draw({"x1": x1}, stream(0, "draw"))
    assert torch.equal(plain["x0"], drawn["x0"]) and torch.equal(plain["t"], drawn["t"])


# The mechanism, with an exact field


@pytest.mark.parametrize("known", [[], [0], [2, 3], [0, 1, 3], [0, 1, 2, 3]], ids=str)
def test_the_flow_carries_noise_to_the_conditional_law(data: Data, known: list[int]) -> None:
    """The exact flow of a Gaussian is m + C^(1/2) x0; known coordinates stay where they are."""
    model = generator(data)
    network = model.network.net
    assert isinstance(network, ExactGiven)
    x0 = torch.randn(50, 4, generator=stream(1, "noise"), dtype=torch.float64)
    given = torch.full((50, 4), math.nan, dtype=torch.float64)
    given[:, known] = torch.randn(50, len(known), generator=stream(2, "known")).double()
    flow = Integrated(Predict(model.network, Linear(), "velocity"), RK4(), Uniform(n=64))
    end = flow(x0, 0.0, 1.0, {KNOWN: given})
    assert torch.equal(end[:, known], x0[:, known])
    others = [j for j in range(4) if j not in known]
    if not others:
        return
    c, m = network.covariance.numpy(), network.mean.numpy()
    slope = c[np.ix_(others, known)] @ np.linalg.inv(c[np.ix_(known, known)])
    left = c[np.ix_(others, others)] - slope @ c[np.ix_(known, others)]
    mean = m[others] + (given[:, known].numpy() - m[known]) @ slope.T
    root = np.real(np.asarray(linalg.sqrtm(left)))
    assert end[:, others].numpy() == pytest.approx(mean + x0[:, others].numpy() @ root, abs=2e-5)


def residuals(found: pa.Table, holed: pa.Table) -> np.ndarray:
    """Drawn cells minus their conditional mean, whitened by their conditional covariance."""
    made = []
    values = np.stack([found[c].to_numpy() for c in "abcd"], 1)
    empty = np.stack([np.asarray(holed[c].combine_chunks().is_null()) for c in "abcd"], 1)
    for row, holes in zip(values, empty, strict=True):
        known = np.flatnonzero(~holes).tolist()
        if len(known) == 4:
            continue
        others, mean, left = law_given(known, row[known])
        made.append(np.linalg.solve(np.linalg.cholesky(left), row[others] - mean))
    return np.concatenate(made)


def with_holes(table: pa.Table, seed: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    columns = {c: pa.array(table[c].to_numpy(), mask=rng.random(len(table)) < 0.4) for c in "abcd"}
    return pa.table(columns)


@pytest.mark.parametrize("cheat", [False, True], ids=["honest", "cheat"])
def test_drawn_cells_have_the_conditional_law(data: Data, cheat: bool) -> None:
    """Whitened residuals are N(0, 1) in mean and variance; those of a cheat are not."""
    holed = with_holes(gaussian_table(800, 3), 4)
    z = residuals(impute(generator(data, cheat), holed, seed=1), holed)
    mean, variance = abs(z.mean()) * len(z) ** 0.5, abs(z.var() - 1) * (len(z) / 2) ** 0.5
    assert len(z) > 1000
    assert (max(mean, variance) < 4) is not cheat
    assert not cheat or variance > 20


def test_samples_given_columns_have_the_conditional_law(data: Data) -> None:
    n = 4000
    found = generator(data).sample(n, condition="a=6.5, c=0.05").table()
    assert set(found["a"].to_pylist()) == {6.5} and set(found["c"].to_pylist()) == {0.05}
    _, mean, left = law_given([0, 2], np.array([6.5, 0.05]))
    drawn = np.stack([found[c].to_numpy() for c in "bd"], 1)
    spread = np.sqrt(np.diag(left))
    assert np.abs((drawn.mean(0) - mean) / spread).max() < 4 / n**0.5
    assert np.abs(drawn.var(0) / spread**2 - 1).max() < 4 * (2 / n) ** 0.5


def test_a_mapping_a_table_and_a_text_give_the_same(data: Data) -> None:
    model = generator(data)
    table = pa.table({"a": [6.5] * 5, "c": [0.05] * 5})
    asked = ["a=6.5,c=0.05", {"a": 6.5, "c": "0.05"}, table]
    drawn = [model.sample(5, condition=c).table() for c in asked]
    assert drawn[0].equals(drawn[1]) and drawn[0].equals(drawn[2])
    some = table.set_column(0, "a", pa.array([6.5, None, 6.5, None, 6.5]))
    mixed = model.sample(5, condition=some).table()
    assert mixed.slice(0, 1).equals(drawn[0].slice(0, 1))
    assert mixed["a"][1].as_py() != 6.5 and mixed["c"].to_pylist() == [0.05] * 5


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("a=x", "column 'a', row 0: 'x' is no number"),
        ("z=1", "no column 'z': known: a, b, c, d"),
        ("a", "should have the form column=value"),
        ("a=1,a=2", "'a' is given twice"),
        ("a=", "has no missing values that were learned"),
        ("a=inf", "'inf' is no number"),
        ("", "the condition is empty"),
        ({}, "the condition is empty"),
        (pa.table({"a": [1.0]}), "has 1 rows for 3 samples"),
        (4, "should be a text"),
    ],
)
def test_conditions_that_are_none(data: Data, condition: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        generator(data).sample(3, condition=condition)  # type: ignore[arg-type]


def test_a_model_that_knows_no_columns_says_so(data: Data) -> None:
    plain = Generator(standardise(IdentitySpec().build(data.shape), data.train[:]),
                      LearnedVelocity(nn.Linear(1, 1)), data)  # fmt: skip
    with pytest.raises(UserError, match="train with --conditional any for a condition on any"):
        plain.sample(3, condition="a=1")
    with pytest.raises(UserError, match="this run cannot impute"):
        impute(plain, gaussian_table(3, 0))


# Imputing files

RAW = (
    'id;a;"b";c;d\r\n'
    '"x;1";6.50;NA; 0.05 ;"-1.25"\r\n'
    'x"2;6.1;49.0;0.01;-2\r\n'
    "\r\n"
    "NA;?;;0.010;\r\n"
    "x4;4.5;5e1;0;-3.5"
)


@pytest.mark.parametrize("how", ["plain", "gz", "bom", "latin-1"])
def test_all_else_in_a_file_is_kept_to_the_letter(data: Data, tmp_path: Path, how: str) -> None:
    text = RAW.replace("x4", "é") if how == "latin-1" else RAW
    content = text.encode("latin-1" if how == "latin-1" else "utf-8")
    content = {"gz": gzip.compress(content), "bom": b"\xef\xbb\xbf" + content}.get(how, content)
    path = tmp_path / ("holes.csv.gz" if how == "gz" else "holes.csv")
    path.write_bytes(content)
    made, found = impute_file(generator(data), path)
    assert {c: int(h.sum()) for c, h in found.holes.items()} == {"a": 1, "b": 2, "d": 1}
    plain = gzip.decompress(content) if how == "gz" else content
    before, after = (x.split(b"\r\n") for x in (plain, made))
    assert len(before) == len(after)
    for k, (old, new) in enumerate(zip(before, after, strict=True)):
        if k not in (1, 4):
            assert old == new
    assert after[1].startswith(b'"x;1";6.50;') and after[1].endswith(b'; 0.05 ;"-1.25"')
    one = float(after[1].split(b";")[3])
    _, mean, left = law_given([0, 2, 3], np.array([6.5, 0.05, -1.25]))
    assert abs(one - mean[0]) < 5 * left[0, 0] ** 0.5
    assert after[4].split(b";")[0] == b"NA" and after[4].split(b";")[3] == b"0.010"


def test_parquet_is_filled_too(data: Data, tmp_path: Path) -> None:
    holed = with_holes(gaussian_table(60, 6), 7).append_column("id", pa.array(range(60)))
    parquet.write_table(holed, tmp_path / "h.parquet")
    content, found = impute_file(generator(data), tmp_path / "h.parquet", 2, seed=4)
    made = parquet.read_table(pa.BufferReader(content))
    assert made.equals(impute(generator(data), holed, 2, seed=4)) and len(made) == 120
    assert found.cells == sum(column.null_count for column in holed.columns)
    assert all(column.null_count == 0 for column in made.columns)


def test_several_draws_are_numbered_and_differ(data: Data, tmp_path: Path) -> None:
    path = tmp_path / "holes.csv"
    path.write_text(RAW.replace("\r\n", "\n"))
    one, _ = impute_file(generator(data), path, seed=3)
    three, found = impute_file(generator(data), path, 3, seed=3)
    lines = three.decode().splitlines()
    assert lines[0] == 'draw;id;a;"b";c;d' and len(lines) == 1 + 3 * 5 and len(found.drawn) == 3
    firsts = [line for line in lines if line.endswith('; 0.05 ;"-1.25"')]
    assert len({line[1:] for line in firsts}) == 3 and [line[0] for line in firsts] == list("123")
    assert firsts[0][2:] == one.decode().splitlines()[1]


@pytest.mark.parametrize("before", ["", "\ufeff", "\n\n", "sep=;\n"], ids=repr)
@pytest.mark.parametrize("header", ["a;b", '"a";"b\nin two lines"'], ids=["one", "two"])
def test_the_number_of_the_draw_stands_in_the_header(
    data: Data, tmp_path: Path, before: str, header: str
) -> None:
    (tmp_path / "h.csv").write_text(f"{before}{header}\n5.5;1\n;2\n", encoding="utf-8")
    made = impute_file(generator(data), tmp_path / "h.csv", 2)[0].decode()
    assert made.startswith(f"{before}draw;{header}\n1;5.5;1\n1;")


def test_a_category_that_is_none_is_named_with_its_row(data: Data) -> None:
    table = pa.table({"x": range(40), "k": ["ab"[i % 2] for i in range(40)]})
    learned = LearnedVelocity(KnownColumns(nn.Linear(1, 1)))
    of_words = tables.from_table(table, Reading())
    model = Generator(standardise(IdentitySpec().build((3,)), of_words.train[:]), learned, of_words)
    holes = pa.table({"x": [1, 2, 3, None], "k": ["a", "new", "b", "c"]})
    with pytest.raises(
        UserError, match="column 'k', row 3: 'c' is none of its values: known: a, b"
    ):
        impute(model, holes)


def test_a_table_keeps_its_columns_and_types() -> None:
    table = gaussian_table(300, 5)
    whole = pa.table({**{c: table[c] for c in "abcd"}, "n": np.arange(300) % 7, "one": ["u"] * 300})
    data = tables.from_table(whole, Reading(drop="n"))
    holed = whole.set_column(1, "b", pa.array(whole["b"].to_numpy(), mask=np.arange(300) < 2))
    holed = holed.set_column(4, "n", pa.array([None] * 300, pa.int64()))
    found = impute(generator(data), holed)
    assert found.schema == holed.schema and found["n"].null_count == 300
    assert found.slice(2).equals(holed.slice(2)) and found["b"].null_count == 0
    again = impute(generator(data), holed, 2)
    assert again.column_names == ["draw", *holed.column_names] and len(again) == 600
    assert again.slice(0, 300).drop_columns("draw").equals(found)
    assert impute(generator(data), found).equals(found)


def test_files_that_cannot_be_imputed(data: Data, tmp_path: Path) -> None:
    def tried(name: str, text: str) -> str:
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError) as raised:
            impute_file(generator(data), tmp_path / name)
        return str(raised.value)

    assert "column 'a', row 1: 'x' is no number" in tried("h.csv", "a,b\n1,2\nx,3\n")
    assert "there is none of this run's columns" in tried("h.csv", "u,v\n1,\n2,3\n")
    assert "row 200 has 1 cells; 2 are expected" in tried("h.csv", "a,b\n" + "1,2\n" * 200 + "3\n")
    assert "give a .csv, .tsv or .parquet file" in tried("h.txt", "a,b\n1,2\n")
    with pytest.raises(UserError, match="draws must be at least 1"):
        impute(generator(data), gaussian_table(3, 0), 0)


# Missing values, when they are data too


def test_an_unknown_value_is_imputed_as_one_that_is_there(tmp_path: Path) -> None:
    rows = "".join(f"{i % 9},{'' if i % 4 == 0 else 'ab'[i % 2]}\n" for i in range(200))
    (tmp_path / "t.csv").write_text("n,k\n" + rows)
    codec = load(str(tmp_path / "t.csv"), Reading(missing="model")).codec
    assert codec is not None and codec.size == 4  # n; k=a, k=b, and whether k is missing
    holes = pa.table({"n": [3, 4], "k": ["a", None]})
    there, free = (known_coordinates(codec, holes, present=p) for p in (True, False))
    assert there[1, 1:3].isnan().all() and bool(there[1, 3] < 0.5)
    assert free[1, 1:].isnan().all() and torch.equal(there[0], free[0])
    gone = known_coordinates(codec, pa.table({"k": pa.nulls(2, pa.string())}), missing=["k"])
    assert bool((gone[:, 3] > 0.5).all()) and gone[:, :3].isnan().all()


@pytest.mark.slow
def test_a_trained_run_has_the_conditional_law_of_a_gaussian(tmp_path: Path) -> None:
    """After 6,000 steps: whitened residuals of imputed cells within 0.06 of mean 0, variance 1."""
    run = monge.train(gaussian_table(20_000, 1), conditional="any", network="mlp:width=128",
                      steps=6000, threads=1, out=tmp_path / "run", verbose=False)  # fmt: skip
    holed = with_holes(gaussian_table(2000, 3), 4)
    z = residuals(run.impute(holed), holed)
    assert abs(float(z.mean())) < 0.06 and abs(float(np.var(z)) - 1) < 0.06, (z.mean(), np.var(z))
