"""What any sampler should beat, and what bounds it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from monge.data.base import Data
from monge.latents.cache import chunks
from monge.sampling.model import GenerativeModel
from monge.system import row_sharing
from monge.tensors import CHUNK, stream
from monge.types import Posterior


def gaussian_name(run: GenerativeModel) -> str:
    """The name of a Gaussian fitted to all examples: it says where it ignores conditions."""
    given = [*["labels"] * bool(run.label_names), *["conditions"] * bool(run.facts.n_vector)]
    return "gaussian" if not given else f"gaussian without {' and '.join(given)}"


def gaussian_latents(run: GenerativeModel, data: Data, n: int, seed: int) -> Tensor:
    """n standardised latents (n, *latent) of a Gaussian with the moments of the training ones."""
    latents = run.training_latents(data)
    mean, covariance = _moments(chunks(latents, n=len(data.train)))
    values, vectors = torch.linalg.eigh(covariance)
    white = torch.randn(n, len(mean), generator=stream(seed, "gaussian")).double()
    drawn = mean + (white * values.clamp_min(0).sqrt()) @ vectors.T
    return drawn.float().reshape(n, *run.autoencoder.latent_shape)


def baselines(run: GenerativeModel, data: Data, latents: Tensor, seed: int) -> dict[str, Tensor]:
    """Samples (n, *data_shape) to compare a run's with.

    A Gaussian fitted to the training latents and decoded; the reconstructions of training
    examples, which no sampler through this autoencoder can be expected to beat. Those of a
    bijection are the training examples, and are left out.

    Args:
        latents: (n, *latent), of the Gaussian, as `gaussian_latents` draws them.
    """
    gaussian = row_sharing.spread(run.decode_rows, CHUNK, {}, {"z": latents})["x"]
    found = {gaussian_name(run): gaussian}
    if not run.autoencoder.bijective:
        rows = torch.randperm(len(data.train), generator=stream(seed, "reconstructions"))
        drawn = {"x": data.train[rows[: len(latents)]]}
        rebuilt = row_sharing.spread(run.reconstruct_rows, CHUNK, {}, drawn)["x"]
        found["reconstructions"] = rebuilt
    if data.kind == "image":
        return {name: x.clamp(-1, 1) for name, x in found.items()}
    return found if run.codec is None else {k: run.codec.harden(x) for k, x in found.items()}


def _moments(posteriors: Iterable[Posterior]) -> tuple[Tensor, Tensor]:
    """Mean and covariance of sampled latents, flattened, in float64, from chunks."""
    n, total, products, noise = 0, torch.zeros(()), torch.zeros(()), torch.zeros(())
    for posterior in posteriors:
        flat = posterior.mean.double().flatten(1)
        n, total, products = n + len(flat), total + flat.sum(0), products + flat.T @ flat
        if posterior.logvar is not None:
            noise = noise + posterior.logvar.double().exp().flatten(1).sum(0)
    mean = total / n
    covariance = (products - n * mean.outer(mean)) / max(n - 1, 1)
    return mean, covariance + torch.diag((noise / n).expand(len(mean)))
