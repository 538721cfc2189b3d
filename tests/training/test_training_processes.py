"""Two processes under torchrun train what one does: float64, to 1e-10, after 20 steps."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from toy_training import PRECISE, Rows, outcome, train

from monge.errors import Stopped
from monge.objectives.base import Batch


class StoppedAt9(Rows):
    def draw(self, step: int) -> Batch:
        if step == 9:
            os.kill(os.getpid(), signal.SIGINT)
        return super().draw(step)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes have trained every case of `ranks_training.py`."""
    folder = tmp_path_factory.mktemp("two")
    with pytest.raises(Stopped):
        train(folder / "joined", batches=StoppedAt9(13), **PRECISE)
    script = Path(__file__).with_name("ranks_training.py")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*launch, str(script), str(folder)],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def assert_equal_runs(two: Path, one: Path) -> None:
    tensors, log = outcome(two)
    expected, expected_log = outcome(one)
    assert expected.keys() <= tensors.keys()
    for name, tensor in expected.items():
        if not name.endswith("/steps"):  # the toy network counts micro-batches
            assert (tensors[name] - tensor).abs().max() <= 1e-10, name
    assert len(log) == len(expected_log) == 10
    for row, expected_row in zip(log, expected_log, strict=True):
        assert flat(row) == pytest.approx(flat(expected_row), abs=1e-10)


def flat(row: dict[str, Any]) -> dict[str, float]:
    return {**row.pop("parts"), **row}


CASES = {
    "equal": Rows(13),
    "skips": Rows(13, bad=(4, 5)),
    "hungry": Rows(13),
    "idle": Rows(13),
    "joined": Rows(13),
    "compiled": Rows(13),
    "fails": Rows(13),
}


@pytest.mark.parametrize("case", CASES)
def test_two_processes_equal_one(home: Path, tmp_path: Path, case: str) -> None:
    fitted = train(tmp_path, batches=CASES[case], **PRECISE)
    assert fitted.skipped == len(CASES[case].bad)
    assert_equal_runs(home / case, tmp_path)


def test_processes_stop_together_and_one_goes_on_alone(home: Path, tmp_path: Path) -> None:
    for rank in (0, 1):
        said = (home / f"stopped-{rank}").read_text()
        assert said.startswith("stopped after step 8 of 20")
    assert train(home / "stops", batches=Rows(13), **PRECISE).step == 20
    train(tmp_path, batches=Rows(13), **PRECISE)
    assert_equal_runs(home / "stops", tmp_path)


def test_processes_give_up_together(home: Path) -> None:
    for rank in (0, 1):
        assert "10 steps in a row" in (home / f"diverged-{rank}").read_text()


def test_processes_agree_on_the_number_of_steps(home: Path) -> None:
    (manifest,) = (home / "minutes" / "state").glob("*/manifest.json")
    facts = json.loads(manifest.read_text())
    assert facts["step"] == facts["facts"]["steps"] > 1


@pytest.mark.parametrize(("case", "expected"), [("compiled", True), ("fails", False)])
def test_all_processes_compile_or_none(home: Path, case: str, expected: bool) -> None:
    """In the second case one of them alone has no compiler."""
    (manifest,) = (home / case / "state").glob("*/manifest.json")
    assert json.loads(manifest.read_text())["facts"]["compiled"] is expected
