"""Runs on tables, end to end: train, sample, read back, condition, density, recipes."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

import monge
from monge.cli import main
from monge.data.base import Data
from monge.data.reading import Reading
from monge.data.tables import table_files, tables
from monge.errors import UserError
from monge.evaluation.density import gaussian_log_density, heldout_density
from monge.networks.exact import ExactNetwork
from monge.runs.run import Run
from monge.sampling import conditions
from monge.targets.gaussian import Gaussian
from monge.verbs.train import starting_point

SPECIES = ["setosa", "versi, color", "NA"]
FLAGS = ["--network=mlp:width=16,depth=1", "--steps=20", "--batch=32", "--grid=uniform:n=4",
         "--save-every=20", "--sample-every=20", "--threads=1"]  # fmt: skip
COLUMNS = ["--label-column=species", "--drop=id", "--categorical=kind", "--condition-columns=t,k"]


def source(n: int = 300) -> pa.Table:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, n)
    t = np.round(rng.normal(size=n), 1)
    return pa.table(
        {
            "id": [f"row {i}" for i in range(n)],
            "length, cm": label + rng.normal(size=n),
            "count": rng.poisson(5 + label + t**2, n),
            "kind": np.array(["A", "B"])[rng.integers(0, 2, n)],
            "unit": ["cm"] * n,
            "t": t,
            "k": rng.integers(0, 4, n),
            "species": np.array(SPECIES)[label],
            "day": pa.array(18_000 + rng.integers(0, 99, n), pa.int32()).cast(pa.date32()),
        }
    )


@pytest.fixture(scope="module")
def csv_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A tiny run on a csv with a label, integers, categories, dates, a constant and conditions."""
    folder = tmp_path_factory.mktemp("table")
    (folder / "t.csv").write_text(table_files.csv_of(source()))
    out = folder / "run"
    assert main(["train", str(folder / "t.csv"), *COLUMNS, *FLAGS, f"--out={out}"]) == 0
    return Run.load(out)


def test_samples_have_the_tables_columns_and_types(csv_run: Run, tmp_path: Path) -> None:
    argv = ["sample", str(csv_run.folder), "-n", "50", "--format=csv,parquet", f"--out={tmp_path}"]
    assert main(argv) == 0
    expected = source().drop_columns(["id"]).schema
    whole = parquet.read_table(tmp_path / "samples.parquet")
    assert whole.schema == expected and whole.num_rows == 50
    text = table_files.read(tmp_path / "samples.csv")
    assert text.schema == expected
    assert text.to_pydict() == whole.to_pydict()
    assert set(whole["unit"].to_pylist()) == {"cm"}
    assert set(whole["kind"].to_pylist()) <= {"A", "B"}
    assert set(whole["species"].to_pylist()) <= set(SPECIES)
    assert csv_run.sample(50).table().equals(whole)
    assert (tmp_path / "grid.png").stat().st_size > 1000
    # What was sampled is data again.
    again = tables.from_table(whole, Reading(label_column="species", categorical="kind"))
    assert again.label_names == csv_run_names(whole)


def csv_run_names(table: pa.Table) -> tuple[str, ...]:
    return tuple(sorted(set(table["species"].to_pylist())))


def test_the_run_folder_says_how_the_table_was_read(csv_run: Run) -> None:
    report = json.loads((csv_run.folder / "data_report.json").read_text())
    assert report["left_out"] == ["id"] and "unit" in report["notes"][0]
    assert csv_run.codec is not None
    assert [c.role for c in csv_run.codec.columns] == [
        "number", "number", "category", "constant", "condition", "condition", "label", "number",
    ]  # fmt: skip
    data = csv_run.data()
    assert data.codec == csv_run.codec and csv_run.facts.n_vector == 2


def test_conditions_are_asked_for_or_drawn_from_the_training_rows(csv_run: Run) -> None:
    asked = csv_run.sample(5, condition="t=3.55, k=2").table()
    assert asked["t"].to_pylist() == [3.55] * 5 and asked["k"].to_pylist() == [2] * 5
    given = torch.tensor([[0.1, 1.0], [0.2, 3.0]])
    each = csv_run.sample(2, condition=given.double()).table()
    assert each["k"].to_pylist() == [1, 3]
    assert csv_run.sample(1, condition={"k": 1, "t": -0.7}).table()["t"].to_pylist() == [-0.7]
    # Drawn: pairs (label, t, k) that occur in the training rows.
    data = csv_run.data()
    assert data.rows is not None
    train = source().take(data.rows[0].numpy()).select(["species", "t", "k"])
    known = {tuple(row.values()) for row in train.to_pylist()}
    drawn = csv_run.sample(200).table().select(["species", "t", "k"])
    assert {tuple(row.values()) for row in drawn.to_pylist()} <= known
    assert len(set(drawn["t"].to_pylist())) > 10
    only = csv_run.sample(100, label="setosa").table().select(["species", "t", "k"])
    assert {tuple(row.values()) for row in only.to_pylist()} <= known
    assert set(only["species"].to_pylist()) == {"setosa"}
    assert torch.equal(csv_run.sample(7, seed=3).x, csv_run.sample(40, seed=3).x[:7])


def test_the_condition_reaches_the_network(csv_run: Run) -> None:
    z = [csv_run.sample(8, label=0, condition=f"t={t},k=0").z for t in (0, 2)]
    assert not torch.allclose(z[0], z[1], atol=1e-4)
    plain, guided = (csv_run.sample(8, condition="t=1,k=1", guidance=w).z for w in (1, 2.5))
    assert not torch.allclose(plain, guided, atol=1e-4)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--condition=t=1"], "the condition lacks 'k'"),
        (["--condition=tt=1,k=2"], "no condition 'tt': did you mean 't'?"),
        (["--condition=t=one,k=2"], "condition 't=one' should have the form column=number"),
        (["--condition=t"], "condition 't' should have the form"),
        (["--condition=t=inf,k=2"], "conditions should be finite"),
        (["--format=npz"], "npz holds numbers, but the columns 'kind', 'unit', 'day' do not"),
        (["--format=xlsx"], "cannot write samples of this run as 'xlsx'"),
    ],
)
def test_what_sampling_refuses(
    csv_run: Run, argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sample", str(csv_run.folder), *argv]) == 2
    assert message in capsys.readouterr().err


def test_more_that_sampling_refuses(csv_run: Run, table_run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="should have shape"):
        csv_run.sample(3, condition=torch.zeros(2, 2))
    with pytest.raises(UserError, match="this run has no condition columns"):
        table_run.sample(3, condition="t=1")
    copy = csv_run.save_pretrained(tmp_path / "copy")
    assert monge.load(copy).sample(9).table().equals(csv_run.sample(9).table())
    (copy / conditions.FILE).unlink()
    with pytest.raises(UserError, match=r"cannot read .*conditions.safetensors"):
        monge.load(copy).sample(3)
    assert len(monge.load(copy).sample(3, condition="t=1,k=1")) == 3
    (copy / "table.json").write_text("{}")
    with pytest.raises(UserError, match=r"table.json is damaged"):
        monge.load(copy).sample(3)


def test_density_with_categories_is_refused(csv_run: Run) -> None:
    with pytest.raises(UserError, match="the columns 'kind' hold categories or missing values"):
        csv_run.log_density(source(20))
    found = heldout_density(csv_run, csv_run.data())
    assert "categories" in found["refused"]


def test_evaluation_of_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = source().select(["length, cm", "count", "t", "species"])
    parquet.write_table(table, tmp_path / "t.parquet")
    out = tmp_path / "run"
    columns = ["--label-column=species", "--condition-columns=t"]
    assert main(["train", str(tmp_path / "t.parquet"), *columns, *FLAGS, f"--out={out}"]) == 0
    assert main(["evaluate", str(out), "-n", "50"]) == 0
    assert "Held-out log-density -" in capsys.readouterr().out
    density = json.loads((out / "evaluation" / "evaluation.json").read_text())["density"]
    assert density["n"] == 60 and density["units"] == "nats" and density["stderr"] > 0
    assert density["protocol"]["trace"] == "exact"
    assert density["protocol"]["given"] == ["label", "conditions"]
    assert "count" in density["protocol"]["dequantised"]
    assert density["rounding"]["value"] > 0 and density["rounding"]["stderr"] > 0
    assert density["gaussian_is"] == (
        "a Gaussian with a mean for each label and a mean linear in the conditions and one "
        "covariance"
    )
    # An untrained flow is about N(mean, deviation), which is nearly what the Gaussian is.
    assert abs(density["value"] - density["gaussian"]["value"]) < 3
    gain = density["value"] - density["gaussian"]["value"]
    assert density["gain"]["value"] == pytest.approx(gain, abs=1e-9)
    assert "log-density of held-out rows" in (out / "report.html").read_text()
    argv = ["sample", str(out), "-n", "30", "--format=npz", f"--out={tmp_path / 's'}"]
    assert main(argv) == 0
    archive = np.load(tmp_path / "s" / "samples.npz", allow_pickle=False)
    assert archive["columns"].tolist() == ["length, cm", "count", "t"]
    assert archive["arr_0"].shape == (30, 3) and set(archive["arr_1"]) <= set(SPECIES)
    assert np.array_equal(archive["arr_0"][:, 1], np.rint(archive["arr_0"][:, 1]))


MEAN = torch.tensor([2015.0, -3.0, 0.5], dtype=torch.float64)
SCALE = torch.tensor([1e-3, 40.0, 1.0], dtype=torch.float64)
CORRELATION = torch.tensor([[1, 0.6, 0], [0.6, 1, -0.3], [0, -0.3, 1]], dtype=torch.float64)


@pytest.fixture(scope="module")
def gaussian_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Data, pa.Table]:
    """A run on Gaussian rows with the exact law of its latents in the network's seat."""
    folder = tmp_path_factory.mktemp("gaussian")
    law = torch.distributions.MultivariateNormal(MEAN, SCALE[:, None] * CORRELATION * SCALE)
    torch.manual_seed(0)
    rows = law.sample((2000,)).numpy()
    table = pa.table({f"c{j}": rows[:, j] for j in range(3)})
    parquet.write_table(table, folder / "t.parquet")
    argv = ["train", str(folder / "t.parquet"), *FLAGS, "--steps=1", f"--out={folder / 'run'}"]
    assert main(argv) == 0
    run = Run.load(folder / "run")
    data = run.data()
    assert run.codec is not None
    offset = run.codec.natural(torch.zeros(1, 3))[0]
    mean, std = run.autoencoder.mean.double(), run.autoencoder.std.double()
    covariance = (SCALE / std)[:, None] * CORRELATION * (SCALE / std)
    latent = Gaussian((MEAN - offset - mean) / std, covariance)
    exact = ExactNetwork(latent, run.path, run.spec.output)
    return Run.of(run.folder, run.spec, run.facts, run.autoencoder, exact, run.device), data, table


def test_density_is_in_the_tables_own_units(
    gaussian_run: tuple[Run, Data, pa.Table],
) -> None:
    run, data, table = gaussian_run
    law = torch.distributions.MultivariateNormal(MEAN, SCALE[:, None] * CORRELATION * SCALE)
    rows = table.slice(0, 100)
    x = torch.tensor(np.stack([c.to_numpy() for c in rows.columns], 1))
    found = run.log_density(rows, solver="rk4", grid="uniform:n=20")
    assert found.space == "data"
    # The scale of c0 is 5e-7 of its mean: float32 without centring would lose it.
    assert (found.value.double() - law.log_prob(x)).abs().max() < 2e-3
    density = heldout_density(run, data, solver="rk4", grid="uniform:n=20")
    assert data.rows is not None
    held = data.rows[1].numpy()
    truth = law.log_prob(torch.tensor(np.stack([c.to_numpy()[held] for c in table.columns], 1)))
    assert density["n"] == len(held) == 400
    assert density["value"] == pytest.approx(float(truth.mean()), abs=1e-3)
    assert density["stderr"] == pytest.approx(float(truth.std()) / 20, rel=1e-3)
    # The fitted Gaussian loses about D (D + 3) / 4 n_train = 0.003 nats to the true one.
    assert density["gaussian"]["value"] == pytest.approx(float(truth.mean()), abs=0.02)
    assert density["protocol"]["solver"] == "rk4"


def test_the_gaussian_beside_is_linear_in_the_conditions() -> None:
    rng = np.random.default_rng(1)
    label, c = rng.integers(0, 2, 4000), rng.normal(size=4000)
    a = 3.0 * label - 2.0 * c + 0.5 * rng.normal(size=4000)
    table = pa.table({"a": a + 100, "c": c, "s": label})
    data = tables.from_table(table, Reading(label_column="s", condition_columns="c"))
    assert isinstance(data.heldout, torch.Tensor)
    found = gaussian_log_density(data, data.heldout, data.heldout_label, data.heldout_vector)
    assert found is not None and data.rows is not None
    held = data.rows[1].numpy()
    error = (a - 3.0 * label + 2.0 * c)[held]
    truth = -0.5 * (error / 0.5) ** 2 - math.log(0.5) - 0.5 * math.log(2 * math.pi)
    assert np.abs(found.numpy() - truth).mean() < 0.05
    twice = dataclasses.replace(data, train=data.train[:, [0, 0]])
    assert gaussian_log_density(twice, data.heldout[:, [0, 0]], data.heldout_label,
                                data.heldout_vector) is None  # fmt: skip


def test_tables_in_memory(tmp_path: Path) -> None:
    run = monge.train(
        source(), out=tmp_path / "run", steps=3, batch=16, network="mlp:width=8,depth=1",
        verbose=False, label_column="species", drop="id", categorical="kind",
    )  # fmt: skip
    assert run.sample(4).table().column_names == source().column_names[1:]
    with pytest.raises(UserError, match="arrays in memory"):
        run.data()


def test_dry_run_of_a_table(csv_run: Run, tmp_path: Path) -> None:
    argv = ["train", csv_run.spec.data, *COLUMNS, *FLAGS, f"--out={tmp_path / 'r'}", "--dry-run"]
    assert main(argv) == 0 and not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("recipe", "file"), [("power_plant", "power_plant.csv"), ("protein", "protein.parquet")]
)
def test_recipes_ask_for_their_file(
    recipe: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--recipe", recipe]) == 2
    message = capsys.readouterr().err
    assert f"needs the file {file}" in message and "https://" in message
    assert f"monge train PATH/{file} --recipe {recipe}" in message
    assert not (tmp_path / "runs").exists()
    # Another path stands in the recipe's place, with all its other settings.
    assert starting_point(["x.csv", "--recipe", recipe]).data == file
    assert main(["train", "elsewhere.csv", "--recipe", recipe]) == 2
    assert "no such file or source 'elsewhere.csv'" in capsys.readouterr().err


def test_a_recipe_runs_on_the_file_that_is_given(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "tables" / "power_plant.csv"
    argv = [
        "train",
        str(path),
        "--recipe=power_plant",
        "--steps=2",
        "--network=mlp:width=8,depth=1",
    ]
    assert main([*argv, f"--out={tmp_path / 'run'}"]) == 0
    run = Run.load(tmp_path / "run")
    assert run.spec.data == str(path) and run.spec.steps == 2
    assert run.sample(3).table().column_names == ["AT", "V", "AP", "RH", "PE"]
