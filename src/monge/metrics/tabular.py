r"""What the literature of synthetic tables reports, each number on a scale where 1 is best.

| number | of | scale |
|---|---|---|
| Shape | each column: Kolmogorov-Smirnov distance, total variation of categories | 1 - mean |
| Trend | each pair: correlations, total variation of contingency tables | 1 - mean |
| C2ST | a classifier, cross-validated in three parts | 2 (1 - max(AUC, 1/2)) |
| TSTR | a model trained on samples, tested on real rows | AUC, or R^2 |
| DCR | samples nearer to training rows than to as many held-out ones | a share; 1/2 is best |

Shape and Trend know nothing, or little, of dependence: columns drawn independently win Shape. A
value therefore never stands without its floor (other real rows) and that baseline.

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

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from monge.metrics.classifiers import boosted_trees
from monge.metrics.columns import Columns
from monge.tensors import stream

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
        gap, marks = _variation(x[:, j], y[:, j]) if code else _kolmogorov(x[:, j], y[:, j])
        parts[(j,)] = 1 - gap
        influence = [a + b for a, b in zip(influence, marks, strict=True)]
    return _mean(parts, influence)


def trend(x: Table, y: Table, columns: Columns) -> Similarity:
    """The mean similarity of the pairs of columns of samples x (n, d) and data y (m, d).

    Of two numbers 1 - |difference of their correlations| / 2; of a number and a category the
    number is cut into `BINS` first. A pair of which a number is constant counts as no difference.

    >>> x = torch.tensor([[0.0, 0.0], [1.0, 1.0]]).double()
    >>> trend(x, x * torch.tensor([1.0, -1.0]), Columns.plain(2)).value
    0.0
    """
    cut = [_binned(x[:, j], y[:, j], code) for j, code in enumerate(columns.categorical)]
    parts, influence = {}, [torch.zeros(len(x)).double(), torch.zeros(len(y)).double()]
    for i, j in itertools.combinations(range(x.shape[1]), 2):
        if columns.categorical[i] or columns.categorical[j]:
            width = 1 + torch.cat(cut[j]).amax()
            joint = [a * width + b for a, b in zip(cut[i], cut[j], strict=True)]
            gap, marks = _variation(*joint)
        else:
            (r, a), (s, b) = (_correlation(z[:, i], z[:, j]) for z in (x, y))
            gap, sign = abs(r - s) / 2, math.copysign(0.5, r - s)
            marks = [sign * a, -sign * b]
        parts[(i, j)] = 1 - gap
        influence = [a + b for a, b in zip(influence, marks, strict=True)]
    return _mean(parts, influence)


def _mean(parts: dict[tuple[int, ...], float], influence: Sequence[Tensor]) -> Similarity:
    if not parts:
        return Similarity(1.0, 0.0, parts)
    noise = sum(float(part.var()) / len(part) for part in influence if len(part) > 1)
    return Similarity(math.fsum(parts.values()) / len(parts), math.sqrt(noise) / len(parts), parts)


def _kolmogorov(x: Tensor, y: Tensor) -> tuple[float, list[Tensor]]:
    """The largest difference of two distribution functions, and how each row moves it."""
    places = torch.cat([x, y]).unique()
    below = [torch.searchsorted(z.sort().values, places, right=True) / len(z) for z in (x, y)]
    gaps = below[0].double() - below[1].double()
    worst = int(gaps.abs().argmax())
    sign = 1.0 if gaps[worst] > 0 else -1.0
    marks = [sign * (x <= places[worst]).double(), -sign * (y <= places[worst]).double()]
    return float(gaps[worst].abs()), marks


def _variation(x: Tensor, y: Tensor) -> tuple[float, list[Tensor]]:
    """Half the sum of the differences of two laws of values, and how each row moves it."""
    values, index = torch.cat([x, y]).unique(return_inverse=True)
    parts = index[: len(x)], index[len(x) :]
    shares = [torch.bincount(k, minlength=len(values)).double() / len(k) for k in parts]
    sign = (shares[0] - shares[1]).sign() / 2
    gap = float((shares[0] - shares[1]).abs().sum() / 2)
    return gap, [sign[parts[0]], -sign[parts[1]]]


def _correlation(a: Tensor, b: Tensor) -> tuple[float, Tensor]:
    """Pearson's correlation and its influence function; 0 where a number does not vary."""
    if float(a.std(correction=0)) == 0 or float(b.std(correction=0)) == 0:
        return 0.0, torch.zeros_like(a)
    a, b = ((z - z.mean()) / z.std(correction=0) for z in (a, b))
    r = float((a * b).mean())
    return r, a * b - r * (a * a + b * b) / 2


def _binned(x: Tensor, y: Tensor, code: bool) -> tuple[Tensor, Tensor]:
    """Codes as they are; numbers as their bin, those beyond the data y in two of their own."""
    if code:
        return x, y
    low, high = float(y.min()), float(y.max())
    edges = torch.linspace(low, high, BINS + 1, dtype=torch.float64)
    found = [torch.searchsorted(edges, z.contiguous(), right=True).double() for z in (x, y)]
    return found[0], found[1]


def detection(x: Table, y: Table, columns: Columns, seed: int, trees: bool = False) -> float:
    """The mean area under the ROC curve, at least 1/2 in each part, of a classifier of two sets.

    Args:
        x, y: samples and data.
        trees: boosted trees, else logistic regression on one-hot categories and scaled numbers.
    """
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold

    both = torch.cat([x, y]).numpy()
    label = np.r_[np.zeros(len(x), int), np.ones(len(y), int)]
    scores = boosted_trees(columns.categorical) if trees else _logistic
    both = both if trees else design(both, columns)
    parts = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    areas = []
    for fit, test in parts.split(both, label):
        found = scores(both[fit], label[fit], both[test])
        areas.append(max(0.5, roc_auc_score(label[test], found.numpy())))
    return math.fsum(areas) / FOLDS


def indistinguishability(auc: float) -> float:
    """2 (1 - max(AUC, 1/2)): 1 where two sets cannot be told apart, 0 where every row can.

    >>> indistinguishability(0.5), indistinguishability(1.0)
    (1.0, 0.0)
    """
    return 2 * (1 - max(auc, 0.5))


def design(rows: np.ndarray, columns: Columns) -> np.ndarray:
    """Rows (n, d) as (n, p): numbers in units of their quartiles, one-hot codes."""
    parts = []
    for j, code in enumerate(columns.categorical):
        column = rows[:, j]
        if code:
            parts.append((column[:, None] == np.unique(column)).astype(float))
            continue
        low, middle, high = np.quantile(column, (0.25, 0.5, 0.75))
        parts.append(((column - middle) / ((high - low) or 1.0))[:, None])
    return np.concatenate(parts, 1)


def _logistic(fit: np.ndarray, label: np.ndarray, test: np.ndarray) -> Tensor:
    from sklearn.linear_model import LogisticRegression

    machine = LogisticRegression(max_iter=1000).fit(fit, label)
    return torch.from_numpy(machine.predict_proba(test)[:, 1])


def utility(train: Table, test: Table, columns: Columns, target: int) -> tuple[float, np.ndarray]:
    """How well boosted trees that learned rows `train` predict a column of real rows `test`.

    Returns:
        The area under the ROC curve of a category (one against the rest, mean over its values,
        weighted by their number), or R^2 of a number; and the prediction of each row.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.metrics import r2_score, roc_auc_score

    others = [j for j in range(train.shape[1]) if j != target]
    few = [bool(train[:, j].max() < MOST_CODES > test[:, j].max()) for j in others]
    codes = [k for k, j in enumerate(others) if columns.categorical[j] and few[k]]
    known, asked = train.numpy()[:, others], test.numpy()[:, others]
    given, truth = train.numpy()[:, target], test.numpy()[:, target]
    settings = {"random_state": 0, "categorical_features": codes or None}
    if not columns.categorical[target]:
        machine = HistGradientBoostingRegressor(**settings).fit(known, given)  # type: ignore
        found = machine.predict(asked)
        return float(r2_score(truth, found)), found
    values = np.unique(truth)
    if len(np.unique(given)) == 1:
        return 0.5, np.zeros(len(truth))
    machine = HistGradientBoostingClassifier(**settings).fit(known, given)  # type: ignore
    shares = machine.predict_proba(asked)
    column = {value: k for k, value in enumerate(machine.classes_)}
    areas = [
        roc_auc_score(truth == v, shares[:, column[v]] if v in column else np.zeros(len(truth)))
        for v in values
    ]
    weights = [float((truth == v).mean()) for v in values]
    return float(np.average(areas, weights=weights)), shares


def nearer_to_training(
    x: Table, train: Table, heldout: Table, columns: Columns, seed: int
) -> float:
    """The share of samples x that lie nearer to a training row than to any held-out row.

    Equal numbers of both are drawn, so that 1/2 is what a sampler that copies nothing has.
    Distances are of `design`; a tie counts half.
    """
    from sklearn.neighbors import NearestNeighbors

    n = min(len(train), len(heldout))
    train = train[torch.randperm(len(train), generator=stream(seed, "dcr", "train"))[:n]]
    heldout = heldout[torch.randperm(len(heldout), generator=stream(seed, "dcr", "held"))[:n]]
    rows = design(torch.cat([train, heldout, x]).numpy(), columns)
    found = [
        NearestNeighbors(n_neighbors=1).fit(part).kneighbors(rows[2 * n :])[0][:, 0]
        for part in (rows[:n], rows[n : 2 * n])
    ]
    return float(np.mean((found[0] < found[1]) + 0.5 * (found[0] == found[1])))


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
