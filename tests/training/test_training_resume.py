"""A run that was stopped or killed anywhere is the run that was not."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from toy_training import Net, Rows, assert_same, squared, toy_spec, train

from monge.errors import Stopped
from monge.objectives.base import Batch
from monge.training import checkpoint, journal
from monge.training.loop import fit

SETTINGS: dict[str, Any] = {"dropout": 0.2, "save_every": 3, "log_every": 2}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed, with a skipped step."""
    folder = tmp_path_factory.mktemp("undisturbed")
    train(folder, batches=Rows(bad=(7,)), **SETTINGS)
    return folder


class Interrupting(Rows):
    """Sends a signal to this process while the batch of a step is drawn in the loop."""

    def __init__(self, at: int, number: signal.Signals, times: int = 1) -> None:
        super().__init__(bad=(7,))
        self.at, self.number, self.times = at, number, times

    def draw(self, step: int) -> Batch:
        if step == self.at:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)
        return super().draw(step)


@pytest.mark.parametrize(
    ("at", "number", "times"),
    [(5, signal.SIGINT, 1), (6, signal.SIGTERM, 1), (9, signal.SIGINT, 3), (1, signal.SIGTERM, 2)],
)
def test_a_signal_finishes_the_step_saves_and_the_run_goes_on(
    tmp_path: Path, reference: Path, at: int, number: signal.Signals, times: int
) -> None:
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped, match=f"after step {at + 1} of 12, saved in .* to go on") as caught:
        train(tmp_path, batches=Interrupting(at, number, times), **SETTINGS)
    assert caught.value.exit_code == 130
    assert handlers == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
    assert checkpoint.newest_step(tmp_path) == at + 1
    fitted = train(tmp_path, batches=Rows(bad=(7,)), **SETTINGS)
    assert fitted.skipped == 1
    assert_same(tmp_path, reference)


def test_stopping_after_every_step(tmp_path: Path, reference: Path) -> None:
    for at in range(12):
        with pytest.raises(Stopped):
            train(tmp_path, batches=Interrupting(at, signal.SIGINT), **SETTINGS)
    train(tmp_path, batches=Rows(bad=(7,)), **SETTINGS)
    assert_same(tmp_path, reference)


def test_the_time_of_checkpoints_does_not_matter(tmp_path: Path, reference: Path) -> None:
    train(tmp_path, batches=Rows(bad=(7,)), **SETTINGS | {"save_every": None, "save_every_s": 1e-9})
    assert_same(tmp_path, reference)


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


def half_written(tensors: Any, path: Path, *_: Any) -> None:
    Path(path).write_bytes(b"half a file")


def half_removed(folder: Path, **_: Any) -> None:
    files = sorted(Path(folder).iterdir())
    for file in files[: len(files) // 2 + 1]:
        file.unlink()


OPERATIONS: list[tuple[Any, str, Callable[..., Any] | None]] = [
    (checkpoint, "save_file", half_written),
    (checkpoint.shutil, "rmtree", half_removed),
    (checkpoint.os, "fsync", None),
    (checkpoint.os, "link", None),
    (Path, "mkdir", None),
    (Path, "rename", None),
    (Path, "replace", None),
    (Path, "write_text", None),
]


def kill_at(patch: pytest.MonkeyPatch, moment: int) -> Callable[[], int]:
    """Make one operation on the disk the last, after it is half done; returns their counter."""
    count = 0

    def wrap(original: Callable[..., Any], half: Callable[..., Any] | None) -> Callable[..., Any]:
        def operation(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count > moment:
                if half is not None and count == moment + 1:
                    half(*args, **kwargs)
                raise Killed
            return original(*args, **kwargs)

        return operation

    for owner, name, half in OPERATIONS:
        patch.setattr(owner, name, wrap(getattr(owner, name), half))
    return lambda: count


def steps_saved(patch: pytest.MonkeyPatch) -> list[int]:
    """The steps whose `save` has returned: from then on, their progress must not be lost."""
    original, steps = checkpoint.save, []

    def save(folder: Path, step: int, *rest: Any) -> None:
        original(folder, step, *rest)
        steps.append(step)

    patch.setattr(checkpoint, "save", save)
    return steps


def assert_kept(folder: Path, steps: list[int]) -> None:
    """A run that starts again from nothing ends alike too, so progress is checked by itself."""
    newest = checkpoint.newest_step(folder)
    assert not steps or (newest is not None and newest >= steps[-1])


def test_killed_at_every_operation_on_the_disk(quick_path: Path, reference: Path) -> None:
    settings = SETTINGS | {"batches": Rows(bad=(7,)), "save_every": 5}
    with pytest.MonkeyPatch.context() as patch:
        operations = kill_at(patch, 10**9)
        train(quick_path / "whole", **settings)
        total = operations()
    assert total > 60
    # The first two checkpoints and everything around them; the later ones are alike.
    for moment in range(total * 3 // 4):
        folder = quick_path / str(moment)
        with pytest.MonkeyPatch.context() as patch:
            saved = steps_saved(patch)
            kill_at(patch, moment)
            with pytest.raises(Killed):
                train(folder, **settings)
        assert_kept(folder, saved)
        if moment % 3 == 0:  # killed again while it picks itself up
            with pytest.MonkeyPatch.context() as patch:
                kill_at(patch, moment % 7)
                with pytest.raises(Killed):
                    train(folder, **settings)
            assert_kept(folder, saved)
        train(folder, **settings)
        assert_same(folder, reference)
        assert not list(folder.rglob(".tmp-*"))
        shutil.rmtree(folder)


def kill_processes(home: Path, kills: int) -> dict[str, int]:
    script = Path(__file__).with_name("kill_training.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), str(home), str(kills)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("kills", [20, pytest.param(100, marks=pytest.mark.slow)])
def test_killed_processes(quick_path: Path, kills: int) -> None:
    report = kill_processes(quick_path, kills)
    assert report["killed"] == kills
    assert report["runs"] >= 1
    assert report["torn"] >= kills // 5  # killed while a checkpoint was being written


def test_a_run_in_another_thread_leaves_signals_alone(tmp_path: Path) -> None:
    import threading

    done: list[int] = []
    thread = threading.Thread(target=lambda: done.append(train(tmp_path).step))
    thread.start()
    thread.join()
    assert done == [12]


def test_without_a_folder_nothing_is_kept_and_a_stop_says_so() -> None:
    with pytest.raises(Stopped, match="nothing kept"):
        train(batches=Interrupting(5, signal.SIGINT))


def test_an_error_in_the_middle_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    def fails(ema: nn.Module, step: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train(tmp_path, save_every=4, sample_every=6, on_sample=fails)
    assert checkpoint.newest_step(tmp_path) == 4
    assert not (tmp_path / "lock").exists()
    assert [row["step"] for row in journal.read(tmp_path / "log.jsonl")] == [2, 4, 6]
    fit(Net(), squared, Rows(), toy_spec(), folder=tmp_path, quiet=True)
    train(tmp_path.with_name("other"))
    assert_same(tmp_path, tmp_path.with_name("other"))
    assert torch.isfinite(torch.tensor(journal.read(tmp_path / "log.jsonl")[-1]["loss"]))
