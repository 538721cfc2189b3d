"""A training whose folder is moved on the way."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from monge.objectives.base import Batch, Loss
from monge.training.loop import fit
from monge.training.spec import LoopSpec


class Rows:
    """The same batch at each step."""

    size = 4

    def draw(self, step: int) -> Batch:
        return {"x": torch.ones(4, 1)}


def moved_while_trained(old: Path, new: Path) -> None:
    """Train in `old`, which becomes `new` in the third step."""
    calls = [0]

    def loss(network: nn.Module, batch: Batch) -> Loss:
        calls[0] += 1
        if (old / "state" / "step-00000002").exists():
            old.rename(new)
        found: Tensor = network(batch["x"])
        return Loss(found.square().sum(1))

    spec = LoopSpec(steps=8, save_every=2, device="cpu", save_every_s=None)
    fit(nn.Linear(1, 1), loss, Rows(), spec, folder=old, quiet=True)
