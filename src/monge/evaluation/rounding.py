r"""Rounded columns: the probability of a cell, not the density of one point in it.

A number on a grid stands for its cell, so that what was recorded has probability
:math:`P = \int_{cell} q(x)\, dx`. The density at one random point of the cell has a smaller
logarithm on average, by about half the variance of :math:`\log q` within the cell. Here the mean
over several random points is taken before the logarithm, one in each equal part of every rounded
column's cell, so that little of that variance is left.

References:
    | A note on the evaluation of generative models (Theis et al., 2016), Sec. 3.1
    | Importance weighted autoencoders (Burda et al., 2016), Eq. 8, for several points
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from monge.data.columns.schema import TableCodec


def redrawn(
    codec: TableCodec, x: Float[Tensor, "n d"], points: int, rng: torch.Generator
) -> Float64[Tensor, "k n d"]:
    """Other points (K, N, D) of the cells in which rows of coordinates lie."""
    drawn = x.double().expand(points, *x.shape).clone()
    at = 0
    for c in codec.columns:
        if c.role == "number" and c.spread and c.grid is not None:
            width = c.grid.width
            middle = ((x[:, at].double() / width + c.centre).round() - c.centre) * width
            u = torch.rand(points, len(x), generator=rng, dtype=torch.float64)
            # One point in each of K equal parts of the cell, in a random order for each row.
            part = torch.rand(points, len(x), generator=rng).argsort(0)
            drawn[:, :, at] = middle + ((part + u) / points - 0.5) * width
        at += c.size
    return drawn


def over_cells(
    log_density: Callable[[Float[Tensor, "m d"]], Float64[Tensor, "m"]],
    codec: TableCodec,
    x: Float[Tensor, "n d"],
    points: int,
    rng: torch.Generator,
) -> tuple[Float64[Tensor, "n"], Float64[Tensor, "n"]]:
    """log of the mean density over each row's cell, in nats, and the mean log-density there.

    Args:
        log_density: of rows of coordinates; called K times with all N of them. A random error of
            it must be the same for all points of a row: the logarithm of a mean counts half the
            variance of an error that is not.
        points: K of each cell.
    """
    drawn = redrawn(codec, x, points, rng).to(x)
    found = torch.stack([log_density(rows).double() for rows in drawn])
    whole = found.logsumexp(0) - math.log(points)
    return whole, found.mean(0)
