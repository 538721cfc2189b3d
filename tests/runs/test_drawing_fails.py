"""What is made for looking at does not end the work: every picture of every verb fails here."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from conftest import TINY_DIGITS, TINY_TABLE
from monge.cli import main
from monge.fitting import train as training
from monge.runs.run import Run
from monge.sampling import images
from monge.system.files import read_json

DRAWN = ("grid", "table_plot", "rows_plot", "reconstruction_grid", "neighbour_grid", "png_of")


def draw(*_: Any, **__: Any) -> NoReturn:
    raise ValueError("Too many bins for data range")


@pytest.fixture
def undrawable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in DRAWN:
        monkeypatch.setattr(images, name, draw)


@pytest.mark.parametrize("spec", [TINY_TABLE, TINY_DIGITS], ids=["table", "digits"])
def test_training_goes_on_to_the_same_weights(
    spec: Any,
    tmp_path: Path,
    table_run: Run,
    digits_run: Run,
    monkeypatch: pytest.MonkeyPatch,
    undrawable: None,
) -> None:
    said: list[str] = []
    monkeypatch.setattr(training, "write_report", draw)
    run = training.train(spec, out=tmp_path / "run", say=said.append)
    drawn = digits_run if spec is TINY_DIGITS else table_run
    assert np.array_equal(run.sample(8).x.numpy(), drawn.sample(8).x.numpy())
    told = "\n".join(said)
    assert "the samples of step 10 were not drawn: Too many bins" in told or spec is TINY_TABLE
    assert "the card and the report were not written: Too many bins" in told
    assert ("the reconstructions were not drawn" in told) == (spec is TINY_DIGITS)
    assert not list((tmp_path / "run").rglob("*.png"))


def test_sampling_writes_the_samples(
    tmp_path: Path, table_run: Run, digits_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    for run, name in ((table_run, "samples.csv"), (digits_run, "samples.npz")):
        words = ["sample", str(run.folder), "-n", "4", "--format", name.partition(".")[2]]
        assert main([*words, "--out", str(tmp_path / "drawn" / name)]) == 0
        assert "not drawn" not in capsys.readouterr().err
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(images, "png_of", draw)
            assert main([*words, "--out", str(tmp_path / "not" / name)]) == 0
        assert "grid.png was not drawn: Too many bins" in capsys.readouterr().err
        whole = (tmp_path / "drawn" / name / name).read_bytes()
        assert (tmp_path / "not" / name / name).read_bytes() == whole
        assert not (tmp_path / "not" / name / "grid.png").exists()


@pytest.mark.slow
def test_an_evaluation_is_measured(
    tmp_path: Path, table_run: Run, capsys: pytest.CaptureFixture[str], undrawable: None
) -> None:
    folder = shutil.copytree(table_run.folder, tmp_path / "run")
    assert main(["evaluate", str(folder), "-n", "40"]) == 0
    assert "the pictures of the evaluation were not drawn: Too" in capsys.readouterr().err
    assert read_json(folder / "evaluation" / "evaluation.json")["table"]
    assert (folder / "report.html").is_file()


def test_a_comparison_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], undrawable: None
) -> None:
    rng = np.random.default_rng(0)
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", rng.normal(size=(40, 2)))
    files = [str(tmp_path / f"{name}.npy") for name in "ab"]
    assert main(["compare", *files, "-n", "20", "--out", str(tmp_path / "out")]) == 0
    assert "the pictures of the comparison were not drawn: Too" in capsys.readouterr().err
    assert (tmp_path / "out" / "comparison.json").is_file()
    assert not (tmp_path / "out" / "a.png").exists()


def test_numbers_that_no_histogram_has_room_for(tmp_path: Path) -> None:
    """Whole numbers of 2^60, whose bins are smaller than their spacing as floats."""
    x = 2.0**60 + np.arange(200.0)[:, None] * np.array([[1.0, 256.0]])
    np.save(tmp_path / "x.npy", x)
    spec = dataclasses.replace(TINY_TABLE, data=str(tmp_path / "x.npy"), steps=4, sample_every=2)
    assert training.train(spec, out=tmp_path / "run").sample(4).x.isfinite().all()
