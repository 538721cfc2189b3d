"""An epoch from the latent cache beside one that encodes the images of every step.

Images of CIFAR's size (32 x 32 in colour, uint8, mapped from a file), the default convolutional
autoencoder for them and a transformer of width 128 on its 4 x 8 x 8 latents. "drawing" is the
making of the batches alone, "training" the whole steps. Run with
`python -m benchmarks.latent_cache`; two minutes on two cores.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field

import numpy as np
import torch
from accelerate import Accelerator

from benchmarks.measure import Row, Rows, clock, interleave, parser, ratio, show, timed
from monge.autoencoders.conv import ConvSpec
from monge.couplings import source_like
from monge.data.arrays import Pixels, Shards
from monge.latents.batches import Epochs, LatentBatches
from monge.latents.cache import in_units_of, latents_of, standardised_by
from monge.networks.transformer import TransformerSpec
from monge.objectives.base import Batch
from monge.objectives.flow_matching import FlowMatching
from monge.system.progress import quiet
from monge.tensors import stream
from monge.training.engine import Engine
from monge.training.spec import Batches, LoopSpec
from monge.types import Autoencoder, State

IMAGES = 1024
BATCH = 128
STEPS = IMAGES // BATCH


@dataclass
class EncodedEachStep:
    """Global batches whose images are encoded when they are drawn; else as `LatentBatches`."""

    autoencoder: Autoencoder
    x: Pixels | State
    objective: FlowMatching
    size: int
    seed: int
    cond: dict[str, torch.Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._epochs = Epochs(len(self.x), self.seed)

    @torch.no_grad()
    def draw(self, step: int) -> Batch:
        rng = stream(self.seed, "batch", step)
        rows = self._epochs.rows(step * self.size, (step + 1) * self.size)
        posterior = self.autoencoder.encode(self.x[rows])
        x1 = posterior.sample(source_like(posterior.mean, rng))
        return self.objective.draw({"x1": x1, **{k: c[rows] for k, c in self.cond.items()}}, rng)


def epoch(batches: Batches) -> None:
    """Draw the batches of an epoch."""
    for step in range(STEPS):
        batches.draw(step)


def train(batches: Batches, engine: Engine) -> None:
    """Train for an epoch."""
    for step in range(STEPS):
        engine.step(step, 1e-3, batches.draw(step))


def run(rounds: int) -> Rows:
    values = np.random.default_rng(0).integers(0, 256, (IMAGES, 3, 32, 32), dtype=np.uint8)
    images = Pixels(Shards([values]))
    bare = ConvSpec(down=4, channels=4).build((3, 32, 32)).eval()
    cpu, objective = torch.device("cpu"), FlowMatching()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MONGE_CACHE"] = folder
        start = clock()
        latents = latents_of(bare, images, "benchmark", "random", cpu, quiet)
        once = clock() - start
        wrapper = standardised_by(bare, latents, images[:8]).eval()
        batches = {
            "cache": LatentBatches(in_units_of(wrapper, latents), {}, objective, BATCH, 0),
            "encode": EncodedEachStep(wrapper, images, objective, BATCH, 0),
        }
        network = TransformerSpec(width=128, depth=4, heads=4, patch=2).build(bare.latent_shape)
        engine = Engine(Accelerator(cpu=True), network, objective.loss, BATCH, LoopSpec(steps=1))
        drawing = interleave({k: timed(lambda b=b: epoch(b)) for k, b in batches.items()}, rounds)
        training = interleave(
            {k: timed(lambda b=b: train(b, engine)) for k, b in batches.items()}, rounds
        )
    return {
        "encode each step / cache, training": ratio(training["encode"], training["cache"]),
        "encode each step / cache, drawing": ratio(drawing["encode"], drawing["cache"]),
        f"encoding {IMAGES} images into the cache": Row(once, unit="s"),
    }


if __name__ == "__main__":
    show("latent cache beside encoding each step", run(parser(__doc__).parse_args().rounds))
