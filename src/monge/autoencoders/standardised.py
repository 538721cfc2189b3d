r"""The wrapper that each run puts around its autoencoder: latents of mean 0 and deviation 1.

.. math:: E'(x) = (E(x) - m) / s, \qquad D'(z) = D(s z + m),

with m and s the mean and standard deviation of the *sampled* latents of the run's training data,
for each channel of an image latent and for each coordinate of a vector. The wrapper remembers a
few items with their latents and reconstructions, and so notices an autoencoder that has changed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from monge.autoencoders.base import AutoencoderModule
from monge.errors import UserError
from monge.types import Latent, Posterior, State

N_REFERENCE = 4
"""How many items a wrapper remembers."""

TOLERANCE = 1e-3
"""Largest accepted change of a reference latent (in standard deviations) or reconstruction
(relative to the largest number in it): above what devices differ by, below what matters."""

CONSTANT = 1e-6
"""A coordinate whose deviation is at most this part of its root mean square is constant."""


class Standardised(nn.Module):
    """An autoencoder with standardised latents.

    Args:
        autoencoder: the bare one.
        mean, std: of its latents, (C, 1, 1) for latents (C, H, W), else of the latent's shape.
            Coordinates whose std is 0 are constant: they are left unscaled, and listed by
            `constant`.
        reference: (R, *data_shape) items to remember, or None.

    Raises:
        UserError: statistics of another shape, or not finite, or a negative std.
    """

    mean: Tensor
    std: Tensor
    constant_mask: Tensor
    reference: Tensor
    reference_latent: Tensor
    reference_decoded: Tensor

    def __init__(
        self,
        autoencoder: AutoencoderModule,
        mean: Tensor,
        std: Tensor,
        reference: State | None = None,
    ) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        expected = statistics_shape(autoencoder.latent_shape)
        for name, value in (("mean", mean), ("std", std)):
            if tuple(value.shape) != expected:
                raise UserError(f"latent {name} has shape {tuple(value.shape)}, not {expected}")
        if not (mean.isfinite().all() and std.isfinite().all() and (std >= 0).all()):
            raise UserError("latent statistics must be finite: the autoencoder has diverged")
        self.register_buffer("mean", mean.clone())
        self.register_buffer("constant_mask", std == 0)
        self.register_buffer("std", torch.where(std == 0, 1, std))
        if reference is None:
            reference = mean.new_zeros((0, *autoencoder.data_shape))
        self.register_buffer("reference", reference.clone())
        latent, decoded = self._encode_reference()
        self.register_buffer("reference_latent", latent)
        self.register_buffer("reference_decoded", decoded)

    @property
    def data_shape(self) -> tuple[int, ...]:
        return self.autoencoder.data_shape

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return self.autoencoder.latent_shape

    @property
    def constant(self) -> list[int]:
        """The channels or coordinates of the latent that did not vary in the training data."""
        return self.constant_mask.flatten().nonzero().flatten().tolist()

    def encode(self, x: State) -> Posterior:
        """The posterior of the standardised latent of x (B, *data_shape)."""
        posterior = self.autoencoder.encode(x)
        mean = (posterior.mean - self.mean) / self.std
        if posterior.logvar is None:
            return Posterior(mean)
        return Posterior(mean, posterior.logvar - 2 * self.std.log())

    def decode(self, z: Latent) -> State:
        """The data (B, *data_shape) of standardised latents."""
        return self.autoencoder.decode(self.unstandardise(z))

    def unstandardise(self, z: Latent) -> Latent:
        """The latent in the bare autoencoder's own units."""
        return torch.addcmul(self.mean, z, self.std)

    @property
    def log_abs_det(self) -> float | None:
        """log |det dD'/dz|: the bare one's, plus the sum of log std over the latent."""
        bare = self.autoencoder.log_abs_det
        if bare is None:
            return None
        return bare + float(self.std.double().log().expand(self.latent_shape).sum())

    @property
    def bijective(self) -> bool:
        """Whether the decoder is a bijection."""
        return getattr(self.autoencoder, "bijective", self.autoencoder.log_abs_det is not None)

    def log_abs_det_at(self, x: State) -> Tensor | None:
        """log |det dD'/dz| at the latents of data x, (N,); see `AutoencoderModule`."""
        if self.log_abs_det is not None:
            return torch.full((len(x),), self.log_abs_det, dtype=torch.float64)
        if not self.bijective:
            return None
        bare: Tensor = self.autoencoder.log_abs_det_at(x)  # type: ignore[assignment]
        return bare + float(self.std.double().log().expand(self.latent_shape).sum())

    @torch.no_grad()
    def _encode_reference(self) -> tuple[Tensor, Tensor]:
        if len(self.reference) == 0:
            return self.reference.new_zeros((0, *self.latent_shape)), self.reference.clone()
        latent = self.encode(self.reference).mean
        return latent, self.decode(latent)

    def check(self) -> None:
        """Encodes and decodes the remembered items again, and compares.

        Raises:
            UserError: the autoencoder is not the one the statistics were taken with; the message
                has a stored number and what it is now.
        """
        latent, decoded = self._encode_reference()
        _compare("encoder", "latent", self.reference_latent, latent, 1.0)
        scale = float(self.reference_decoded.abs().amax()) if len(decoded) else 1.0
        _compare("decoder", "reconstruction", self.reference_decoded, decoded, scale)


def _compare(part: str, what: str, stored: Tensor, now: Tensor, scale: float) -> None:
    change = (now - stored).abs().nan_to_num(nan=math.inf).flatten()
    if len(change) == 0 or float(change.max()) <= TOLERANCE * scale:
        return
    at = int(change.argmax())
    raise UserError(
        f"the {part} has changed since the run was trained: number {at} of the reference {what}s "
        f"was {float(stored.flatten()[at]):.6g} and is now {float(now.flatten()[at]):.6g} "
        f"(accepted change: {TOLERANCE * scale:.2g}). Use the autoencoder the run was trained "
        f"with, or train a new run"
    )


def statistics_shape(latent_shape: tuple[int, ...]) -> tuple[int, ...]:
    """(C, 1, 1) for latents (C, H, W): statistics per channel; else the latent's own shape."""
    return (latent_shape[0], 1, 1) if len(latent_shape) == 3 else latent_shape


@torch.no_grad()
def statistics(posteriors: Iterable[Posterior]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of sampled latents, shaped as `statistics_shape` says.

    The average over the noise of the posterior is taken exactly, Var z = Var(mean) +
    E(exp logvar). Moments of chunks are joined by the rule of Chan et al. (1979), in float64, so
    that nothing but a chunk is held. A coordinate that is constant has deviation 0.

    Args:
        posteriors: of all examples, in chunks.
    """
    n, mean, squares, noise = 0, torch.zeros(()), torch.zeros(()), torch.zeros(())
    for posterior in posteriors:
        z = posterior.mean.double()
        axes = (0, 2, 3) if z.ndim == 4 else (0,)
        here = z.mean(axes, keepdim=True)
        size = z.numel() // here.numel()
        gap = here - mean
        squares = squares + (z - here).square().sum(axes, keepdim=True)
        squares = squares + gap.square() * (n * size / (n + size))
        mean = mean + gap * (size / (n + size))
        if posterior.logvar is not None:
            noise = noise + posterior.logvar.double().exp().sum(axes, keepdim=True)
        n += size
    variance = (squares + noise) / n
    std = torch.where(variance <= CONSTANT**2 * (mean**2 + variance), 0, variance.sqrt())
    return mean[0], std[0]


@torch.no_grad()
def standardise(autoencoder: AutoencoderModule, x: State, chunk: int = 512) -> Standardised:
    """The autoencoder wrapped with the statistics of the latents of training data x.

    Args:
        autoencoder: trained.
        x: (N, *data_shape).
        chunk: examples encoded at once.
    """
    mean, std = statistics(autoencoder.encode(part) for part in x.split(chunk))
    return Standardised(autoencoder, mean.to(x), std.to(x), x[:N_REFERENCE])


def unscaled(autoencoder: AutoencoderModule) -> Standardised:
    """The autoencoder wrapped with its latents as they are."""
    shape = statistics_shape(autoencoder.latent_shape)
    return Standardised(autoencoder, torch.zeros(shape), torch.ones(shape))
