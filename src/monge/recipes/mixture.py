"""A Gaussian mixture in two dimensions: a known law, learned by an MLP in a minute."""

from __future__ import annotations

from monge.runs.spec import TrainSpec

SPEC = TrainSpec(data="target:mixture:dim=2,modes=5,seed=0", steps=3000, batch=512)
