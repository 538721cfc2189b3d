"""What a newcomer tries in the first hour: values, names of other tools, moved folders, grids."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import monge
from monge.cli import main
from monge.components import text_of
from monge.errors import UserError
from monge.paths import Linear, Power
from monge.runs import schemas
from monge.runs.layout import COST, PLACES
from monge.runs.run import Run
from monge.sampling.class_rows import across_classes, by_class
from monge.solvers import Heun
from monge.system.files import write_json
from monge.times import Uniform
from monge.verbs.table import VERBS


def test_components_are_values(table_run: Run) -> None:
    assert text_of("path", Power(kappa=0.75)) == "power:kappa=0.75"
    by_text = table_run.sample(4, solver="heun", grid="uniform:n=3")
    by_value = table_run.sample(4, solver=Heun(), grid=Uniform(3))
    assert torch.equal(by_text.x, by_value.x)
    for wrong, said in (
        (Heun(), "heun is a solver, not a path"),
        (Linear, "write Linear"),
        (3, "int"),
    ):
        with pytest.raises(UserError, match=said):
            text_of("path", wrong)
    with pytest.raises(UserError, match="steps takes a whole number"):
        monge.train(np.zeros((20, 2), np.float32), steps=2.5)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("verb", "flag", "answer"),
    [
        ("train", "--epochs", "monge counts steps"),
        ("train", "--batch-size", "it is called --batch here"),
        ("train", "--learning-rate", "it is called --lr here"),
        ("train", "--data", "named without a flag"),
        ("sample", "--num_samples", "it is called -n here"),
        ("sample", "--cfg-scale", "it is called --guidance here"),
    ],
)
def test_flags_of_other_tools_are_answered(
    verb: str, flag: str, answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([verb, "digits", flag, "3"]) == 2
    assert answer in capsys.readouterr().err


@pytest.mark.parametrize("columns", [60, 80])
def test_help_fits_the_terminal(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for verb in VERBS:
        assert main([verb.name, "--help"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= columns, verb.name
    assert main(["train", "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    headings = [line for line in lines if line and " " not in line]
    assert headings == ["takes", "data", "model", "training", "sampling", "computing", "output"]


def test_info_gives_numbers_and_lists(table_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(table_run.folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["steps"] == 30 and isinstance(found["last_loss"], float)
    assert found["examples"]["shape"] == [2] and found["cost"]["steps"] == 30


def test_runs_that_are_moved_together_find_each_other(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    np.savez(old / "x.npz", x=rows)
    short = {"steps": 1, "batch": 8, "verbose": False}
    monge.train(str(old / "x.npz"), out=old / "flow", network="mlp:width=8,depth=1", **short)
    run = monge.distil(old / "flow", out=old / "map", steps=1, verbose=False)
    assert json.loads((run.folder / PLACES).read_text())["teacher"] == "../flow"
    shutil.move(old, new)
    moved = monge.load(new / "map")
    assert moved.teacher is not None and moved.teacher.folder == new / "flow"
    assert len(moved.data().train) == moved.facts.n_train


def test_a_grid_of_classes_has_a_row_for_each(digits_run: Run, tmp_path: Path) -> None:
    samples = digits_run.sample(20, "all")
    assert samples.grid().height > samples.grid().width / 2  # ten rows of two
    samples.save(tmp_path / "s")
    lines = (tmp_path / "s" / "labels.csv").read_text().splitlines()
    assert lines[:2] == ["file,label", "000000.png,0"] and lines[-1] == "000019.png,9"
    x, label = torch.zeros(5, 1, 4, 4), torch.tensor([0, 0, 0, 1, 1])
    picture = by_class(x, label, ("a", "b"), 2)
    one = by_class(x[:3], label[:3] * 0, ("a",), 2)
    assert picture.height > 1.3 * one.height  # three rows against two
    assert across_classes(torch.tensor([1, 1, 1, 0]), 2).tolist() == [3, 0]


def test_a_value_of_a_file_that_cannot_be_is_named(tmp_path: Path) -> None:
    write_json(tmp_path / COST, {"steps": "many"})
    with pytest.raises(UserError, match=r"cost\.json is damaged: steps should be a number"):
        schemas.read(tmp_path, COST)
    write_json(tmp_path / COST, [])
    with pytest.raises(UserError, match="the file should be a JSON object"):
        schemas.read(tmp_path, COST)


def test_weights_that_are_not_finite_are_refused(
    table_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(table_run.folder, tmp_path / "run"))
    weights = load_file(folder / "ema.safetensors")
    next(iter(weights.values())).view(-1)[0] = float("nan")
    (folder / "ema.safetensors").unlink()  # a link to the checkpoint's
    save_file(weights, folder / "ema.safetensors")
    assert main(["sample", str(folder), "--out", str(tmp_path / "s")]) == 2
    assert "not finite" in capsys.readouterr().err and not (tmp_path / "s").exists()
