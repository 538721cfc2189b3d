"""How useful samples of a table are: a model that learns from them, tested on real rows.

The model is scikit-learn's histogram gradient boosting. It predicts one column from all others:
a category by the area under the ROC curve (one against the rest, weighted by frequency), a number
by R^2. The floor is the same model trained on as many real rows.

References:
    | Real-valued medical time series generation with recurrent conditional GANs (Esteban et al.,
      2017), Sec. 4.2, for train on synthetic, test on real -- https://arxiv.org/abs/1706.02633
    | A simple generalisation of the area under the ROC curve (Hand and Till, 2001)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from monge.metrics.columns import Columns
from monge.metrics.intervals import GROUPS, jackknife
from monge.metrics.tabular import Table
from monge.tensors import stream

MOST_CODES = 255
"""Categories of a column that scikit-learn's boosted trees take as such; more are numbers."""

ITERATIONS = 100
MOST_TREES = 600
"""Iterations of a classifier of many classes are fewer: each has a tree for every class."""

MOST_CLASSES = 50
"""Values of a category that a classifier is asked for; of more, another column is predicted."""

Rows = np.ndarray


@dataclass(frozen=True)
class Utility:
    """What a model that learned from some rows reaches on others.

    Attributes:
        value: area under the ROC curve, or R^2.
        stderr: of the test rows, by the grouped jackknife; the model is held fixed.
    """

    value: float
    stderr: float


def utility(train: Table, test: Table, columns: Columns, target: int, seed: int = 0) -> Utility:
    """How well a model that learned rows `train` (n, d) predicts a column of real rows `test`.

    Rows whose target is missing are left out. A model that has seen a single class predicts at
    random, with an area of 1/2. Without a known target on either side there is no value (NaN).
    """
    train, test = (z[~z[:, target].isnan()] for z in (train, test))
    truth = test.numpy()[:, target]
    if not (len(train) and len(test)):
        return Utility(float("nan"), float("nan"))
    if columns.categorical[target]:
        shares, classes = _classified(train, test, columns, target)
        score = _areas(truth, shares, classes)
    else:
        score = _explained(truth, _regressed(train, test, columns, target))
    value = score(np.arange(len(truth)))
    if len(truth) < 2 * GROUPS:
        return Utility(value, float("nan"))
    rng = stream(seed, "utility")
    return Utility(value, jackknife(lambda kept: (score(kept.numpy()),), len(truth), rng)[0])


def can_be_predicted(rows: Table, columns: Columns, target: int) -> bool:
    """Whether a column of real rows (n, d) varies, and is no category of too many values."""
    known = rows[:, target]
    values = known[~known.isnan()].unique()
    return len(values) > 1 and not (columns.categorical[target] and len(values) > MOST_CLASSES)


def _inputs(train: Table, test: Table, columns: Columns, target: int) -> tuple[Rows, Rows, dict]:
    """The other columns of both sets, and the settings of a model."""
    others = [j for j in range(train.shape[1]) if j != target]
    most = [float(torch.cat([z[:, j] for z in (train, test)]).nan_to_num().max()) for j in others]
    codes = [k for k, j in enumerate(others) if columns.categorical[j] and most[k] < MOST_CODES]
    settings = {"random_state": 0, "categorical_features": codes or None, "early_stopping": False}
    return train.numpy()[:, others], test.numpy()[:, others], settings


def _regressed(train: Table, test: Table, columns: Columns, target: int) -> Rows:
    from sklearn.ensemble import HistGradientBoostingRegressor

    known, asked, settings = _inputs(train, test, columns, target)
    machine = HistGradientBoostingRegressor(max_iter=ITERATIONS, **settings)
    return machine.fit(known, train.numpy()[:, target]).predict(asked)


def _classified(
    train: Table, test: Table, columns: Columns, target: int
) -> tuple[Rows, dict[float, int]]:
    """Shares (m, classes) of each test row, and the column of each class that was seen."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    known, asked, settings = _inputs(train, test, columns, target)
    given = train.numpy()[:, target]
    classes = np.unique(given)
    if len(classes) < 2:
        return np.zeros((len(test), 1)), {float(v): 0 for v in classes}
    iterations = min(ITERATIONS, max(1, MOST_TREES // len(classes)))
    machine = HistGradientBoostingClassifier(max_iter=iterations, **settings).fit(known, given)
    return machine.predict_proba(asked), {float(v): k for k, v in enumerate(machine.classes_)}


def _areas(truth: Rows, shares: Rows, classes: dict[float, int]) -> Callable[[Rows], float]:
    from scipy.stats import rankdata

    columns = {
        float(v): shares[:, classes[float(v)]] if float(v) in classes else np.zeros(len(truth))
        for v in np.unique(truth)
    }

    def score(kept: Rows) -> float:
        seen = truth[kept]
        areas, weights = [], []
        for value, column in columns.items():
            own = seen == value
            n = int(own.sum())
            if 0 < n < len(seen):
                ranks = rankdata(column[kept])
                areas.append((ranks[own].sum() / n - (n + 1) / 2) / (len(seen) - n))
                weights.append(n)
        return float(np.average(areas, weights=weights)) if areas else float("nan")

    return score


def _explained(truth: Rows, found: Rows) -> Callable[[Rows], float]:
    def score(kept: Rows) -> float:
        error, spread = (truth - found)[kept], truth[kept] - truth[kept].mean()
        return float(1 - (error**2).sum() / (spread**2).sum())

    return score
