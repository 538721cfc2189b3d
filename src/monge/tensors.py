"""Tensor helpers that the mathematics above shares: times, derivatives, streams of randomness."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from monge.errors import UserError
from monge.types import PerExample, State, Time

CHUNK = 256
"""Examples that pass a network at once; results do not depend on it."""

NOISE_BLOCK = 256
"""Examples that share one generator in `noise`; a fixed size, so chunks never matter."""

STEP = 1e-20
"""A complex step: nothing is subtracted, so it may be as small as float32 has numbers."""


def as_time(t: Time, like: Tensor) -> Tensor:
    """A time as a tensor on the state's device, float32 at least."""
    if isinstance(t, Tensor):
        return t
    dtype = torch.promote_types(like.dtype, torch.float32)
    return torch.as_tensor(t, dtype=dtype, device=like.device)


def expand(c: Tensor, x: Tensor) -> Tensor:
    """Per-example numbers, () or (B,), shaped to multiply states (B, ...).

    >>> expand(torch.ones(5), torch.ones(5, 3, 8, 8)).shape
    torch.Size([5, 1, 1, 1])
    """
    return c if c.ndim == 0 else c.reshape(c.shape + (1,) * (x.ndim - c.ndim))


def sum_except_batch(x: State) -> PerExample:
    """Sum over all axes but the first."""
    return x.flatten(1).sum(1)


def value_and_rate(
    f: Callable[[Tensor], tuple[Tensor, ...]], t: Tensor
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The value of an elementwise function of time and its derivative, by forward mode.

    In an exported graph, which forward mode would tie to one batch size, by a complex step:
    Im f(t + i h) / h, exact to rounding for a tiny h (Squire & Trapp, 1998).
    """
    if torch.compiler.is_exporting():
        stepped = f(torch.complex(t, torch.full_like(t, STEP)))
        return tuple(v.real for v in stepped), tuple(v.imag / STEP for v in stepped)
    t = t.contiguous()  # an expanded time cannot carry a tangent
    value, rate = jvp(f, t, torch.ones_like(t))
    return value, rate


def jvp(f: Callable[[Tensor], Any], x: Tensor, tangent: Tensor) -> tuple[Any, Any]:
    """f(x) and its directional derivative along the tangent, by forward mode."""
    value, along = torch.func.jvp(f, (x,), (tangent,))  # type: ignore[misc]
    return value, along


@contextmanager
def forward_mode() -> Iterator[None]:
    """Where `torch.func.jvp` may be taken, and differentiated again.

    The kernel of attention is the one that has a forward-mode derivative, and `layer_norm` is not
    torch's, whose forward-mode derivative loses the statistics when it is itself differentiated
    (pytorch issue 196700).
    """
    before, _ForwardMode.on = _ForwardMode.on, True
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        _ForwardMode.on = before


class _ForwardMode:
    on = False


def layer_norm(x: Tensor, eps: float) -> Tensor:
    """Layer norm over the last axis, without weights; see `forward_mode`."""
    if _ForwardMode.on:
        return F.rms_norm(x - x.mean(-1, keepdim=True), x.shape[-1:], eps=eps)
    return F.layer_norm(x, x.shape[-1:], eps=eps)


PROBES_AT_ONCE = 4
"""Of Hutchinson's estimator: they share one forward pass, and take its memory each."""


def value_and_divergence(
    f: Callable[[State], State], x: State, probes: Tensor | None = None, chunk: int = 64
) -> tuple[State, Tensor]:
    """f(x) and the divergence of f at x, for states of any shape.

    Args:
        f: acts on each example of the batch independently.
        x: (B, ...).
        probes: (K, B, ...) random signs for Hutchinson's estimator, or None for the exact trace,
            which costs one forward-mode derivative per coordinate, `chunk` of them at once.

    Returns:
        f(x) and the divergence: (B,) if exact, else the K estimates of each example, (B, K).
    """
    with forward_mode():
        if probes is not None:
            at_once = torch.func.vmap(lambda v: jvp(f, x, v), chunk_size=PROBES_AT_ONCE)
            values, columns = at_once(probes)
            return values[0], (columns * probes).flatten(2).sum(2).T
        value, total = None, x.new_zeros(len(x))
        size = x[0].numel()
        for start in range(0, size, chunk):
            index = torch.arange(start, min(start + chunk, size), device=x.device)
            basis = torch.nn.functional.one_hot(index, size).to(x.dtype)
            tangents = basis[:, None].expand(-1, len(x), -1).reshape(len(index), *x.shape)

            def along(v: Tensor) -> tuple[Tensor, Tensor]:
                return jvp(f, x, v)

            values, columns = torch.func.vmap(along)(tangents)
            value = values[0]
            total = total + (columns * tangents).flatten(2).sum((0, 2))
        assert value is not None
        return value, total


def chunked(f: Callable[..., Tensor], size: int, *tensors: Tensor) -> Tensor:
    """f over slices of `size` rows of the tensors, concatenated again."""
    if len(tensors[0]) <= size:
        return f(*tensors)
    return torch.cat([f(*parts) for parts in zip(*(x.split(size) for x in tensors), strict=True)])


def stream(seed: int, *key: int | str) -> torch.Generator:
    """A CPU generator for one purpose: equal (seed, key) give equal draws, others independent ones.

    Keys that differ by trailing zeros alone are the same key.

    Raises:
        UserError: a negative seed.

    >>> a, b = stream(0, "x0", 7), stream(0, "x0", 7)
    >>> bool((torch.randn(3, generator=a) == torch.randn(3, generator=b)).all())
    True
    """
    if seed < 0:
        raise UserError(f"the seed must not be negative, not {seed}")
    words = [int.from_bytes(k.encode(), "little") if isinstance(k, str) else k for k in key]
    state = np.random.SeedSequence([seed, *words]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def noise(
    seed: int, start: int, stop: int, shape: tuple[int, ...], *key: int | str, signs: bool = False
) -> Tensor:
    """Standard normal draws (or random signs) for the examples start..stop-1, float32, on CPU.

    Example i depends on (seed, key, i) alone, never on how the range is cut into chunks: whole
    blocks of `NOISE_BLOCK` examples are drawn from a generator each.
    """
    first, last = start // NOISE_BLOCK, -(-stop // NOISE_BLOCK)
    blocks = []
    for block in range(first, last):
        rng = stream(seed, *key, block)
        size = (NOISE_BLOCK, *shape)
        if signs:
            blocks.append(torch.randint(0, 2, size, generator=rng).float() * 2 - 1)
        else:
            blocks.append(torch.randn(size, generator=rng))
    drawn = torch.cat(blocks) if blocks else torch.empty(0, *shape)
    offset = first * NOISE_BLOCK
    return drawn[start - offset : stop - offset]
