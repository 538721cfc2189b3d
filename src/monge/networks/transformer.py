r"""The diffusion transformer, for images and for vectors, of one time or of two.

An image (C, H, W) becomes H W / patch^2 tokens, a vector (D,) tokens of a few coordinates each;
blocks of attention and feed-forward with adaptive layer norm follow; a linear map returns to the
shape of the state. The last map starts at zero, so an untrained network is the zero field.

References:
    | DiT (Peebles & Xie, 2023), Sec. 3 and Table 1 -- https://arxiv.org/abs/2212.09748
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monge.components import Component
from monge.errors import UserError
from monge.networks.layers import (
    TIME_SCALE,
    Attention,
    Conditioning,
    FeedForward,
    Modulation,
    PairWeight,
    check_dropout,
    log_variance,
    modulate,
    positional,
    reset_linear,
    reset_submodules,
)
from monge.tensors import stream
from monge.types import Cond, State, Time

SIZES = {
    "XS": (128, 4, 4),
    "S": (384, 12, 6),
    "B": (768, 12, 12),
    "L": (1024, 24, 16),
    "XL": (1152, 28, 16),
}
"""Width, depth and heads of each size; S to XL are DiT's (Table 1)."""

VECTOR_TOKENS = 16
"""A vector is cut into at most this many tokens, unless `token` says otherwise."""


@dataclass(frozen=True, repr=False)
class TransformerSpec(Component):
    """A diffusion transformer: XS for CPUs; S, B, L and XL as published.

    Args:
        size: sets width, depth and heads.
        patch: side of the image patches that become tokens.
        token: coordinates of a vector in a token; by default one, or more if that would be
            more than `VECTOR_TOKENS` tokens. The last token is padded with zeros.
        width, depth, heads: replace those of the size.
        dropout: probability that a hidden number of a feed-forward layer is dropped in training.
        two_times: whether the network takes a second time, as flow maps do.
        anchor: which of the two is embedded beside their span: the one that it is not
            differentiated in, if the embedding turns fast.
        guided: whether it takes a guidance scale, as maps distilled from a guided teacher do.
        time_scale: what times are multiplied by before they are embedded; less for a network
            that is differentiated in time.

    Raises:
        UserError: settings that do not fit each other.
    """

    size: Literal["XS", "S", "B", "L", "XL"] = "XS"
    patch: int = 1
    token: int | None = None
    width: int | None = None
    depth: int | None = None
    heads: int | None = None
    dropout: float = 0.0
    two_times: bool = False
    anchor: Literal["start", "end"] = "start"
    guided: bool = False
    time_scale: float = TIME_SCALE

    name = "transformer"

    def __post_init__(self) -> None:
        for key in ("patch", "token", "width", "depth", "heads"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise UserError(f"network transformer: {key} must be at least 1, not {value}")
        check_dropout(self.dropout, "network transformer")
        width, _, heads = self.dimensions
        if width % heads or width % 4:
            raise UserError(
                f"network transformer: width {width} must be a multiple of 4 and of the number "
                f"of heads, {heads}: change width or heads"
            )

    @property
    def dimensions(self) -> tuple[int, int, int]:
        """Width, depth and heads."""
        width, depth, heads = SIZES[self.size]
        return self.width or width, self.depth or depth, self.heads or heads

    def build(
        self,
        shape: tuple[int, ...],
        n_classes: int | None = None,
        n_vector: int = 0,
        rng: torch.Generator | None = None,
    ) -> Transformer:
        """The untrained network for states of a shape, (C, H, W) or (D,).

        Args:
            shape: of one state.
            n_classes: how many labels there are besides the null label; None for no labels.
            n_vector: entries of the condition's vector; 0 for none.
            rng: draws the initial weights; by default always the same ones.

        Raises:
            UserError: sides that the patch does not divide, or a shape of another rank.
        """
        network = Transformer(self, shape, n_classes, n_vector)
        rng = stream(0, "weights") if rng is None else rng
        network.reset(rng)
        return network


class Transformer(nn.Module):
    """What `TransformerSpec.build` returns; see `forward`."""

    duals = True
    """Whether `monge.dual_numbers` has a rule for each of its operations."""

    def __init__(
        self, spec: TransformerSpec, shape: tuple[int, ...], n_classes: int | None, n_vector: int
    ) -> None:
        super().__init__()
        width, depth, heads = spec.dimensions
        self.spec = spec
        self.shape = tuple(shape)
        self.tokens = tokens_of(spec, self.shape)
        self.grid = self.tokens.grid
        self.embed = nn.Linear(self.tokens.size, width)
        self.positions = nn.Parameter(torch.empty(math.prod(self.grid), width))
        self.conditioning = Conditioning(width, n_classes, n_vector, spec)
        self.pair_weight = PairWeight() if spec.two_times else None
        self.blocks = nn.ModuleList(Block(width, heads, spec.dropout) for _ in range(depth))
        self.modulation = Modulation(width, 2)
        self.out = nn.Linear(width, self.tokens.size)

    def reset(self, rng: torch.Generator) -> None:
        """Draws the initial weights."""
        reset_submodules(self, rng)
        reset_linear(self.embed, rng)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        with torch.no_grad():
            self.positions.copy_(grid_positions(self.grid, self.positions.shape[-1]))

    def log_variance(self, s: Tensor, t: Tensor) -> Tensor:
        """Of the error at (s, t), (B,), as far as it is learned; see `PairWeight`."""
        return log_variance(self.pair_weight, s, t)

    def forward(self, x: State, t: Time, cond: Cond = None, s: Time | None = None) -> State:
        """The output at (x, t), or, with two times, for the walk of x from s to t.

        Args:
            x: (B, *shape).
            t: () or (B,).
            cond: see `monge.types.Cond`; without a label the label is null.
            s: () or (B,); by default t, where a flow map has its velocity.

        Raises:
            UserError: a state of another shape, a condition or second time the network lacks.
        """
        if tuple(x.shape[1:]) != self.shape:
            raise UserError(f"the network takes states {self.shape}, not {tuple(x.shape[1:])}")
        c = self.conditioning(x, t, cond, s)
        h = self.embed(self.tokens.split(x)) + self.positions
        for block in self.blocks:
            h = block(h, c)
        shift, scale = self.modulation(c)
        return self.tokens.join(self.out(modulate(h, shift, scale))).to(x.dtype)


class Block(nn.Module):
    """Attention, then feed-forward, each with adaptive layer norm and a gate that starts at 0."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.modulation = Modulation(width, 6)
        self.attention = Attention(width, heads)
        self.feed_forward = FeedForward(width, dropout=dropout)

    def forward(self, h: Tensor, c: Tensor) -> Tensor:
        shift, scale, gate, shift2, scale2, gate2 = self.modulation(c)
        h = torch.addcmul(h, gate, self.attention(modulate(h, shift, scale)))
        return torch.addcmul(h, gate2, self.feed_forward(modulate(h, shift2, scale2)))


@dataclass(frozen=True)
class ImageTokens:
    """(B, C, H, W) <-> (B, H/p W/p, C p p), rows of patches first."""

    shape: tuple[int, ...]
    patch: int

    @property
    def grid(self) -> tuple[int, ...]:
        return self.shape[1] // self.patch, self.shape[2] // self.patch

    @property
    def size(self) -> int:
        return self.shape[0] * self.patch**2

    def split(self, x: Tensor) -> Tensor:
        return F.pixel_unshuffle(x, self.patch).flatten(2).transpose(1, 2)

    def join(self, h: Tensor) -> Tensor:
        return F.pixel_shuffle(h.transpose(1, 2).unflatten(2, self.grid), self.patch)


@dataclass(frozen=True)
class VectorTokens:
    """(B, D) <-> (B, ceil(D/size), size), padded with zeros."""

    shape: tuple[int, ...]
    size: int

    @property
    def grid(self) -> tuple[int, ...]:
        return (-(-self.shape[0] // self.size),)

    def split(self, x: Tensor) -> Tensor:
        padding = self.grid[0] * self.size - self.shape[0]
        return F.pad(x, (0, padding)).unflatten(1, (self.grid[0], self.size))

    def join(self, h: Tensor) -> Tensor:
        return h.flatten(1)[:, : self.shape[0]]


@runtime_checkable
class Cut(Protocol):
    """What a network's settings say of its tokens."""

    @property
    def patch(self) -> int: ...

    @property
    def token(self) -> int | None: ...

    @property
    def name(self) -> str: ...


def tokens_of(spec: Cut, shape: tuple[int, ...]) -> ImageTokens | VectorTokens:
    """How states of a shape are cut into tokens."""
    if len(shape) == 3:
        if shape[1] % spec.patch or shape[2] % spec.patch:
            raise UserError(
                f"network {spec.name}: patch {spec.patch} does not divide the sides of {shape}"
            )
        return ImageTokens(shape, spec.patch)
    if len(shape) == 1:
        return VectorTokens(shape, spec.token or -(-shape[0] // VECTOR_TOKENS))
    raise UserError(f"network {spec.name} takes images (C, H, W) or vectors (D,), not {shape}")


def grid_positions(grid: tuple[int, ...], width: int) -> Tensor:
    """Positional embeddings of the points of a grid, (points, width): an equal part per axis."""
    axes = [torch.arange(n, dtype=torch.float64) for n in grid]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2)
    return torch.cat([positional(axis, width // len(grid)) for axis in points.unbind(-1)], dim=-1)


def resize_positions(positions: Tensor, old: tuple[int, ...], new: tuple[int, ...]) -> Tensor:
    """Positions (points, width) of an image grid, interpolated to another size of grid."""
    image = positions.T.unflatten(1, old)[None]
    resized = F.interpolate(image, size=new, mode="bicubic", align_corners=False)
    return resized[0].flatten(1).T.contiguous()
