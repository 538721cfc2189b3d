"""A run's files say whether it is compiled; every spelling of the flag is understood."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import monge
from conftest import TINY_TABLE
from monge.cli import _spell_switches, main
from monge.errors import UserError
from monge.fitting.distil import distil_spec
from monge.fitting.objective import loop_spec
from monge.fitting.train import train
from monge.runs.run import Run
from monge.runs.spec import TrainSpec
from monge.training import checkpoint, compiling, plan, step
from monge.verbs.distil import Distil
from monge.verbs.train import Train

QUICK = dataclasses.replace(TINY_TABLE, steps=6)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that came to be compiled, by a compiler that leaves all as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step, "BACKEND", "eager")
        patch.setattr(compiling, "pays", lambda *_: True)
        patch.setattr(plan, "_time_step", lambda e, *_: 0.5 if e.loss.compiled else 1.0)
        return train(QUICK, out=tmp_path_factory.mktemp("compiled") / "run")


def steps_of(folder: Path) -> tuple[int, bool]:
    found = checkpoint.load(folder, clean=False)
    assert found is not None
    return found.step, found.facts["compiled"]


def test_a_run_records_that_it_is_compiled(compiled: Run) -> None:
    config = yaml.safe_load((compiled.folder / "config.yaml").read_text())
    assert config["compile"] == "on" and compiled.spec.compile == "on"
    assert json.loads((compiled.folder / "cost.json").read_text())["compile_s"] > 0
    assert steps_of(compiled.folder) == (6, True)


def test_the_same_command_goes_on_without_a_change_of_settings(
    compiled: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "BACKEND", "eager")
    before = (compiled.folder / "config.yaml").read_text()
    train(QUICK, out=compiled.folder)
    assert (compiled.folder / "config.yaml").read_text() == before
    assert not (compiled.folder / "changes.json").exists()
    train(dataclasses.replace(QUICK, steps=8), out=compiled.folder)
    assert steps_of(compiled.folder) == (8, True)
    train(dataclasses.replace(QUICK, steps=10, compile="off"), out=compiled.folder)
    assert steps_of(compiled.folder) == (10, False)
    changes = json.loads((compiled.folder / "changes.json").read_text())
    assert changes[-1]["changed"]["compile"] == {"from": "on", "to": "off"}


def test_minutes_and_compiling_are_settled_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "BACKEND", "eager")
    monkeypatch.setattr(compiling, "pays", lambda *_: True)
    minutes = dataclasses.replace(TINY_TABLE, steps=None, minutes=0.05)
    run = train(minutes, out=tmp_path / "run")
    config = yaml.safe_load((run.folder / "config.yaml").read_text())
    assert config["minutes"] is None and config["steps"] == steps_of(run.folder)[0]
    assert config["compile"] == ("on" if steps_of(run.folder)[1] else "auto")
    lines: list[str] = []
    train(minutes, out=run.folder, say=lines.append)
    assert any("has done its" in line for line in lines)


def test_short_runs_stay_eager_and_the_demo_does(tmp_path: Path) -> None:
    assert TrainSpec().compile == "auto"
    run = train(QUICK, out=tmp_path / "run")
    assert steps_of(run.folder) == (6, False)
    assert yaml.safe_load((run.folder / "config.yaml").read_text())["compile"] == "auto"
    assert "compile_s" not in json.loads((run.folder / "cost.json").read_text())


def test_a_map_does_not_take_over_what_its_teacher_settled(compiled: Run) -> None:
    assert distil_spec(compiled.folder).compile == "auto"
    assert distil_spec(compiled.folder, compile="on").compile == "on"


@pytest.mark.parametrize(
    ("objective", "reason"),
    [
        ("flow_matching", ""),
        ("reflow", ""),
        ("self-lagrangian", "dual numbers"),
        ("meanflow", "dual numbers"),
        ("lagrangian", "dual numbers"),
        ("consistency", "dual numbers"),
        ("jko", "each block"),
        ("local-flow-matching", "each block"),
    ],
)
def test_what_is_never_compiled_has_a_reason(objective: str, reason: str) -> None:
    loop = loop_spec(TrainSpec(objective=objective, steps=1, compile="on"))
    assert (reason in loop.eager) if reason else not loop.eager


def test_a_map_that_is_to_be_compiled_says_why_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "target:moons", "--objective", "self-semigroup", "--steps", "3"]
    words += ["--network", "mlp:width=8,depth=1,two_times=true", "--batch", "8", "--compile"]
    assert main([*words, "--device", "cpu", "--out", str(tmp_path / "map")]) == 0
    assert capsys.readouterr().err.count("not compiled: the derivatives of flow maps") == 1
    assert steps_of(tmp_path / "map") == (3, False)


@pytest.mark.parametrize("verb", [Train, Distil])
@pytest.mark.parametrize(
    ("words", "spelt"),
    [
        (["x", "--compile"], ["x", "--compile=on"]),
        (["--compile", "x"], ["--compile=on", "x"]),
        (["--compile", "--steps", "3"], ["--compile=on", "--steps", "3"]),
        (["--compile", "off", "x"], ["--compile", "off", "x"]),
        (["--compile", "auto"], ["--compile", "auto"]),
        (["--compile=off"], ["--compile=off"]),
        (["--no-compile", "x"], ["--compile=off", "x"]),
        (["--", "--compile"], ["--", "--compile"]),
        (["--no-shard"], ["--no-shard"]),
        (["--compile", "--", "on"], ["--compile=on", "--", "on"]),
    ],
)
def test_the_flag_may_stand_alone(verb: type, words: list[str], spelt: list[str]) -> None:
    assert _spell_switches(verb, words) == spelt


def test_another_word_is_refused_and_python_takes_truth_values(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["train", "target:moons", "--compile=maybe"]) == 2
    assert "maybe" in capsys.readouterr().err
    given: list[TrainSpec] = []

    def fake(spec: TrainSpec, *_: Any, **__: Any) -> None:
        given.append(spec)

    monkeypatch.setattr("monge.api.train_run", fake)
    for value in (True, False, "auto", "on"):
        monge.train(torch.randn(64, 2).numpy(), compile=value, steps=1)  # type: ignore[arg-type]
    assert [spec.compile for spec in given] == ["on", "off", "auto", "on"]
    with pytest.raises(UserError, match="compile: unknown value 'maybe'"):
        monge.train(torch.randn(64, 2).numpy(), compile="maybe", steps=1)  # type: ignore[arg-type]
