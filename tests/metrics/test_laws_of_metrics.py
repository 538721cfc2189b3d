"""Laws of estimators that a value at one point, or a range, lets pass."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from monge.metrics.catalogue import draw
from monge.metrics.differences import of_student
from monge.metrics.intervals import GROUPS
from monge.metrics.power import detectable_gap
from monge.metrics.spaces import gaussian
from monge.metrics.table import Row, Table, short
from monge.metrics.two_sample import classifier_test
from monge.tensors import stream


def normal(n: int, d: int, *key: int | str) -> Tensor:
    return torch.randn(n, d, generator=stream(0, "laws", *key), dtype=torch.float64)


def test_floors_are_disjoint_draws_of_the_training_set() -> None:
    train = torch.arange(60.0)[:, None].double()
    drawn = draw(normal(20, 1, "x"), train, normal(20, 1, "r"), {}, 20, 0)
    together = torch.cat([first for first, _ in drawn.floors]).flatten().sort().values
    assert torch.equal(together, train.flatten())
    assert len({float(first.mean()) for first, _ in drawn.floors}) == 3


@pytest.mark.parametrize("value", [-2.5, 0.3, 1.0, 4.0])
def test_the_p_value_of_a_paired_difference_is_students(value: float) -> None:
    from scipy.stats import t

    found = of_student("x", value, 0.7)
    assert found.p_value == pytest.approx(2 * (1 - t.cdf(abs(value) / 0.7, GROUPS - 1)))
    assert (found.p_value < 0.05) == (not found.interval[0] <= 0 <= found.interval[1])


def test_the_p_value_and_the_interval_are_one_test() -> None:
    for stderr in torch.linspace(0.3, 0.6, 31).tolist():
        found = of_student("x", 1.0, stderr)
        assert (found.p_value < 0.05) == (found.interval[0] > 0)


@pytest.mark.parametrize("scale", [1e-2, 1e2])
def test_a_classifier_test_has_no_unit(scale: float) -> None:
    x, y = normal(80, 3, "x") + 0.4, normal(80, 3, "y")
    first, other = classifier_test(x, y), classifier_test(scale * x, scale * y)
    assert other.auc == pytest.approx(first.auc, abs=1e-6)
    assert other.accuracy == pytest.approx(first.accuracy, abs=1e-6)


def test_the_gaussian_beside_has_the_moments_of_what_it_was_fitted_to() -> None:
    mixing = torch.tensor([[2.0, 0.5], [0.0, 0.3]]).double()
    real = normal(100, 2, "real") @ mixing + torch.tensor([5.0, -3.0]).double()
    n = 40_000
    drawn = gaussian(real, n, 0)
    deviation = real.std(0)
    assert ((drawn.mean(0) - real.mean(0)).abs() < 5 * deviation / math.sqrt(n)).all()
    # The error of a covariance is at most sqrt 2 of the product of the deviations.
    gap = (drawn.T.cov() - real.T.cov()).abs()
    assert (gap < 5 * math.sqrt(2 / n) * deviation[:, None] * deviation).all()
    moved = gaussian(real + 1000, n, 0)
    torch.testing.assert_close(moved, drawn + 1000, rtol=0, atol=1e-8)


def test_numbers_are_shown_with_three_significant_digits() -> None:
    assert short(0.12345) == "0.123" and short(1234.5) == "1.23e+03" and short(2.0) == "2"
    values = (10 ** (8 * torch.rand(200, generator=stream(0, "short")).double() - 4)).tolist()
    for value in values:
        assert float(short(value)) == pytest.approx(value, rel=5.0001e-3)
        mantissa = short(value).split("e")[0].replace(".", "").strip("0")
        assert len(mantissa) <= 3
    assert max(abs(float(short(v)) / v - 1) for v in values) > 1e-3
    row = Row(
        "x", values[0], (values[1], values[1] + 1), "none", values[2], {"b": values[3]}, 7, {}
    )
    words = Table([row]).text().replace("[", " ").replace("]", " ").replace(",", " ").split()
    assert {short(v) for v in (*values[:4], values[1] + 1)} <= set(words)


@pytest.mark.parametrize("n", [200, 400])
@pytest.mark.parametrize("level", [0.05, 0.005])
def test_a_detectable_gap_is_seen_by_four_tests_in_five(n: int, level: float) -> None:
    """Of areas, from half of the scores; of shares near one half. 4,000 simulated tests each."""
    rng = np.random.default_rng(n)
    half, z = n // 2, stats.norm.ppf(1 - level / 2)
    gap = detectable_gap(n, n, level, "auc")
    shift = np.sqrt(2) * stats.norm.ppf(0.5 + gap)
    first, second = rng.normal(shift, size=(4000, half)), rng.normal(size=(4000, half))
    area = stats.mannwhitneyu(first, second, axis=1).statistic / half**2
    seen = np.abs(area - 0.5) > z * np.sqrt((2 * half + 1) / (12 * half**2))
    assert seen.mean() == pytest.approx(0.8, abs=0.03)
    gap = detectable_gap(n, n, level, "share")
    shares = [rng.binomial(n, 0.5 + side * gap / 2, size=4000) / n for side in (1, -1)]
    pooled = (shares[0] + shares[1]) / 2
    seen = np.abs(shares[0] - shares[1]) > z * np.sqrt(2 * pooled * (1 - pooled) / n)
    assert seen.mean() == pytest.approx(0.8, abs=0.04)
