"""The sizes and costs in docs/scale.md: python docs/scale.py [--measure]

Computed from the formats and networks in the code, for runs that nobody has made; a test compares
the formulas with files of a few hundred images. With --measure also the speed, on this machine, at
which one process draws batches of latents.
"""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass

import torch

from monge.data.images import decoding
from monge.latents import cache as latent_cache
from monge.networks.transformer import TransformerSpec

COUNTS = (10**6, 10**9)
"""Images."""

COLUMNS = 5
"""Of the pixel cache beside the pixels, 8 bytes each: digest, row, label, side, content."""

RATES = {"S": 10_900, "B": 2_860, "L": 816, "XL": 555}
"""Training samples a second on one H200 for 256 tokens, computed: half of 790 TFLOP/s, over three
times two of 6.06, 23.0, 80.7 and 118.6 GMAC."""

PASSES = {10**6: 100, 10**9: 1}
"""Epochs for which the GPU hours are reckoned."""

SAMPLE_STEPS = 20
"""Heun steps for a sample, two evaluations each, and a third of a training sample's work each."""


@dataclass(frozen=True)
class Images:
    """Images and their latents: by default 256 x 256 in an 8-fold autoencoder with 4 channels."""

    shape: tuple[int, ...] = (3, 256, 256)
    latent: tuple[int, ...] = (4, 32, 32)
    logvar: bool = True

    @property
    def pixels(self) -> int:
        return math.prod(self.shape)

    @property
    def numbers(self) -> int:
        return math.prod(self.latent)

    def pixel_bytes(self, n: int) -> int:
        """The pixel cache, without the headers of its shards."""
        return n * (self.pixels + 8 * COLUMNS)

    def pixel_shards(self, n: int) -> int:
        return -(-n // max(16, decoding.BLOCK_BYTES // self.pixels))

    def latent_bytes(self, n: int) -> int:
        """The latent cache, without the headers of its shards: float32 means and log-variances."""
        return n * 4 * self.numbers * (1 + self.logvar)

    def latent_shards(self, n: int) -> int:
        chunk = max(1, min(latent_cache.CHUNK, latent_cache.CHUNK_NUMBERS // self.pixels))
        size = max(1, latent_cache.BLOCK_BYTES // (8 * self.numbers) // chunk) * chunk
        return -(-n // size)

    def sample_bytes(self, n: int) -> int:
        """Decoded samples and their latents in the main process's memory: float32."""
        return 4 * n * (self.pixels + self.numbers)


def index_bytes(n: int) -> int:
    """What each process holds for n images: four columns of int64 of the pixel cache, the rows of
    the training part, and the orders of two epochs."""
    return 8 * n * (4 + 1 + 2)


def distance_bytes(n: int) -> int:
    """Pair distances between two sets of n, as `metrics.evaluate` reckons them."""
    return 32 * n * n


def parameters(spec: TransformerSpec, images: Images, classes: int = 1000) -> tuple[int, int]:
    """How many numbers a network has, in how many tensors."""
    with torch.device("meta"):
        tensors = list(spec.build(images.latent, classes).parameters())
    return sum(p.numel() for p in tensors), len(tensors)


def checkpoint_bytes(n: int, tensors: int) -> int:
    """Weights, average and two moments in float32, and a count of steps for each tensor."""
    return 16 * n + 4 * tensors


def training_bytes(n: int, processes: int, sharded: bool) -> int:
    """On each device, beside activations: weights, gradient, average, two moments; and what DDP
    exchanges gradients in."""
    return 20 * n // processes if sharded else 24 * n


def gpu_hours(n: int, size: str) -> tuple[float, float]:
    """Training for `PASSES`, and 50,000 samples."""
    evaluations = 2 * SAMPLE_STEPS
    return PASSES[n] * n / RATES[size] / 3600, 50_000 * evaluations / (3 * RATES[size]) / 3600


def size(n_bytes: float) -> str:
    """Bytes for people, three digits."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if n_bytes < 1000:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.3g} PB"


def data_table(images: Images) -> str:
    rows = [
        ("pixel cache", images.pixel_bytes, size),
        ("its files", images.pixel_shards, "{:,}".format),
        ("latent cache", images.latent_bytes, size),
        ("its files", images.latent_shards, "{:,}".format),
        ("index in each process's memory", index_bytes, size),
    ]
    head = "| computed | 10^6 images | 10^9 images |\n|---|---|---|\n"
    return head + "\n".join(f"| {n} | {t(f(COUNTS[0]))} | {t(f(COUNTS[1]))} |" for n, f, t in rows)


def network_table(images: Images) -> str:
    head = (
        "| computed, patch 2 | parameters | checkpoint | two, while one is written | "
        "device, DDP | device, 8 sharded | 10^6 images, 100 epochs | 10^9 images, 1 epoch | "
        "50,000 samples |\n|---|---|---|---|---|---|---|---|---|\n"
    )
    rows = []
    for name in RATES:
        n, tensors = parameters(TransformerSpec(size=name, patch=2), images)  # type: ignore[arg-type]
        kept = checkpoint_bytes(n, tensors)
        hours = [gpu_hours(count, name) for count in COUNTS]
        cells = [
            f"{n / 1e6:.0f} M",
            size(kept),
            size(2 * kept),
            size(training_bytes(n, 1, False)),
            size(training_bytes(n, 8, True)),
            *(f"{h:,.3g} h" for h, _ in hours),
            f"{hours[0][1]:.2g} h",
        ]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return head + "\n".join(rows)


def evaluation_table(images: Images) -> str:
    head = "| computed | n = 2,000 | n = 10,000 | n = 50,000 | n = 10^6 |\n|---|---|---|---|---|\n"
    counts = (2_000, 10_000, 50_000, 10**6)
    rows = [("samples in memory", images.sample_bytes), ("pair distances", distance_bytes)]
    return head + "\n".join(
        f"| {name} | {' | '.join(size(f(n)) for n in counts)} |" for name, f in rows
    )


def tables() -> list[str]:
    """The computed tables of docs/scale.md."""
    images = Images()
    return [data_table(images), network_table(images), evaluation_table(images)]


def drawing_rate(batch: int = 256, steps: int = 20) -> float:
    """Samples a second that one process draws: rows, encoder noise, source and times."""
    from monge.latents.batches import LatentBatches
    from monge.objectives.flow_matching import FlowMatching
    from monge.types import Posterior

    latents = Posterior(*(torch.randn(4096, *Images().latent) for _ in range(2)))
    batches = LatentBatches(latents, {}, FlowMatching(), batch, 0)
    batches.draw(0)
    start = time.perf_counter()
    for step in range(1, steps + 1):
        batches.draw(step)
    return batch * steps / (time.perf_counter() - start)


if __name__ == "__main__":
    print("\n\n".join(tables()))
    if "--measure" in sys.argv:
        torch.set_num_threads(1)
        rates = sorted(drawing_rate() for _ in range(9))
        print(
            f"\none process on one core draws {rates[4]:.0f} samples/s of latents {Images().latent}"
        )
        print(f"(quartiles {rates[2]:.0f} to {rates[6]:.0f} of 9 rounds)")
