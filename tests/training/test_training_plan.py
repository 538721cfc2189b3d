"""Minutes become steps: planned, compared once with a slow clock, the run of as many steps."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn
from toy_training import Net, Rows, squared, toy_spec

from monge.errors import Stopped
from monge.objectives.base import Batch, Loss
from monge.training import journal, loop, plan
from monge.training.loop import Fitted, fit

MINUTES = 100 / 60
"""A hundred seconds."""


class Clock:
    """A clock that goes on by the loss alone: so many seconds for each step."""

    def __init__(self, step_s: float) -> None:
        self.now, self.step_s = 0.0, step_s

    def monotonic(self) -> float:
        return self.now

    def loss(self, net: nn.Module, batch: Batch) -> Loss:
        self.now += self.step_s
        return squared(net, batch)


def timed(
    monkeypatch: pytest.MonkeyPatch, planned_s: float, step_s: float, **options: Any
) -> tuple[Fitted, Clock, list[int]]:
    """A run of a hundred seconds whose steps were timed at `planned_s` and take `step_s`."""
    clock, told = Clock(step_s), []
    fake = SimpleNamespace(monotonic=clock.monotonic, strftime=time.strftime)
    monkeypatch.setattr(loop, "time", fake)
    monkeypatch.setattr(plan, "_time_steps", lambda *_: planned_s)
    folder = options.pop("folder", None)
    spec = toy_spec(steps=None, minutes=MINUTES, log_every=1, **options)
    fitted = fit(Net(), clock.loss, Rows(), spec, folder=folder, on_plan=told.append, quiet=True)
    return fitted, clock, told


@pytest.mark.parametrize("step_s", [0.25, 0.5, 0.95, 1.0, 1.08, 2.0, 4.0])
def test_the_time_is_kept_within_a_fifth_whatever_was_timed(
    monkeypatch: pytest.MonkeyPatch, step_s: float
) -> None:
    fitted, _, told = timed(monkeypatch, planned_s=1.0, step_s=step_s)
    assert fitted.seconds == pytest.approx(100, rel=0.2)
    assert told == [fitted.steps] and fitted.step == fitted.steps
    if 0.95 <= step_s <= 1.08:
        assert fitted.steps == 100, "a plan that is good enough is kept"
    else:
        left = 100 - plan.LOOK_PART * 100 / step_s * step_s
        assert fitted.steps == pytest.approx(left / step_s, rel=0.06)


def test_a_run_that_began_again_is_the_run_of_that_many_steps(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fitted, _, told = timed(monkeypatch, 1.0, 2.0, folder=tmp_path / "minutes", save_every=2)
    plain = fit(
        Net(), squared, Rows(), toy_spec(steps=told[0], log_every=1), folder=tmp_path / "steps",
        quiet=True,
    )  # fmt: skip
    for ours, theirs in ((fitted.network, plain.network), (fitted.ema, plain.ema)):
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert (a == b).all()
    logs = [journal.read(tmp_path / name / journal.NAME) for name in ("minutes", "steps")]
    losses = [[(row["step"], row["loss"], row["lr"]) for row in log] for log in logs]
    assert losses[0] == losses[1]


def test_steps_that_were_asked_for_are_never_exceeded(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, told = Clock(0.1), []
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=clock.monotonic))
    monkeypatch.setattr(plan, "_time_steps", lambda *_: 1.0)
    spec = toy_spec(steps=90, minutes=MINUTES)
    fitted = fit(Net(), clock.loss, Rows(), spec, on_plan=told.append, quiet=True)
    assert (fitted.steps, told) == (90, [90])


def test_a_run_that_is_stopped_before_the_look_is_planned_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stop = threading.Event()

    class Stopping(Clock):
        def loss(self, net: nn.Module, batch: Batch) -> Loss:
            stop.set()
            return super().loss(net, batch)

    from contextlib import contextmanager

    @contextmanager
    def signals():
        yield stop

    monkeypatch.setattr(loop, "signals", signals)
    monkeypatch.setattr(plan, "_time_steps", lambda *_: 1.0)
    spec = toy_spec(steps=None, minutes=MINUTES)
    with pytest.raises(Stopped):
        fit(Net(), Stopping(0.1).loss, Rows(), spec, folder=tmp_path, quiet=True)
    monkeypatch.undo()
    fitted, _, told = timed(monkeypatch, 2.0, 2.0, folder=tmp_path)
    assert told == [fitted.steps] and fitted.steps < 60, "the second plan, not the first"
