"""A run of so many minutes gives the steps that they became in its configuration."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import yaml

from conftest import TINY_TABLE
from monge.errors import UserError
from monge.fitting.train import train
from monge.runs.planned import as_planned
from monge.runs.run import Run
from monge.runs.spec import TrainSpec

MINUTES = dataclasses.replace(TINY_TABLE, steps=None, minutes=0.01)


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(MINUTES, out=tmp_path_factory.mktemp("planned") / "timed")


def test_the_configuration_trains_the_same_run_again(timed: Run, tmp_path: Path) -> None:
    config = yaml.safe_load((timed.folder / "config.yaml").read_text())
    done = json.loads((timed.folder / "cost.json").read_text())["steps"]
    assert config["steps"] == done and config["minutes"] is None
    assert timed.spec.steps == done
    again = train(timed.spec, out=tmp_path / "again")
    for a, b in zip(timed.network.parameters(), again.network.parameters(), strict=True):
        assert (a == b).all()


def test_the_same_command_finds_its_run_finished_and_more_minutes_go_on(
    timed: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (timed.folder / "config.yaml").read_text()
    lines: list[str] = []
    train(MINUTES, out=timed.folder, say=lines.append)
    assert any("has done its" in line for line in lines)
    assert (timed.folder / "config.yaml").read_text() == before
    assert not (timed.folder / "changes.json").exists()
    done = timed.spec.steps
    longer = train(dataclasses.replace(MINUTES, minutes=0.03), out=timed.folder)
    # On a busy machine the first run may have taken all of the longer time.
    assert longer.spec.steps is not None and done is not None and longer.spec.steps >= done
    assert json.loads((timed.folder / "plan.json").read_text())["minutes"] == 0.03


def test_a_damaged_plan_is_named(tmp_path: Path) -> None:
    for content in ("[]", "{}", "3", "null"):
        (tmp_path / "plan.json").write_text(content)
        with pytest.raises(UserError, match=r"plan\.json is damaged"):
            as_planned(MINUTES, tmp_path)
    assert as_planned(TrainSpec(steps=3), tmp_path) == TrainSpec(steps=3)
