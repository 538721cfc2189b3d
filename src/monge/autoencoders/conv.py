r"""A convolutional variational autoencoder for images that trains in seconds to minutes on CPUs.

Convolutions at full resolution dominate the time of the usual designs. Here space-to-depth comes
first, so that everything happens on the small grid of the latents, where dense 3 x 3 convolutions
run near the processor's peak. A linear map skips each of the two residual networks, which start
at zero: training starts as a linear autoencoder, and after `ConvAutoencoder.fit` as the best one
that is local, the principal components of the patches, in closed form. The encoder, which chooses
numbers, is smaller than the decoder, which has to guess what they leave out. Images of sides that
the grid does not divide are padded with their border first, and cropped at the end, so that any
size costs what its neighbour costs. Images lie in
[-1, 1], so the decoder's output is clamped: that brings it nearer to any image, and makes exact
the black and white of drawings and digits.

The loss of an image x of d numbers with posterior N(m, v) and latent z is

.. math:: \tfrac1d |D(z) - x|^2 + \tfrac{\lambda}{d} \, KL\bigl(N(m, v) \,\|\, N(0, I)\bigr),

which is the negative evidence bound up to constants for a pixel noise of variance lambda / 2. At
its optimum the noise of each latent number costs lambda / (2 d), far below the error of the images.

References:
    | VAE (Kingma & Welling, 2014), Eq. 10 and App. B -- https://arxiv.org/abs/1312.6114
    | Sub-pixel convolution (Shi et al., 2016) -- https://arxiv.org/abs/1609.05158
    | Convex potential layers (Meunier et al., 2022), Sec. 3 -- https://arxiv.org/abs/2110.12690
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monge.autoencoders.base import AutoencoderModule, AutoencoderSpec, Rows
from monge.errors import UserError
from monge.networks.capped import CappedLinear
from monge.objectives.base import Batch, Loss
from monge.tensors import stream
from monge.types import Latent, Posterior, State

LOGVAR_RANGE = (-16.0, 4.0)
"""Where log-variances of the posterior are clamped."""

INITIAL_LOGVAR = -8.0
"""Log-variance of an untrained posterior: about where training leaves it."""

FIT_NUMBERS = 2**24
"""Numbers of the images that `ConvAutoencoder.fit` looks at, at most."""

VARYING = 1e-9
"""A direction with at most this part of the leading direction's variance is constant."""

MOST_IMAGES, MOST_CELLS = 1_000_000, 64_000_000
"""Images, and cells of the latent grid, that training sees by default: about a quarter of an hour
on two CPU cores."""

LEAST_SEEN, FEWEST_STEPS = 32_000, 300
"""Images seen in training, if there is data for it, however large they are; and steps."""


@dataclass(frozen=True, repr=False)
class ConvSpec(AutoencoderSpec):
    """A convolutional variational autoencoder of images (C, H, W).

    Args:
        down: how much smaller the latent's sides are.
        channels: of the latent.
        width: channels of the residual blocks.
        multiple: the latent's sides are multiples of this; images are padded to it, half on each
            side, with the pixels of their border, and what is decoded is cropped.
        blocks: residual blocks in the decoder; the encoder has a third of them, one at least.
        kl: weight lambda of the KL term.
        capped: whether the residual blocks are gradient steps, whose constant is 1 and does not
            grow with their number; encoder and decoder then have certified Lipschitz constants.
        batch, lr: images per training step, and the peak learning rate, of its own training.

    Raises:
        UserError: settings below 1, a negative weight, or a learning rate that is not positive.
    """

    down: Literal[1, 2, 4, 8] = 4
    channels: int = 4
    width: int = 64
    blocks: int = 3
    kl: float = 1e-3
    batch: int = 32
    lr: float = 2e-3
    multiple: int = 1
    capped: bool = False

    name = "conv"
    trainable = True

    def __post_init__(self) -> None:
        for key in ("channels", "width", "blocks", "batch", "multiple"):
            if getattr(self, key) < 1:
                raise UserError(f"autoencoder conv: {key} must be at least 1, not {self}")
        if self.kl < 0:
            raise UserError(f"autoencoder conv: kl must not be negative, not {self.kl}")
        if not self.lr > 0:
            raise UserError(f"autoencoder conv: lr must be greater than 0, not {self.lr}")

    def build(
        self,
        data_shape: tuple[int, ...],
        latent_shape: tuple[int, ...] | None = None,
        rng: torch.Generator | None = None,
    ) -> ConvAutoencoder:
        if len(data_shape) != 3:
            raise UserError(f"autoencoder conv takes images (C, H, W), not {data_shape}")
        autoencoder = ConvAutoencoder(self, data_shape)
        autoencoder.reset(stream(0, "weights") if rng is None else rng)
        return autoencoder

    def grid(self, sides: tuple[int, ...]) -> tuple[int, int]:
        """Sides of the latent for images of sides (H, W).

        >>> ConvSpec(down=4).grid((32, 33)), ConvSpec(down=4, multiple=2).grid((28, 33))
        ((8, 9), (8, 10))
        """
        step = self.down * self.multiple
        height, width = (-(-side // step) * self.multiple for side in sides)
        return height, width

    def default_steps(self, n_images: int, data_shape: tuple[int, ...]) -> int:
        """How long training pays: 12 passes over the data, within limits.

        More passes over a thousand images make held-out ones worse (docs/autoencoder.md). At most
        `MOST_IMAGES` are seen, and so many that their latent grids have `MOST_CELLS` cells, or
        `LEAST_SEEN`; never fewer than `FEWEST_STEPS` steps.

        >>> spec = ConvSpec(down=4)
        >>> spec.default_steps(1_000, (3, 32, 32)), spec.default_steps(50_000, (3, 32, 32))
        (375, 18750)
        >>> spec.default_steps(50_000, (3, 256, 256))
        1000
        """
        cells = math.prod(self.grid(data_shape[1:]))
        images = min(12 * n_images, MOST_IMAGES, max(MOST_CELLS // cells, LEAST_SEEN))
        return max(images // self.batch, FEWEST_STEPS)

    def draw(self, batch: Batch, rng: torch.Generator) -> Batch:
        """The batch {"x": (B, C, H, W)} with "noise" (B, *latent_shape) for the posterior."""
        size, _, *sides = batch["x"].shape
        shape = (size, self.channels, *self.grid(tuple(sides)))
        return {**batch, "noise": torch.randn(shape, generator=rng)}

    def loss(self, network: nn.Module, batch: Mapping[str, Tensor]) -> Loss:
        """The loss of each image of a batch that `draw` has returned; parts "mse" and "kl".

        "kl" is in nats per number of the image.
        """
        x = batch["x"]
        posterior = network.encode(x)  # type: ignore[operator]
        raw = network.unclamped(posterior.sample(batch["noise"].to(x)))  # type: ignore[operator]
        # Outside [-1, 1] the gradient still points inwards, unless the clamped error is zero.
        decoded = raw + (raw.clamp(-1, 1) - raw).detach()
        mse = (decoded - x).flatten(1).square().mean(1)
        mean, logvar = posterior.mean, posterior.logvar
        kl = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).flatten(1).sum(1) / x[0].numel()
        return Loss(mse + self.kl * kl, {"mse": mse, "kl": kl})


class ConvAutoencoder(AutoencoderModule):
    """What `ConvSpec.build` returns."""

    spec: ConvSpec

    def __init__(self, spec: ConvSpec, data_shape: tuple[int, ...]) -> None:
        channels, *sides = data_shape
        grid = spec.grid(tuple(sides))
        super().__init__(spec, data_shape, (spec.channels, *grid))
        deep = channels * spec.down**2
        blocks = max(spec.blocks // 3, 1)
        block = GradientStep if spec.capped else ConvBlock
        self.encoder = Residual(deep, spec.width, 2 * spec.channels, blocks, grid, block)
        self.decoder = Residual(spec.channels, spec.width, deep, spec.blocks, grid, block)

    @torch.no_grad()
    def reset(self, rng: torch.Generator) -> None:
        """Draws the initial weights: an affine encoder with little noise, an affine decoder."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                bound = module.weight[0].numel() ** -0.5
                nn.init.uniform_(module.weight, -bound, bound, generator=rng)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
            elif isinstance(module, CappedConv):
                module.reset(rng)
        for part in (self.encoder, self.decoder):
            nn.init.zeros_(part.leave.weight)
        self.encoder.skip.weight[self.spec.channels :] = 0
        self.encoder.skip.bias[self.spec.channels :] = INITIAL_LOGVAR  # type: ignore[index]

    @torch.no_grad()
    def fit(self, x: Rows) -> ConvAutoencoder:
        """Sets the linear maps to the principal components of the patches, and returns self.

        A patch is what a cell of the latent grid covers. The latent's channels become its leading
        components, divided by their standard deviations. The residual networks stay as they are:
        zero before training, which is when this is called. Computed in float64.

        Args:
            x: images (N, *data_shape), of which some, evenly spaced, are enough.
        """
        channels = self.spec.channels
        wanted = max(FIT_NUMBERS // math.prod(self.data_shape), 1)
        rows = torch.arange(0, len(x), max(len(x) // wanted, 1))[:wanted]
        patches = torch.cat([self._patches(x[part]) for part in rows.split(256)])
        patches = patches.movedim(1, -1).flatten(0, 2).double()
        mean = patches.mean(0)
        covariance = (patches - mean).T @ (patches - mean) / len(patches)
        variance, directions = torch.linalg.eigh(covariance)
        variance, directions = variance.flip(0)[:channels], directions.flip(1)[:, :channels]
        varying = (variance > VARYING * variance[0]) & (variance > 0)
        std, directions = variance[varying].sqrt(), directions[:, varying]
        largest = directions.abs().argmax(0, keepdim=True)
        directions = directions * directions.gather(0, largest).sign()
        analysis, synthesis = (directions / std).T, directions * std
        encoder, decoder = self.encoder.skip, self.decoder.skip
        kept = len(std)
        # The middle of a 3 x 3 kernel. Channels beyond the directions keep their random weights.
        encoder.weight[:kept] = 0
        encoder.weight[:kept, :, 1, 1] = analysis.to(encoder.weight)
        encoder.bias[:kept] = -(analysis @ mean).to(encoder.weight)  # type: ignore[index]
        decoder.weight.zero_()
        decoder.weight[:, :kept, 1, 1] = synthesis.to(decoder.weight)
        decoder.bias.copy_(mean)  # type: ignore[union-attr]
        return self

    @torch.no_grad()
    def resize(self, data_shape: tuple[int, ...]) -> ConvAutoencoder:
        """The same weights for images of other sides; the fields of positions are interpolated.

        Raises:
            UserError: another number of colours.
        """
        if len(data_shape) != 3 or data_shape[0] != self.data_shape[0]:
            raise UserError(
                f"an autoencoder of {self.data_shape} cannot be resized to {data_shape}: only the "
                f"sides may differ"
            )
        other = self.spec.build(data_shape).to(self.encoder.position).train(self.training)
        weights = self.state_dict()
        for name, like in other.state_dict().items():
            if name.endswith("position"):
                field, size = weights[name][None], like.shape[1:]
                weights[name] = F.interpolate(field, size, mode="bilinear")[0]
        other.load_state_dict(weights)
        return other

    def encode(self, x: State) -> Posterior:
        mean, logvar = self.encoder(self._patches(x)).chunk(2, dim=1)
        return Posterior(mean, logvar.clamp(*LOGVAR_RANGE))

    def decode(self, z: Latent) -> State:
        """Images (B, *data_shape) within [-1, 1]."""
        return self.unclamped(z).clamp(-1, 1)

    def unclamped(self, z: Latent) -> State:
        """What `decode` clamps."""
        whole = F.pixel_shuffle(self.decoder(z), self.spec.down)
        (top, _), (left, _) = self.margins()
        height, width = self.data_shape[1:]
        return whole[..., top : top + height, left : left + width]

    def margins(self) -> list[tuple[int, int]]:
        """Pixels of padding before and behind each side."""
        whole = (self.spec.down * cells for cells in self.spec.grid(self.data_shape[1:]))
        missing = (a - b for a, b in zip(whole, self.data_shape[1:], strict=True))
        return [(n // 2, n - n // 2) for n in missing]

    def _patches(self, x: State) -> Tensor:
        """Images (B, C, H, W) as (B, C down^2, *grid)."""
        vertical, horizontal = self.margins()
        if any((*vertical, *horizontal)):
            x = F.pad(x, (*horizontal, *vertical), mode="replicate")
        return F.pixel_unshuffle(x, self.spec.down)


class Residual(nn.Module):
    """A linear map beside a residual network on one grid; the network starts at zero.

    The network knows where on the grid it is: a learned field is added at its entrance.
    """

    def __init__(
        self,
        inputs: int,
        width: int,
        outputs: int,
        blocks: int,
        grid: tuple[int, int],
        block: type[ConvBlock | GradientStep],
    ) -> None:
        super().__init__()
        self.skip = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.enter = nn.Conv2d(inputs, width, 3, padding=1)
        self.position = nn.Parameter(torch.zeros(width, *grid))
        self.blocks = nn.ModuleList(block(width) for _ in range(blocks))
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


class CappedConv(CappedLinear):
    """A 3 x 3 convolution of norm at most 1, with zeros at the border.

    The norm of a convolution is at most 3 times that of its kernel as a matrix (out, 9 in), since
    each number is in at most 9 patches. That matrix is held, and divided by 3.
    """

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__(9 * n_in, n_out)

    @property
    def kernel(self) -> Tensor:
        """(out, in, 3, 3)."""
        return self.weight.unflatten(1, (-1, 3, 3)) / 3

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel, self.bias, padding=1)


class GradientStep(nn.Module):
    """h - 2 W^T relu(W h + b): a step down a convex function, with constant 1 for |W| <= 1.

    Its Jacobian I - 2 W^T D W, 0 <= D <= 1, has eigenvalues in [-1, 1] (Meunier et al., 2022).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolution = CappedConv(width, width)

    def forward(self, h: Tensor) -> Tensor:
        inner = F.relu(self.convolution(h))
        return h - 2 * F.conv_transpose2d(inner, self.convolution.kernel, padding=1)
