"""What two processes train, for `test_training_processes.py`: torchrun ... FOLDER.

All cases in one launch, since starting two processes takes longer than training.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from toy_training import PRECISE, Net, Rows, squared, toy_spec, train

from monge.errors import Diverged, Stopped
from monge.objectives.base import Batch, Loss
from monge.training import compiling, plan, step
from monge.training.loop import fit

RANK = int(os.environ.get("RANK", "0"))


class Stopping(Rows):
    """The second process alone receives a signal while step 7 is drawn."""

    def draw(self, step: int) -> Batch:
        if step == 7 and RANK == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().draw(step)


class Idle(Net):
    """With parameters that take no part in the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.idle = torch.nn.Linear(2, 2)


def hungry(net: torch.nn.Module, batch: Batch) -> Loss:
    """Does not fit into the second process's memory with more than two rows."""
    if RANK == 1 and len(batch["x"]) > 2:
        raise torch.OutOfMemoryError("CUDA out of memory")
    return squared(net, batch)


def no_compiler(graph: Any, _: Any) -> Any:
    """The second process has none."""
    if RANK == 1:
        raise RuntimeError("no compiler")
    return graph


def compiled(home: Path) -> None:
    """Where compiling pays, with a compiler that leaves all as it is, and with one that fails."""
    pays, time_step = compiling.pays, plan._time_step
    compiling.pays = lambda *_: True
    plan._time_step = lambda e, *_: 0.5 if e.loss.compiled else 1.0
    for name, backend in (("compiled", "eager"), ("fails", no_compiler)):
        step.BACKEND = backend
        spec = toy_spec(**PRECISE, micro_batch=3, compile="auto")
        fit(Net(), squared, Rows(13), spec, folder=home / name, quiet=True)
    compiling.pays, plan._time_step = pays, time_step


def main(home: Path) -> None:
    torch.set_num_threads(1)
    # The last of 13 rows makes the shares 6 and 7 rows, and the micro-batches unequal.
    train(home / "equal", batches=Rows(13), micro_batch=3, **PRECISE)
    train(home / "skips", batches=Rows(13, bad=(4, 5)), **PRECISE)
    try:
        train(home / "stops", batches=Stopping(13), **PRECISE)
    except Stopped as stopped:
        (home / f"stopped-{RANK}").write_text(str(stopped))
    try:
        train(batches=Rows(13, bad=tuple(range(50))), **PRECISE)
    except Diverged as diverged:
        (home / f"diverged-{RANK}").write_text(str(diverged))
    fitted = fit(Net(), hungry, Rows(13), toy_spec(**PRECISE), folder=home / "hungry", quiet=True)
    assert fitted.plan is not None and fitted.plan.micro_batch == 2
    fit(Idle(), squared, Rows(13), toy_spec(**PRECISE), folder=home / "idle", quiet=True)
    compiled(home)
    # The processes measure different speeds and clocks; they must agree all the same.
    plan.TIMED_STEPS = 2
    timed = {"steps": None, "minutes": 0.01, "save_every_s": 0.05}
    train(home / "minutes", batches=Rows(13), **PRECISE | timed)
    train(home / "joined", batches=Rows(13), **PRECISE)  # begun by one process


if __name__ == "__main__":
    main(Path(sys.argv[1]))
