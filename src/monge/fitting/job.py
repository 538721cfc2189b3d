"""What is to be fitted: the settings of a run, its encoded data, and its folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from monge.data.base import Data
from monge.latents.batches import Latents
from monge.runs.run import Run
from monge.runs.spec import TrainSpec
from monge.sampling.facts import DataFacts
from monge.system.progress import Say


@dataclass(frozen=True)
class Job:
    """A run before its networks are fitted; the main process holds its folder.

    Attributes:
        spec: the settings.
        facts: what the run keeps of its data.
        data: the examples, with labels and conditions.
        latents: the encoded training examples.
        shape: of a latent.
        teacher: what it is distilled from; None without one.
        folder: of the run.
        device: where networks compute.
        say: reports progress in words.
    """

    spec: TrainSpec
    facts: DataFacts
    data: Data
    latents: Latents
    shape: tuple[int, ...]
    teacher: Run | None
    folder: Path
    device: torch.device
    say: Say
