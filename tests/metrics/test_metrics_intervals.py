"""Intervals: golden values, exact special cases, and measured coverage."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from monge.errors import UserError
from monge.metrics import intervals
from monge.metrics.catalogue import Comparison, comparisons
from monge.metrics.feature_rows import frechet, kernel
from monge.metrics.label_rows import label_rows
from monge.metrics.labels import Labelled, fit_classifier
from monge.metrics.memorisation import QUANTILES, distance_rows, nearest_neighbours
from monge.tensors import stream


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (3, 10), (95, 100), (360, 360)])
def test_wilson_is_scipys(hits: int, n: int) -> None:
    expected = stats.binomtest(hits, n).proportion_ci(method="wilson")
    found = intervals.wilson(hits / n, n)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert found.low <= hits / n <= found.high


def test_effective_count_is_that_which_explains_the_error() -> None:
    found = intervals.wilson_at_effective_count(0.9, (0.9 * 0.1 / 80) ** 0.5, 400)
    expected = intervals.wilson(0.9, 80)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    for fraction, stderr, count in ((0.9, 1e-6, 200), (1.0, 0.0, 200), (0.99, 0.1, 400 / 6)):
        found = intervals.wilson_at_effective_count(fraction, stderr, 400)
        assert found.low == pytest.approx(intervals.wilson(fraction, count).low)


@pytest.mark.parametrize("auc", [0.0, 0.2, 0.5, 0.83, 1.0])
def test_area_interval_solves_newcombes_equation(auc: float) -> None:
    m, n = 40, 60
    found = intervals.auc_interval(auc, m, n)
    assert found.low <= auc <= found.high
    for end in (found.low, found.high):
        spread = 1 + 49 * ((1 - end) / (2 - end) + end / (1 + end))
        variance = end * (1 - end) * spread / (m * n)
        if 0 < end < 1:
            assert abs(auc - end) == pytest.approx(1.959964 * math.sqrt(variance), rel=1e-5)


def test_area_interval_at_the_null_is_that_of_the_mann_whitney_test() -> None:
    m = n = 200
    found = intervals.auc_interval(0.5, m, n)
    null_sd = math.sqrt((m + n + 1) / (12 * m * n))
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * null_sd, rel=0.02)
    assert found.p_value == pytest.approx(0.5)
    shifted = intervals.auc_interval(0.5 + 1.644854 * null_sd, m, n)
    assert shifted.p_value == pytest.approx(0.05, rel=0.02)


@pytest.mark.parametrize(("n", "q"), [(100, 0.5), (400, 0.05), (1000, 0.01), (30, 0.01)])
def test_quantile_interval_covers_at_least_95_percent_and_is_not_wasteful(n: int, q: float) -> None:
    # The ranks of the ends are read off a sample 1..n; coverage is then exact, for any law.
    found = intervals.quantile_interval(torch.arange(1.0, n + 1), q)
    low, high = found.low, found.high if math.isfinite(found.high) else n + 1

    def covered(low: float, high: float) -> float:
        return float(stats.binom.cdf(high - 1, n, q) - stats.binom.cdf(low - 1, n, q))

    assert covered(low, high) >= 0.95
    assert stats.binom.cdf(low, n, q) > 0.025  # one rank further in, and a tail is too heavy
    assert high == n + 1 or stats.binom.sf(high - 2, n, q) > 0.025


def test_jackknife_of_a_mean_is_its_standard_error() -> None:
    x = torch.randn(30, 2, generator=stream(0), dtype=torch.float64)
    found = intervals.jackknife(lambda kept: x[kept].mean(0).tolist(), 30, stream(1), groups=15)
    # Groups of two: the standard error of a mean of 15 means.
    means = x[torch.randperm(30, generator=stream(1))].reshape(2, 15, 2).mean(0)
    torch.testing.assert_close(torch.tensor(found).double(), means.std(0) / 15**0.5)
    with pytest.raises(UserError, match="needs 20 examples, not 19"):
        intervals.jackknife(lambda kept: [0.0], 19, stream(0))


def test_student_quantile_goes_with_the_number_of_groups() -> None:
    assert intervals.student(1.0, 0.5).high == pytest.approx(1 + 0.5 * stats.t.ppf(0.975, 9))


def test_interval_of_a_square_is_that_of_its_root() -> None:
    found, root = intervals.student_of_root(4.0, 0.4), intervals.student(2.0, 0.1)
    assert (found.low, found.high) == pytest.approx((root.low**2, root.high**2))
    # Near zero, where a root has no error to speak of, both ends are near and finite.
    for value in (-0.1, 0.0, 0.1):
        near, plain = intervals.student_of_root(value, 0.1), intervals.student(value, 0.1)
        assert plain.low < near.low < value < plain.high < near.high < value + 0.3
    assert intervals.student_of_root(0.0, 0.0).high == 0.0


# Measured coverage

Law = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]


def gaussians(d: int, scale: float, shift: float) -> Law:
    def draw(n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        x, y = torch.randn(2, n, d, generator=rng, dtype=torch.float64)
        return scale * x + shift, y

    return draw


def measure_coverage(
    comparison: Comparison, law: Law, n: int, repetitions: int
) -> dict[str, tuple[float, float, float]]:
    """For each head: coverage of the mean estimate, sd of the estimate, mean half width / 1.96."""
    values, ends = [], []
    for r in range(repetitions):
        x, y = law(n, stream(r, "coverage"))
        values.append(comparison.estimate(x, y)[: len(comparison.heads)])
        found = comparison.intervals(x, y, stream(r, "interval"))
        ends.append([(i.low, i.high) for i in found])
    value, end = np.asarray(values), np.asarray(ends)
    mean = value.mean(0)
    covered = ((end[..., 0] <= mean) & (mean <= end[..., 1])).mean(0)
    width = (end[..., 1] - end[..., 0]).mean(0) / 3.92
    spread = value.std(0)
    return {
        head.name: (float(covered[i]), float(spread[i]), float(width[i]))
        for i, head in enumerate(comparison.heads)
    }


def listed(d: int) -> list[Comparison]:
    """Every comparison of two sets, those of features included."""
    y = torch.randn(1000, d, generator=stream(0, "features"), dtype=torch.float64)
    distance = frechet("(white)", y, 100, 0, "", "", {})
    return [*comparisons(d, 0, math.sqrt(2 * d)), distance, kernel("(white)", 0, "", {})]


def by_head(name: str, d: int) -> Comparison:
    return next(c for c in listed(d) if name in [head.name for head in c.heads])


@pytest.mark.parametrize(
    "name",
    [
        "energy distance",
        "W2² max-sliced",
        "W2² of Gaussian fits",
        "variance ratio",
        "kernel distance (white)",
    ],
)
def test_intervals_cover_quickly(name: str) -> None:
    found = measure_coverage(by_head(name, 2), gaussians(2, 0.7, 0.3), 60, 100)
    for covered, _, _ in found.values():
        assert covered >= 0.95 - 3 * 0.0218


def test_classifier_interval_covers_quickly_where_all_scores_counted_would_not() -> None:
    found = measure_coverage(by_head("C2ST AUC", 2), gaussians(2, 1.0, 0.0), 40, 200)
    for name in ("C2ST AUC", "C2ST accuracy"):
        assert found[name][0] >= 0.93


@pytest.mark.slow
@pytest.mark.parametrize("index", range(11))
@pytest.mark.parametrize(
    ("d", "scale", "shift", "n"),
    [(2, 1.0, 0.0, 100), (16, 1.0, 0.0, 100), (16, 0.8, 0.0, 200), (4, 1.0, 0.4, 200)],
)
def test_intervals_cover_95_percent_of_the_time(
    index: int, d: int, scale: float, shift: float, n: int
) -> None:
    found = measure_coverage(listed(d)[index], gaussians(d, scale, shift), n, 500)
    for name, (covered, spread, width) in found.items():
        print(f"{name}: {covered:.3f}, sd {spread:.4g}, width {width:.4g}")
        assert covered >= 0.95 - 3 * 0.00975, name
        # Not merely safe. Shares of neighbours are counts, near 1 in some laws, and not smooth.
        # Directions and batches that are chosen anew with each group left out add to the jackknife.
        share = name in ("coverage", "precision", "recall")
        anew = name in ("W2² max-sliced", "Frechet distance (white), n → ∞")
        assert width <= (3 * spread + 2 / n if share else (3 if anew else 2) * spread), name


# Means and shares of independent examples, whose truth is known


@pytest.mark.slow
def test_quantiles_of_distances_cover_the_truth() -> None:
    # Given the training set the samples are independent; 200,000 of them say what is true.
    train = torch.randn(60, 3, generator=stream(0, "train"))
    heldout = nearest_neighbours(torch.randn(50, 3, generator=stream(0, "heldout")), train)
    many = nearest_neighbours(torch.randn(200_000, 3, generator=stream(0, "many")), train)
    truths = [float(many.distance.quantile(q)) for q in QUANTILES]
    covered = torch.zeros(len(QUANTILES))
    for r in range(500):
        near = nearest_neighbours(torch.randn(200, 3, generator=stream(r, "samples")), train)
        rows = distance_rows(near, heldout, {"training set": heldout}, 60)
        covered += torch.tensor(
            [
                row.interval[0] <= truth <= row.interval[1]
                for row, truth in zip(rows, truths, strict=True)
            ]
        )
    assert (covered / 500 >= 0.95 - 3 * 0.00975).all(), covered / 500


@pytest.mark.slow
def test_label_shares_cover_the_truth() -> None:
    # Two classes N(+-1, 1): every classifier is right with a probability known in closed form.
    def two(n: int, *key: int | str) -> Labelled:
        label = torch.arange(n) % 2
        x = 2.0 * label - 1 + torch.randn(n, generator=stream(0, *key)).double()
        return Labelled(x[:, None], label)

    train, samples = two(200, "train"), two(100, "samples")

    def accuracy(x: Labelled) -> float:
        grid = torch.linspace(-8, 8, 20_001).double()[:, None]
        says = fit_classifier(x.x, x.label)(grid)
        mass = [torch.exp(-0.5 * (grid[:, 0] - m).square()) for m in (-1, 1)]
        return sum(float((m * (says == k)).sum() / m.sum()) for k, m in enumerate(mass)) / 2

    part = samples.cut(100, stream(0, "score", "samples"))
    truths, covered = (accuracy(train), accuracy(part)), torch.zeros(2)
    for r in range(500):
        _, rows = label_rows(two(100, r, "asked"), train, two(30, r, "heldout"), {})
        agreed = rows[0].interval
        _, rows = label_rows(samples, train, two(100, r, "tested"), {})
        reverse = rows[2]
        assert reverse.name == "classifier trained on samples"
        covered += torch.tensor(
            [
                agreed[0] <= truths[0] <= agreed[1],
                reverse.interval[0] <= truths[1] <= reverse.interval[1],
            ]
        )
    assert (covered / 500 >= 0.95 - 3 * 0.00975).all(), covered / 500
