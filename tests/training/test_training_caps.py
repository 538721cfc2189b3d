"""The cap of a Lipschitz network holds after every step, resumed, averaged, and in processes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from toy_training import assert_same, outcome, toy_spec

import ranks
from monge.errors import Stopped
from monge.networks.capped import capped_layers
from monge.networks.certificate import certificate
from monge.networks.lipschitz import LipschitzSpec
from monge.objectives.base import Batch, Loss
from monge.tensors import stream
from monge.training.loop import Fitted, fit

SPEC = LipschitzSpec(cap=2.0, width=8, depth=1, heads=2, token=1)


class Rows:
    """Batches of a regression that no capped network fits: the slope is 20."""

    size = 16

    def __init__(self, stop_at: int | None = None) -> None:
        self.stop_at = stop_at

    def draw(self, step: int) -> Batch:
        if step == self.stop_at:
            os.kill(os.getpid(), signal.SIGINT)
        x = torch.randn(self.size, 3, generator=stream(0, "caps", step))
        return {"x": x, "y": 20 * x.roll(1, 1)}


class Watched(nn.Module):
    """The largest norm of a capped matrix at every step, beside the network itself."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = SPEC.build((3,))
        self.norms: list[float] = []

    def forward(self, x: Tensor) -> Tensor:
        self.norms.append(largest(self.inner))
        return self.inner(x, 0.5)


def largest(network: nn.Module) -> float:
    """The largest spectral norm of a capped matrix."""
    return max(
        float(torch.linalg.matrix_norm(layer.matrices.double(), 2).max())
        for layer in capped_layers(network)
    )


def squared(network: nn.Module, batch: Batch) -> Loss:
    return Loss((network(batch["x"]) - batch["y"]).square().sum(1))


def train(folder: Path | None, steps: int, stop_at: int | None = None) -> Fitted:
    spec = toy_spec(steps=steps, lr=0.05, ema=0.9)
    return fit(Watched(), squared, Rows(stop_at), spec, folder=folder, quiet=True)


def check(fitted: Fitted) -> None:
    """Every step had capped weights, some of them at the cap, and so have the two outcomes."""
    assert isinstance(fitted.network, Watched) and isinstance(fitted.ema, Watched)
    norms = fitted.network.norms
    assert len(norms) >= 20 and max(norms) <= 1
    assert max(norms[len(norms) // 2 :]) > 0.99
    for network in (fitted.network.inner, fitted.ema.inner):
        assert largest(network) <= 1
        assert 0.3 < certificate(network, 0.5).euclidean <= SPEC.cap
        assert certificate(network).euclidean <= SPEC.cap


def test_the_cap_holds_after_every_step() -> None:
    check(train(None, 60))


@pytest.mark.slow
def test_the_cap_holds_for_two_thousand_steps() -> None:
    check(train(None, 2000))


def test_the_cap_holds_in_a_run_that_was_interrupted(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        train(tmp_path / "twice", 40, stop_at=20)
    fitted = train(tmp_path / "twice", 40)
    check(fitted)
    train(tmp_path / "once", 40)
    assert_same(tmp_path / "twice", tmp_path / "once")


def trained_by(size: int, folder: Path, **options: bool) -> dict[str, Tensor]:
    """What a run of so many processes has saved, in float64."""
    spec = toy_spec(steps=20, lr=0.05, precision="float64", **options)

    def work() -> int:
        fit(SPEC.build((3,)), at_half, Rows(), spec, folder=folder, quiet=True)
        return 0

    for ended in ranks.wait(ranks.start(size, work, folder / "said"), folder / "said"):
        assert ended.code == 0, ended.err
    return outcome(folder)[0]


def at_half(network: nn.Module, batch: Batch) -> Loss:
    return Loss((network(batch["x"], 0.5) - batch["y"]).square().sum(1))


@pytest.mark.slow
def test_two_processes_hold_the_cap_as_one_does(tmp_path: Path) -> None:
    one = trained_by(1, tmp_path / "one")
    for case, options in (("two", {}), ("sharded", {"shard": True})):
        found = trained_by(2, tmp_path / case, **options)
        network = SPEC.build((3,)).double()
        for group in ("model", "ema"):
            network.load_state_dict({k: found[f"{group}/{k}"] for k in network.state_dict()})
            assert largest(network) <= 1
        assert largest(network) > 0.97
        for name, tensor in one.items():
            torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-9, msg=name)
