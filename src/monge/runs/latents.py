"""Encodes a run's training data."""

from __future__ import annotations

import torch

from monge.autoencoders.standardised import Standardised
from monge.data.base import Data
from monge.latents.batches import Latents
from monge.latents.cache import in_units_of, latents_of
from monge.runs.spec import TrainSpec
from monge.system.progress import Say


def latents_for(
    spec: TrainSpec,
    wrapped: Standardised,
    data: Data,
    device: torch.device,
    say: Say,
    together: bool = False,
) -> Latents:
    """The latents of the training data in the run's units, from the cache if they are cached.

    Args:
        together: all processes call this function, and divide the work.
    """
    latents = latents_of(
        wrapped,
        data.train,
        data.fingerprint,
        data.name,
        device,
        say,
        flip=spec.flip == "yes",
        check=spec.check_cache,
        together=together,
    )
    return in_units_of(wrapped, latents)
