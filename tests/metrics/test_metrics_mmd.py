"""Maximum mean discrepancies: closed forms, scikit-learn's kernels, and the null."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import polynomial_kernel, rbf_kernel
from torch import Tensor

from monge.errors import UserError
from monge.metrics.mmd import (
    BANDWIDTHS,
    kernel_distance,
    kernel_gap,
    median_distance,
    mmd_squared,
    mmd_test,
)
from monge.metrics.samples import own_distances
from monge.tensors import stream


def normal(n: int, d: int, *key: int) -> Tensor:
    return torch.randn(n, d, generator=stream(0, "mmd", *key), dtype=torch.float64)


def of_shift(d: int, shift: float, scale: float) -> float:
    """MMD squared of N(0, I) and N(shift e1, I): E k of N(m, 2 I) is a ratio of Gaussians."""
    total = 0.0
    for factor in (0.25, 0.5, 1, 2, 4):
        s2 = (factor * scale) ** 2
        level = (s2 / (s2 + 2)) ** (d / 2)
        total += 2 * level * (1 - math.exp(-(shift**2) / (2 * (s2 + 2)))) / 5
    return total


def by_scikit_learn(x: Tensor, y: Tensor, kernel: object) -> float:
    """The U-statistic from scikit-learn's kernel matrices."""
    kxx, kyy, kxy = (kernel(a.numpy(), b.numpy()) for a, b in ((x, x), (y, y), (x, y)))  # type: ignore[operator]
    n, m = len(x), len(y)
    within = (kxx.sum() - np.trace(kxx)) / (n * (n - 1)) + (kyy.sum() - np.trace(kyy)) / (
        m * (m - 1)
    )
    return float(within - 2 * kxy.mean())


def test_the_kernel_is_scikit_learns_at_five_bandwidths() -> None:
    x, y, scale = normal(15, 3, 1), 0.4 + normal(11, 3, 2), 1.7
    assert BANDWIDTHS == (0.25, 0.5, 1, 2, 4)
    expected = sum(
        by_scikit_learn(x, y, lambda a, b, s=f * scale: rbf_kernel(a, b, gamma=1 / (2 * s**2)))
        for f in BANDWIDTHS
    )
    assert mmd_squared(x, y, scale) == pytest.approx(expected / 5, rel=1e-9)
    assert mmd_squared(y, x, scale) == pytest.approx(expected / 5, rel=1e-9)
    assert (kernel_gap(own_distances(x), scale).diagonal() == 0).all()


@pytest.mark.parametrize(("d", "shift"), [(2, 0.0), (2, 0.8), (20, 0.8)])
def test_unbiased_for_a_shift_at_small_n(d: int, shift: float) -> None:
    e1, scale = torch.eye(d, dtype=torch.float64)[0], math.sqrt(2 * d)
    values = np.asarray(
        [
            mmd_squared(normal(12, d, r, 0) + shift * e1, normal(8, d, r, 1), scale)
            for r in range(400)
        ]
    )
    assert abs(values.mean() - of_shift(d, shift, scale)) < 3.5 * values.std() / 20


def test_median_distance() -> None:
    x = normal(30, 3, 1)
    assert median_distance(x) == pytest.approx(float(torch.pdist(x).median()))
    assert median_distance(torch.ones(5, 2)) == 1.0
    with pytest.raises(UserError, match="real examples: 1 examples are too few"):
        median_distance(x[:1])


def test_the_permutation_test_keeps_its_level_and_finds_a_difference() -> None:
    p = [
        mmd_test(normal(15, 2, r, 0), normal(15, 2, r, 1), 1.5, stream(r), 19).p_value
        for r in range(300)
    ]
    rejected = sum(q <= 0.1 for q in p)  # exactly 10 % of the time
    assert abs(rejected - 30) < 3.5 * math.sqrt(300 * 0.1 * 0.9)
    # Equal means and covariances, another shape: two points against a Gaussian.
    signs = torch.sign(normal(150, 1, 1))
    found = mmd_test(signs, normal(150, 1, 2), 1.0, stream(0), 199)
    assert found.p_value == 1 / 200
    assert found.value == pytest.approx(mmd_squared(signs, normal(150, 1, 2), 1.0), rel=1e-12)


# The kernel distance of features


def test_kernel_distance_is_scikit_learns_cubic_kernel() -> None:
    x, y = normal(20, 6, 1), 0.5 + normal(20, 6, 2)
    expected = by_scikit_learn(x, y, lambda a, b: polynomial_kernel(a, b, degree=3))
    assert kernel_distance(x, y) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("shift", "truth"), [(0.0, 0.0), (1.0, 22.0)])
def test_kernel_distance_is_unbiased_in_one_dimension(shift: float, truth: float) -> None:
    # sum_j C(3, j) (E x^j - E y^j)^2 of N(1, 1) and N(0, 1): 3 * 1 + 3 * 1 + 16.
    values = np.asarray(
        [
            kernel_distance(shift + normal(40, 1, r, 3), normal(40, 1, r, 4), block=20)
            for r in range(400)
        ]
    )
    assert abs(values.mean() - truth) < 3.5 * values.std() / 20


def test_blocks_are_random_disjoint_and_of_equal_size() -> None:
    x, y = normal(50, 3, 1), normal(50, 3, 2)
    order_x = torch.randperm(50, generator=stream(5, "batches", "first"))
    order_y = torch.randperm(50, generator=stream(5, "batches", "second"))
    pairs = zip(x[order_x[:48]].split(16), y[order_y[:48]].split(16), strict=True)
    expected = sum(kernel_distance(a, b) for a, b in pairs) / 3
    assert kernel_distance(x, y, seed=5, block=20) == pytest.approx(expected)
    with pytest.raises(UserError, match="equal size"):
        kernel_distance(x, y[:40])
    with pytest.raises(UserError, match="needs two examples, not 1"):
        kernel_distance(x, y, block=1)
