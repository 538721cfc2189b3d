"""The numbers of the literature of synthetic tables, against closed forms and planted cheats."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from monge.metrics import tabular
from monge.metrics.columns import Columns

MIXED = Columns(("a", "b", "k"), (False, False, True))


def correlated(n: int, rho: float, seed: int) -> torch.Tensor:
    """Two normal numbers with a correlation, and the sign of the first as a category."""
    rng = np.random.default_rng(seed)
    a, e = rng.normal(size=(2, n))
    b = rho * a + math.sqrt(1 - rho**2) * e
    return torch.from_numpy(np.stack([a, b, (a > 0).astype(float)], 1))


def test_shape_of_known_laws() -> None:
    # KS of {0, 1} and {0, 2}: 1/2, between 1 and 2. TV of (1/2, 1/2) and (1, 0): 1/2.
    x = torch.tensor([[0.0, 0.0], [1.0, 1.0]]).double()
    y = torch.tensor([[0.0, 0.0], [2.0, 0.0]]).double()
    found = tabular.shape(x, y, Columns(("a", "k"), (False, True)))
    assert found.parts == {(0,): 0.5, (1,): 0.5} and found.value == 0.5
    # Normal laws at a distance of 1: KS = 2 Phi(1/2) - 1 = 0.382925.
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(100_000, 1, generator=rng, dtype=torch.float64)
    y = 1 + torch.randn(100_000, 1, generator=rng, dtype=torch.float64)
    found = tabular.shape(x, y, Columns.plain(1))
    assert abs(1 - found.value - 0.382925) < 4 * found.stderr < 0.01


def test_the_standard_error_of_shape_is_that_of_two_shares() -> None:
    # At the worst place Phi(1/2) = 0.6915 lie below: variance 2 p (1 - p) / n.
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(40_000, 1, generator=rng, dtype=torch.float64)
    y = 1 + torch.randn(40_000, 1, generator=rng, dtype=torch.float64)
    expected = math.sqrt(2 * 0.691462 * 0.308538 / 40_000)
    assert tabular.shape(x, y, Columns.plain(1)).stderr == pytest.approx(expected, rel=0.02)


def test_trend_of_known_correlations() -> None:
    x, y = correlated(100_000, 0.8, 2), correlated(100_000, -0.2, 3)
    found = tabular.trend(x[:, :2], y[:, :2], Columns.plain(2))
    assert abs(found.value - 0.5) < 4 * found.stderr < 0.02
    # Contingency by hand: joint (0,0), (1,1) against (0,1), (1,1): they share half.
    x = torch.tensor([[0.0, 0.0], [1.0, 1.0]]).double()
    y = torch.tensor([[0.0, 1.0], [1.0, 1.0]]).double()
    assert tabular.trend(x, y, Columns(("k", "l"), (True, True))).value == 0.5


def test_independent_columns_win_shape_and_lose_trend() -> None:
    train, other = correlated(4000, 0.9, 4), correlated(4000, 0.9, 5)
    cheat = tabular.independent_columns(train, 4000, 0)
    floor = tabular.shape(other, train, MIXED)
    assert tabular.shape(cheat, train, MIXED).value > floor.value - 4 * floor.stderr
    assert tabular.trend(cheat, train, MIXED).value < 0.8
    assert tabular.trend(other, train, MIXED).value > 0.97


def test_a_gaussian_copula_has_the_dependence_and_columns_of_a_gaussian() -> None:
    train = correlated(4000, 0.9, 6)[:, :2]
    drawn = tabular.gaussian_copula(train, 4000, 0)
    assert set(drawn[:, 0].tolist()) <= set(train[:, 0].tolist())
    assert tabular.trend(drawn, train, Columns.plain(2)).value > 0.98
    assert tabular.shape(drawn, train, Columns.plain(2)).value > 0.96


def test_trees_see_what_a_linear_classifier_does_not() -> None:
    real, other = correlated(1500, 0.9, 7), correlated(1500, 0.9, 8)
    cheat = tabular.independent_columns(real, 1500, 0)
    columns = Columns.plain(2)
    linear = tabular.detection(cheat[:, :2], real[:, :2], columns, 0)
    trees = tabular.detection(cheat[:, :2], real[:, :2], columns, 0, trees=True)
    honest = tabular.detection(other[:, :2], real[:, :2], columns, 0, trees=True)
    # The error of an area of 1/2 from 500 + 500 scores is 0.018, of the mean of three 0.011.
    assert linear < 0.56 and honest < 0.56 and trees > 0.75
    assert tabular.indistinguishability(trees) < 0.5 < tabular.indistinguishability(honest)
    assert tabular.detection(real + 100, real, MIXED, 0) == 1.0


def test_utility_of_a_known_regression_and_of_shuffled_classes() -> None:
    train, test = correlated(4000, 0.9, 9), correlated(4000, 0.9, 10)
    # The best prediction of b has R^2 = 0.81; of the category an area of 1, as it is a's sign.
    assert 0.72 < tabular.utility(train, test, MIXED, 1)[0] < 0.83
    assert tabular.utility(train, test, MIXED, 2)[0] > 0.999
    cheat = tabular.independent_columns(train, 4000, 0)
    assert abs(tabular.utility(cheat, test, MIXED, 2)[0] - 0.5) < 0.1
    assert tabular.utility(cheat, test, MIXED, 1)[0] < 0.1


def test_copies_lie_nearer_to_training_rows() -> None:
    train, held, other = (correlated(1000, 0.5, seed) for seed in (11, 12, 13))
    honest = tabular.nearer_to_training(other, train, held, MIXED, 0)
    # A share of 1,000, given the two sets: 0.5 with an error of at most 0.05.
    assert abs(honest - 0.5) < 0.08
    assert tabular.nearer_to_training(train, train, held, MIXED, 0) == 1.0
    half = torch.cat([train[:500], other[:500]])
    assert 0.65 < tabular.nearer_to_training(half, train, held, MIXED, 0) < 0.85


def test_shape_and_trend_are_those_of_sdmetrics() -> None:
    single = pytest.importorskip("sdmetrics.single_column", reason="sdmetrics is not installed")
    import pandas as pd

    x, y = correlated(500, 0.3, 14), correlated(400, 0.7, 15)
    for j, code in enumerate(MIXED.categorical):
        metric = single.TVComplement if code else single.KSComplement
        theirs = metric.compute(pd.Series(y[:, j].numpy()), pd.Series(x[:, j].numpy()))
        assert tabular.shape(x, y, MIXED).parts[(j,)] == pytest.approx(theirs, abs=1e-9)
    pairs = pytest.importorskip("sdmetrics.column_pairs")
    frames = [pd.DataFrame(z[:, :2].numpy(), columns=["a", "b"]) for z in (y, x)]
    theirs = pairs.CorrelationSimilarity.compute(*frames)
    assert tabular.trend(x, y, MIXED).parts[(0, 1)] == pytest.approx(theirs, abs=1e-9)
