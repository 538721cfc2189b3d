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

from monge.autoencoders.base import AutoencoderModule, AutoencoderSpec, Rows, size_of
from monge.errors import UserError
from monge.tensors import stream
from monge.types import Latent, Posterior, State

LARGEST_COVARIANCE = 4096
"""Numbers of an example up to which the covariance is formed and decomposed."""

SKETCHED = 8192
"""Examples that a sketch looks at."""


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
    def fit(self, x: Rows) -> PCA:
        """Finds the mean and the leading directions of x (N, *data_shape), and returns self.

        Directions without variance, to the resolution of the data's dtype, are dropped even where
        `dim` asks for them, and `latent_shape` shrinks. Computed in float64 from the covariance;
        beyond `LARGEST_COVARIANCE` numbers from a sketch of at most `SKETCHED` examples, in
        float32. The buffers have the dtype of x.

        Raises:
            UserError: fewer than two examples, or data that do not vary.
        """
        if len(x) < 2:
            raise UserError(f"autoencoder pca needs at least 2 examples, not {len(x)}")
        size = size_of(self.data_shape)
        sketch = size > LARGEST_COVARIANCE
        mean, variance, directions = (self._sketch if sketch else self._covariance)(x)
        largest = max(float(part.abs().max()) for part in x.split(4096))
        rounding = torch.finfo(x.dtype).eps * largest
        floor = size * torch.finfo(directions.dtype).eps * variance[0] + rounding**2
        varying = int((variance > floor).sum())
        if varying == 0:
            raise UserError("autoencoder pca: the data are constant; there is nothing to keep")
        dim = min(varying, self.spec.dim or size)
        directions = directions[:, :dim]
        signs = directions.gather(0, directions.abs().argmax(0, keepdim=True)).sign()
        self.directions = (directions * signs).to(x.dtype).contiguous()
        self.mean = mean.to(x.dtype)
        self.latent_shape = (dim,)
        return self

    def _covariance(self, x: Rows) -> tuple[Tensor, Tensor, Tensor]:
        """The mean, all variances and their directions, largest first."""
        mean = torch.zeros(size_of(self.data_shape), dtype=torch.float64)
        for part in x.split(4096):
            mean = mean.to(part.device) + part.flatten(1).double().sum(0) / len(x)
        covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64, device=mean.device)
        for part in x.split(4096):
            centred = part.flatten(1).double() - mean
            covariance += centred.T @ centred / len(x)
        variance, directions = torch.linalg.eigh(covariance)
        return mean, variance.flip(0), directions.flip(1)

    def _sketch(self, x: Rows) -> tuple[Tensor, Tensor, Tensor]:
        """The same for the leading directions of large data, by a randomised decomposition."""
        chosen = torch.randperm(len(x), generator=stream(0, "pca"))[:SKETCHED].sort().values
        flat = x[chosen].flatten(1)
        mean = flat.double().mean(0)
        rank = min(self.spec.dim or len(flat), len(flat) - 1, flat.shape[1])
        with torch.random.fork_rng([]):
            torch.default_generator.manual_seed(0)
            _, singular, directions = torch.svd_lowrank(flat - mean.to(flat), rank, niter=2)
        return mean, singular.square() / len(flat), directions

    def encode(self, x: State) -> Posterior:
        return Posterior((x.flatten(1) - self.mean) @ self.directions)

    def decode(self, z: Latent) -> State:
        return (z @ self.directions.T + self.mean).unflatten(1, self.data_shape)

    @property
    def log_abs_det(self) -> float | None:
        return 0.0 if self.latent_shape[0] == size_of(self.data_shape) else None
