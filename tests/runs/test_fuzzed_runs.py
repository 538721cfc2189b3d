"""Run folders in which one thing is damaged: an answer or a sentence, never a traceback."""

from __future__ import annotations

import inspect
import shutil
import traceback
from pathlib import Path

import numpy as np
import pytest
from mutated_run import copy, mutate

import monge
from monge.cli import main
from monge.fitting import map_errors

FEW, MANY = 20, 2000

ANSWERS = (0, 2)
"""Exit codes: done, or refused."""

RUNS = ("images", "table", "map")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of labelled images, one of a table with conditions, and a map; measured ones."""
    home = tmp_path_factory.mktemp("whole")
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (60, 8, 8)).astype(np.uint8)
    np.savez(home / "x.npz", x=pixels, y=np.arange(60) % 3)
    rows = rng.normal(size=(120, 3)).round(2)
    (home / "t.csv").write_text("a,b,c\n" + "".join(f"{a},{b},{c}\n" for a, b, c in rows))
    short = {"steps": 2, "batch": 8, "grid": "uniform:n=2", "verbose": False}
    conv = {"autoencoder": "conv:down=2,channels=2,width=8,blocks=1", "autoencoder_steps": 1}
    mlp = {"network": "mlp:width=16,depth=1"}
    tiny = {"network": "transformer:width=16,depth=1,heads=1", "sample_every": 1000}
    found = {name: home / name for name in RUNS}
    monge.train(str(home / "x.npz"), out=found["images"], **conv, **tiny, **short)
    table = monge.train(
        str(home / "t.csv"), condition_columns="c", out=found["table"], **mlp, **short
    )
    table.evaluate(20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inspect.unwrap(map_errors.map_errors), "__defaults__", (None, 20, 0, None, 2))
        table.distil(steps=2, out=found["map"], verbose=False)
    return found


def outcome(argv: list[str]) -> str | None:
    """What is wrong with how a command ended; None for an answer or a refusal."""
    try:
        code = main(argv)
    except BaseException:  # whatever escapes is a traceback on a person's screen
        return traceback.format_exc(limit=-3)
    return None if code in ANSWERS else f"exit code {code}"


def failures(runs: dict[str, Path], tmp_path: Path, seeds: range) -> list[str]:
    found = []
    for seed in seeds:
        folder = copy(runs[RUNS[seed % len(RUNS)]], tmp_path / "run")
        what = mutate(folder, seed)
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        commands = [
            ["info", str(folder), *["--json"] * (seed % 2)],
            ["sample", str(folder), "-n", "2", "--out", str(tmp_path / "out")],
        ]
        if seed % 25 == 0:  # continues it, which reads the rest: checkpoint, log, changes
            commands += [["train", "--config", f"{folder}/config.yaml", "--out", str(folder)]]
        for argv in commands:
            if wrong := outcome(argv):
                found.append(f"{what}\n  monge {argv[0]}: {wrong}")
    return found


def test_some_damaged_runs_end_in_sentences(
    runs: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    found = failures(runs, tmp_path, range(FEW))
    assert not found, f"{len(found)} of {FEW}:\n" + "\n".join(found[:3])


@pytest.mark.slow
def test_two_thousand_damaged_runs_end_in_sentences(
    runs: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    found = failures(runs, tmp_path, range(FEW, FEW + MANY))
    assert not found, f"{len(found)} of {MANY}:\n" + "\n".join(found[:10])
