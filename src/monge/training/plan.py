"""What a run will take, from a few timed steps that leave it as it was."""

from __future__ import annotations

import math
import resource
import shutil
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from monge.errors import UserError
from monge.system.progress import size
from monge.training import compiling
from monge.training.engine import Engine
from monge.training.progress import clock
from monge.training.sharding import Piece
from monge.training.spec import Batches, Compile

TIMED_STEPS = 3
SURE_AFTER_S = 0.5
SURE_PART = 0.01
"""With a time limit, steps are timed for so long, and for this part of it, since it fixes the
number of steps."""

LOOK_PART = 0.05
"""After this part of a time limit the plan is compared with what the steps took."""

FAR_OFF = 0.1
"""A plan that is wrong by more than this part is made again."""


@dataclass(frozen=True)
class Plan:
    """What a run will take.

    Attributes:
        step: steps done already.
        steps: steps in all.
        rows: rows of the global batch.
        step_s: seconds of one step.
        peak_bytes: most memory in use during the timed steps, on the device.
        checkpoint_bytes: size of one checkpoint; two exist while one is written.
        free_bytes: space on the disk of the run folder, or None without one.
        micro_batch: rows evaluated at once in each process.
        compiled: whether steps are compiled, or would be if it were not a dry run.
        compile_s: seconds that compiling took.
    """

    step: int
    steps: int
    rows: int
    step_s: float
    peak_bytes: int
    checkpoint_bytes: int
    free_bytes: int | None
    micro_batch: int
    compiled: bool = False
    compile_s: float = 0.0

    @property
    def seconds(self) -> float:
        """Time for the steps that are left."""
        return (self.steps - self.step) * self.step_s

    def lines(self) -> list[str]:
        """The plan as text."""
        end = time.strftime("%a %H:%M:%S", time.localtime(time.time() + self.seconds))
        rate = f"{1 / self.step_s:.3g} steps/s, {self.rows / self.step_s:.0f} samples/s"
        lines = [
            f"{rate}; steps {self.step} to {self.steps} take {clock(self.seconds)}, until {end}",
            f"memory: {size(self.peak_bytes)} at most, micro-batches of {self.micro_batch} rows, "
            + (("compiled" if self.compile_s else "to be compiled") if self.compiled else "eager"),
        ]
        if self.free_bytes is not None:
            lines.append(
                f"disk: {size(2 * self.checkpoint_bytes)} while a checkpoint is written, "
                f"{size(self.free_bytes)} free"
            )
        return lines


class Kept:
    """What a step changes, as it was: copies in the host's memory, as the device's is measured."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.tensors = [piece.own.to("cpu", copy=True) for piece in _pieces(engine)]
        self.tally = engine.tally.state()

    def restore(self) -> None:
        """Put it back."""
        pieces = _pieces(self.engine)  # anew: distribution may have given weights new storage
        with torch.no_grad():
            for saved, piece in zip(self.tensors, pieces, strict=True):
                piece.own.copy_(saved)
        self.engine.tally.restore(self.tally)


def make_again(done: int, took_s: float, steps: int, limit_s: float) -> int | None:
    """Steps of a run that begins again; None where its plan is good enough.

    Args:
        done, took_s: steps so far, and seconds, with all that was done beside the steps.
        steps: planned.
        limit_s: seconds in all, those so far included.

    >>> make_again(10, 10.0, 95, 100.0) is None  # a second a step: 100 steps
    True
    >>> make_again(10, 20.0, 95, 100.0)  # two seconds a step, 80 seconds are left
    40
    """
    step_s = took_s / done
    if abs(limit_s / step_s - steps) <= FAR_OFF * steps:
        return None
    return max(int((limit_s - took_s) / step_s), 1)


def make_plan(
    engine: Engine,
    batches: Batches,
    *,
    step: int,
    steps: int | None,
    minutes: float | None,
    seconds: float,
    folder: Path | None,
    compile: Compile = "off",
    dry_run: bool = False,
) -> Plan:
    """Time a few steps, put everything back, and reckon.

    Args:
        compile: "auto" compiles where that pays for the steps that are left, and is faster.
        dry_run: leave compiling out.

    Raises:
        UserError: the checkpoints will not fit on the disk.
    """
    if engine.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(engine.device)
    before = Kept(engine)
    engine.prepare(batches.draw(step))
    least_s = 0.0 if minutes is None else max(SURE_AFTER_S, SURE_PART * 60 * minutes)
    wanted, compile_s = compile == "on", 0.0
    if wanted and not dry_run:
        compile_s = compiling.compile_loss(engine, batches.draw(step)) or 0.0
        if engine.loss.compiled:
            engine.note(f"compiled in {compile_s:.0f} s")
    step_s = _time_steps(engine, batches, step, least_s)
    if compile == "auto":
        left_s = math.inf if steps is None else (steps - step) * step_s
        left_s = left_s if minutes is None else min(left_s, 60 * minutes - seconds)
        wanted = compiling.pays(left_s, engine.device.type)
        if wanted and not dry_run:
            compile_s, step_s = _tried(engine, batches, step, step_s)
    copied = sum(t.nbytes for t in before.tensors)
    # The copies made here are no part of the run.
    peak = _peak_bytes(engine.device) - (copied if engine.device.type == "cpu" else 0)
    before.restore()
    kept = sum(piece.nbytes for piece in _pieces(engine))
    free = None if folder is None else shutil.disk_usage(_existing(folder)).free
    if free is not None and free < 2 * kept:
        raise UserError(
            f"checkpoints need {size(2 * kept)} in {folder}, where {size(free)} are free; make "
            "room or choose another folder"
        )
    if minutes is not None:
        within = max(step + int((60 * minutes - seconds - compile_s) / step_s), step, 1)
        steps = within if steps is None else min(steps, within)
    assert steps is not None
    how = engine.micro_batch, wanted if dry_run else engine.loss.compiled, compile_s
    return Plan(step, steps, batches.size, step_s, peak, kept, free, *how)


def _tried(engine: Engine, batches: Batches, step: int, step_s: float) -> tuple[float, float]:
    """Compile, and keep it where it is faster: the seconds that took, and those of a step."""
    took_s = compiling.compile_loss(engine, batches.draw(step))
    if took_s is None:
        return 0.0, step_s
    return took_s, compiling.keep_if_faster(
        engine, took_s, lambda: engine.agreed(_time_step(engine, batches, step))
    )


def _time_step(engine: Engine, batches: Batches, step: int) -> float:
    """Seconds of a step that moves nothing."""
    start = time.perf_counter()
    engine.step(step, 0.0, batches.draw(step))
    if engine.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _time_steps(engine: Engine, batches: Batches, step: int, least_s: float) -> float:
    """Median seconds of a step, the same number in every process."""
    times: list[float] = []
    count = TIMED_STEPS
    while len(times) < count:
        times.append(_time_step(engine, batches, step))
        if len(times) == TIMED_STEPS:
            count = max(count, math.ceil(least_s / engine.agreed(statistics.median(times))))
    return engine.agreed(statistics.median(times))


def _pieces(engine: Engine) -> list[Piece]:
    """What this process has of every tensor that a step changes."""
    return [piece for group in engine.pieces().values() for piece in group.values()]


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _existing(folder: Path) -> Path:
    return next(p for p in (folder, *folder.absolute().parents) if p.exists())
