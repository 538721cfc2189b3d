"""`Job`: the settings of a run, its encoded data, and its folder."""

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
        facts: the recorded facts of its data.
        data: the examples, with labels and conditions.
        latents: the encoded training examples.
        shape: of a latent.
        teacher: the run from which it is distilled, or None.
        folder: of the run.
        device: of the networks.
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
