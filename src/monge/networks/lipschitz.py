r"""A transformer over image or vector tokens whose Lipschitz constant in the state is capped.

Every block is 1-Lipschitz in the Euclidean norm of all tokens, for each time and condition, as
long as the spectral norms of its matrices are at most 1, which the training loop sees to
(`monge.networks.capped`). With a(c), s(c) in (0, 1) decided by times, label and vector:

.. math::
    h &\leftarrow (1 - a) h + \tfrac{a}{K} A(s \odot (h - \bar h) + b), \\
    h &\leftarrow h - 2 M^T \bigl(g \odot \sigma(M h + b)\bigr), \\
    h &\leftarrow h - 2 W^T \bigl(g \odot \sigma(W h + b)\bigr), \\
    \mathrm{net}(x) &= \mathrm{cap} \, \bigl( r \, W_{out} (h + b) + (1 - r) \, q \, x \bigr).

A is cosine attention with smooth norms, or tied L2 attention, and K its global constant. The second
and third line, over tokens and over channels, are gradient steps on convex functions: the Jacobian
:math:`I - 2 W^T D W`, 0 <= D <= 1, has eigenvalues in [-1, 1]. The last line
is a convex combination of the blocks and of the state itself, q in (-1, 1). Translations b are
free.

Instead of layer norm the mean over channels is subtracted: a projection, of constant 1.
`monge.networks.certificate` derives the constant from the weights, layer by layer.

References:
    | The Lipschitz constant of self-attention (Kim et al., 2021) -- https://arxiv.org/abs/2006.04710
    | LipsFormer (Qi et al., 2023), Sec. 4 -- https://arxiv.org/abs/2304.09856
    | Convex potential layers (Meunier et al., 2022), Sec. 3 -- https://arxiv.org/abs/2110.12690
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monge.components import Component
from monge.errors import UserError
from monge.networks.capped import SLACK, CappedLinear
from monge.networks.layers import (
    TIME_SCALE,
    Conditioning,
    PairWeight,
    log_variance,
    reset_submodules,
)
from monge.networks.lipschitz_attention import CosineAttention, L2Attention
from monge.networks.transformer import grid_positions, tokens_of
from monge.tensors import expand, stream
from monge.types import Cond, State, Time

MOST_IN_TOKEN = 16
"""Coordinates of a vector that are one token."""

SHARPNESS = 2.0
"""Of the softplus over the root of the width: a token of length 1 has numbers of that size."""

LINEAR_ABOVE = 40.0
"""Where softplus is replaced by the identity: the jump there, e^-40, is below rounding."""


@dataclass(frozen=True, repr=False)
class LipschitzSpec(Component):
    """A transformer with a certified Lipschitz constant in the state.

    Args:
        cap: the largest Lipschitz constant of the output in the state, Euclidean.
        width, depth, heads: of the tokens; blocks, each of attention and feed-forward; heads.
        patch: side of the image patches that become tokens.
        token: coordinates of a vector in a token; by default all, or `MOST_IN_TOKEN` of more.
            Feed-forward layers cost nothing of the constant within a token; attention between
            tokens has the share 1/K of it.
        ratio: hidden numbers of a feed-forward layer over the width.
        layers: feed-forward layers of a block.
        attention: "cosine", of smooth-normed queries and keys, or "l2", by distances of tied ones.
        feed: "flow", a gradient step, or "convex", a two-layer perceptron mixed with its input.
        temperature: tau, the largest logit of cosine attention.
        eps: of its smooth norm z / sqrt(|z|^2 + eps) of queries, keys and values.
        clip_in, clip_out: states and outputs are clipped to [-clip, clip] in every coordinate.
            The estimator of the theory truncates both; a denoiser is clipped to the support.
        two_times, anchor, guided, time_scale: as for the transformer.

    Raises:
        UserError: settings that do not fit each other.
    """

    cap: float = 5.0
    width: int = 128
    depth: int = 4
    heads: int = 4
    patch: int = 1
    token: int | None = None
    ratio: int = 1
    layers: int = 1
    attention: Literal["cosine", "l2"] = "cosine"
    feed: Literal["flow", "convex"] = "flow"
    temperature: float = 1.0
    eps: float = 0.5
    clip_in: float | None = None
    clip_out: float | None = None
    two_times: bool = False
    anchor: Literal["start", "end"] = "start"
    guided: bool = False
    time_scale: float = TIME_SCALE

    name = "lipschitz"

    def __post_init__(self) -> None:
        for key in ("patch", "token", "width", "depth", "heads", "ratio", "layers"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise UserError(f"network lipschitz: {key} must be at least 1, not {value}")
        for key in ("cap", "temperature", "eps", "clip_in", "clip_out"):
            value = getattr(self, key)
            if value is not None and not 0 < value < math.inf:
                raise UserError(
                    f"network lipschitz: {key} must be a finite number above 0, not {value}"
                )
        cosine = (type(self).temperature, type(self).eps)
        if self.attention == "l2" and (self.temperature, self.eps) != cosine:
            raise UserError(
                "network lipschitz: temperature and eps are settings of cosine attention: leave "
                "them out with attention=l2"
            )
        if self.width % self.heads or self.width % 4:
            raise UserError(
                f"network lipschitz: width {self.width} must be a multiple of 4 and of the "
                f"number of heads, {self.heads}: change width or heads"
            )

    def build(
        self,
        shape: tuple[int, ...],
        n_classes: int | None = None,
        n_vector: int = 0,
        rng: torch.Generator | None = None,
    ) -> LipschitzTransformer:
        """The untrained network for states of a shape; see `TransformerSpec.build`."""
        network = LipschitzTransformer(self, shape, n_classes, n_vector)
        network.reset(stream(0, "weights") if rng is None else rng)
        return network


class LipschitzTransformer(nn.Module):
    """What `LipschitzSpec.build` returns; see `forward`. An untrained one is the zero field."""

    def __init__(
        self, spec: LipschitzSpec, shape: tuple[int, ...], n_classes: int | None, n_vector: int
    ) -> None:
        super().__init__()
        self.spec = spec
        self.shape = tuple(shape)
        cut = spec
        if len(self.shape) == 1 and spec.token is None:
            cut = dataclasses.replace(spec, token=min(self.shape[0], MOST_IN_TOKEN))
        self.tokens = tokens_of(cut, self.shape)
        self.grid = self.tokens.grid
        self.gain = spec.cap * (1 - SLACK)
        width, n = spec.width, math.prod(self.grid)
        self.embed = CappedLinear(self.tokens.size, width)
        self.positions = nn.Parameter(torch.empty(n, width))
        self.conditioning = Conditioning(width, n_classes, n_vector, spec)
        self.pair_weight = PairWeight() if spec.two_times else None
        self.layers = nn.ModuleList(layer for _ in range(spec.depth) for layer in block(spec, n))
        self.decisions = Decisions(width, (width, 1, 1))
        self.out = CappedLinear(width, self.tokens.size)

    def reset(self, rng: torch.Generator) -> None:
        """Draws the initial weights; the output is zero at the start."""
        reset_submodules(self, rng)
        nn.init.zeros_(self.out.weight)
        with torch.no_grad():  # of length 1, as tokens of standardised states about are
            places = grid_positions(self.grid, self.positions.shape[-1])
            self.positions.copy_(places / places.norm(dim=-1, keepdim=True))

    def log_variance(self, s: Tensor, t: Tensor) -> Tensor:
        """Of the error at (s, t), (B,), as far as it is learned; see `PairWeight`."""
        return log_variance(self.pair_weight, s, t)

    def forward(self, x: State, t: Time, cond: Cond = None, s: Time | None = None) -> State:
        """The output at (x, t), or, with two times, for the walk of x from s to t.

        Arguments and errors as for `Transformer.forward`.
        """
        if tuple(x.shape[1:]) != self.shape:
            raise UserError(f"the network takes states {self.shape}, not {tuple(x.shape[1:])}")
        x = _clipped(x, self.spec.clip_in)
        c = self.conditioning(x, t, cond, s)
        h = self.embed(self.tokens.split(x)) + self.positions
        for layer in self.layers:
            h = layer(h, c)
        shift, share, straight = self.decisions(c)
        deep = self.tokens.join(self.out(h + shift))
        share, straight = head_weights(share, straight)
        found = expand(share, x) * deep + expand((1 - share) * straight, x) * x
        return _clipped(self.gain * found, self.spec.clip_out).to(x.dtype)


def head_weights(share: Tensor, straight: Tensor) -> tuple[Tensor, Tensor]:
    """The share r in (0, 1) of the blocks in the output, and q in (-1, 1) of the state, (B,)."""
    return torch.sigmoid(share.flatten()), torch.tanh(straight.flatten())


def _clipped(x: Tensor, most: float | None) -> Tensor:
    return x if most is None else x.clamp(-most, most)


class Decisions(nn.Module):
    """Embedding (B, width), already activated -> tensors (B, 1, size), zero at the start."""

    def __init__(self, width: int, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.sizes = sizes
        self.linear = nn.Linear(width, sum(sizes))

    def reset(self, rng: torch.Generator) -> None:
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, c: Tensor) -> tuple[Tensor, ...]:
        return self.linear(c)[:, None].split(self.sizes, dim=-1)


def block(spec: LipschitzSpec, n_tokens: int) -> list[nn.Module]:
    """1-Lipschitz layers: attention and mixing of tokens, then feed-forward layers.

    A single token has nothing to attend to or to be mixed with.
    """
    layers: list[nn.Module] = []
    if n_tokens > 1:
        layers += [AttentionBlock(spec, n_tokens), TokenFlow(spec.width, n_tokens)]
    kinds = {"flow": GradientFlow, "convex": ConvexFeedForward}
    for _ in range(spec.layers):
        layers.append(kinds[spec.feed](spec.width, spec.ratio * spec.width))
    return layers


class AttentionBlock(nn.Module):
    """(1 - a) h + a / K attention(s (h - mean h) + b): a, s in (0, 1), K the constant of attention.

    a starts at 0.18 and s at 0.88, for all conditions.
    """

    def __init__(self, spec: LipschitzSpec, n_tokens: int) -> None:
        super().__init__()
        self.decisions = Decisions(spec.width, (spec.width, spec.width, 1))
        if spec.attention == "l2":
            self.attention = L2Attention(spec.width, spec.heads, n_tokens)
        else:
            self.attention = CosineAttention(
                spec.width, spec.heads, n_tokens, spec.temperature, spec.eps
            )

    def forward(self, h: Tensor, c: Tensor) -> Tensor:
        shift, scale, share = self.decisions(c)
        inner = torch.addcmul(shift, centred(h), input_scale(scale))
        return _mixed(h, self.attention(inner), attention_share(share))


def _mixed(h: Tensor, inner: Tensor, share: Tensor) -> Tensor:
    """The convex combination (1 - a) h + a inner; under autocast the two differ in their dtype."""
    return h + share * (inner - h)


def centred(h: Tensor) -> Tensor:
    """Tokens without their mean over channels: an orthogonal projection."""
    return h - h.mean(-1, keepdim=True)


def attention_share(z: Tensor) -> Tensor:
    """The share of attention in its block, in (0, 1)."""
    return torch.sigmoid(z - 1.5)


def input_scale(z: Tensor) -> Tensor:
    """The scale of each channel before attention, in (0, 1)."""
    return torch.sigmoid(z + 2.0)


def hidden_gate(z: Tensor) -> Tensor:
    """The gate of each hidden number of a feed-forward layer, in (0, 1)."""
    return torch.sigmoid(z + 3.0)


class TokenFlow(nn.Module):
    """h - 2 M^T (g softplus(M h + b)), M over tokens, g in (0, 1): 1-Lipschitz for |M| <= 1.

    Attention mixes tokens by a share of 1/K at most. This mixes them at no cost of the constant.
    """

    step = 2.0

    def __init__(self, width: int, n_tokens: int) -> None:
        super().__init__()
        self.decisions = Decisions(width, (width, n_tokens))
        self.linear = CappedLinear(n_tokens, n_tokens, bias=False)

    def forward(self, h: Tensor, c: Tensor) -> Tensor:
        shift, gate = self.decisions(c)
        matrix = self.linear.weight
        hidden = _softplus(matrix @ h + shift, h.shape[-1]) * hidden_gate(gate).mT
        return h - self.step * (matrix.mT @ hidden)


class GradientFlow(nn.Module):
    """h - 2 W^T (g softplus(W h + b)), g in (0, 1), token by token: 1-Lipschitz for |W| <= 1."""

    step = 2.0

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.decisions = Decisions(width, (hidden, hidden))
        self.linear = CappedLinear(width, hidden)

    def forward(self, h: Tensor, c: Tensor) -> Tensor:
        shift, gate = self.decisions(c)
        hidden = _softplus(self.linear(h) + shift, h.shape[-1]) * hidden_gate(gate)
        return h - self.step * (hidden @ self.linear.weight)


class ConvexFeedForward(nn.Module):
    """(1 - a) h + a W_2 (g softplus(W_1 h + b)) with a and g in (0, 1), token by token."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.decisions = Decisions(width, (hidden, hidden, 1))
        self.up = CappedLinear(width, hidden)
        self.down = CappedLinear(hidden, width)

    def forward(self, h: Tensor, c: Tensor) -> Tensor:
        shift, gate, share = self.decisions(c)
        hidden = _softplus(self.up(h) + shift, h.shape[-1]) * hidden_gate(gate)
        return _mixed(h, self.down(hidden), feed_share(share))


def feed_share(z: Tensor) -> Tensor:
    """The share of a convex feed-forward layer in its block, in (0, 1), 1/2 at the start."""
    return torch.sigmoid(z)


def _softplus(z: Tensor, width: int) -> Tensor:
    """A smooth ReLU: log(1 + exp(b z)) / b with slopes in (0, 1)."""
    return F.softplus(z, beta=SHARPNESS * math.sqrt(width), threshold=LINEAR_ABOVE)
