"""Two samplers of tables that anything should beat, for the places beside it.

Columns drawn independently have every column right and no dependence. A Gaussian copula has every
column right and the correlations of normal scores. A number that the first wins says nothing of
dependence; one that the second wins, nothing of what is not linear in those scores.

References:
    | An introduction to copulas (Nelsen, 2006), Sec. 2.3
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from monge.metrics.tabular import Table
from monge.tensors import stream

INDEPENDENT = "independent columns"
COPULA = "Gaussian copula"


def independent_columns(train: Table, n: int, seed: int) -> Table:
    """n rows whose columns are those of training rows, drawn independently of each other."""
    drawn = [
        column[torch.randint(len(train), (n,), generator=stream(seed, "independent", str(j)))]
        for j, column in enumerate(train.unbind(1))
    ]
    return torch.stack(drawn, 1)


def gaussian_copula(train: Table, n: int, seed: int) -> Table:
    """n rows of the training columns' own laws, joined by a Gaussian copula of all columns.

    Categories are ordered by their codes, spread evenly over their share.
    """
    rng = stream(seed, "copula")
    noise = torch.rand(train.shape, generator=rng, dtype=torch.float64)
    order = torch.stack(
        [_rank(c, u) for c, u in zip(train.unbind(1), noise.unbind(1), strict=True)]
    )
    scores = torch.special.ndtri((order.T + 0.5) / len(train))
    covariance = torch.atleast_2d(torch.cov(scores.T))
    values, vectors = torch.linalg.eigh(covariance)
    white = torch.randn(n, train.shape[1], generator=rng, dtype=torch.float64)
    drawn = (white * values.clamp_min(0).sqrt()) @ vectors.T / covariance.diagonal().sqrt()
    place = (torch.special.ndtr(drawn) * len(train)).long().clamp_max(len(train) - 1)
    return torch.stack([train[:, j].sort().values[place[:, j]] for j in range(train.shape[1])], 1)


def _rank(column: Tensor, ties: Tensor) -> Tensor:
    """Ranks from 0, ties in the order of other numbers."""
    order = torch.from_numpy(np.lexsort((ties.numpy(), column.numpy())))
    ranks = torch.empty(len(column), dtype=torch.float64)
    ranks[order] = torch.arange(len(column), dtype=torch.float64)
    return ranks
