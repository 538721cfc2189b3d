r"""A convolutional variational autoencoder for images that trains in seconds to minutes on CPUs.

Convolutions at full resolution dominate the time of the usual designs. Here space-to-depth comes
first, so that everything happens on the small grid of the latents, and a linear map skips each
of the two residual networks, which start at zero: training starts as a linear autoencoder.

The loss of an image x of d numbers with posterior N(m, v) and latent z is

.. math:: \tfrac1d |D(z) - x|^2 + \tfrac{\lambda}{d} \, KL\bigl(N(m, v) \,\|\, N(0, I)\bigr),

which is the negative evidence bound up to constants for a pixel noise of variance lambda / 2.

References:
    | VAE (Kingma & Welling, 2014), Eq. 10 and App. B -- https://arxiv.org/abs/1312.6114
    | Sub-pixel convolution (Shi et al., 2016) -- https://arxiv.org/abs/1609.05158
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monge.autoencoders.base import AutoencoderModule, AutoencoderSpec
from monge.errors import UserError
from monge.objectives.base import Batch, Loss
from monge.tensors import stream
from monge.types import Latent, Posterior, State

LOGVAR_RANGE = (-16.0, 4.0)
"""Where log-variances of the posterior are clamped."""

INITIAL_LOGVAR = -4.0
"""Log-variance of an untrained posterior: little noise, so that training starts by compressing."""


@dataclass(frozen=True, repr=False)
class ConvSpec(AutoencoderSpec):
    """A convolutional variational autoencoder of images (C, H, W).

    Args:
        down: how much smaller the latent's sides are.
        channels: of the latent.
        width: channels of the residual blocks.
        blocks: residual blocks in the encoder, and in the decoder.
        kl: weight lambda of the KL term.

    Raises:
        UserError: settings below 1, or a negative weight.
    """

    down: Literal[1, 2, 4, 8] = 4
    channels: int = 4
    width: int = 64
    blocks: int = 2
    kl: float = 1e-3

    name = "conv"
    trainable = True

    def __post_init__(self) -> None:
        for key in ("channels", "width", "blocks"):
            if getattr(self, key) < 1:
                raise UserError(f"autoencoder conv: {key} must be at least 1, not {self}")
        if self.kl < 0:
            raise UserError(f"autoencoder conv: kl must not be negative, not {self.kl}")

    def build(
        self,
        data_shape: tuple[int, ...],
        latent_shape: tuple[int, ...] | None = None,
        rng: torch.Generator | None = None,
    ) -> ConvAutoencoder:
        if len(data_shape) != 3:
            raise UserError(f"autoencoder conv takes images (C, H, W), not {data_shape}")
        _, height, width = data_shape
        if height % self.down or width % self.down:
            raise UserError(
                f"autoencoder conv: down={self.down} does not divide the sides of {data_shape}: "
                f"resize the images or choose a smaller down"
            )
        autoencoder = ConvAutoencoder(self, data_shape)
        autoencoder.reset(stream(0, "weights") if rng is None else rng)
        return autoencoder

    def draw(self, batch: Batch, rng: torch.Generator) -> Batch:
        """The batch {"x": (B, C, H, W)} with "noise" (B, *latent_shape) for the posterior."""
        size, _, height, width = batch["x"].shape
        shape = (size, self.channels, height // self.down, width // self.down)
        return {**batch, "noise": torch.randn(shape, generator=rng)}

    def loss(self, network: nn.Module, batch: Mapping[str, Tensor]) -> Loss:
        """The loss of each image of a batch that `draw` has returned; parts "mse" and "kl".

        "kl" is in nats per number of the image.
        """
        x = batch["x"]
        posterior = network.encode(x)  # type: ignore[operator]
        decoded = network.decode(posterior.sample(batch["noise"].to(x)))  # type: ignore[operator]
        mse = (decoded - x).flatten(1).square().mean(1)
        mean, logvar = posterior.mean, posterior.logvar
        kl = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).flatten(1).sum(1) / x[0].numel()
        return Loss(mse + self.kl * kl, {"mse": mse, "kl": kl})


class ConvAutoencoder(AutoencoderModule):
    """What `ConvSpec.build` returns."""

    spec: ConvSpec

    def __init__(self, spec: ConvSpec, data_shape: tuple[int, ...]) -> None:
        channels, height, width = data_shape
        grid = (height // spec.down, width // spec.down)
        super().__init__(spec, data_shape, (spec.channels, *grid))
        deep = channels * spec.down**2
        self.encoder = Residual(deep, spec.width, 2 * spec.channels, spec.blocks, grid)
        self.decoder = Residual(spec.channels, spec.width, deep, spec.blocks, grid)

    @torch.no_grad()
    def reset(self, rng: torch.Generator) -> None:
        """Draws the initial weights: an affine encoder with little noise, an affine decoder."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                bound = module.weight[0].numel() ** -0.5
                nn.init.uniform_(module.weight, -bound, bound, generator=rng)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        for part in (self.encoder, self.decoder):
            nn.init.zeros_(part.leave.weight)
        self.encoder.skip.weight[self.spec.channels :] = 0
        self.encoder.skip.bias[self.spec.channels :] = INITIAL_LOGVAR  # type: ignore[index]

    def encode(self, x: State) -> Posterior:
        mean, logvar = self.encoder(F.pixel_unshuffle(x, self.spec.down)).chunk(2, dim=1)
        return Posterior(mean, logvar.clamp(*LOGVAR_RANGE))

    def decode(self, z: Latent) -> State:
        return F.pixel_shuffle(self.decoder(z), self.spec.down)


class Residual(nn.Module):
    """A linear map beside a residual network on one grid; the network starts at zero.

    The network knows where on the grid it is: a learned field is added at its entrance.
    """

    def __init__(
        self, inputs: int, width: int, outputs: int, blocks: int, grid: tuple[int, int]
    ) -> None:
        super().__init__()
        self.skip = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.enter = nn.Conv2d(inputs, width, 3, padding=1)
        self.position = nn.Parameter(torch.zeros(width, *grid))
        self.blocks = nn.ModuleList(ConvBlock(width) for _ in range(blocks))
        self.leave = nn.Conv2d(width, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.enter(x) + self.position
        for block in self.blocks:
            h = block(h)
        return self.skip(x) + self.leave(F.silu(h))


class ConvBlock(nn.Module):
    """x + conv(silu(conv(silu(norm(x)))))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, width)
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.silu(self.first(F.silu(self.norm(x)))))
