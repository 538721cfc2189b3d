"""The Frechet distance between latents of samples and of data, as rows of the table.

It sees what the flow has got wrong before the decoder hides or adds to it. Latents are those that
the flow works on, sampled from the encoder's posterior, in the bare autoencoder's units.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from monge.data.arrays import Examples
from monge.data.base import Data
from monge.evaluation.baselines import gaussian_name
from monge.latents.batches import encode_parts
from monge.metrics.catalogue import FLOOR_DRAWS, draw
from monge.metrics.evaluate import MAX_N, TRAINING_SET
from monge.metrics.feature_rows import frechet
from monge.metrics.samples import random_rows
from monge.metrics.table import Row
from monge.sampling.model import GenerativeModel
from monge.sampling.samples import Samples
from monge.tensors import stream

GROUP = "In the latent space"


def latent_rows(
    run: GenerativeModel, samples: Samples, data: Data, gaussian: Tensor, seed: int
) -> list[Row]:
    """The Frechet distance of latents, with its floors; none where latents are the data.

    Args:
        gaussian: standardised latents (n, *latent) of a Gaussian with the training latents'
            moments, for comparison.
    """
    if run.autoencoder.bijective:
        return []
    n = min(len(samples), len(data.train), len(data.heldout), MAX_N)
    sets = {
        "train": latents_in_units(run, data.train, FLOOR_DRAWS * n, seed, "train"),
        "heldout": latents_in_units(run, data.heldout, n, seed, "heldout"),
    }
    beside = {gaussian_name(run): units(run, gaussian), TRAINING_SET: sets["train"]}
    draws = draw(units(run, samples.z), sets["train"], sets["heldout"], beside, n, seed)
    settings = {"latents": "sampled from the posterior, in the bare autoencoder's units"}
    comparison = frechet("(latent)", draws.real, n, seed, "latent units²", GROUP, settings)
    return comparison.rows(draws, seed)


def latents_in_units(
    run: GenerativeModel, x: Examples, most: int, seed: int, what: str
) -> Float[Tensor, "n d"]:
    """Latents of so many examples, by a draw of their own for each name, in units."""
    rows = random_rows(len(x), most, stream(seed, "latents", what))
    parts = (x[part] for part in rows.split(256))
    posterior = encode_parts(run.autoencoder, parts, run.device)
    z = posterior.mean
    if posterior.logvar is not None:
        z = posterior.sample(torch.randn(z.shape, generator=stream(seed, "posterior", what)))
    return units(run, z)


def units(run: GenerativeModel, z: Tensor) -> Float[Tensor, "n d"]:
    """Standardised latents, flattened, in the bare autoencoder's units."""
    return run.autoencoder.unstandardise(z.to(run.device)).cpu().flatten(1)
