r"""Principal components: the linear autoencoder with the smallest squared error.

.. math:: E(x) = U^\top (x - m), \qquad D(z) = U z + m,

with m the mean and U the leading eigenvectors of the covariance of the training data. Latents are
not whitened; each run standardises them anyway.

References:
    | Probabilistic PCA (Tipping & Bishop, 1999), Sec. 3 -- https://doi.org/10.1111/1467-9868.00196
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from monge.autoencoders.base import AutoencoderModule, AutoencoderSpec, size_of
from monge.errors import UserError
from monge.types import Latent, Posterior, State


@dataclass(frozen=True, repr=False)
class PCASpec(AutoencoderSpec):
    """Principal components of data of any shape; the latent is a vector.

    Args:
        dim: how many directions are kept; by default all in which the data varies.

    Raises:
        UserError: a dim below 1.
    """

    dim: int | None = None

    name = "pca"

    def __post_init__(self) -> None:
        if self.dim is not None and self.dim < 1:
            raise UserError(f"autoencoder pca: dim must be at least 1, not {self.dim}")

    def build(
        self,
        data_shape: tuple[int, ...],
        latent_shape: tuple[int, ...] | None = None,
        rng: torch.Generator | None = None,
    ) -> PCA:
        size = size_of(data_shape)
        if self.dim is not None and self.dim > size:
            raise UserError(
                f"autoencoder pca: dim={self.dim} is more than the {size} numbers of {data_shape}"
            )
        return PCA(self, data_shape, latent_shape or (self.dim or size,))


class PCA(AutoencoderModule):
    """What `PCASpec.build` returns; zero until `fit` has seen the training data."""

    spec: PCASpec
    mean: Tensor
    directions: Tensor

    def __init__(
        self, spec: PCASpec, data_shape: tuple[int, ...], latent_shape: tuple[int, ...]
    ) -> None:
        super().__init__(spec, data_shape, latent_shape)
        size = size_of(data_shape)
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("directions", torch.zeros(size, latent_shape[0]))

    @torch.no_grad()
    def fit(self, x: State) -> PCA:
        """Finds the mean and the leading directions of x (N, *data_shape), and returns self.

        Directions without variance, to the resolution of the data's dtype, are dropped even where
        `dim` asks for them, and `latent_shape` shrinks. Computed in float64; the buffers have the
        dtype of x.

        Raises:
            UserError: fewer than two examples, or data that do not vary.
        """
        if len(x) < 2:
            raise UserError(f"autoencoder pca needs at least 2 examples, not {len(x)}")
        flat = x.flatten(1)
        mean = flat.double().mean(0)
        covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64, device=x.device)
        for rows in flat.split(4096):
            centred = rows.double() - mean
            covariance += centred.T @ centred / len(flat)
        variance, directions = torch.linalg.eigh(covariance)
        variance, directions = variance.flip(0), directions.flip(1)
        rounding = torch.finfo(x.dtype).eps * float(flat.abs().max())
        floor = len(mean) * torch.finfo(torch.float64).eps * variance[0] + rounding**2
        varying = int((variance > floor).sum())
        if varying == 0:
            raise UserError("autoencoder pca: the data are constant; there is nothing to keep")
        dim = min(varying, self.spec.dim or len(mean))
        directions = directions[:, :dim]
        largest = directions.abs().argmax(0, keepdim=True)
        self.directions = (directions * directions.gather(0, largest).sign()).to(x).contiguous()
        self.mean = mean.to(x)
        self.latent_shape = (dim,)
        return self

    def encode(self, x: State) -> Posterior:
        return Posterior((x.flatten(1) - self.mean) @ self.directions)

    def decode(self, z: Latent) -> State:
        return (z @ self.directions.T + self.mean).unflatten(1, self.data_shape)

    @property
    def log_abs_det(self) -> float | None:
        return 0.0 if self.latent_shape[0] == size_of(self.data_shape) else None
