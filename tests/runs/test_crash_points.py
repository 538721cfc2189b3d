"""Killed before each change of a file, every verb does its work when it is called again."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import crash_points
from conftest import TINY_TABLE
from monge.cli import main
from monge.data.base import Data
from monge.evaluation import evaluate
from monge.fitting.train import train
from monge.report import figures
from monge.runs.run import Run
from monge.runs.spec import to_yaml

SMALL = dataclasses.replace(TINY_TABLE, steps=4, sample_every=2, save_every=2, log_every=2)


def command(*words: object) -> Callable[[], None]:
    """A command that must succeed, and is silent."""

    def work() -> None:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            assert main([str(word) for word in words]) == 0

    return work


def contents(folder: Path) -> dict[str, str]:
    """Digests of all that two equal runs have in common: weights, samples, settings, pictures."""
    kept = (".safetensors", ".csv", ".png", ".yaml", ".gif", ".pt2")
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.suffix in kept and p.is_file()
    }


def survives(begin: Path | None, root: Path, work: Callable[[], None], every: int) -> int:
    """Every crash of work is repaired by doing it again; returns how many there were."""
    shutil.rmtree(root, ignore_errors=True)
    if begin is not None:
        shutil.copytree(begin, root)
    work()
    whole, count = contents(root), 0
    for _, what in crash_points.each_crash(begin, root, work, every):
        assert contents(root) == whole, what
        assert crash_points.temporaries(root) == [], what
        count += 1
    return count


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(SMALL, out=tmp_path_factory.mktemp("crashes") / "trained")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("crashes") / "config.yaml"
    path.write_text(to_yaml(SMALL))
    return path


VERBS: dict[str, Callable[[Path], list[object]]] = {
    "sample": lambda root: ["sample", root, "-n", "8"],
    "export": lambda root: ["export", root],
    "evaluate": lambda root: ["evaluate", root, "-n", "40"],
    "verify": lambda root: ["verify", root, "-n", "60", "--quick"],
    "distil": lambda root: ["distil", root, "--steps", "2", "--out", root / "map"],
    "report": lambda root: ["report", root],
}


def test_training_goes_on_after_a_crash(tmp_path: Path, config: Path) -> None:
    work = command("train", "--config", config, "--out", tmp_path / "run")
    assert survives(None, tmp_path / "run", work, every=29) >= 2


@pytest.mark.slow
def test_training_goes_on_after_every_crash(tmp_path: Path, config: Path) -> None:
    work = command("train", "--config", config, "--out", tmp_path / "run")
    assert survives(None, tmp_path / "run", work, every=1) > 40


@pytest.mark.parametrize("verb", ["sample", "report"])
def test_a_verb_does_its_work_after_a_crash(verb: str, tmp_path: Path, trained: Run) -> None:
    work = command(*VERBS[verb](tmp_path / "run"))
    assert survives(trained.folder, tmp_path / "run", work, every=4) >= 1


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_does_its_work_after_every_crash(
    verb: str, tmp_path: Path, trained: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = command(*VERBS[verb](tmp_path / "run"))
    if verb == "evaluate":
        _measured_once(monkeypatch)
    if verb == "export":  # it refuses what is there, so the last crash leaves the export itself
        work = _export(tmp_path / "run")
    assert survives(trained.folder, tmp_path / "run", work, every=1) >= 1


def _measured_once(patch: pytest.MonkeyPatch) -> None:
    """What an evaluation measures and draws is computed once, not after each of the crashes."""
    measure = evaluate.measure

    def known(run: Run, data: Data, n: int, *rest: Any) -> evaluate.Measured:
        if not found:
            found.append(measure(run, data, n, *rest))
        return found[0]

    found: list[evaluate.Measured] = []
    patch.setattr(evaluate, "measure", known)
    patch.setattr(figures, "svg", lambda *_, **__: "<svg/>")


def _export(root: Path) -> Callable[[], None]:
    plain = command("export", root)

    def work() -> None:
        if not list((root / "export").glob("*.pt2")):
            plain()

    return work


@pytest.mark.slow
def test_an_autoencoder_is_trained_after_every_crash(tmp_path: Path) -> None:
    root = tmp_path / "encoder"
    work = command(
        "autoencoder", "digits", "--autoencoder", "conv:down=2,channels=2,width=8,blocks=1",
        "--steps", "3", "--out", root,
    )  # fmt: skip
    assert survives(None, root, work, every=2) > 10


@pytest.mark.slow
def test_a_comparison_is_made_after_every_crash(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", rng.normal(size=(120, 2)).astype(np.float32))
    root = tmp_path / "compared"
    work = command("compare", tmp_path / "a.npy", tmp_path / "b.npy", "--out", root)
    assert survives(None, root, work, every=1) >= 3


def test_the_harness_notices_work_that_leaves_half_a_file(tmp_path: Path) -> None:
    """Planted: a file written in place, and a temporary one that nobody removes."""
    root = tmp_path / "run"

    def in_place() -> None:
        root.mkdir(exist_ok=True)
        if not (root / "a.csv").exists():
            (root / "a.csv").write_text("")
            (root / "b.csv").write_text("b")
            (root / "a.csv").write_text("whole")

    with pytest.raises(AssertionError, match="open"):
        survives(None, root, in_place, every=1)

    def leaving() -> None:
        root.mkdir(exist_ok=True)
        (root / f".tmp-{len(list(root.iterdir()))}").write_text("x")
        (root / "a.csv").write_text("whole")
        (root / ".tmp-0").unlink()

    with pytest.raises(AssertionError, match=r"\.tmp"):
        survives(None, root, leaving, every=1)

    def honest() -> None:
        root.mkdir(exist_ok=True)
        (root / ".tmp-a").write_text("whole")
        (root / ".tmp-a").rename(root / "a.csv")

    assert survives(None, root, honest, every=1) == 3
