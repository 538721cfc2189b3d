r"""The Frechet distance between two sets of features, its floor, and its value at infinite n.

.. math:: |m_1 - m_2|^2 + \mathrm{tr}\,(C_1 + C_2 - 2 (C_1^{1/2} C_2 C_1^{1/2})^{1/2}),

W2 squared between the Gaussians with the moments of the two sets. It is biased upwards by an amount
that falls as 1/n and depends on the law, hence on the model: compare at equal n, beside the floor,
or at infinite n. Values under two feature networks are not comparable, and none of them is a FID,
which is this distance in one network's features under one protocol.

References:
    | GANs Trained by a Two Time-Scale Update Rule (Heusel et al., 2017), Eq. 6
    |   -- https://arxiv.org/abs/1706.08500
    | Effectively Unbiased FID (Chong and Forsyth, 2019) -- https://arxiv.org/abs/1911.07023
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from monge.errors import UserError
from monge.metrics.samples import Samples, as_pair
from monge.metrics.wasserstein import gaussian_w2_squared
from monge.tensors import stream

PARTS = (1, 2, 3, 4)
"""Into how many batches the sets are cut for each point of the fit against 1/n."""


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """The Frechet distance between two sets of features, in squared units of the features.

    `gaussian_w2_squared` under the name that it has among features. Singular covariances (features
    that are constant) do no harm.

    Args:
        x, y: (n, d) and (m, d), at least two examples each.

    Raises:
        UserError: different dimensions or bad entries.
    """
    return gaussian_w2_squared(x, y)


def _covariance(x: Samples) -> Float[Tensor, "d d"]:
    return x.T.cov().reshape(x.shape[1], x.shape[1])


def frechet_floor(x: Tensor, n: int) -> float:
    r"""The mean Frechet distance between two samples of n from the law of x, to first order in 1/n.

    .. math:: \frac1n \Big[ 2\,\mathrm{tr}\,C + \frac12 \mathrm{tr}\,C
        + \sum_{ij} \frac{\lambda_i \lambda_j}{\lambda_i + \lambda_j} \Big]

    with the eigenvalues of the covariance C of x; for white features, (d (d + 1) / 2 + 2 d) / n.
    Exact for Gaussian features and n >> d; heavy tails raise it.

    Args:
        x: (m, d), features of real examples, as many as there are.
    """
    x, _ = as_pair(x, x)
    values = torch.linalg.eigvalsh(_covariance(x)).clamp(min=0)
    sums = values[:, None] + values
    pairs = torch.where(sums > 0, values[:, None] * values / sums, 0.0).sum()
    return float(2.5 * values.sum() + pairs) / n


def frechet_at_infinity(x: Tensor, y: Tensor, seed: int = 0) -> float:
    """The Frechet distance extrapolated to infinitely many examples; may be negative.

    The intercept of a straight line in 1/n through the distances at n, n/2, n/3 and n/4 examples,
    each the mean over disjoint batches, so that every point uses all examples (Chong and Forsyth
    draw subsets instead). What is left of the bias falls as 1/n^2; it wants n / 4 well above d.

    Args:
        x, y: (n, d), of equal size.
        seed: of the batches.

    Raises:
        UserError: unequal sizes, fewer than eight examples, or bad entries.
    """
    x, y = as_pair(x, y, equal=True)
    n = len(x)
    if n < 2 * PARTS[-1]:
        raise UserError(f"the fit against 1/n needs {2 * PARTS[-1]} examples in a set, not {n}")
    x = x[torch.randperm(n, generator=stream(seed, "batches", "first"))]
    y = y[torch.randperm(n, generator=stream(seed, "batches", "second"))]
    points = []
    for parts in PARTS:
        size = n // parts
        batches = zip(x[: size * parts].split(size), y[: size * parts].split(size), strict=True)
        points.append((1 / size, sum(frechet_distance(a, b) for a, b in batches) / parts))
    u, distance = torch.tensor(points, dtype=torch.float64).T
    slope = ((u - u.mean()) * distance).sum() / (u - u.mean()).square().sum()
    return float(distance.mean() - slope * u.mean())
