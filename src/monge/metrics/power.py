"""How small a difference a test would have seen."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from monge.metrics.samples import Rows, Samples, own_distances
from monge.metrics.two_sample import mean_of_pairs, of_splits

POWER = 0.8
SPLITS = 25
NULL_SPLITS = 500
HALVINGS = 9
SMALLEST = 1e-3
"""Of the spread of the examples: no smaller shift is looked for."""


def detectable_shift(x: Samples, y: Samples, level: float, rng: torch.Generator) -> float:
    """The length of a shift of the mean that the energy test would see with 80 % power.

    By simulation from the two sets themselves, which should be of one law: their pool is dealt
    into two sets of their sizes, one of which is moved in a random direction. In data units.

    Args:
        x, y: (n, d) and (m, d) in float64.
        level: of the test.
    """
    pooled = torch.cat([x, y])
    n, total = len(x), len(pooled)
    direction = torch.randn(pooled.shape[1], generator=rng, dtype=torch.float64)
    along = pooled @ (direction / direction.norm())
    own = own_distances(pooled)
    order = torch.rand(NULL_SPLITS, total, generator=rng).argsort(dim=1)
    chosen = torch.zeros(total, NULL_SPLITS, dtype=torch.float64)
    chosen.scatter_(0, order[:, :n].T, 1.0)
    critical = float(of_splits(own, chosen).quantile(1 - level))

    spread = float(pooled.var(0).sum().sqrt()) or 1.0
    needed = torch.tensor(
        [_needed(own, along, r[:n], r[n:], critical, spread) for r in order[:SPLITS]]
    )
    return float(needed.quantile(POWER))


def detectable_gap(n: int, m: int, level: float, what: Literal["auc", "share"]) -> float:
    r"""The distance of two shares, or of an area under the curve from 1/2, seen with 80 % power.

    :math:`(z_{1 - \alpha/2} + z_{0.8})` standard errors under equal laws: of an area from half of
    the scores, which is what its interval goes by, 1/12 (1/n' + 1/m') with n' = n/2; of two shares
    near one half, where they are hardest to tell, 1/4 (1/n + 1/m).

    >>> round(detectable_gap(1000, 1000, 0.05, "share"), 3)
    0.063
    """
    normal = torch.distributions.Normal(0.0, 1.0)
    z = sum(float(normal.icdf(torch.tensor(p))) for p in (1 - level / 2, POWER))
    size = 1 / n + 1 / m
    return z * ((2 * size / 12) if what == "auc" else size / 4) ** 0.5


def _needed(
    own: Tensor, along: Tensor, first: Rows, second: Rows, critical: float, spread: float
) -> float:
    """The shift along a direction that makes the energy distance of two sets critical."""
    between = own[first][:, second]
    inside = sum(float(mean_of_pairs(own[part][:, part])) for part in (first, second))
    squares, gap = between.square(), along[first][:, None] - along[second]

    def seen(shift: float) -> bool:
        moved = torch.add(squares, gap, alpha=-2 * shift).add_(shift**2)
        return float(2 * moved.clamp_(min=0).sqrt_().mean()) - inside >= critical

    high = spread
    while not seen(high):
        high *= 2
    low = SMALLEST * high
    for _ in range(HALVINGS):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if seen(middle) else (middle, high)
    return high
