"""The JKO loss and its gradient against a plain rewrite of the published algorithm."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

ROOT = Path(__file__).parents[2]


def test_loss_and_gradient_are_those_of_the_rewrite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.delitem(sys.modules, "benchmarks", raising=False)
    from benchmarks import jko

    net, drawn = jko.network(width=24).double(), jko.batch(200)
    drawn = {name: x.double() for name, x in drawn.items()}
    own = jko.plain(net).double()
    for layer, linear in zip(own[:-1:2], net.hidden, strict=True):
        assert isinstance(layer, nn.Linear) and isinstance(linear, nn.Linear)
    loss, rewritten = jko.ours(net, drawn), jko.rewritten(own, drawn)
    loss.backward()
    rewritten.backward()
    assert float(loss.detach()) == pytest.approx(float(rewritten.detach()), abs=2e-3)
    for layer, linear in zip([*own[:-1:2], own[-1]], [*net.hidden, net.out], strict=True):
        assert isinstance(layer, nn.Linear) and isinstance(linear, nn.Linear)
        assert layer.weight.grad is not None and linear.weight.grad is not None
        apart = (layer.weight.grad - linear.weight.grad).norm() / linear.weight.grad.norm()
        assert float(apart) < 0.03  # a forward difference has an error of the first order
    # With a smaller spacing the difference goes away: it is that of the difference alone.
    monkeypatch.setattr(jko, "SPACING", 1e-5)
    own.zero_grad()
    jko.rewritten(own, drawn).backward()
    for layer, linear in zip([*own[:-1:2], own[-1]], [*net.hidden, net.out], strict=True):
        assert isinstance(layer, nn.Linear) and isinstance(linear, nn.Linear)
        assert layer.weight.grad is not None and linear.weight.grad is not None
        torch.testing.assert_close(layer.weight.grad, linear.weight.grad, atol=1e-6, rtol=1e-3)
