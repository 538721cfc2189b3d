"""alpha-precision and beta-recall: closed forms, a literal second writing, and planted cheats."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.metrics.test_metrics_tabular import MIXED, correlated

from monge.metrics.alpha_beta import LEVELS, alpha_beta, alpha_beta_stderr, scaled


def normal(n: int, seed: int) -> torch.Tensor:
    return correlated(n, 0.3, seed)


def test_equal_laws_have_one_and_one_half() -> None:
    x, y = normal(1500, 1), normal(1500, 2)
    precision, recall = alpha_beta(x, y, MIXED)
    errors = alpha_beta_stderr(x, y, MIXED, 0)
    assert 0.93 < precision <= 1 and abs(recall - 0.5) < 4 * errors[1] < 0.2
    assert 0 < errors[0] < 0.03


def test_the_real_rows_themselves_have_all_of_both_but_for_the_lowest_level() -> None:
    # Radii of their own quantiles: P(alpha) = ceil of the share inside; every row is reached.
    y = normal(900, 3)
    precision, recall = alpha_beta(y, y, MIXED)
    assert precision > 0.99 and recall > 0.99


def test_samples_at_the_centre_have_no_precision_and_no_recall() -> None:
    # All are in every ball: 1 - sum (1 - alpha) / sum alpha = 0, but for level 0, whose ball has a
    # radius above 0.
    y = normal(600, 4)
    real = scaled(y, y, MIXED)
    nearest = y[(real - real.mean(0)).norm(dim=1).argmin()].expand(600, 3).clone()
    precision, recall = alpha_beta(nearest, y, MIXED)
    assert precision == pytest.approx(0, abs=0.01) and recall < 0.1
    far = y + torch.tensor([100.0, 0.0, 0.0])
    assert alpha_beta(far, y, MIXED)[0] == pytest.approx(0, abs=0.01)


def test_a_second_writing_of_the_definition_agrees() -> None:
    x, y = normal(80, 5), normal(80, 6) + torch.tensor([0.5, 0.0, 0.0])
    both = scaled(torch.cat([x, y]), y, MIXED).numpy()
    a, b = both[:80], both[80:]
    levels = np.linspace(0, 1, LEVELS)
    out = np.linalg.norm(b - b.mean(0), axis=1)
    inside = [np.mean(np.linalg.norm(a - b.mean(0), axis=1) <= np.quantile(out, q)) for q in levels]
    reach = np.array(
        [np.linalg.norm(a[np.linalg.norm(a - r, axis=1).argmin()] - a.mean(0)) for r in b]
    )
    seen = []
    for q in levels:
        hits = 0
        for i, r in enumerate(b):
            others = np.linalg.norm(np.delete(b, i, 0) - r, axis=1).min()
            near = np.linalg.norm(a - r, axis=1).min()
            hits += bool(near <= others and reach[i] <= np.quantile(reach, q))
        seen.append(hits / len(b))
    expected = [1 - np.abs(levels - np.array(c)).sum() / levels.sum() for c in (inside, seen)]
    assert alpha_beta(x, y, MIXED) == pytest.approx(expected, abs=1e-9)


def test_a_missing_mode_is_missing_in_recall() -> None:
    # In the mode that is left are twice as many samples as real rows, of which the nearest to a
    # real row is a sample with probability 2/3; in the other none is: 1/2 * 2/3 in all.
    y = torch.cat([normal(400, 7), normal(400, 8) + torch.tensor([30.0, 0.0, 0.0])])
    one = torch.cat([normal(400, 9), normal(400, 10)])
    both = torch.cat([normal(400, 9), normal(400, 10) + torch.tensor([30.0, 0.0, 0.0])])
    for x, expected in ((both, 1 / 2), (one, 1 / 3)):
        error = alpha_beta_stderr(x, y, MIXED, 0)[1]
        assert abs(alpha_beta(x, y, MIXED)[1] - expected) < 3 * error < 0.15


def test_missing_values_and_unknown_categories_stay_finite() -> None:
    x, y = normal(50, 11), normal(50, 12)
    x[:5, 0], x[5:9, 2], y[:4, 2], x[9, 2] = np.nan, np.nan, np.nan, 7.0
    assert bool(scaled(x, y, MIXED).isfinite().all())
    assert all(0 <= v <= 1 for v in alpha_beta(x, y, MIXED))
