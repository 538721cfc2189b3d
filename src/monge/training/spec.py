"""What the training loop is given: where batches come from, and how to train."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from monge.errors import UserError
from monge.objectives.base import Batch
from monge.training.schedule import Schedule

Compile: TypeAlias = Literal["auto", "on", "off"]


@runtime_checkable
class Batches(Protocol):
    """Where batches come from."""

    size: int
    """Rows of the global batch."""

    def draw(self, step: int) -> Batch:
        """The whole global batch of a step, from (seed, step) alone; CPU tensors.

        It may be called from another thread than the loop's, ahead of its step, and twice.
        """
        ...


@dataclass(frozen=True)
class LoopSpec:
    """How to train. `steps` or `minutes` is given, or both: whichever is reached first.

    Attributes:
        steps: steps in all, counted over interruptions.
        minutes: choose the number of steps to fill this time, once, from the first steps' speed.
        micro_batch: rows evaluated at once in each process; None: all, halved when out of memory.
        lr: peak learning rate, reached after `warmup` steps.
        schedule: what follows the warm-up: constant, or half a cosine down to zero at `steps`.
            A run continued with more steps follows the longer cosine from there on.
        clip: largest norm of the gradient of the mean loss, or None.
        ema: final decay of the average of the weights.
        precision: "auto" is bf16 on a CUDA device that has it and float32 elsewhere.
        compile: the loss as a whole: "on" (eager where that fails), "off", or "auto": where it
            clearly saves more time than it takes (see `compiling`), but as before in a run that
            goes on.
        eager: why this loss is not compiled, whatever is asked for; empty where it can be.
        shard: share out weights, average and optimiser state over the processes (FSDP).
        seed: of what the network itself draws (dropout); batches carry their own.
        device: "auto", "cpu", "cuda" or "mps".
        save_every_s: seconds between checkpoints; None for none by time.
        save_every: steps between checkpoints; None for none by steps.
        sample_every: steps between calls of `on_sample`; None for none.
        log_every: steps between log lines.
        tensorboard: also write TensorBoard files.
        dry_run: measure, say what the run would take, and stop, leaving the folder untouched.
    """

    steps: int | None = None
    minutes: float | None = None
    micro_batch: int | None = None
    lr: float = 1e-3
    schedule: Schedule = "cosine"
    warmup: int = 100
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float | None = 1.0
    ema: float = 0.999
    precision: Literal["auto", "float32", "bf16", "float64"] = "auto"
    compile: Compile = "off"
    eager: str = ""
    shard: bool = False
    seed: int = 0
    device: str = "auto"
    save_every_s: float | None = 120.0
    save_every: int | None = None
    sample_every: int | None = None
    log_every: int = 50
    tensorboard: bool = False
    dry_run: bool = False

    def check(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            UserError: naming the setting and what it takes.
        """
        if self.steps is None and self.minutes is None:
            raise UserError("training needs steps or minutes: give --steps or --minutes")
        positive = ("steps", "minutes", "micro_batch", "clip", "save_every", "save_every_s")
        for name in (*positive, "sample_every", "log_every", "lr"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UserError(f"{name} must be greater than 0, not {value}")
        if self.shard and self.compile == "on":
            raise UserError("a sharded network is not compiled: leave out shard or compile")
        if self.warmup < 0:
            raise UserError(f"warmup must be 0 steps or more, not {self.warmup}")
        if not 0 <= self.ema <= 1:
            raise UserError(f"ema must be between 0 and 1, not {self.ema}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise UserError(f"betas must be at least 0 and below 1, not {self.betas}")
