r"""What the literature of synthetic tables reports, each number on a scale where 1 is best.

| number | of | scale |
|---|---|---|
| Shape | each column: Kolmogorov-Smirnov distance, total variation of categories | 1 - mean |
| Trend | each pair: correlations, total variation of contingency tables | 1 - mean |
| C2ST | a classifier, cross-validated in three parts | 2 (1 - max(AUC, 1/2)) |
| TSTR | a model trained on samples, tested on real rows | AUC, or R^2 |

`closest_records` has the distance to the closest record, `alpha_beta` alpha-precision and
beta-recall. Shape and Trend know nothing, or little, of dependence: columns drawn independently win
Shape. A value therefore never stands without its floor (other real rows) and the baselines of
`table_baselines`.

NaN is a missing value. Shape and Trend compare known values, as sdmetrics does; the classifiers see
what is missing.

References:
    | The Synthetic Data Vault (Patki et al., 2016) and its metrics: KSComplement, TVComplement,
      CorrelationSimilarity, ContingencySimilarity, LogisticDetection
      -- https://docs.sdv.dev/sdmetrics
    | TabSyn (Zhang et al., 2024), App. E -- https://arxiv.org/abs/2310.09656
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from monge.metrics.classifiers import boosted_trees
from monge.metrics.columns import Columns
from monge.metrics.intervals import Interval, auc_interval

BINS = 10
"""Of a number beside a category, even between the ends of the real data."""

FOLDS = 3

MOST_CODES = 255
"""Categories of a column that scikit-learn's boosted trees take as such; more are numbers."""

Table = Float64[Tensor, "_n columns"]
Scores = Callable[[np.ndarray, np.ndarray, np.ndarray], Tensor]


@dataclass(frozen=True)
class Similarity:
    """A mean of similarities with its standard error.

    Attributes:
        value: in [0, 1], 1 where nothing differs.
        stderr: to first order, with the place of each largest difference held fixed.
        parts: of each column, or each pair (i, j) of columns.
    """

    value: float
    stderr: float
    parts: dict[tuple[int, ...], float]


def shape(x: Table, y: Table, columns: Columns) -> Similarity:
    """The mean similarity of the columns of samples x (n, d) and data y (m, d).

    >>> x = torch.tensor([[0.0], [1.0]]).double()
    >>> shape(x, x + 10, Columns.plain(1)).value
    0.0
    """
    parts, influence = {}, [torch.zeros(len(x)).double(), torch.zeros(len(y)).double()]
    for j, code in enumerate(columns.categorical):
        sets = x[:, j], y[:, j]
        known = [~z.isnan() for z in sets]
        gap, marks = (_variation if code else _kolmogorov)(
            *(z[k] for z, k in zip(sets, known, strict=True))
        )
        parts[(j,)] = 1 - gap
        influence = _added(influence, marks, known)
    return _mean(parts, influence)


def trend(x: Table, y: Table, columns: Columns) -> Similarity:
    """The mean similarity of the pairs of columns of samples x (n, d) and data y (m, d).

    Of two numbers 1 - |difference of their correlations| / 2; of a number and a category the
    number is cut into `BINS` first. A pair of which a number is constant counts as no difference.

    >>> x = torch.tensor([[0.0, 0.0], [1.0, 1.0]]).double()
    >>> trend(x, x * torch.tensor([1.0, -1.0]), Columns.plain(2)).value
    0.0
    """
    parts, influence = {}, [torch.zeros(len(x)).double(), torch.zeros(len(y)).double()]
    plain = [
        j
        for j, code in enumerate(columns.categorical)
        if not code and not any(bool(z[:, j].isnan().any()) for z in (x, y))
    ]
    cut = [_binned(x[:, j], y[:, j], code) for j, code in enumerate(columns.categorical)]
    for i, j in itertools.combinations(range(x.shape[1]), 2):
        if i in plain and j in plain:
            parts[(i, j)] = 1.0  # until all of them are computed at once
            continue
        known = [~(z[:, i].isnan() | z[:, j].isnan()) for z in (x, y)]
        if columns.categorical[i] or columns.categorical[j]:
            first, second = ([z[k] for z, k in zip(cut[m], known, strict=True)] for m in (i, j))
            width = 1 + torch.cat(second).amax() if min(map(len, second)) else 1
            joint = [a * width + b for a, b in zip(first, second, strict=True)]
            gap, marks = _variation(*joint)
        else:
            pairs = (z[k][:, [i, j]] for z, k in zip((x, y), known, strict=True))
            gaps, marks = _of_correlations(*pairs)
            gap = float(gaps[0, 1])
        parts[(i, j)] = 1 - gap
        influence = _added(influence, marks, known)
    gaps, marks = _of_correlations(x[:, plain], y[:, plain])
    for a, b in itertools.combinations(range(len(plain)), 2):
        parts[(plain[a], plain[b])] = 1 - float(gaps[a, b])
    return _mean(parts, [a + b for a, b in zip(influence, marks, strict=True)])


def _added(influence: Sequence[Tensor], marks: Sequence[Tensor], known: Sequence[Tensor]) -> Any:
    """Influences (n,) and (m,) with those of one part, which only its known rows have."""
    found = []
    for total, mark, rows in zip(influence, marks, known, strict=True):
        share = max(float(rows.double().mean()), 1 / max(len(rows), 1))
        centred = (mark - mark.mean()) / share if len(mark) else mark
        found.append(total.index_put((rows.nonzero()[:, 0],), centred, accumulate=True))
    return found


def _mean(parts: dict[tuple[int, ...], float], influence: Sequence[Tensor]) -> Similarity:
    if not parts:
        return Similarity(1.0, 0.0, parts)
    noise = sum(float(part.var()) / len(part) for part in influence if len(part) > 1)
    return Similarity(math.fsum(parts.values()) / len(parts), math.sqrt(noise) / len(parts), parts)


def _kolmogorov(x: Tensor, y: Tensor) -> tuple[float, list[Tensor]]:
    """The largest difference of two distribution functions, and how each row moves it."""
    if not (len(x) and len(y)):
        return float(len(x) != len(y)), [torch.zeros_like(x), torch.zeros_like(y)]
    places = torch.cat([x, y]).unique()
    below = [
        torch.searchsorted(z.sort().values, places, right=True).double() / len(z) for z in (x, y)
    ]
    gaps = below[0] - below[1]
    worst = int(gaps.abs().argmax())
    sign = 1.0 if gaps[worst] > 0 else -1.0
    marks = [sign * (x <= places[worst]).double(), -sign * (y <= places[worst]).double()]
    return float(gaps[worst].abs()), marks


def _variation(x: Tensor, y: Tensor) -> tuple[float, list[Tensor]]:
    """Half the sum of the differences of two laws of values, and how each row moves it."""
    if not (len(x) and len(y)):
        return float(len(x) != len(y)), [torch.zeros_like(x), torch.zeros_like(y)]
    values, index = torch.cat([x, y]).unique(return_inverse=True)
    parts = index[: len(x)], index[len(x) :]
    shares = [torch.bincount(k, minlength=len(values)).double() / len(k) for k in parts]
    sign = (shares[0] - shares[1]).sign() / 2
    gap = float((shares[0] - shares[1]).abs().sum() / 2)
    return gap, [sign[parts[0]], -sign[parts[1]]]


def _of_correlations(x: Table, y: Table) -> tuple[Tensor, list[Tensor]]:
    """Half the difference of the correlations of each pair of columns (d, d), and how each row
    moves their sum over pairs.

    The influence of a row on a correlation r of standardised a and b is a b - r (a^2 + b^2) / 2.
    """
    sets = [_standardised(z) for z in (x, y)]
    rates = [z.T @ z / max(len(z), 1) for z in sets]
    gaps = (rates[0] - rates[1]) / 2
    signs = torch.where(gaps >= 0, 0.5, -0.5).fill_diagonal_(0.0).double()
    marks = [
        # A pair stands twice in the matrix.
        side * ((z @ signs * z).sum(1) - z.square() @ (signs * r).sum(1)) / 2
        for z, r, side in zip(sets, rates, (1, -1), strict=True)
    ]
    return gaps.abs(), marks


def _standardised(z: Table) -> Table:
    """Columns with mean 0 and variance 1; zeros where one does not vary."""
    if not z.numel():
        return z
    deviation = z.std(0, correction=0)
    # A constant has a deviation of the rounding of its mean.
    varies = deviation > 1e-12 * z.abs().amax(0)
    return torch.where(varies, (z - z.mean(0)) / torch.where(varies, deviation, 1.0), 0.0)


def _binned(x: Tensor, y: Tensor, code: bool) -> tuple[Tensor, Tensor]:
    """Codes as they are; numbers as their bin, those beyond the data y in two of their own."""
    if code:
        return x, y
    real = y[~y.isnan()]
    low, high = (float(real.min()), float(real.max())) if len(real) else (0.0, 1.0)
    edges = torch.linspace(low, high, BINS + 1, dtype=torch.float64)
    found = [torch.searchsorted(edges, z.contiguous(), right=True).double() for z in (x, y)]
    return found[0], found[1]


@dataclass(frozen=True)
class Detection:
    """How well a classifier tells two sets apart.

    Attributes:
        areas: under the ROC curve, of each part of the cross-validation.
        sizes: n and m, the rows of the two sets.
    """

    areas: tuple[float, ...]
    sizes: tuple[int, int]

    @property
    def auc(self) -> float:
        """The mean area."""
        return math.fsum(self.areas) / len(self.areas)

    @property
    def score(self) -> float:
        """The published number, 2 (1 - mean of max(AUC, 1/2)): 1 where two sets look the same."""
        return indistinguishability(math.fsum(max(a, 0.5) for a in self.areas) / len(self.areas))

    @property
    def interval(self) -> Interval:
        """Newcombe's of the mean area, on the scale of the score, with the p-value of equal laws.

        Half of the rows count, as in the cross-fitted tests of `classifiers`: parts share most of
        the rows that they learn from.
        """
        n, m = (size // 2 for size in self.sizes)
        found = auc_interval(self.auc, n, m)
        assert found.p_value is not None
        ends = indistinguishability(found.high), indistinguishability(found.low)
        low, high = min(ends[0], self.score), max(ends[1], self.score)
        return Interval(low, high, f"{found.method} of the area", min(1.0, 2 * found.p_value))


def detection(
    x: Table, y: Table, columns: Columns, seed: int, trees: bool = False, parts: int = FOLDS
) -> Detection:
    """Whether a classifier tells samples x (n, d) from data y (m, d), cross-validated.

    Args:
        trees: boosted trees, else logistic regression on one-hot categories and scaled numbers.
        parts: of three, how many are scored.
    """
    return _cross_validated(x, y, columns, seed, trees, (), parts)[0]


def giveaways(x: Table, y: Table, columns: Columns, seed: int) -> tuple[Detection, list[float]]:
    """Detection of samples x (n, d) among data y (m, d) by trees, and how each column helps.

    That is the fall of the mean area under the ROC curve when the column is shuffled among the
    rows that are scored (permutation importance; Breiman, 2001, Sec. 10). Two columns that say the
    same share it.
    """
    whole, shuffled = _cross_validated(x, y, columns, seed, True, range(x.shape[1]), FOLDS)
    return whole, [whole.auc - part.auc for part in shuffled]


def _cross_validated(
    x: Table, y: Table, columns: Columns, seed: int, trees: bool, hidden: Sequence[int], parts: int
) -> tuple[Detection, list[Detection]]:
    """The classifier's areas; and the same with each of the `hidden` columns shuffled."""
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold

    both = torch.cat([x, y]).numpy()
    label = np.r_[np.zeros(len(x), int), np.ones(len(y), int)]
    scores = boosted_trees(columns.categorical) if trees else _logistic
    both = both if trees else design(both, columns)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(both, label)
    rng = np.random.default_rng(seed)
    areas: list[list[float]] = [[] for _ in range(1 + len(hidden))]
    for fit, test in itertools.islice(folds, parts):
        seen = [both[test]]
        for j in hidden:
            seen.append(both[test].copy())
            seen[-1][:, j] = rng.permutation(seen[-1][:, j])
        found = scores(both[fit], label[fit], np.concatenate(seen)).numpy()
        for known, part in zip(areas, np.split(found, len(seen)), strict=True):
            known.append(float(roc_auc_score(label[test], part)))
    whole, *shuffled = (Detection(tuple(a), (len(x), len(y))) for a in areas)
    return whole, shuffled


def indistinguishability(auc: float) -> float:
    """2 (1 - max(AUC, 1/2)): 1 where two sets cannot be told apart, 0 where every row can.

    >>> indistinguishability(0.5), indistinguishability(1.0)
    (1.0, 0.0)
    """
    return 2 * (1 - max(auc, 0.5))


def design(rows: np.ndarray, columns: Columns) -> np.ndarray:
    """Rows (n, d) as (n, p): numbers in units of their quartiles, one-hot codes.

    A missing number is its column's median, and has a mark of its own; a missing category is none.
    """
    parts = []
    for j, code in enumerate(columns.categorical):
        column, known = rows[:, j], ~np.isnan(rows[:, j])
        if code:
            parts.append((column[:, None] == np.unique(column[known])).astype(float))
            continue
        low, middle, high = (
            np.quantile(column[known], (0.25, 0.5, 0.75)) if known.any() else (0,) * 3
        )
        spread = (high - low) or float(np.std(column[known])) or 1.0
        parts.append(np.where(known, (column - middle) / spread, 0.0)[:, None])
        if not known.all():
            parts.append((~known[:, None]).astype(float))
    return np.concatenate(parts, 1)


def _logistic(fit: np.ndarray, label: np.ndarray, test: np.ndarray) -> Tensor:
    from sklearn.linear_model import LogisticRegression

    machine = LogisticRegression(max_iter=1000).fit(fit, label)
    return torch.from_numpy(machine.predict_proba(test)[:, 1])
