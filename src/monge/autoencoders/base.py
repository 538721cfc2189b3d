"""What every autoencoder has, and how well one reconstructs.

An autoencoder is a module with a `data_shape`, a `latent_shape`, `encode`, `decode` and, where its
decoder is an affine bijection, `log_abs_det`; see `monge.types.Autoencoder`. Its component, the
`AutoencoderSpec`, builds it untrained for the shape of the data.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from monge.components import Component
from monge.types import Latent, PerExample, Posterior, State


@runtime_checkable
class Rows(Protocol):
    """Examples: a tensor (N, ...), or anything of which one can take rows and chunks."""

    @property
    def dtype(self) -> torch.dtype: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Tensor, /) -> Tensor: ...

    def split(self, split_size: int, /) -> Iterable[Tensor]: ...


class AutoencoderModule(nn.Module, abc.ABC):
    """Base of monge's own autoencoders.

    Args:
        spec: the component that built it, for the files that `monge.autoencoders.save` writes.
        data_shape, latent_shape: of one example, without the batch axis.
    """

    def __init__(
        self, spec: AutoencoderSpec, data_shape: tuple[int, ...], latent_shape: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.spec = spec
        self.data_shape = tuple(data_shape)
        self.latent_shape = tuple(latent_shape)

    @abc.abstractmethod
    def encode(self, x: State) -> Posterior:
        """The posterior of the latent of x (B, *data_shape)."""

    @abc.abstractmethod
    def decode(self, z: Latent) -> State:
        """The data (B, *data_shape) of latents (B, *latent_shape).

        Images are within [-1, 1] only where the autoencoder says so.
        """

    @property
    def log_abs_det(self) -> float | None:
        """log |det dD/dz| where the decoder is an affine bijection, else None."""
        return None

    @property
    def bijective(self) -> bool:
        """Whether the decoder is a bijection, so that data have a density if latents have."""
        return self.log_abs_det is not None

    def log_abs_det_at(self, x: State) -> Tensor | None:
        """log |det dD/dz| at the latents of data x (N, *data_shape), (N,), in nats.

        Infinite where nothing is decoded to x; None where the decoder is no bijection.
        """
        logs = self.log_abs_det
        return None if logs is None else torch.full((len(x),), logs, dtype=torch.float64)

    @property
    def architecture(self) -> dict[str, Any] | None:
        """What `AutoencoderSpec.rebuild` needs beside settings and shapes, as JSON, else None."""
        return None


class AutoencoderSpec(Component, abc.ABC):
    """An autoencoder's settings."""

    trainable: bool = False
    """Whether it is trained by gradient steps; it then has a `loss` of batches that its `draw`
    completes, their size `batch`, the peak learning rate `lr`, and `default_steps`."""

    @abc.abstractmethod
    def build(
        self,
        data_shape: tuple[int, ...],
        latent_shape: tuple[int, ...] | None = None,
        rng: torch.Generator | None = None,
    ) -> AutoencoderModule:
        """The untrained autoencoder for data of a shape.

        Args:
            data_shape: of one example.
            latent_shape: of one latent where a file records it; it matters where fitting decides
                it (PCA drops constant directions).
            rng: draws initial weights, if there are any; by default always the same ones.

        Raises:
            UserError: a shape that these settings do not fit.
        """

    def rebuild(
        self,
        data_shape: tuple[int, ...],
        latent_shape: tuple[int, ...],
        architecture: dict[str, Any] | None,
    ) -> AutoencoderModule:
        """The autoencoder that a file records, before its weights are read from that file.

        Args:
            data_shape, latent_shape: of one example, of one latent.
            architecture: what `AutoencoderModule.architecture` was.

        Raises:
            UserError: an architecture that is not one of this component's.
        """
        return self.build(data_shape, latent_shape)


def psnr(x: State, y: State) -> PerExample:
    """Peak signal-to-noise ratio of each example in dB, for data in [-1, 1].

    >>> psnr(torch.zeros(1, 4), torch.full((1, 4), 0.2)).round(decimals=2)
    tensor([20.])
    """
    mse = (x - y).flatten(1).square().mean(1)
    return 10 * torch.log10(4 / mse)


def reconstruct(autoencoder: nn.Module, x: State) -> Tensor:
    """D(mean of E(x))."""
    return autoencoder.decode(autoencoder.encode(x).mean)  # type: ignore[operator]


def size_of(shape: tuple[int, ...]) -> int:
    """How many numbers a shape holds."""
    return math.prod(shape)
