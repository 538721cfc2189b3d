"""Times against states, derivatives, and streams of randomness."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from monge.errors import UserError
from monge.tensors import (
    NOISE_BLOCK,
    as_time,
    chunked,
    expand,
    noise,
    stream,
    sum_except_batch,
    value_and_divergence,
    value_and_rate,
)

X = torch.randn(5, 2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def wavy(x: Tensor) -> Tensor:
    """Not linear, and mixes the coordinates of an example."""
    return torch.sin(x.roll(1, -1)) * x + x.flatten(1).sum(1).cos().reshape(-1, 1, 1, 1)


def test_times_are_at_least_single_precision() -> None:
    for dtype, expected in (
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ):
        assert as_time(0.1, torch.zeros(1, dtype=dtype)).dtype == expected
    t = torch.tensor([0.1, 0.2])
    assert as_time(t, X) is t


def test_expand_and_sum() -> None:
    t = torch.arange(5.0)
    assert (expand(t, X) * torch.ones_like(X))[3].unique().tolist() == [3.0]
    assert expand(torch.tensor(2.0), X).ndim == 0
    torch.testing.assert_close(sum_except_batch(X), torch.stack([x.sum() for x in X]))


def test_rate_of_a_known_function() -> None:
    t = torch.linspace(0, 1, 7, dtype=torch.float64)
    (value, other), (rate, _) = value_and_rate(lambda u: (u**3, u.exp()), t)
    torch.testing.assert_close(value, t**3)
    torch.testing.assert_close(rate, 3 * t**2)
    torch.testing.assert_close(other, t.exp())


def jacobian() -> Tensor:
    return torch.stack(
        [
            torch.autograd.functional.jacobian(lambda y: wavy(y[None])[0].flatten(), x).reshape(
                18, 18
            )
            for x in X
        ]
    )


@pytest.mark.parametrize("chunk", [1, 7, 18, 64])
def test_exact_divergence_is_the_trace_of_the_jacobian(chunk: int) -> None:
    value, divergence = value_and_divergence(wavy, X, chunk=chunk)
    torch.testing.assert_close(value, wavy(X))
    torch.testing.assert_close(divergence, jacobian().diagonal(dim1=1, dim2=2).sum(1))


def test_hutchinson_is_the_quadratic_form_of_each_probe() -> None:
    probes = torch.randint(0, 2, (3, *X.shape), generator=stream(0, "probes")).double() * 2 - 1
    value, estimates = value_and_divergence(wavy, X, probes)
    torch.testing.assert_close(value, wavy(X))
    flat = probes.flatten(2)
    torch.testing.assert_close(estimates, torch.einsum("kbi,bij,kbj->bk", flat, jacobian(), flat))


def test_chunked_is_the_whole() -> None:
    for size in (1, 2, 5, 9):
        assert torch.equal(chunked(lambda a, b: a + b, size, X, 2 * X), 3 * X)


def test_streams_are_keyed() -> None:
    def draw(seed: int, *key: int | str) -> list[float]:
        return torch.randn(3, generator=stream(seed, *key)).tolist()

    keys = [(0, "x0", 7), (0, "x0", 8), (0, "x1", 7), (1, "x0", 7), (0, 7, "x0"), (0, "x0")]
    draws = [draw(*key) for key in keys]
    assert len({tuple(d) for d in draws}) == len(keys)
    assert draws == [draw(*key) for key in keys]
    with pytest.raises(UserError, match="the seed must not be negative, not -1"):
        stream(-1, "x0")


def test_stream_golden() -> None:
    """Saved runs depend on these numbers."""
    drawn = torch.randn(2, generator=stream(0, "x0", 7), dtype=torch.float64).tolist()
    assert drawn == pytest.approx(STREAM_GOLDEN, abs=1e-12)


STREAM_GOLDEN = [-0.3058259421760994, -1.3760669369997802]


def test_noise_depends_on_the_example_alone() -> None:
    n = 2 * NOISE_BLOCK + 20
    whole = noise(3, 0, n, (2, 4), "sample")
    assert whole.shape == (n, 2, 4) and whole.dtype == torch.float32
    for edges in ([0, 1, 2, 255, 256, 257, 300, n], [0, 512, n], [*range(0, n, 50), n]):
        parts = [noise(3, a, b, (2, 4), "sample") for a, b in itertools.pairwise(edges)]
        assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(noise(4, 0, 4, (2, 4), "sample"), whole[:4])
    assert not torch.equal(noise(3, 0, 4, (2, 4), "probe"), whole[:4])
    assert noise(3, 5, 5, (2, 4)).shape == (0, 2, 4)
    assert len(whole.flatten(1).unique(dim=0)) == n


def test_noise_is_standard_normal_and_signs_are_fair() -> None:
    drawn = noise(0, 0, 4096, (8,), "x")
    root = drawn.numel() ** 0.5
    assert abs(float(drawn.mean())) * root < 4
    assert abs(float(drawn.square().mean()) - 1) * root < 4 * 2**0.5
    signs = noise(0, 0, 4096, (8,), "x", signs=True)
    assert signs.abs().unique().tolist() == [1.0]
    assert abs(float(signs.mean())) * root < 4
