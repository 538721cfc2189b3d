r"""The distance to the closest record: whether samples lie nearer to training rows than to others.

Of two rows it is the mean over columns of: the difference of two numbers over their range, at most
1; 0 for equal categories and 1 for others (Gower's dissimilarity). A missing value equals a missing
value, and differs from all others. As many training rows as held-out rows are drawn. A sample that
lies nearer to one of the training rows counts 1, at equal distances 1/2. Their share is 1/2 on
average for a sampler that copies nothing, because the two sets are then exchangeable: that is
exact, at every size.

**It promises no privacy.** It says how all samples lie on average. A share of 1/2 does not exclude
that some rows are copied, or that something can be learned of a person.

References:
    | A general coefficient of similarity and some of its properties (Gower, 1971)
    | Holdout-based empirical assessment of mixed-type synthetic data (Platzer and Reutterer, 2021)
      -- https://arxiv.org/abs/2104.00635
    | The inadequacy of similarity-based privacy metrics (Ganev and De Cristofaro, 2023)
      -- https://arxiv.org/abs/2312.05114
    | The jackknife estimate of variance (Efron and Stein, 1981): on average not too small
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from monge.metrics.columns import Columns
from monge.metrics.intervals import GROUPS
from monge.metrics.samples import random_rows
from monge.metrics.tabular import Table
from monge.tensors import stream

CHUNK_ENTRIES = 2**22


@dataclass(frozen=True)
class Closest:
    """How samples lie to training rows and to as many held-out ones.

    Attributes:
        share: of samples nearer to a training row, ties half.
        stderr: of the samples and of both sets of real rows.
        references: rows of each of the two sets.
        same: the share of samples that equal a training row of the set.
    """

    share: float
    stderr: float
    references: int
    same: float


def closest(x: Table, train: Table, heldout: Table, columns: Columns, seed: int) -> Closest:
    """Where samples x (n, d) lie between training rows (N, d) and held-out rows (m, d)."""
    size = min(len(train), len(heldout))
    sets = [
        z[random_rows(len(z), size, stream(seed, "closest", name))]
        for name, z in (("train", train), ("heldout", heldout))
    ]
    x, *sets = _on_one_scale((x, *sets), columns)
    groups = min(GROUPS, size)
    # One order for both sets: what is left out at once is independent of the rest.
    order = torch.randperm(size, generator=stream(seed, "closest", "groups")) % groups
    near = [_nearest(x, z, order, groups, columns) for z in sets]
    points = _points(*(part.amin(1) for part in near))
    kept = torch.eye(groups) == 0
    left = [float(_points(*(part[:, rows].amin(1) for part in near)).mean()) for rows in kept]
    spread = (groups - 1) * float(torch.tensor(left).double().var(correction=0)) if size > 1 else 0
    noise = float(points.var()) / len(x) if len(x) > 1 else 0.25
    same = float((near[0].amin(1) == 0).double().mean())
    return Closest(float(points.mean()), math.sqrt(spread + noise), size, same)


def _points(train: Tensor, heldout: Tensor) -> Tensor:
    return (train < heldout).double() + 0.5 * (train == heldout).double()


def _on_one_scale(sets: Sequence[Table], columns: Columns) -> list[Table]:
    """Numbers of all sets over their range in all but the first; a constant has none."""
    both = torch.cat(list(sets[1:]))
    high = torch.where(both.isnan(), -math.inf, both).amax(0)
    low = torch.where(both.isnan(), math.inf, both).amin(0)
    width = high - low
    numbers = ~torch.tensor(columns.categorical) & width.isfinite() & (width > 0)
    # A number that does not vary is compared as a category is.
    low, width = torch.where(numbers, low, 0.0), torch.where(numbers, width, 1.0)
    return [(z - low) / width for z in sets]


def _nearest(
    x: Table, y: Table, group: Tensor, groups: int, columns: Columns
) -> Float[Tensor, "n groups"]:
    """The distance of each x to the nearest y of each group."""
    made = []
    for part in x.split(max(1, CHUNK_ENTRIES // len(y))):
        gap = distances(part, y, columns)
        made.append(torch.stack([gap[:, group == g].amin(1) for g in range(groups)], 1))
    return torch.cat(made)


def distances(x: Table, y: Table, columns: Columns) -> Float[Tensor, "n m"]:
    """Gower's dissimilarity of rows x (n, d) and y (m, d) whose numbers are over their ranges.

    >>> x, y = torch.tensor([[[0.0, 1.0]], [[0.25, 2.0]]]).double()
    >>> distances(x, y, Columns(("a", "k"), (False, True))).item()
    0.625
    """
    total = torch.zeros(len(x), len(y), dtype=torch.float64)
    for j, code in enumerate(columns.categorical):
        a, b = x[:, j, None], y[None, :, j]
        gap = (a != b).double() if code else (a - b).abs_().clamp_max_(1.0)
        if bool(a.isnan().any()) or bool(b.isnan().any()):
            gap = gap.nan_to_num_(1.0).masked_fill_(a.isnan() & b.isnan(), 0.0)
        total += gap
    return total.div_(len(columns.categorical))
