r"""The layers that networks share: embeddings of time and condition, modulation, attention.

A condition vector c (of the times, the label and the vector) reaches a network by adaptive
layer norm: each block norms its input, and c decides the shift, the scale and the gate,

.. math:: x \leftarrow x + g(c) \, F\bigl((1 + s(c)) \, \mathrm{norm}(x) + b(c)\bigr).

All three are zero at the start, so a block starts as the identity.

References:
    | DiT (Peebles & Xie, 2023), Sec. 3.2 -- https://arxiv.org/abs/2212.09748
    | Flow maps (Boffi et al., 2025), App. E -- https://arxiv.org/abs/2505.18825
    | QK-norm (Dehghani et al., 2023), Sec. 2 -- https://arxiv.org/abs/2302.05442
"""

from __future__ import annotations

import math
from typing import Literal, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monge.errors import UserError
from monge.tensors import as_time, layer_norm
from monge.types import Cond, State, Time

TIME_SCALE = 1000.0
"""What times in [0, 1] are multiplied by, as if they were DDPM's 1000 steps."""

SPAN_SCALE = 20.0
"""The same for what a loss differentiates: features that turn 1000 times have wild derivatives."""

MAX_PERIOD = 10_000.0
"""Longest period of a positional embedding over 2 pi, the shortest being 1."""


def positional(position: Tensor, size: int) -> Tensor:
    """Cosines and sines of positions (...) at `size`/2 geometrically spaced rates: (..., size).

    Source: Attention is all you need (Vaswani et al., 2017), Sec. 3.5, in DiT's order.
    """
    half = size // 2
    index = torch.arange(half, dtype=position.dtype, device=position.device)
    angle = position[..., None] * torch.exp(-math.log(MAX_PERIOD) / half * index)
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


@runtime_checkable
class Times(Protocol):
    """What a network's settings say of its times."""

    @property
    def two_times(self) -> bool: ...

    @property
    def anchor(self) -> Literal["start", "end"]: ...

    @property
    def guided(self) -> bool: ...

    @property
    def time_scale(self) -> float: ...


def check_dropout(dropout: float, what: str) -> None:
    """Refuse what is no probability of dropping."""
    if not 0 <= dropout < 1:
        raise UserError(f"{what}: dropout must lie in [0, 1), not {dropout}")


def reset_linear(linear: nn.Linear, rng: torch.Generator) -> None:
    """DiT's initialisation: Glorot-uniform weights, no bias."""
    nn.init.xavier_uniform_(linear.weight, generator=rng)
    nn.init.zeros_(linear.bias)


def reset_submodules(module: nn.Module, rng: torch.Generator) -> None:
    """Calls `reset` of all modules inside, in order."""
    for inner in module.modules():
        if inner is not module and hasattr(inner, "reset"):
            inner.reset(rng)  # type: ignore[operator]


class TimeEmbedding(nn.Module):
    """Times () or (B,) -> (1 or B, width), computed in float32 at least, also under autocast.

    Args:
        width: of the embedding.
        zero: whether the embedding starts as zero, for a time that is added to a trained network.
        rates: size of the positional embedding.
        scale: what times are multiplied by before it.
    """

    def __init__(
        self, width: int, *, zero: bool = False, rates: int = 256, scale: float = TIME_SCALE
    ) -> None:
        super().__init__()
        self.zero = zero
        self.rates = rates
        self.scale = scale
        self.hidden = nn.Linear(rates, width)
        self.out = nn.Linear(width, width)

    def reset(self, rng: torch.Generator) -> None:
        for linear in (self.hidden, self.out):
            nn.init.normal_(linear.weight, std=0.02, generator=rng)
            nn.init.zeros_(linear.bias)
        if self.zero:
            nn.init.zeros_(self.out.weight)

    def forward(self, t: Time, like: Tensor) -> Tensor:
        t = as_time(t, like).to(like.device)
        t = t.to(torch.promote_types(t.dtype, torch.float32)).reshape(-1)
        with torch.autocast(like.device.type, enabled=False):
            features = positional(self.scale * t, self.rates).to(self.hidden.weight.dtype)
            return self.out(F.silu(self.hidden(features)))


def _added(width: int) -> TimeEmbedding:
    """The embedding of what is added to a network that may have been trained without it."""
    return TimeEmbedding(width, zero=True, scale=SPAN_SCALE)


class PairWeight(nn.Module):
    """Times s and t, (B,) -> the log-variance of what is learned there, (B,), zero at the start.

    Source: EDM2 (Karras et al., 2024), Sec. B.2, for two times as in Boffi et al. (2025), App. E.
    """

    def __init__(self, rates: int = 64) -> None:
        super().__init__()
        self.rates = rates
        self.hidden = nn.Linear(2 * rates, rates)
        self.out = nn.Linear(rates, 1)

    def reset(self, rng: torch.Generator) -> None:
        reset_linear(self.hidden, rng)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, s: Tensor, t: Tensor) -> Tensor:
        with torch.autocast(s.device.type, enabled=False):
            features = [positional(SPAN_SCALE * u, self.rates) for u in (s, t - s)]
            hidden = self.hidden(torch.cat(features, -1).to(self.hidden.weight.dtype))
            return self.out(F.silu(hidden)).squeeze(-1)


def log_variance(weight: PairWeight | None, s: Tensor, t: Tensor) -> Tensor:
    """What a network's weight of pairs says.

    Raises:
        UserError: the network has one time.
    """
    if weight is None:
        raise UserError("learned weights of (s, t) need a network built with two_times=true")
    return weight(s, t)


class Conditioning(nn.Module):
    """Times, label and vector -> c (1 or B, width): the sum of their embeddings, activated.

    With two times a walk from s to t is embedded as s, or t, and t - s (Boffi et al., 2025). The
    span's embedding starts at zero, and so does that of a guidance scale, so a network that had
    one time gives the same output when the weights of the others are added.

    The last row of the label table is the null label: label -1, or no label. A vector of NaN, or
    no vector, is the null vector, with an embedding of its own. What a network is not built for
    has no parameters.

    Raises:
        UserError: a second time, label, vector or guidance that the network was not built for.
    """

    def __init__(self, width: int, n_classes: int | None, n_vector: int, times: Times) -> None:
        super().__init__()
        self.n_vector = n_vector
        self.time = TimeEmbedding(width, scale=times.time_scale)
        self.span = _added(width) if times.two_times else None
        self.anchor = times.anchor
        self.guidance = _added(width) if times.guided else None
        self.label = None if n_classes is None else nn.Embedding(n_classes + 1, width)
        self.vector = None if n_vector == 0 else nn.Linear(n_vector + 1, width)

    def reset(self, rng: torch.Generator) -> None:
        if self.label is not None:
            nn.init.normal_(self.label.weight, std=0.02, generator=rng)
        if self.vector is not None:
            reset_linear(self.vector, rng)

    def forward(self, x: State, t: Time, cond: Cond, s: Time | None) -> Tensor:
        given = {} if cond is None else cond
        c = self._of_times(x, t, s)
        scale = given.get("guidance")
        if self.guidance is not None:
            # Scales of a few as a span of time; 1 is no guidance.
            c = c + self.guidance(0.0 if scale is None else (scale - 1) / 10, x)
        elif scale is not None:
            raise UserError("a guidance scale was given to a network without one: leave it out")
        if self.label is not None:
            c = c + self._of_label(self.label, given.get("label"))
        elif "label" in given:
            raise UserError("a label was given to a network without labels: leave it out")
        if self.vector is not None:
            c = c + self._of_vector(self.vector, given.get("vector"))
        elif "vector" in given:
            raise UserError("a vector was given to a network without one: leave it out")
        return F.silu(c)

    def _of_times(self, x: State, t: Time, s: Time | None) -> Tensor:
        if self.span is None:
            if s is not None:
                raise UserError("a second time needs a network built with two_times=true")
            return self.time(t, x)
        s = t if s is None else s
        return self.time(s if self.anchor == "start" else t, x) + self.span(t - s, x)

    def _of_label(self, table: nn.Embedding, label: Tensor | None) -> Tensor:
        if label is None:
            return table.weight[-1:]
        return table(torch.where(label < 0, table.num_embeddings - 1, label))

    def _of_vector(self, linear: nn.Linear, vector: Tensor | None) -> Tensor:
        if vector is None:
            vector = linear.weight.new_full((1, self.n_vector), math.nan)
        elif vector.shape[-1] != self.n_vector:
            raise UserError(
                f"the condition's vector has {vector.shape[-1]} entries; "
                f"the network was built for {self.n_vector}"
            )
        null = vector.isnan().any(dim=-1, keepdim=True)
        known = torch.where(null, 0, vector)
        return linear(torch.cat([known, null.to(known)], dim=-1).to(linear.weight.dtype))


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """(1 + scale) norm(x) + shift, with layer norm over the last axis."""
    return torch.addcmul(shift, layer_norm(x, eps=1e-6), 1 + scale)


class Modulation(nn.Module):
    """Embedding (B, width), already activated -> `n` tensors (B, 1, width), zero at the start."""

    def __init__(self, width: int, n: int) -> None:
        super().__init__()
        self.n = n
        self.linear = nn.Linear(width, n * width)

    def reset(self, rng: torch.Generator) -> None:
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, c: Tensor) -> tuple[Tensor, ...]:
        return self.linear(c)[:, None].chunk(self.n, dim=-1)


class Attention(nn.Module):
    """Multi-head self-attention over tokens (B, N, width), with queries and keys normed per head.

    The kernel is torch's choice; forward-mode derivatives need `monge.tensors.forward_mode`.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.query_norm = nn.Parameter(torch.empty(width // heads))
        self.key_norm = nn.Parameter(torch.empty(width // heads))
        self.out = nn.Linear(width, width)

    def reset(self, rng: torch.Generator) -> None:
        reset_linear(self.qkv, rng)
        reset_linear(self.out, rng)
        nn.init.ones_(self.query_norm)
        nn.init.ones_(self.key_norm)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        # Heads move forward last: norms of strided tensors cost copies in the backward pass.
        q, k, v = self.qkv(x).view(batch, tokens, 3, self.heads, -1).unbind(2)
        # Both weights on the queries: only the products of queries and keys count.
        weight = (self.query_norm * self.key_norm).to(q)
        q = F.rms_norm(q, q.shape[-1:], weight, eps=1e-6)
        k = F.rms_norm(k, k.shape[-1:], eps=1e-6)
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).reshape(batch, tokens, width))


class FeedForward(nn.Module):
    """Two linears with a GELU between, `ratio` times wider inside.

    The erf-GELU: on CPUs without AVX-512 the tanh form takes two to three times as long.
    """

    def __init__(self, width: int, ratio: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout
        self.up = nn.Linear(width, ratio * width)
        self.down = nn.Linear(ratio * width, width)

    def reset(self, rng: torch.Generator) -> None:
        reset_linear(self.up, rng)
        reset_linear(self.down, rng)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.gelu(self.up(x))
        if self.dropout:
            hidden = F.dropout(hidden, self.dropout, self.training)
        return self.down(hidden)
