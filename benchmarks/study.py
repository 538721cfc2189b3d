"""What the studies share: latents of one fixed autoencoder, variants of a recipe, their quality.

A variant is a recipe with some fields of its specification replaced, or with a change made to its
network. All variants learn the same latents and are judged against the held-out data, by as many
samples with the same labels. The recipe is that of the digits unless another one is given; then
quality is taken in latent space (32 numbers, n = 359), by energy distance and C2ST AUC.
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
from monge.fields import Predict
from monge.fitting.autoencoding import prepare_autoencoder
from monge.fitting.objective import latent_batches, loop_spec, make_objective
from monge.fitting.resolve import resolve
from monge.flows import Integrated
from monge.latents.batches import Latents
from monge.metrics.two_sample import classifier_test, energy_distance
from monge.networks.layers import Attention, FeedForward
from monge.objectives.flow_matching import FlowMatching
from monge.recipes.digits import SPEC
from monge.runs.restore import build_network
from monge.runs.spec import TrainSpec
from monge.sampling.facts import DataFacts
from monge.system.progress import quiet
from monge.tensors import noise, stream
from monge.training.engine import Engine
from monge.training.schedule import learning_rate
from monge.training.spec import Batches
from monge.types import Autoencoder


@dataclass(frozen=True)
class Study:
    """A recipe, its data, and their latents in the units of the fixed autoencoder.

    Attributes:
        latents: of the training data.
        heldout: latents of held-out data, and `label` their labels.
    """

    spec: TrainSpec
    data: Data
    autoencoder: Autoencoder
    latents: Latents
    heldout: Tensor
    label: Tensor


def prepare(spec: TrainSpec = SPEC, n: int | None = None) -> Study:
    """Train the recipe's autoencoder and encode the data; n held-out examples, or all."""
    data = sources.load(spec.data, spec)
    spec = resolve(spec, data)
    with tempfile.TemporaryDirectory() as folder:
        autoencoder, latents = prepare_autoencoder(
            spec, data, Path(folder), torch.device("cpu"), quiet
        )
    rng = stream(0, "heldout")
    rows = torch.randperm(len(data.heldout), generator=rng)[:n]
    with torch.no_grad():
        posterior = autoencoder.encode(data.heldout[rows])
    draws = torch.randn(posterior.mean.shape, generator=rng)
    assert data.heldout_label is not None
    heldout = posterior.sample(draws)
    return Study(spec, data, autoencoder, latents, heldout, data.heldout_label[rows])


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
    network: Callable[[Any], None] = unchanged


def objective_of(study: Study, variant: Variant) -> FlowMatching:
    """What a variant minimises."""
    made = make_objective(dataclasses.replace(study.spec, **variant.fields), study.data)
    assert isinstance(made, FlowMatching)
    return made


def training(
    study: Study, variant: Variant, seed: int, steps: int, batches: Batches | None = None
) -> Iterator[Engine]:
    """The training of a variant, step by step.

    Args:
        steps: where the cosine of the learning rate ends.
        batches: by default latents, encoded once.
    """
    spec = dataclasses.replace(study.spec, steps=steps, seed=seed, **variant.fields)
    network = build_network(spec, study.autoencoder.latent_shape, DataFacts.of(study.data))
    variant.network(network)
    objective = objective_of(study, variant)
    if batches is None:
        batches = latent_batches(spec, objective, study.latents, study.data)
    loop = loop_spec(spec)
    engine = Engine(Accelerator(cpu=True), network.train(), objective.loss, batches.size, loop)
    for n in range(steps):
        rate = learning_rate(n, loop.lr, warmup=loop.warmup, steps=steps, schedule=loop.schedule)
        engine.step(n, rate, batches.draw(n))
        yield engine


@torch.no_grad()
def sample(
    study: Study, network: nn.Module, seed: int, solver: str = "heun", grid: str = "uniform:n=20"
) -> Tensor:
    """As many latents as are held out, with the same labels."""
    field = Predict(network, objective_of(study, Variant()).path)
    flow = Integrated(field, build("solver", solver), build("grid", grid))
    x0 = noise(seed, 0, len(study.heldout), tuple(study.heldout.shape[1:]), "x0")
    return flow(x0, 0.0, flow.domain[1], {"label": study.label})


@dataclass(frozen=True)
class Quality:
    """How far samples are from the held-out latents."""

    energy: float
    auc: float


def quality(study: Study, z: Tensor) -> Quality:
    """Of sampled latents z."""
    auc = classifier_test(z, study.heldout).auc
    return Quality(energy_distance(z, study.heldout), auc)


def floor(study: Study) -> Quality:
    """What training examples get in the samples' place."""
    rng = stream(0, "floor")
    rows = torch.randperm(len(study.latents), generator=rng)[: len(study.heldout)]
    posterior = study.latents.rows(rows)
    return quality(study, posterior.sample(torch.randn(posterior.mean.shape, generator=rng)))
