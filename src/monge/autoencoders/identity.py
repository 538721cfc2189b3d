"""No autoencoder: the latent of x is x."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from monge.autoencoders.base import AutoencoderModule, AutoencoderSpec
from monge.types import Latent, Posterior, State


@dataclass(frozen=True, repr=False)
class IdentitySpec(AutoencoderSpec):
    """Generation in data space: for tables and small images."""

    name = "identity"

    def build(
        self,
        data_shape: tuple[int, ...],
        latent_shape: tuple[int, ...] | None = None,
        rng: torch.Generator | None = None,
    ) -> Identity:
        return Identity(self, data_shape, data_shape)


class Identity(AutoencoderModule):
    """What `IdentitySpec.build` returns."""

    def encode(self, x: State) -> Posterior:
        return Posterior(x)

    def decode(self, z: Latent) -> State:
        return z

    @property
    def log_abs_det(self) -> float | None:
        return 0.0
