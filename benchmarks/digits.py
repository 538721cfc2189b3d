"""What the studies on digits share: latents of one fixed autoencoder, variants, and their quality.

A variant is the digits recipe with some fields of its specification replaced, or with a change
made to its network. All learn the same latents (32 numbers) and are judged there, against the
latents of the 359 held-out images, with their labels: by energy distance and C2ST AUC.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from monge.components import build
from monge.data import sources
from monge.data.base import Data
from monge.data.latents import Latents
from monge.fields import Predict
from monge.flows import Integrated
from monge.metrics.two_sample import classifier_test, energy_distance
from monge.networks.layers import Attention, FeedForward
from monge.progress import quiet
from monge.recipes.digits import SPEC
from monge.runs.autoencoding import prepare_autoencoder
from monge.runs.train import facts_of, latent_batches, loop_spec, make_objective, resolve
from monge.runs.run import build_network
from monge.tensors import noise, stream
from monge.training.engine import Engine
from monge.training.schedule import learning_rate
from monge.training.spec import Batches
from monge.types import Autoencoder


@dataclass(frozen=True)
class Digits:
    """The digits and their latents, in the units of the fixed autoencoder."""

    data: Data
    autoencoder: Autoencoder
    latents: Latents
    heldout: Tensor


def prepare() -> Digits:
    """Train the recipe's autoencoder (about 12 s on two cores) and encode the digits."""
    data = sources.load("digits")
    spec = resolve(SPEC, data)
    with tempfile.TemporaryDirectory() as folder:
        autoencoder, latents = prepare_autoencoder(
            spec, data, Path(folder), torch.device("cpu"), quiet
        )
    with torch.no_grad():
        posterior = autoencoder.encode(data.heldout[:])
    draws = torch.randn(posterior.mean.shape, generator=stream(0, "heldout"))
    return Digits(data, autoencoder, latents, posterior.sample(draws))


def unchanged(network: nn.Module) -> None:
    """Leave a network as it is."""


class PlainAttention(Attention):
    """Attention without norms of queries and keys."""

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        parts = self.qkv(x).view(batch, tokens, 3, self.heads, -1).unbind(2)
        q, k, v = (part.transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).reshape(batch, tokens, width))


class TanhFeedForward(FeedForward):
    """A feed-forward layer with the tanh form of the GELU."""

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x), approximate="tanh"))


def without_qk_norm(network: Any) -> None:
    """Replace the attention of a transformer by `PlainAttention`."""
    for block in network.blocks:
        block.attention.__class__ = PlainAttention
        del block.attention.query_norm, block.attention.key_norm


def with_tanh_gelu(network: Any) -> None:
    """Replace the GELU of a transformer by its tanh form."""
    for block in network.blocks:
        block.feed_forward.__class__ = TanhFeedForward


@dataclass(frozen=True)
class Variant:
    """Changes to the fields of the recipe's specification, and to its network."""

    fields: dict[str, Any] = field(default_factory=dict)
    network: Callable[[nn.Module], None] = unchanged


def training(
    digits: Digits, variant: Variant, seed: int, steps: int, batches: Batches | None = None
) -> Iterator[Engine]:
    """The training of a variant, step by step.

    Args:
        steps: where the cosine of the learning rate ends.
        batches: by default latents, encoded once.
    """
    spec = dataclasses.replace(SPEC, steps=steps, seed=seed, **variant.fields)
    shape = digits.autoencoder.latent_shape
    network = build_network(spec, shape, facts_of(digits.data))
    variant.network(network)
    objective = make_objective(spec, digits.data)
    if batches is None:
        batches = latent_batches(spec, objective, digits.latents, digits.data)
    loop = loop_spec(spec)
    engine = Engine(Accelerator(cpu=True), network.train(), objective.loss, batches.size, loop)
    for n in range(steps):
        rate = learning_rate(n, loop.lr, warmup=loop.warmup, steps=steps, schedule=loop.schedule)
        engine.step(n, rate, batches.draw(n))
        yield engine


@dataclass(frozen=True)
class Quality:
    """How far samples are from the held-out latents."""

    energy: float
    auc: float


@torch.no_grad()
def sample(
    digits: Digits, network: nn.Module, seed: int, solver: str = SPEC.solver, grid: str = SPEC.grid
) -> Tensor:
    """As many latents as are held out, with the same labels."""
    objective = make_objective(SPEC, digits.data)
    flow = Integrated(
        Predict(network, objective.path), build("solver", solver), build("grid", grid)
    )
    x0 = noise(seed, 0, len(digits.heldout), tuple(digits.heldout.shape[1:]), "x0")
    label = digits.data.heldout_label
    assert label is not None
    return flow(x0, 0.0, flow.domain[1], {"label": label})


def quality(digits: Digits, z: Tensor) -> Quality:
    """Of samples z, n = 359."""
    auc = classifier_test(z, digits.heldout).auc
    return Quality(energy_distance(z, digits.heldout), auc)


def floor(digits: Digits) -> Quality:
    """What training examples get in the samples' place."""
    rng = stream(0, "floor")
    rows = torch.randperm(len(digits.latents), generator=rng)[: len(digits.heldout)]
    posterior = digits.latents.rows(rows)
    return quality(digits, posterior.sample(torch.randn(posterior.mean.shape, generator=rng)))
