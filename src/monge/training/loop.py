"""The training loop: from a network, a loss of it and batches to a trained network.

A run is a function of its configuration. Step n draws the whole global batch from (seed, n);
each process keeps its slice of rows, cuts it into micro-batches, and the gradients add up to
that of the mean over the global batch. So one process or many, any micro-batch and any number of
interruptions give the same run, up to the rounding of sums; on one CPU an interrupted run is the
same to the bit.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn

from monge.errors import Diverged, Stopped, UserError
from monge.objectives.base import Batch
from monge.system import lock, processes
from monge.system.files import identity
from monge.training import checkpoint
from monge.training.drawing import drawing
from monge.training.engine import Engine, LossFn
from monge.training.journal import Journal
from monge.training.plan import LOOK_PART, Kept, Plan, make_again, make_plan
from monge.training.progress import Display
from monge.training.schedule import learning_rate
from monge.training.signals import signals
from monge.training.spec import Batches, Compile, LoopSpec

__all__ = ["Batches", "Fitted", "LoopSpec", "LossFn", "OnSample", "Plan", "fit"]

MOST_SKIPPED = 10
"""Steps that may be skipped in a row before the run is given up."""

READ_EVERY = 10
"""Steps between looks at the device's numbers, where looking makes the host wait for it."""

OnSample = Callable[[nn.Module, int], None]
"""Called with the averaged network, in evaluation mode, and the number of steps done."""


@dataclass(frozen=True)
class Fitted:
    """The outcome of a run.

    Attributes:
        network: the bare network as trained, in evaluation mode.
        ema: the bare network with averaged weights, from which one samples.
        step: steps done.
        steps: steps to be done in all.
        seconds: training time, over all interruptions, compiling included.
        skipped: steps skipped because their loss or gradient was not finite.
        plan: what was measured before the run; None where nothing was left to do.
    """

    network: nn.Module
    ema: nn.Module
    step: int
    steps: int
    seconds: float
    skipped: int
    plan: Plan | None = None


def fit(
    network: nn.Module,
    loss: LossFn,
    batches: Batches,
    spec: LoopSpec,
    *,
    folder: Path | None = None,
    on_sample: OnSample | None = None,
    on_plan: Callable[[int], None] | None = None,
    on_compiled: Callable[[], None] | None = None,
    quiet: bool = False,
) -> Fitted:
    """Train a network, or go on training it from the last checkpoint in the folder.

    A run that has already done its steps returns at once. One that is given more steps than
    before goes on; a cosine schedule then follows the longer cosine from there, so the result
    differs from that of a run which was longer from the start.

    Args:
        network: trained in place; moved to the device and to the dtype of the precision.
        loss: the loss of each row of a batch, and parts of it for the log.
        batches: the global batch of each step.
        folder: for checkpoints, weights and the log; None keeps nothing.
        on_sample: called every `spec.sample_every` steps and after the last one, in the main
            process; what it draws does not disturb the run.
        on_plan: called with the number of steps that the minutes became, once it is final, in the
            main process.
        on_compiled: called before the first step where "auto" came to compile, in the main process.
        quiet: print nothing.

    With minutes, the number of steps is planned from timed steps, and compared with what steps
    take after `plan.LOOK_PART` of the time. If it is far off, the run begins again with the right
    number, so that it is the run of that many steps to the bit.

    Raises:
        UserError: impossible settings; a folder that is in use, not writable, or of another
            network or a newer format; not enough memory.
        Diverged: `MOST_SKIPPED` steps in a row had a loss or gradient that was not finite.
        Stopped: SIGINT or SIGTERM came; the step was finished and the state saved.
    """
    spec.check()
    accelerator = _accelerator(spec)
    main = accelerator.is_main_process
    writes = folder is not None and main and not spec.dry_run
    cuda = [accelerator.device] if accelerator.device.type == "cuda" else []
    with ExitStack() as stack:
        stop = stack.enter_context(signals())
        stack.enter_context(torch.random.fork_rng(cuda))
        if folder is not None and writes:
            stack.enter_context(lock.hold(folder))
        run = _Run(accelerator, network, loss, batches, spec, folder)
        if run.resume(clean=writes):
            return run.fitted(None)
        plan = run.plan(quiet or not main)
        if not spec.dry_run:
            run.on_plan = on_plan if main else None
            if on_compiled and main and spec.compile == "auto" and run.engine.loss.compiled:
                on_compiled()
            run.train(stop, on_sample, quiet or not main)
        return run.fitted(plan)


class _Run:
    """The state of one call of `fit`."""

    def __init__(
        self,
        accelerator: Accelerator,
        network: nn.Module,
        loss: LossFn,
        batches: Batches,
        spec: LoopSpec,
        folder: Path | None,
    ) -> None:
        self.accelerator = accelerator
        self.batches = batches
        self.spec = spec
        self.folder = folder
        dtype = torch.float64 if spec.precision == "float64" else torch.float32
        sharded = spec.shard and processes.world() > 1
        # The whole of a network that is to be sharded stays in the host's memory.
        network.to("cpu" if sharded else accelerator.device, dtype).train()
        self.engine = Engine(accelerator, network, loss, batches.size, spec)
        self.step = 0
        self.saved: int | None = None
        self.steps = spec.steps
        self.compile: Compile = "off" if sharded or spec.eager else spec.compile
        if spec.eager and spec.compile == "on":
            self.engine.note(f"not compiled: {spec.eager}")
        self.planned = self.settled = spec.minutes is None
        self.on_plan: Callable[[int], None] | None = None
        self.home: tuple[int, int] | None = None
        self.seconds = 0.0

    def resume(self, clean: bool) -> bool:
        """Take up the last checkpoint, if there is one; whether the run is finished."""
        if self.folder is None:
            return False
        found = checkpoint.load(self.folder, clean=clean)
        # No process may write the next checkpoint before all have read this one.
        processes.wait()
        if found is None:
            return False
        facts = found.facts
        checkpoint.check_facts(facts, self.folder)
        self.engine.restore(found.groups)
        self.engine.tally.restore(facts["tally"])
        if self.spec.micro_batch is None:
            self.engine.micro_batch = min(self.engine.micro_batch, facts["micro_batch"])
        self.step = self.saved = found.step
        self.seconds = facts["seconds"]
        if self.compile == "auto":
            self.compile = "on" if facts.get("compiled") else "off"
        asked, minutes = self.spec.steps, self.spec.minutes
        same = (facts.get("asked"), facts["minutes"]) == (asked, minutes)
        if minutes is not None and same and facts.get("settled", True):
            self.steps, self.planned = facts["steps"], True
        return self.planned and self.step >= (self.steps or 0)

    def plan(self, quiet: bool) -> Plan:
        """Time a few steps, fix the number of steps, and say what the run will take."""
        plan = make_plan(
            self.engine,
            self.batches,
            step=self.step,
            steps=self.steps,
            minutes=None if self.planned else self.spec.minutes,
            seconds=self.seconds,
            folder=self.folder,
            compile=self.compile,
            dry_run=self.spec.dry_run,
        )
        self.seconds += plan.compile_s
        self.steps, self.settled = plan.steps, self.planned
        with Display(self.step, plan.steps, self.batches.size, quiet, live=False) as display:
            for line in (*self.engine.taken_notes(), *plan.lines()):
                display.say(line)
        return plan

    def train(self, stop: threading.Event, on_sample: OnSample | None, quiet: bool) -> None:
        """Do the steps that are left; begin again where their plan was far off."""
        assert self.steps is not None
        if not self.settled and self.step >= self.steps:  # no time is left for a step
            self._settle(self.steps)
        first, kept = self.step, None if self.settled else Kept(self.engine)
        while not self._trained(stop, on_sample, quiet):
            assert kept is not None
            kept.restore()
            self.step = first

    def _trained(self, stop: threading.Event, on_sample: OnSample | None, quiet: bool) -> bool:
        """Do the steps that are left, with a look at the clock, the log and `stop` after each;
        False where the plan was made again on the way."""
        spec, engine, steps = self.spec, self.engine, self.steps
        assert steps is not None
        first, earlier, begun = self.step, self.seconds, time.monotonic()
        read_every = 1 if engine.device.type == "cpu" else READ_EVERY
        with ExitStack() as stack:
            journal = None
            if self.folder is not None and self.accelerator.is_main_process:
                journal = stack.enter_context(Journal(self.folder, self.step, spec.tensorboard))
            display = stack.enter_context(Display(self.step, steps, self.batches.size, quiet))
            draw = stack.enter_context(drawing(self.batches, steps, engine.device))
            if self.saved is None:
                self._save(journal)
            saved_at = time.monotonic()
            while self.step < steps:
                rate = self._advance(draw(self.step))
                now = time.monotonic()
                self.seconds = earlier + now - begun
                last = self.step == steps
                logs = last or self.step % spec.log_every == 0
                reads = logs or self.step % read_every == 0
                if reads and engine.tally.longest >= MOST_SKIPPED:
                    raise self._diverged()
                if reads and not self.settled and self._begins_again(first, earlier, display):
                    return False
                means = self._log(journal, rate) if logs else None
                if self.settled and on_sample and _due(self.step, spec.sample_every, last):
                    averaged = engine.averaged()
                    if self.accelerator.is_main_process:
                        self._require_home()
                        on_sample(averaged, self.step)
                    del averaged
                for line in engine.taken_notes():
                    display.say(line)
                display.update(self.step, means)
                late = spec.save_every_s is not None and now - saved_at >= spec.save_every_s
                stopping, late = engine.anywhere(stop.is_set(), late) if reads else (False, False)
                due = self.settled and (late or _due(self.step, spec.save_every))
                if stopping or due or last:
                    self._save(journal)
                    saved_at = time.monotonic()
                if stopping:
                    raise self._stopped()
            processes.wait()
        return True

    def _begins_again(self, first: int, earlier: float, display: Display) -> bool:
        """Compare the plan with what steps took, once; whether the run has to begin again."""
        assert self.steps is not None and self.spec.minutes is not None
        limit_s = 60 * self.spec.minutes - earlier
        took_s = self.engine.agreed(self.seconds - earlier)
        last = self.step == self.steps
        if took_s < LOOK_PART * limit_s and not last:
            return False
        planned = self.steps
        again = None if last else make_again(self.step - first, took_s, planned - first, limit_s)
        if again is not None:
            most = math.inf if self.spec.steps is None else self.spec.steps
            self.steps = int(min(first + again, most))
        self._settle(self.steps)
        if self.steps == planned:
            return False
        display.say(
            f"steps take {took_s / (self.step - first):.3g} s here: {self.steps} steps instead of "
            f"{planned}; the run begins again, so that it is that of --steps {self.steps}"
        )
        return True

    def _settle(self, steps: int) -> None:
        self.settled = True
        if self.on_plan is not None:
            self.on_plan(steps)

    def fitted(self, plan: Plan | None) -> Fitted:
        """The outcome as it stands."""
        assert self.steps is not None
        return Fitted(
            network=self.engine.trained(),
            ema=self.engine.average.look(),
            step=self.step,
            steps=self.steps,
            seconds=self.seconds,
            skipped=self.engine.tally.skipped,
            plan=plan,
        )

    def _advance(self, batch: Batch) -> float:
        """One step; its learning rate."""
        spec, n = self.spec, self.step
        assert self.steps is not None
        rate = learning_rate(
            n, spec.lr, warmup=spec.warmup, steps=self.steps, schedule=spec.schedule
        )
        self.engine.step(n, rate, batch)
        self.step += 1
        return rate

    def _log(self, journal: Journal | None, rate: float) -> dict[str, float]:
        """Write the means since the last line."""
        means, parts = self.engine.tally.take()
        if journal is not None:
            skipped = self.engine.tally.skipped
            row = {"step": self.step, **means, "lr": rate, "skipped": skipped, "parts": parts}
            at = time.strftime("%Y-%m-%dT%H:%M:%S%z")
            journal.write({**row, "wall": {"seconds": round(self.seconds, 3), "at": at}})
        return means

    def _save(self, journal: Journal | None) -> None:
        if self.folder is None or self.saved == self.step:
            return
        self._require_home()
        self.saved = self.step
        tensors = self.engine.whole()
        if journal is None:
            return
        journal.sync()
        facts = {
            "steps": self.steps,
            "minutes": self.spec.minutes,
            "asked": self.spec.steps,
            "micro_batch": self.engine.micro_batch,
            "compiled": self.engine.loss.compiled,
            "seconds": self.seconds,
            "settled": self.settled,
            "tally": self.engine.tally.state(),
        }
        checkpoint.save(self.folder, self.step, tensors, facts)

    def _require_home(self) -> None:
        """Refuse to make the folder anew where it was moved or removed meanwhile."""
        if self.folder is None or not self.accelerator.is_main_process:
            return
        found = identity(self.folder)
        if self.home is None:
            self.home = found
        if self.home != found:
            raise UserError(
                f"{self.folder} was moved or removed while it was trained, after step "
                f"{self.step}: run the same command again where its last checkpoint is, with "
                "--out if the folder has another name"
            )

    def _stopped(self) -> Stopped:
        kept = f"saved in {self.folder}" if self.folder is not None else "nothing kept"
        return Stopped(
            f"stopped after step {self.step} of {self.steps}, {kept}; "
            "run the same command again to go on"
        )

    def _diverged(self) -> Diverged:
        return Diverged(
            f"loss or gradient was not finite in {MOST_SKIPPED} steps in a row, the last at or "
            f"before step {self.step}: try a smaller learning rate than {self.spec.lr:g}, a "
            "longer warm-up or stronger clipping, and look for non-finite values in the data"
        )


def _due(step: int, every: int | None, last: bool = False) -> bool:
    return every is not None and (last or step % every == 0)


def _accelerator(spec: LoopSpec) -> Accelerator:
    """The processes and the device."""
    present = {"cuda": torch.cuda.is_available(), "mps": torch.mps.is_available(), "cpu": True}
    device = spec.device
    if device == "auto":
        device = next(name for name, there in present.items() if there)
    if not present.get(device, False):
        known = ", ".join(name for name, there in present.items() if there)
        raise UserError(f"device {spec.device!r} is not available here: use auto, {known}")
    # A process may train twice, on different devices. Mixed precision is written in `Step`,
    # inside what is compiled.
    AcceleratorState._reset_state(reset_partial_state=True)
    processes.join()
    return Accelerator(cpu=device == "cpu", mixed_precision="no")
