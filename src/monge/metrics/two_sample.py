r"""Two-sample tests: are these samples from the law of the data?

The energy distance, in its *squared* form

.. math:: D(p, q) = 2 E|X - Y| - E|X - X'| - E|Y - Y'|,

in data units, is zero only for equal laws. The U-statistic estimates it without bias at every n,
so it scatters around zero when the laws agree (`scipy.stats.energy_distance` is the square root
of the biased version, in one dimension). The classifier test asks whether a classifier that never
saw an example can tell to which sample it belongs.

References:
    | Energy statistics (Székely and Rizzo, 2013), Sec. 2 and 6
    | Revisiting classifier two-sample tests (Lopez-Paz and Oquab, 2017)
    |   -- https://arxiv.org/abs/1610.06545
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from monge.errors import UserError
from monge.metrics.samples import Rows, Values, as_pair, distances, own_distances
from monge.tensors import stream

PERMUTATIONS = 500
LEVEL = 0.05
"""Of a test, for its critical value."""


def energy_distance(x: Tensor, y: Tensor) -> float:
    """The squared energy distance between two samples of any sizes, by its U-statistic.

    Raises:
        UserError: different dimensions or bad entries.
    """
    a, b = as_pair(x, y)
    return between_minus_within(distances(a, b), own_distances(a), own_distances(b))


def between_minus_within(xy: Tensor, xx: Tensor, yy: Tensor) -> float:
    """The U-statistic of 2 E c(X, Y) - E c(X, X') - E c(Y, Y') from matrices of c.

    Args:
        xy: (n, m), c between the two samples.
        xx, yy: (n, n) and (m, m), c within each, symmetric with zero diagonal.
    """
    return float(2 * xy.mean() - mean_of_pairs(xx) - mean_of_pairs(yy))


def mean_of_pairs(own: Float[Tensor, "n n"]) -> Tensor:
    """Mean over pairs of different examples of a symmetric matrix with zero diagonal."""
    n = len(own)
    return own.sum() / (n * (n - 1))


@dataclass(frozen=True)
class PermutationTest:
    """A statistic between two samples and the p-value of equal laws.

    Args:
        critical: the p-value is below 5 % exactly where the value is above this.
    """

    value: float
    p_value: float
    critical: float


def energy_test(
    x: Tensor, y: Tensor, rng: torch.Generator, permutations: int = PERMUTATIONS
) -> PermutationTest:
    """The energy distance with a permutation test of equal laws.

    Raises:
        UserError: different dimensions or bad entries.
    """
    a, b = as_pair(x, y)
    return permutation_test(own_distances(torch.cat([a, b])), len(a), rng, permutations)


def permutation_test(
    pooled: Float[Tensor, "n_m n_m"],
    n: int,
    rng: torch.Generator,
    permutations: int = PERMUTATIONS,
) -> PermutationTest:
    """`between_minus_within` of a pooled sample split at n, and its rank among random splits.

    The p-value, (1 + permutations at least as large) / (1 + permutations), is exact at any n.
    All permutations share the one matrix, 8 (n + m)^2 bytes.

    Args:
        pooled: c between all examples, the first n of them the first sample, symmetric with zero
            diagonal. It may depend on the examples only in ways that ignore which sample they
            are from.
    """
    value = between_minus_within(pooled[:n, n:], pooled[:n, :n], pooled[n:, n:])
    keys = torch.rand(permutations, len(pooled), generator=rng)
    order = keys.argsort(dim=1)
    chosen = torch.zeros(len(pooled), permutations, dtype=torch.float64)
    chosen.scatter_(0, order[:, :n].T, 1.0)
    null = of_splits(pooled, chosen)
    # The observed split is one of the permutations: compare at its own rounding.
    observed = value - 1e-10 * float(pooled.mean())
    p_value = (1 + int((null >= observed).sum())) / (1 + permutations)
    # 1 + c < LEVEL (1 + permutations) for the number c of permutations at least as large.
    allowed = math.ceil(LEVEL * (1 + permutations)) - 2
    rounding = value - observed
    critical = math.inf
    if allowed >= 0:
        critical = float(null.sort(descending=True).values[allowed]) + rounding
    return PermutationTest(value, p_value, critical)


def of_splits(pooled: Float[Tensor, "n_m n_m"], chosen: Float[Tensor, "n_m splits"]) -> Values:
    """`between_minus_within` for each split of a pooled sample; its first part is marked by 1."""
    n = chosen[:, 0].sum()
    m = len(pooled) - n
    xx = (chosen * (pooled @ chosen)).sum(0)
    xy = pooled.sum(1) @ chosen - xx
    yy = pooled.sum() - xx - 2 * xy
    return 2 * xy / (n * m) - xx / (n * (n - 1)) - yy / (m * (m - 1))


def of_rows(parts: Sequence[Tensor], first: Rows, second: Rows) -> float:
    """`between_minus_within` of some rows of two samples, from the matrices of all.

    Args:
        parts: as `between_minus_within` takes them.
        first, second: rows of either sample, each once.
    """
    xy, xx, yy = parts
    a, b = xy.new_zeros(len(xx)), xy.new_zeros(len(yy))
    a[first], b[second] = 1.0, 1.0
    n, m = len(first), len(second)
    between = a @ xy @ b / (n * m)
    return float(2 * between - a @ xx @ a / (n * (n - 1)) - b @ yy @ b / (m * (m - 1)))


def pairs_variance(own: Float[Tensor, "n n"]) -> float:
    r"""Unbiased variance of `mean_of_pairs`, from n of at least 4.

    :math:`\mathrm{Var}\,U = E U^2 - \theta^2`, where the square of the mean :math:`\theta` is
    estimated by the mean product over pairs of pairs without common member.
    """
    n = len(own)
    total = own.sum() ** 2 - 4 * own.sum(1).square().sum() + 2 * own.square().sum()
    return float(mean_of_pairs(own) ** 2 - total / (n * (n - 1) * (n - 2) * (n - 3)))


@dataclass(frozen=True)
class ClassifierTest:
    """Held-out area under the ROC curve and balanced accuracy; 1/2 when the laws agree.

    Intervals must go by half of the scores. The two classifiers' errors are correlated, since each
    was trained on what the other one scores: with all scores counted, or with more folds, nominal
    95 % intervals cover 80 to 90 %.
    """

    auc: float
    accuracy: float


def classifier_test(x: Tensor, y: Tensor, seed: int = 0) -> ClassifierTest:
    r"""Classifier two-sample test: an RBF-kernel SVM between two samples of any sizes.

    Cross-fitted in two halves: each example is scored once, by the classifier trained on the other
    half. The kernel is :math:`\exp(-|x - x'|^2 / \mathrm{tr}\,C)`, C the covariance of y (the
    real data), and C = 10 the SVM's penalty. A smooth kernel on purpose: a tree separates real
    pixels from generated ones by their rounding alone.

    Raises:
        UserError: fewer than eight examples in a sample, different dimensions, bad entries.
    """
    from sklearn.svm import SVC

    a, b = as_pair(x, y)
    if min(len(a), len(b)) < 8:
        raise UserError(f"a classifier test needs 8 examples each, not {len(a)} and {len(b)}")
    pooled = torch.cat([a, b])
    scale = float(b.var(0).sum()) or float(pooled.var(0).sum()) or 1.0
    kernel = (own_distances(pooled).square() / -scale).exp().numpy()

    def scores(fit: np.ndarray, label: np.ndarray, test: np.ndarray) -> Values:
        machine = SVC(C=10.0, kernel="precomputed")
        machine.fit(kernel[np.ix_(fit[:, 0], fit[:, 0])], label)
        return torch.from_numpy(machine.decision_function(kernel[np.ix_(test[:, 0], fit[:, 0])]))

    row = np.arange(len(pooled))[:, None]
    return cross_fitted(row[: len(a)], row[len(a) :], scores, seed)


Scores = Callable[[np.ndarray, np.ndarray, np.ndarray], Values]
"""From the examples and labels (1 for the first set) of one half, the scores of the other half."""


def cross_fitted(a: np.ndarray, b: np.ndarray, scores: Scores, seed: int = 0) -> ClassifierTest:
    """The test of a classifier that scores each half of two sets after training on the other.

    Args:
        a, b: (n, ...) and (m, ...), what the classifier is given of each example.
    """
    pooled = np.concatenate([a, b])
    label = np.concatenate([np.ones(len(a)), np.zeros(len(b))])
    half = torch.cat([_halves(len(a), seed, 0), _halves(len(b), seed, 1)]).numpy()
    aucs, accuracies = [], []
    for fold in (0, 1):
        fit, test = half != fold, half == fold
        score = scores(pooled[fit], label[fit], pooled[test])
        first, second = score[label[test] == 1], score[label[test] == 0]
        aucs.append(area_under_roc(first, second))
        # Balanced, so that 1/2 means chance for unequal sizes too.
        accuracies.append(float((first > 0).double().mean() + (second <= 0).double().mean()) / 2)
    return ClassifierTest(sum(aucs) / 2, sum(accuracies) / 2)


def _halves(n: int, seed: int, which: int) -> Tensor:
    return torch.randperm(n, generator=stream(seed, "halves", which)) % 2


def area_under_roc(first: Values, second: Values) -> float:
    """The fraction of pairs in which the first score is larger; ties count one half."""
    ordered = second.sort().values
    below = torch.searchsorted(ordered, first, side="left")
    up_to = torch.searchsorted(ordered, first, side="right")
    return float((below + up_to).double().mean() / (2 * len(second)))
