"""A tiny problem for the training loop, shared by its tests and by the processes they start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from monge.objectives.base import Batch, Loss
from monge.tensors import stream
from monge.training import checkpoint, journal
from monge.training.loop import Fitted, LoopSpec, OnSample, fit

PRECISE: dict[str, Any] = {"precision": "float64", "steps": 20}


class Rows:
    """Global batches of a regression problem; those of the steps in `bad` hold a NaN.

    The NaN stands in the last row, so that of several processes only one meets it.
    """

    def __init__(self, size: int = 12, seed: int = 0, bad: tuple[int, ...] = ()) -> None:
        self.size = size
        self.seed = seed
        self.bad = bad

    def draw(self, step: int) -> Batch:
        x = torch.randn(self.size, 3, generator=stream(self.seed, "toy", step))
        if step in self.bad:
            x[-1] = float("nan")
        return {"x": x, "y": x.sin().sum(1, keepdim=True), "label": torch.arange(self.size)}


class Net(nn.Module):
    """Two layers, a buffer that training changes, and dropout if asked for."""

    steps: Tensor

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        generator = stream(7, "net")
        self.inner = nn.Linear(3, 8)
        self.outer = nn.Linear(8, 1)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(0.5 * torch.randn(p.shape, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.steps += 1
        return self.outer(self.dropout(torch.tanh(self.inner(x))))


def squared(net: nn.Module, batch: Batch) -> Loss:
    """The squared error, and its size as a part."""
    error = net(batch["x"]) - batch["y"]
    return Loss(error.square().sum(1), {"error": error.abs().sum(1)})


def toy_spec(**changes: Any) -> LoopSpec:
    settings: dict[str, Any] = {
        "steps": 12,
        "lr": 0.05,
        "warmup": 3,
        "log_every": 2,
        "device": "cpu",
        "save_every_s": None,
    }
    return LoopSpec(**(settings | changes))


def train(
    folder: Path | None = None,
    *,
    batches: Rows | None = None,
    dropout: float = 0.0,
    on_sample: OnSample | None = None,
    net: nn.Module | None = None,
    **changes: Any,
) -> Fitted:
    """Fit the toy problem."""
    return fit(
        net or Net(dropout),
        squared,
        batches or Rows(),
        toy_spec(**changes),
        folder=folder,
        on_sample=on_sample,
        quiet=True,
    )


def outcome(folder: Path) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """All that must be equal between equal runs: tensors, and the log without its clock."""
    found = checkpoint.load(folder, clean=False)
    assert found is not None
    tensors = {f"{g}/{k}": t for g, group in found.groups.items() for k, t in group.items()}
    log = journal.read(folder / journal.NAME)
    return tensors, [{k: v for k, v in row.items() if k != "wall"} for row in log]


def assert_same(folder: Path, reference: Path) -> None:
    """Equal to the bit."""
    tensors, log = outcome(folder)
    expected, expected_log = outcome(reference)
    assert tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, expected[name]), name
    assert json.dumps(log) == json.dumps(expected_log)
