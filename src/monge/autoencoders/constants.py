r"""Certified Lipschitz constants of encoders and decoders: derived from the weights, in float64.

A constant L of the decoder carries a bound over to the data: W2 of samples and data is at most L
times the W2 of their latents, plus the error of the autoencoder. Autoencoders without a rule are
refused by name.

The norm of a convolution between grids without bounds is the largest spectral norm of its symbol
:math:`\hat K(\omega) = \sum_k K_k e^{i k \omega}`. With zeros at the border it is at most that:
zeros in front are an isometry, and cutting off is a projection. For unit u and v, and a suitable
phase, :math:`\mathrm{Re}\, e^{i \phi} u^* \hat K v` is a real trigonometric polynomial of degree n
in each angle, whose largest modulus M it takes somewhere. By Riesz's lemma it is at least
:math:`M \cos(n h)` at angles that are h away, for h below :math:`\pi / (2 n)`. Of N equal angles
one is at most :math:`\pi / N` away, and so, one axis after the other,

.. math:: \|K\| \le \max_{\omega \in grid} |\hat K(\omega)|_2 \; \cos(n_1 \pi / N)^{-1}
    \cos(n_2 \pi / N)^{-1}.

References:
    | The singular values of convolutional layers (Sedghi et al., 2019) -- https://arxiv.org/abs/1805.10408
    | Riesz's lemma: Borwein & Erdelyi, Polynomials and Polynomial Inequalities, Sec. 5.1
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from monge.autoencoders.conv import ConvAutoencoder, ConvBlock, GradientStep, Residual
from monge.autoencoders.identity import Identity
from monge.autoencoders.mlp_vae import MLPVAE
from monge.autoencoders.pca import PCA
from monge.autoencoders.standardised import Standardised
from monge.errors import UserError
from monge.networks.bounds import Step, up
from monge.networks.capped import norm_bound

ANGLES = 32
"""Of each axis, at which a symbol is looked at: the bound of 3 x 3 kernels is 1 % above it."""

ENDS = ("skip", "leave", "enter")

SILU = 1.09985
"""The largest slope of SiLU, rounded up."""


@dataclass(frozen=True)
class Constants:
    """Certified constants of the mean of the encoder and of the decoder, for all inputs.

    Attributes:
        encoder, decoder: Euclidean, over all numbers of an example.
        steps: the derivation of both.
    """

    encoder: float
    decoder: float
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Units:
    """What latents and data are divided by: deviations of the latents, scales of the data.

    Attributes:
        latent: of the shape of `statistics_shape`, or a number.
        data: that broadcasts with an example, or a number.
    """

    latent: Tensor
    data: Tensor


@torch.no_grad()
def certified_constants(autoencoder: nn.Module, scale: Tensor | float = 1.0) -> Constants:
    """The certified Lipschitz constants of an autoencoder, standardised or bare.

    Args:
        scale: data are measured in multiples of it; it broadcasts with an example.

    Raises:
        UserError: an autoencoder for which there is no rule, by name.

    >>> from monge.components import build
    >>> round(certified_constants(build("autoencoder", "identity").build((3,)), 2.0).decoder, 6)
    0.5
    """
    if any(m._forward_hooks or m._forward_pre_hooks for m in autoencoder.modules()):
        raise _refusal(autoencoder, "it has hooks, which may change what it computes")
    bare, std = autoencoder, torch.ones(())
    if isinstance(autoencoder, Standardised):
        bare, std = autoencoder.autoencoder, autoencoder.std
    units = Units(*(torch.as_tensor(v).detach().to("cpu", torch.float64) for v in (std, scale)))
    found = _of(bare, units)
    return Constants(found[0].euclidean, found[1].euclidean, tuple(found))


def _of(autoencoder: nn.Module, units: Units) -> list[Step]:
    """The encoder's step, the decoder's, and those that they were made of."""
    kind = type(autoencoder)
    if isinstance(autoencoder, Identity) and kind is Identity:
        ratio = (units.latent / units.data).expand(autoencoder.data_shape)
        low, high = (float(v) for v in ratio.aminmax())
        return [
            _step("encoder", "scale / deviation", up(1 / low)),
            _step("decoder", "its inverse", up(high)),
        ]
    if isinstance(autoencoder, PCA) and kind is PCA:
        return _of_pca(autoencoder, units)
    if isinstance(autoencoder, MLPVAE) and kind is MLPVAE:
        return _of_mlp(autoencoder, units)
    if isinstance(autoencoder, ConvAutoencoder) and kind is ConvAutoencoder:
        return _of_conv(autoencoder, units)
    raise _refusal(autoencoder, "there is no rule for it")


def _step(name: str, rule: str, value: float) -> Step:
    return Step(name, rule, value, value)


def _refusal(module: nn.Module, why: str) -> UserError:
    return UserError(
        f"no certified constants for the autoencoder's {type(module).__name__}: {why}; train one "
        "with --autoencoder conv:capped=true, or use the observed constants"
    )


def _of_pca(autoencoder: PCA, units: Units) -> list[Step]:
    """The norms of the two matrices, with the units in them."""
    scale = units.data.expand(autoencoder.data_shape).flatten()[:, None]
    directions = autoencoder.directions.double().cpu()
    encoder = norm_bound(scale * directions / units.latent)
    decoder = norm_bound(directions * units.latent / scale)
    return [
        _step("encoder", f"|directions / deviations| = {encoder:.6g}", encoder),
        _step("decoder", f"|directions x deviations| = {decoder:.6g}", decoder),
    ]


def _of_mlp(autoencoder: MLPVAE, units: Units) -> list[Step]:
    """Images are halved before, sigmoids have slope 1/4, and are doubled."""
    low, high = (float(v) for v in units.data.aminmax())
    first, last = (norm_bound(layer.weight) for layer in (autoencoder.fc1, autoencoder.fc4))
    mean = norm_bound(autoencoder.fc21.weight.double().cpu() / units.latent.reshape(-1, 1))
    third = norm_bound(autoencoder.fc3.weight.double().cpu() * units.latent)
    return [
        _step("encoder", f"{mean:.6g} x {first:.6g} / 2", up(mean * first * high / 2)),
        _step("decoder", f"2 / 4 x {last:.6g} x {third:.6g}", up(last * third / low / 2)),
    ]


def _of_conv(autoencoder: ConvAutoencoder, units: Units) -> list[Step]:
    """Cutting and clamping have the constant 1; padding repeats the pixels of the border."""
    low, high = (float(v) for v in units.data.aminmax())
    deviations = units.latent.flatten()
    deviations = deviations.expand(autoencoder.spec.channels)
    encoder = list(_of_residual("encoder", autoencoder.encoder, after=deviations))
    decoder = list(_of_residual("decoder", autoencoder.decoder, before=deviations))
    repeated = 1.0
    for side, margins in zip(autoencoder.data_shape[1:], autoencoder.margins(), strict=True):
        repeated *= 1 + (sum(margins) if side == 1 else max(margins))
    ends = [up(math.sqrt(repeated) * encoder[-1].euclidean * high), decoder[-1].euclidean / low]
    rule = f"{encoder[-1].rule}, times sqrt({repeated:.0f}) for padding"
    return [
        _step("encoder", rule, ends[0]),
        _step("decoder", decoder[-1].rule, up(ends[1])),
        *encoder[:-1],
        *decoder[:-1],
    ]


def _of_residual(
    name: str, module: Residual, before: Tensor | None = None, after: Tensor | None = None
) -> Iterator[Step]:
    """|skip| + |leave| 1.1 prod |block| |enter|.

    Args:
        before: what the inputs are multiplied by, (in,).
        after: what the first outputs are divided by; those alone count.
    """
    weights = {key: getattr(module, key).weight.detach().double().cpu() for key in ENDS}
    if before is not None:
        weights = {k: w if k == "leave" else w * before[:, None, None] for k, w in weights.items()}
    if after is not None:
        by = after[:, None, None, None]
        weights = {k: w if k == "enter" else w[: len(after)] / by for k, w in weights.items()}
    skip, leave, enter = (conv_norm(weights[key]) for key in ENDS)
    product = up(up(leave * SILU) * enter)
    for k, block in enumerate(module.blocks):
        if isinstance(block, ConvBlock):
            raise _refusal(block.norm, "its constant is unbounded")
        if not isinstance(block, GradientStep):
            raise _refusal(block, "there is no rule for it")
        norm = conv_norm(block.convolution.kernel)
        factor = max(1.0, up(2 * norm**2) - 1)
        yield _step(f"{name}.blocks.{k}", f"max(1, 2 |W|^2 - 1), |W| = {norm:.6g}", factor)
        product = up(product * factor)
    rule = f"|skip| + {SILU} |leave| |blocks| |enter| = {skip:.6g} + {product:.6g}"
    yield _step(name, rule, up(skip + product))


def conv_norm(kernel: Tensor, angles: int = ANGLES) -> float:
    """An upper bound of the norm of a convolution with zeros at the border, any size of grid.

    Args:
        kernel: (out, in, k1, k2), k odd.

    >>> round(conv_norm(torch.ones(1, 1, 1, 1)), 6), round(conv_norm(torch.ones(1, 1, 1, 3)), 2)
    (1.0, 3.01)
    """
    kernel = kernel.detach().to("cpu", torch.float64)
    degrees = [k // 2 for k in kernel.shape[2:]]
    if any(k % 2 == 0 for k in kernel.shape[2:]) or max(degrees) * 2 >= angles:
        raise ValueError(f"kernels have odd sides below {angles}, not {tuple(kernel.shape[2:])}")
    # Half of the angles: at the opposite one the symbol of a real kernel is the conjugate. The
    # phase by which the middle of the kernel is not at 0 does not change its norm.
    symbol = torch.fft.rfft2(kernel, (angles, angles)).movedim((0, 1), (-2, -1))
    gram = symbol.mH @ symbol if symbol.shape[-2] >= symbol.shape[-1] else symbol @ symbol.mH
    largest = float(torch.linalg.eigvalsh(gram)[..., -1].max().clamp_min(0.0).sqrt())
    return up(largest / math.prod(math.cos(n * math.pi / angles) for n in degrees))
