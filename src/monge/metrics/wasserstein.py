r"""Wasserstein-2 between two samples: exact, sliced, along the worst direction, and of Gaussians.

All are *squared*, in squared data units, and comparable: for a shift by a vector delta each
adds :math:`|\delta|^2`. All are biased upwards by sampling alone, the exact one by order
:math:`n^{-2/d}`, so none means anything without the floor: the same estimator between two real
samples of equal size. Subtract squared distances, not distances.

References:
    | Computational Optimal Transport (Peyré and Cuturi, 2019), Sec. 2.6, 3.7 and 10.1
    |   -- https://arxiv.org/abs/1803.00567
    | Plugin estimation of smooth optimal transport maps (Manole et al., 2021), on the rate
    |   -- https://arxiv.org/abs/2107.12364
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from monge.errors import UserError, missing_extra, nearest
from monge.metrics.intervals import GROUPS, jackknife
from monge.metrics.samples import Samples, as_pair
from monge.targets.wasserstein import bures
from monge.tensors import stream

Solver = Literal["auto", "sort", "emd", "lapjv", "scipy"]
SOLVERS = ("auto", "sort", "emd", "lapjv", "scipy")
NETWORK_SIMPLEX_DIM = 8
"""Dimensions up to which POT's network simplex is taken, above them shortest paths (lapjv).

The crossover depends on the law. lapjv's seconds over the network simplex's, one thread of an AMD
Zen 3, POT 0.9.7 and lap 0.5.13, medians of 2 or 3 pairs of samples, processor time on a busy
machine (seeds 0 to 2):

| d | 2 | 3 | 4 | 6 | 8 | 12 | 16 |
|---|---|---|---|---|---|---|---|
| two samples of N(0, I), n = 500 | 1.4 | 1.7 | 1.5 | 0.4 | 0.4 | 0.2 | 0.3 |
| n = 1,000 | 4.3 | 3.1 | 1.6 | 0.8 | 1.1 | 0.3 | 0.3 |
| n = 2,000 | 5.1 | 4.3 | 2.9 | 0.9 | 0.7 | 0.4 | 0.4 |
| five clusters, n = 500 | 1.9 | 2.6 | 2.5 | 2.7 | 2.5 | 2.3 | 2.6 |

So without clusters it lies between 4 and 6, with clusters above 16; eight loses a factor of about
two either way.
"""

STARTS = 6
ASCENT_STEPS = 20
"""Of each search for the worst direction."""

MOST_DIAGONALISED = 256
"""Dimensions up to which its starts include eigenvectors."""


def choose_solver(d: int) -> Solver:
    """The fastest installed exact solver in d dimensions; all find the same cost."""
    if d == 1:
        return "sort"
    if d <= NETWORK_SIMPLEX_DIM and importlib.util.find_spec("ot"):
        return "emd"
    return "lapjv" if importlib.util.find_spec("lap") else "scipy"


def exact_w2_squared(x: Tensor, y: Tensor, solver: Solver = "auto") -> float:
    """W2 squared between the empirical laws of two samples of equal size n.

    Time grows as n^3 at worst and memory as n^2: seconds at n = 2,000.

    Args:
        x, y: (n, ...), flattened.
        solver: "auto" takes `choose_solver`'s; "sort" is for one dimension.

    Raises:
        UserError: unequal sizes, bad entries, an unknown solver or one that is not installed.
    """
    x, y = as_pair(x, y, equal=True)
    solver = choose_solver(x.shape[1]) if solver == "auto" else solver
    if solver == "sort":
        if x.shape[1] > 1:
            raise UserError(f"solver 'sort' is exact in one dimension, not in {x.shape[1]}")
        return float((x.sort(0).values - y.sort(0).values).square().mean())
    return _assignment_cost(_squared_distances(x, y).numpy(), solver) / len(x)


def _squared_distances(x: Samples, y: Samples) -> Float[Tensor, "_n _m"]:
    centre = y.mean(0)
    x, y = x - centre, y - centre
    squares = x.square().sum(1)[:, None] + y.square().sum(1)
    return torch.addmm(squares, x, y.T, alpha=-2).clamp(min=0)


def _assignment_cost(cost: np.ndarray, solver: str) -> float:
    if solver == "emd":
        try:
            import ot
        except ImportError:
            raise missing_extra("POT", "ot", "The exact solver 'emd'") from None
        # POT's default of 1e5 iterations stops before optimality from n of about 1,000.
        mean, log = ot.emd2([], [], cost, numItermax=10**7, log=True)
        if log["warning"] is not None:
            raise UserError(f"solver 'emd' did not converge ({log['warning']}): use 'scipy'")
        return float(mean) * len(cost)
    if solver == "lapjv":
        try:
            import lap
        except ImportError:
            raise missing_extra("lap", "ot", "The exact solver 'lapjv'") from None
        return float(lap.lapjv(cost)[0])
    if solver == "scipy":
        from scipy.optimize import linear_sum_assignment

        return float(cost[linear_sum_assignment(cost)].sum())
    raise UserError(f"unknown solver {solver!r}: {nearest(solver, SOLVERS)}")


def sliced_w2_squared(x: Tensor, y: Tensor, directions: int = 512, seed: int = 0) -> float:
    r"""Sliced W2 squared, times d, between two samples of equal size.

    The mean of W2 squared over projections on random directions, times the dimension d, so that a
    shift by delta counts :math:`|\delta|^2` as it does for W2. Directions depend on the seed
    alone. Its sampling error is free of the dimension's curse; it is weak on thin directions.

    Raises:
        UserError: unequal sizes or bad entries.
    """
    x, y = as_pair(x, y, equal=True)
    d = x.shape[1]
    normals = torch.randn(
        directions, d, generator=stream(seed, "directions", d), dtype=torch.float64
    )
    return float(d * _along(x, y, normalize(normals, dim=1).T).mean())


def max_sliced_w2_squared(x: Tensor, y: Tensor, seed: int = 0) -> float:
    r"""W2 squared along the worst direction, found on one half and measured on the other.

    Each half of both samples is searched by `worst_direction`; the value is the mean of W2
    squared along the direction of one half between the examples of the other half. Unlike a
    maximum over the examples that are measured, it does not grow with the number of directions
    tried. Between laws W2 along any direction is at most the max-sliced W2, and that at most W2,
    so it estimates a lower bound of both; the upward bias that is left is that of W2 in one
    dimension at n / 2, and a shift by delta counts :math:`|\delta|^2` where it is found.

    Raises:
        UserError: unequal sizes, fewer than four examples, or bad entries.
    """
    return _crosswise(_halves(x, y, seed), seed)


def max_sliced_stderr(x: Tensor, y: Tensor, rng: torch.Generator, seed: int = 0) -> float:
    """The standard error of `max_sliced_w2_squared`, by the jackknife; NaN below 40 examples.

    What is left out is left out of both halves, which stay what they are, and directions are
    found anew.
    """
    halves = _halves(x, y, seed)
    size = len(halves[0])
    if size < 2 * GROUPS:
        return math.nan
    return jackknife(lambda kept: (_crosswise([z[kept] for z in halves], seed),), size, rng)[0]


def _halves(x: Tensor, y: Tensor, seed: int) -> list[Samples]:
    """Two random halves of the first set, and two of the second one, all of one size."""
    x, y = as_pair(x, y, equal=True)
    if len(x) < 4:
        raise UserError(f"a direction found on one half needs 4 examples in a set, not {len(x)}")
    half = len(x) // 2
    order_x, order_y = (
        torch.randperm(len(x), generator=stream(seed, "halves", name)) for name in ("x", "y")
    )
    parts = [z[order[: 2 * half]].split(half) for z, order in ((x, order_x), (y, order_y))]
    return [*parts[0], *parts[1]]


def _crosswise(halves: Sequence[Samples], seed: int) -> float:
    """Mean W2 squared of each pair of halves along the direction that the other pair has found."""
    x0, x1, y0, y1 = halves
    along_0 = _along(x0, y0, worst_direction(x1, y1, seed)[:, None])
    along_1 = _along(x1, y1, worst_direction(x0, y0, seed)[:, None])
    return float(along_0 + along_1) / 2


def worst_direction(x: Samples, y: Samples, seed: int = 0) -> Float[Tensor, " d"]:
    r"""A unit vector along which two samples of equal size are far apart in W2.

    The best point of `STARTS` ascents of :math:`u^T M_u u`, with the second moments of the
    differences that sorting along u matches. Steps go along the gradient, ever shorter, from the
    difference of the means, the directions of the greatest change of variance, and random ones.
    A local maximum.
    """
    d = x.shape[1]
    u = torch.randn(d, STARTS, generator=stream(seed, "starts", d), dtype=torch.float64)
    shift = x.mean(0) - y.mean(0)
    if shift.norm() > 0:
        u[:, 0] = shift
    if 1 < d <= MOST_DIAGONALISED:
        u[:, 1:3] = torch.linalg.eigh(x.T.cov() - y.T.cov()).eigenvectors[:, [0, -1]]
    u = normalize(u, dim=0)
    best, most = u[:, 0], -1.0
    for step in range(ASCENT_STEPS + 1):
        (along_x, order_x), (along_y, order_y) = (x @ u).sort(0), (y @ u).sort(0)
        gap = along_x - along_y
        found = gap.square().mean(0)
        if float(found.max()) > most:
            most, best = float(found.max()), u[:, int(found.argmax())]
        slope = x.T @ torch.zeros_like(gap).scatter_(0, order_x, gap)
        slope -= y.T @ torch.zeros_like(gap).scatter_(0, order_y, gap)
        slope -= u * (u * slope).sum(0)
        u = normalize(u + normalize(slope, dim=0) / (2 * math.sqrt(1 + step)), dim=0)
    return best


def _along(x: Samples, y: Samples, directions: Float[Tensor, "d k"]) -> Float[Tensor, " k"]:
    """W2 squared between the projections on each direction."""
    # numpy sorts without the order, which takes a third of torch's time.
    along = [np.sort((directions.T @ z.T).numpy(), axis=1) for z in (x, y)]
    return torch.from_numpy(np.square(along[0] - along[1]).mean(1))


def gaussian_w2_squared(x: Tensor, y: Tensor) -> float:
    r"""W2 squared between the Gaussians with the two samples' means and covariances.

    .. math:: |m_1 - m_2|^2 + \mathrm{tr}\,C_1 + \mathrm{tr}\,C_2
        - 2\,\mathrm{tr}(C_1^{1/2} C_2 C_1^{1/2})^{1/2}

    (Peyré and Cuturi, Remark 2.31): a lower bound of W2 between the laws (Gelbrich), blind beyond
    second moments. With fewer examples than dimensions the last trace is computed as the sum of
    the singular values of the n x m matrix of inner products of centred examples.

    Raises:
        UserError: different dimensions or bad entries.
    """
    x, y = as_pair(x, y)
    shift = (x.mean(0) - y.mean(0)).square().sum()
    a = (x - x.mean(0)) / (len(x) - 1) ** 0.5
    b = (y - y.mean(0)) / (len(y) - 1) ** 0.5
    if min(len(x), len(y)) < x.shape[1]:
        cross = torch.linalg.svdvals(a @ b.T).sum()
        return max(float(shift + a.square().sum() + b.square().sum() - 2 * cross), 0.0)
    return bures(x.mean(0), a.T @ a, y.mean(0), b.T @ b) ** 2


def variance_ratio(x: Tensor, y: Tensor) -> float:
    """Total variance of x over that of y.

    Read beside W2: a cloud with too little variance matches better than real data does, so its
    distance can fall below the floor.
    """
    x, y = as_pair(x, y)
    total = y.var(0).sum()
    if total == 0:
        raise UserError("second set: all examples are equal, so variances have no ratio")
    return float(x.var(0).sum() / total)
