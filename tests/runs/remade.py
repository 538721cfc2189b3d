"""Runs with other settings and random weights, made of a trained run without training."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from monge.runs.restore import build_network
from monge.runs.run import Run
from monge.tensors import stream

NETWORK = "transformer:width=32,depth=1,heads=2"
MAP = {"objective": "lagrangian", "network": f"{NETWORK},two_times=true"}
BOTH_WAYS = {**MAP, "pairs": "triangle:both=true"}
GUIDED = {
    "objective": "lagrangian",
    "network": f"{NETWORK},two_times=true,guided=true",
    "teacher_guidance": "1..3",
    "guidance": 2.0,
}


def remade(run: Run, size: float = 0.2, **changes: Any) -> Run:
    """The run with other settings, its network's weights drawn with deviation `size`."""
    spec = dataclasses.replace(run.spec, **{"network": NETWORK, **changes})
    network = build_network(spec, run.autoencoder.latent_shape, run.facts).eval()
    rng = stream(1, "remade")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=rng))
    network.requires_grad_(False)
    return Run.of(run.folder, spec, run.facts, run.autoencoder, network, run.device)
