"""A run, or a network of anybody's, taken apart into what a budget measures; its data beside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from monge.autoencoders.identity import Identity
from monge.data.base import Data, distance_scale
from monge.errors import UserError
from monge.metrics.samples import random_rows
from monge.sampling.model import GenerativeModel
from monge.targets.affine import rescaled
from monge.targets.base import Target
from monge.tensors import noise, stream
from monge.verification.budget import Known
from monge.verification.pipeline import Pipeline

MOST_TRAIN = 4000
"""Training examples that enter floors and the memoriser, at most."""

FEWEST_HELDOUT = 40
"""Two in each of the ten groups of the jackknife, in each of two halves."""

MOST_HELDOUT = 10_000
"""Held-out examples that terms are drawn from, at most."""


def pipeline_of(
    run: GenerativeModel,
    data: Data,
    seed: int = 0,
    final: str | None = None,
    fine: int = 64,
    **flow: Any,
) -> Pipeline:
    """A run taken apart. Data are flattened in units in which distances mean something: images
    as they are, table columns in standard deviations of the training rows."""
    sampler, field, law = run.learned.examined(**flow)
    encode, decode = maps_of(run.autoencoder, data, seed, run.dtype, run.device)
    return Pipeline(
        field,
        run.path,
        sampler,
        run.final(sampler, final),
        encode,
        decode,
        _truth(run, data),
        fine,
        law,
    )


Maps = tuple[Callable[[Tensor, int], Tensor], Callable[[Tensor], Tensor]]
"""Encode and decode, as `Pipeline` has them, on data in the units of `scale_of`."""


def scaled(scale: Tensor, dtype: torch.dtype) -> Maps:
    """No autoencoder: the data in their own units."""

    def encode(x: Tensor, first: int) -> Tensor:
        return (x * scale).to(dtype)

    def decode(z: Tensor) -> Tensor:
        return z / scale

    return encode, decode


def maps_of(
    autoencoder: Any, data: Data, seed: int, dtype: torch.dtype, device: torch.device | None = None
) -> Maps:
    """Those of an autoencoder, whose posterior is drawn from."""
    scale = scale_of(data).to(device)

    def encode(x: Tensor, first: int) -> Tensor:
        posterior = autoencoder.encode((x.to(device) * scale).float())
        z = posterior.mean
        if posterior.logvar is not None:
            e = noise(seed, first, first + len(x), tuple(z.shape[1:]), "verify", "posterior")
            z = z + (posterior.logvar / 2).exp() * e.to(z)
        return z.to(dtype)

    def decode(z: Tensor) -> Tensor:
        x = autoencoder.decode(z.float())
        x = x.clamp(-1, 1) if data.kind == "image" else x / scale
        return x.cpu()

    return encode, decode


def _truth(run: GenerativeModel, data: Data) -> Target | None:
    """The exact law of the run's latents, where it is known."""
    if data.target is None or run.autoencoder.log_abs_det is None:
        return None
    if not isinstance(run.autoencoder.autoencoder, Identity):
        return None
    return rescaled(data.target, run.autoencoder.mean, run.autoencoder.std)


def known_of(data: Data, seed: int, home: float | None = None) -> Known:
    """The real examples of a source, in the units of `scale_of`.

    Raises:
        UserError: fewer than `FEWEST_HELDOUT` are held out.
    """
    if len(data.heldout) < FEWEST_HELDOUT:
        raise UserError(
            f"verify needs at least {FEWEST_HELDOUT} held-out examples to tell its errors, and "
            f"this data has {len(data.heldout)}: train on more data"
        )
    scale = scale_of(data)
    rows = random_rows(len(data.train), MOST_TRAIN, stream(seed, "verify", "train"))
    shown = random_rows(len(data.heldout), MOST_HELDOUT, stream(seed, "verify", "real"))
    return Known(
        data.heldout[shown] / scale,
        data.conditions("heldout", shown) or None,
        data.train[rows] / scale,
        data.conditions("train", rows) or None,
        home,
    )


def scale_of(data: Data) -> Tensor:
    """What distances are measured in; see `distance_scale`."""
    return distance_scale(data.kind, data.train)


def units_of(data: Data) -> str:
    if data.kind == "image":
        return "pixels in [-1, 1], Euclidean over an image"
    return "standard deviations of the training data, Euclidean over a row"
