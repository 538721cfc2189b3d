r"""Wasserstein-2 between two samples: exact, sliced, and of the Gaussians with their moments.

All three are *squared*, in squared data units, and comparable: for a shift by a vector delta each
adds :math:`|\delta|^2`. All three are biased upwards by sampling alone, the exact one by order
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
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from monge.errors import UserError, missing_extra, nearest
from monge.metrics.samples import Samples, as_pair
from monge.tensors import stream

Solver = Literal["auto", "sort", "emd", "lapjv", "scipy"]
SOLVERS = ("auto", "sort", "emd", "lapjv", "scipy")
NETWORK_SIMPLEX_DIM = 8
"""Up to here POT's network simplex is faster than assignment by shortest paths (clustered data)."""


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
    along = (normals / normals.norm(dim=1, keepdim=True)).T
    gap = (x @ along).sort(0).values - (y @ along).sort(0).values
    return float(d * gap.square().mean())


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
    return float(shift) + bures_squared(a.T @ a, b.T @ b)


def bures_squared(c1: Float[Tensor, "d d"], c2: Float[Tensor, "d d"]) -> float:
    """W2 squared between centred Gaussians with covariances c1 and c2, by symmetric eigenvalues."""
    values, vectors = torch.linalg.eigh(c1)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ c2 @ root).clamp(min=0).sqrt().sum()
    return max(float(c1.trace() + c2.trace() - 2 * cross), 0.0)


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
