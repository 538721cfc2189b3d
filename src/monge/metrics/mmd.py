r"""Maximum mean discrepancies: how far two laws are apart in the mean values of a kernel.

.. math:: \mathrm{MMD}^2(p, q) = E k(X, X') + E k(Y, Y') - 2 E k(X, Y),

by its U-statistic, unbiased at every n, so it scatters around zero when the laws agree. With the
kernel turned into the distance-like :math:`c = k(x, x) - k(x, x')` this is the formula of the
energy distance, and the same code and the same permutation test serve both.

References:
    | A kernel two-sample test (Gretton et al., 2012), Sec. 2 and 8
    | Demystifying MMD GANs (Binkowski et al., 2018), the kernel distance of features
    |   -- https://arxiv.org/abs/1801.01401
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from monge.errors import UserError
from monge.metrics.samples import Samples, as_matrix, as_pair, distances, own_distances
from monge.metrics.two_sample import (
    PERMUTATIONS,
    PermutationTest,
    between_minus_within,
    mean_of_pairs,
    permutation_test,
)
from monge.tensors import stream

WIDEST = 4.0
BANDWIDTHS = (WIDEST / 16, WIDEST / 8, WIDEST / 4, WIDEST / 2, WIDEST)
"""Of the Gaussian kernels, 1/4 to 4, over the median distance of real data."""

MEDIAN_OF = 1000
"""Examples whose distances the median is of, at most: the first ones."""

BLOCK = 1000
"""Examples in a block of the kernel distance, at most."""


def median_distance(real: Tensor) -> float:
    """The median distance between two of the real examples: the scale of kernels.

    One where most examples are equal. A permutation test is exact only if it is of examples that
    are in neither sample, training examples for instance.
    """
    own = own_distances(as_matrix(real[:MEDIAN_OF], "real examples").double())
    i, j = torch.triu_indices(len(own), len(own), 1)
    return float(own[i, j].median()) or 1.0


def kernel_gap(distance: Float[Tensor, "_n _m"], scale: float) -> Float[Tensor, "_n _m"]:
    """1 - k, with k the mean of five Gaussian kernels of bandwidths 1/4 to 4 times the scale.

    From the widest to the next narrower one the exponent grows by 4, so one exponential serves.
    """
    kernel = distance.square().div_(-2 * (WIDEST * scale) ** 2).exp_()
    total = kernel.clone()
    for _ in BANDWIDTHS[1:]:
        total += kernel.square_().square_()
    return total.div_(len(BANDWIDTHS)).neg_().add_(1)


def mmd_squared(x: Tensor, y: Tensor, scale: float) -> float:
    """MMD squared by its U-statistic, between samples of any sizes; may be negative.

    Args:
        scale: of the kernels, in data units, as `median_distance` finds it.

    Raises:
        UserError: different dimensions or bad entries.
    """
    a, b = as_pair(x, y)
    parts = distances(a, b), own_distances(a), own_distances(b)
    return between_minus_within(*(kernel_gap(part, scale) for part in parts))


def mmd_test(
    x: Tensor, y: Tensor, scale: float, rng: torch.Generator, permutations: int = PERMUTATIONS
) -> PermutationTest:
    """MMD squared with a permutation test of equal laws.

    Raises:
        UserError: different dimensions or bad entries.
    """
    a, b = as_pair(x, y)
    pooled = kernel_gap(own_distances(torch.cat([a, b])), scale)
    return permutation_test(pooled, len(a), rng, permutations)


def kernel_distance(x: Tensor, y: Tensor, seed: int = 0, block: int = BLOCK) -> float:
    r"""MMD squared under :math:`k(x, y) = (x \cdot y / d + 1)^3`, unbiased; may be negative.

    In features this is the kernel distance that is called KID in those of one network. The mean
    over disjoint random blocks of equal size, which costs a larger sample little precision.

    Args:
        x, y: (n, d), of equal size.
        seed: of the blocks.
        block: the most examples in a block.

    Raises:
        UserError: unequal sizes or bad entries.
    """
    x, y = as_pair(x, y, equal=True)
    if block < 2:
        raise UserError(f"a block of the kernel distance needs two examples, not {block}")
    parts = -(-len(x) // block)
    size = len(x) // parts
    if parts > 1:
        x = x[torch.randperm(len(x), generator=stream(seed, "batches", "first"))]
        y = y[torch.randperm(len(y), generator=stream(seed, "batches", "second"))]
    pairs = zip(x[: size * parts].split(size), y[: size * parts].split(size), strict=True)
    return sum(_cubic_mmd(a, b) for a, b in pairs) / parts


def _cubic_mmd(x: Samples, y: Samples) -> float:
    def kernel(a: Samples, b: Samples) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    within = sum(mean_of_pairs(kernel(a, a).fill_diagonal_(0)) for a in (x, y))
    return float(within - 2 * kernel(x, y).mean())
