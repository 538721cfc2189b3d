r"""alpha-precision and beta-recall: do samples lie where real rows do, and everywhere there?

Let :math:`r_\alpha` be the radius of the ball around the mean of real rows that holds the share
:math:`\alpha` of them, and :math:`P(\alpha)` the share of samples in it. Let :math:`R(\beta)` be
the share of real rows whose nearest sample is no farther than their nearest real row, and lies
among the share :math:`\beta` of such samples that is nearest to the mean of all samples. Over a
grid of levels the numbers are

.. math:: 1 - \frac{\sum_\alpha |\alpha - P(\alpha)|}{\sum_\alpha \alpha}, \qquad
    1 - \frac{\sum_\beta |\beta - R(\beta)|}{\sum_\beta \beta} .

As published and used (synthcity), beta-recall is 1/2 for a perfect sampler, not 1: a real row's
nearest sample and its nearest real row are equally likely to be the nearer one. A larger value
means samples that lie on the real rows they are compared with. Distances are Euclidean, of numbers
over their range and of one-hot codes over the root of 2.

References:
    | How faithful is your synthetic data? (Alaa et al., 2022), Sec. 3 and 4
      -- https://arxiv.org/abs/2102.08921
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from monge.metrics.columns import Columns
from monge.metrics.intervals import GROUPS, jackknife_of_two
from monge.metrics.samples import Rows, Samples, distances
from monge.metrics.tabular import Table
from monge.tensors import stream

LEVELS = 30


def scaled(rows: Table, real: Table, columns: Columns) -> Samples:
    """Rows (n, d) with numbers over their range in real rows, and one-hot codes over root 2.

    A missing number is the mean of real rows; a missing category is none.
    """
    parts = []
    for j, code in enumerate(columns.categorical):
        known = real[:, j][~real[:, j].isnan()]
        if code:
            values = torch.cat([known, rows[:, j][~rows[:, j].isnan()]]).unique()
            parts.append((rows[:, j, None] == values).double() / 2**0.5)
            continue
        low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
        middle = float(known.mean()) if len(known) else 0.0
        column = rows[:, j].nan_to_num(middle)
        parts.append(((column - low) / ((high - low) or 1.0))[:, None])
    return torch.cat(parts, 1)


def alpha_beta(x: Table, y: Table, columns: Columns) -> tuple[float, float]:
    """alpha-precision and beta-recall of samples x (n, d) for data y (n, d), of equal size."""
    a, b = _both(x, y, columns)
    return _measured(a, b, distances(b, a), distances(b, b))


def alpha_beta_stderr(x: Table, y: Table, columns: Columns, seed: int) -> tuple[float, float]:
    """Standard errors of both, by the grouped jackknife; NaN for too few rows."""
    if min(len(x), len(y)) < 2 * GROUPS:
        return math.nan, math.nan
    a, b = _both(x, y, columns)
    across, own = distances(b, a), distances(b, b)

    def part(first: Rows, second: Rows) -> tuple[float, float]:
        kept = across[second][:, first], own[second][:, second]
        return _measured(a[first], b[second], *kept)

    found = jackknife_of_two(part, len(a), len(b), stream(seed, "alpha beta"))
    return found[0], found[1]


def _both(x: Table, y: Table, columns: Columns) -> tuple[Samples, Samples]:
    both = scaled(torch.cat([x, y]), y, columns)
    return both[: len(x)], both[len(x) :]


def _measured(x: Samples, y: Samples, across: Tensor, own: Tensor) -> tuple[float, float]:
    """Both numbers, from distances of y to x (m, n) and within y (m, m)."""
    levels = np.linspace(0, 1, LEVELS)
    centre = y.mean(0)
    radii = np.quantile((y - centre).norm(dim=1).numpy(), levels)
    inside = np.sort((x - centre).norm(dim=1).numpy())
    precision = np.searchsorted(inside, radii, side="right") / len(x)
    nearest, which = across.min(1)
    others = own.clone().fill_diagonal_(torch.inf).amin(1)
    reached = (nearest <= others).numpy()
    reach = (x[which] - x.mean(0)).norm(dim=1).numpy()
    ends = np.quantile(reach, levels)
    recall = (reached[:, None] & (reach[:, None] <= ends)).mean(0)
    total = levels.sum()
    gaps = np.abs(levels - precision).sum(), np.abs(levels - recall).sum()
    return float(1 - gaps[0] / total), float(1 - gaps[1] / total)
