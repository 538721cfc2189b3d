"""Spectral norms that are held at their caps: against exact singular values."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from monge.networks.capped import (
    SLACK,
    CappedLinear,
    capped_layers,
    clip_spectrum,
    hold,
    norm_bound,
    soft_cap,
    spectral_bound,
)
from monge.tensors import stream


def matrices(m: int, n: int, norm: float, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Three matrices of a spectral norm, one of them a multiple of an isometry."""
    w = torch.randn(3, m, n, generator=stream(m, n), dtype=torch.float64)
    w[2] = torch.linalg.svd(w[2], full_matrices=False)[0] if m >= n else w[2]
    return (norm * w / torch.linalg.matrix_norm(w, 2)[:, None, None]).to(dtype)


SIZES = [(5, 1), (4, 4), (40, 8), (128, 128)]


@pytest.mark.parametrize(("m", "n"), SIZES)
@pytest.mark.parametrize("norm", [0.3, 1.0, 1.05, 1.3, 40.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_norm_is_above_the_cap_after_it_is_held(m, n, norm, dtype) -> None:
    for cap in (1.0, 2.5):
        held = soft_cap(cap * matrices(m, n, norm, dtype), cap)
        assert float(torch.linalg.matrix_norm(held.double(), 2).max()) <= cap


@pytest.mark.parametrize(("m", "n"), SIZES)
def test_the_bound_power_iteration_and_svd_agree(m, n) -> None:
    w = matrices(m, n, 1.7)
    exact = torch.linalg.svdvals(w)[:, 0]
    bound = spectral_bound(w.mT @ w)
    assert bool((bound >= exact * (1 - 1e-12)).all())
    assert bool((bound <= exact * n ** (1 / 512) * (1 + 1e-12)).all())
    u = torch.ones(3, n, 1, dtype=torch.float64)
    for _ in range(3000):
        u = w.mT @ (w @ u)
        u = u / u.norm(dim=1, keepdim=True)
    torch.testing.assert_close((w @ u).norm(dim=1)[:, 0], exact, rtol=1e-4, atol=0)
    for one in w:
        assert float(torch.linalg.matrix_norm(one, 2)) <= norm_bound(one) <= 1.7 * (1 + 2e-9)


def test_a_matrix_below_the_cap_is_kept_to_the_bit() -> None:
    w = matrices(40, 8, 0.98, torch.float32)
    assert torch.equal(soft_cap(w), w)


@pytest.mark.parametrize("size", [0.0, 1e-25, 1e-18])
def test_matrices_of_tiny_numbers_are_kept(size) -> None:
    """Their squares vanish in float32."""
    w = size * torch.randn(2, 6, 3, generator=stream(5))
    assert torch.equal(hold([w])[0], w)


def test_the_polynomial_moves_the_largest_singular_values_most() -> None:
    """Hand computed at k = 1.1, cap 1: 1 - 3 u^2 + 3 u^3 - u^4 = 1 / 1.1 has u = 0.192226."""
    values = torch.tensor([1.1, 0.5], dtype=torch.float64)
    found = torch.linalg.svdvals(soft_cap(torch.diag(values)[None], 1 / (1 - SLACK)))[0]
    a = 0.192226 / 1.21
    y = 0.5 - a * 0.125
    assert float(found[0]) == pytest.approx(1.0, abs=1e-6)
    assert float(found[1]) == pytest.approx(y + a * y**3, abs=1e-5)


def test_clipping_is_the_nearest_capped_matrix() -> None:
    w = matrices(6, 4, 3.0)
    near = clip_spectrum(w)
    values = torch.linalg.svdvals(w)
    torch.testing.assert_close(torch.linalg.svdvals(near), values.clamp_max(1.0))
    least = (values - 1).clamp_min(0).square().sum(1).sqrt()
    torch.testing.assert_close((w - near).flatten(1).norm(dim=1), least)


def test_weights_of_any_shapes_are_held_together() -> None:
    shapes = [(3, 4, 4), (1, 2, 6), (1, 6, 2), (1, 4, 4)]
    rng = stream(3)
    weights = [5 * torch.randn(shape, generator=rng, dtype=torch.float64) for shape in shapes]
    held = hold(weights)
    assert [w.shape for w in held] == [torch.Size(s) for s in shapes]
    for one, other in zip(held, weights, strict=True):
        norms = torch.linalg.matrix_norm(one, 2)
        assert bool((norms <= 1).all()) and bool((norms >= 0.75).all())
        alone = hold([other])[0]
        torch.testing.assert_close(one, alone, rtol=1e-12, atol=1e-12)


def test_an_average_of_capped_matrices_is_capped() -> None:
    a, b = (soft_cap(matrices(8, 8, norm)) for norm in (3.0, 1.1))
    for share in (0.1, 0.5, 0.9):
        assert float(torch.linalg.matrix_norm(torch.lerp(a, b, share), 2).max()) <= 1


def test_a_capped_layer_is_its_matrices_side_by_side() -> None:
    layer = CappedLinear(3, 2, groups=2)
    layer.reset(stream(0))
    x = torch.randn(5, 3, generator=stream(1))
    expected = torch.cat([x @ matrix.T for matrix in layer.matrices], dim=1)
    torch.testing.assert_close(layer(x), expected)
    assert float(torch.linalg.matrix_norm(layer.matrices.double(), 2).max()) <= 1
    assert capped_layers(nn.Sequential(layer, nn.Linear(2, 2))) == [layer]
    layer.matrices.zero_()
    assert not layer.weight.any()
