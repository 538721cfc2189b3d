"""A sharded network is trained as a whole one is: float64, to 1e-10, after 20 steps."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from toy_training import PRECISE, Rows, outcome, squared, toy_spec

import ranks
from monge.objectives.base import Batch, Loss
from monge.tensors import forward_mode, jvp, stream
from monge.training.engine import Engine
from monge.training.loop import Fitted, fit


class Deep(nn.Module):
    """Blocks, a buffer, and tensors that do not divide by the number of processes."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(3, 7), nn.Linear(7, 5)])
        self.out = nn.Linear(5, 1)
        self.register_buffer("shift", torch.full((3,), 0.5))
        rng = stream(7, "net")
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(0.5 * torch.randn(p.shape, generator=rng))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = x + self.shift
        for block in self.blocks:
            h = torch.tanh(block(h))
        return self.out(h)


def tangential(net: nn.Module, batch: Batch) -> Loss:
    """A loss of a forward-mode derivative of the network, as of flow maps."""
    with forward_mode():
        value, along = jvp(net, batch["x"], torch.ones_like(batch["x"]))
    return Loss((value - batch["y"]).square().sum(1) + along.square().sum(1))


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "micro": {"micro_batch": 4},
    "skips": {"bad": (4, 5)},
    "jvp": {"loss": tangential},
}


def train(
    folder: Path | None, *, shard: bool, loss: Any = squared, bad: Any = (), **changes: Any
) -> Fitted:
    spec = toy_spec(**{**PRECISE, "shard": shard, **changes})
    return fit(Deep(), loss, Rows(12, bad=bad), spec, folder=folder, quiet=True)


def assert_equal(folder: Path, reference: Path) -> None:
    tensors, log = outcome(folder)
    expected, expected_log = outcome(reference)
    assert tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        assert tensors[name].shape == tensor.shape
        assert (tensors[name] - tensor).abs().max() <= 1e-10, name
    assert len(log) == len(expected_log) == 10


def look_at_a_sharded_run() -> None:
    """What is shown and returned is whole; what is kept while training is a part."""
    shown: list[nn.Module] = []
    held: list[int] = []
    step = Engine.step

    def counted(self: Engine, *arguments: Any) -> None:
        step(self, *arguments)
        pieces = [p for group in self.pieces().values() for p in group.values()]
        held[:] = [sum(p.own.nbytes for p in pieces), sum(p.nbytes for p in pieces)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "step", counted)
        fitted = fit(
            Deep(),
            squared,
            Rows(12),
            toy_spec(**PRECISE, shard=True, sample_every=20),
            on_sample=lambda net, _: shown.append(net),
            quiet=True,
        )
    assert held[0] < 0.65 * held[1]
    assert len(shown) == (os.environ["RANK"] == "0")
    for net in shown:
        for ours, theirs in zip(net.parameters(), fitted.ema.parameters(), strict=True):
            assert torch.equal(ours, theirs)
    assert [p.shape for p in fitted.network.parameters()] == [p.shape for p in Deep().parameters()]
    assert not any(
        torch.equal(p, q)
        for p, q in zip(fitted.network.parameters(), fitted.ema.parameters(), strict=True)
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes have trained every case, sharded, and one the same whole."""
    folder = tmp_path_factory.mktemp("sharded")
    for name, case in CASES.items():
        train(folder / "whole" / name, shard=False, **case)

    def work() -> int:
        torch.set_num_threads(1)
        for name, case in CASES.items():
            train(folder / "two" / name, shard=True, **case)
        train(folder / "two" / "whole jvp", shard=False, **CASES["jvp"])
        look_at_a_sharded_run()
        train(folder / "two" / "begun", shard=True, steps=7, schedule="constant")
        return 0

    ended = ranks.wait(ranks.start(2, work, folder / "said"), folder / "said", 120)
    assert [e.code for e in ended] == [0, 0], ended
    return folder


@pytest.mark.parametrize("case", CASES)
def test_two_sharded_processes_equal_a_whole_one(home: Path, case: str) -> None:
    assert_equal(home / "two" / case, home / "whole" / case)


def test_forward_mode_in_two_whole_processes_equals_one(home: Path) -> None:
    assert_equal(home / "two" / "whole jvp", home / "whole" / "jvp")


def test_a_sharded_run_goes_on_with_other_processes(home: Path, tmp_path: Path) -> None:
    """Two sharded processes, three sharded ones, and one."""
    begun = home / "two" / "begun"

    def work() -> int:
        torch.set_num_threads(1)
        train(begun, shard=True, steps=13, schedule="constant")
        return 0

    assert [e.code for e in ranks.wait(ranks.start(3, work, tmp_path), tmp_path)] == [0] * 3
    train(begun, shard=False, schedule="constant")
    train(tmp_path / "whole", shard=False, schedule="constant")
    tensors, expected = outcome(begun)[0], outcome(tmp_path / "whole")[0]
    for name, tensor in expected.items():
        assert (tensors[name] - tensor).abs().max() <= 1e-10, name
