"""Agreement with requested labels, and diversity within them."""

from __future__ import annotations

import time

import pytest
import torch
from scipy import stats
from torch import Tensor

from monge.errors import UserError
from monge.metrics.label_rows import label_rows
from monge.metrics.labels import (
    Labelled,
    TooFewPerClass,
    agreement,
    agreement_if_shuffled,
    classifier_name,
    fit_classifier,
    within_class_diversity,
)
from monge.tensors import stream


def normal(n: int, d: int, *key: int) -> Tensor:
    return torch.randn(n, d, generator=stream(0, "labels", *key), dtype=torch.float64)


def classes(n: int, key: int, spread: float = 1.0) -> Labelled:
    """Three well separated classes in the plane."""
    label = torch.arange(n) % 3
    centres = 12 * torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    return Labelled(centres[label] + spread * normal(n, 2, key), label)


def test_agreement_counts_by_class_and_leaves_out_what_was_not_asked() -> None:
    requested = torch.tensor([0, 0, 0, 1, 1, -1])
    found = agreement(torch.tensor([0, 0, 1, 1, 1, 1]), requested)
    assert dict(found.per_class) == {0: (2, 3), 1: (2, 2)}
    assert (found.n, found.overall, found.worst) == (5, 0.8, pytest.approx(2 / 3))
    expected = stats.binomtest(4, 5).proportion_ci(method="wilson")
    interval = found.overall_interval()
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))


def test_worst_class_interval_covers_the_least_of_equal_classes() -> None:
    # Ten classes with probability 0.9 each: the least *observed* is far below the least true.
    rng = torch.Generator().manual_seed(0)
    requested = torch.arange(1000) % 10
    covered = 0
    for _ in range(300):
        hit = torch.rand(1000, generator=rng) < 0.9
        interval = agreement(torch.where(hit, requested, 10), requested).worst_interval()
        covered += interval.low <= 0.9 <= interval.high
    assert covered / 300 > 0.92


def test_shuffled_agreement_is_the_mean_over_permutations() -> None:
    predicted, requested = torch.tensor([0, 0, 1, 2, 2]), torch.tensor([0, 1, 1, 2, -1])
    overall, worst = agreement_if_shuffled(predicted, requested)
    rng = torch.Generator().manual_seed(0)
    asked = requested[:4]
    simulated = [
        agreement(predicted[:4], asked[torch.randperm(4, generator=rng)]).overall
        for _ in range(4000)
    ]
    assert overall == pytest.approx(sum(simulated) / 4000, abs=0.02)
    assert worst == 0.25


def test_classifier_reaches_98_percent_on_held_out_digits() -> None:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = torch.randperm(len(x), generator=stream(0))
    images = torch.from_numpy(x).float().reshape(-1, 1, 8, 8)[order] / 8 - 1
    label = torch.from_numpy(y).long()[order]
    classify = fit_classifier(images[360:], label[360:])
    assert agreement(classify(images[:360]), label[:360]).overall >= 0.98


def many_classes(per_class: int, key: int, count: int) -> Labelled:
    """Classes around centres in 16 dimensions, a few times farther apart than they are wide."""
    label = torch.arange(count).repeat(per_class)
    centres = normal(count, 16, 0)
    return Labelled(centres[label] + 0.5 * normal(len(label), 16, key), label)


def nearest_centre(examples: Labelled, count: int) -> float:
    """How often the best rule is right: these classes are round and equally wide."""
    nearest = torch.cdist(examples.x, normal(count, 16, 0)).argmin(1)
    return agreement(nearest, examples.label).overall


def test_many_classes_are_told_apart_by_a_classifier_whose_time_is_linear_in_them() -> None:
    train, test = many_classes(8, 1, 60), many_classes(8, 2, 60)
    assert "ridge" in classifier_name(train.label)
    assert "SVM" in classifier_name(train.label[train.label < 50])
    classify = fit_classifier(train.x, train.label)
    found, best = agreement(classify(test.x), test.label).overall, nearest_centre(test, 60)
    assert best - 0.1 < found <= best + 0.02
    assert torch.equal(classify(test.x), fit_classifier(train.x, train.label)(test.x))
    asked = train.label[torch.randperm(len(train.label), generator=stream(0, "shuffled"))]
    assert agreement(fit_classifier(train.x, asked)(test.x), test.label).overall < 0.1


def test_a_thousand_classes_take_seconds() -> None:
    """A machine for each pair of them would be half a million. Chance is 0.001."""
    train, test = many_classes(10, 1, 1000), many_classes(1, 2, 1000)
    begun = time.process_time()
    found = agreement(fit_classifier(train.x, train.label)(test.x), test.label).overall
    assert time.process_time() - begun < 60
    assert nearest_centre(test, 1000) - 0.1 < found < 1


def test_classifier_ignores_unlabelled_examples() -> None:
    data = classes(60, 1)
    label = torch.where(torch.arange(60) < 30, data.label, -1)
    assert set(fit_classifier(data.x, label)(data.x).tolist()) == {0, 1, 2}
    with pytest.raises(UserError, match="two classes"):
        fit_classifier(data.x, torch.zeros(60, dtype=torch.int64))


def test_diversity_is_the_ratio_of_mean_distances() -> None:
    real, narrow = classes(600, 1), classes(600, 2, spread=0.5)
    found = within_class_diversity(narrow.x, narrow.label, real.x, real.label)
    assert found.ratio == pytest.approx(0.5, rel=0.04)
    assert all(r == pytest.approx(0.5, rel=0.1) for r in found.per_class.values())
    interval = found.interval()
    assert interval.low < found.ratio < interval.high
    collapsed = within_class_diversity(torch.zeros(30, 2), torch.arange(30) % 3, real.x, real.label)
    assert collapsed.ratio == 0


def test_diversity_interval_covers() -> None:
    covered = 0
    for r in range(150):
        a, b = classes(45, 2 * r, spread=0.8), classes(60, 2 * r + 1)
        interval = within_class_diversity(a.x, a.label, b.x, b.label).interval()
        covered += interval.low <= 0.8 <= interval.high
    assert covered / 150 >= 0.95 - 3 * 0.0178


def test_diversity_skips_small_classes() -> None:
    real = classes(30, 1)
    label = torch.tensor([0] * 10 + [1] * 3)
    found = within_class_diversity(real.x[:13], label, real.x, real.label)
    assert found.skipped == (1,) and set(found.per_class) == {0}
    with pytest.raises(TooFewPerClass):
        within_class_diversity(real.x[:6], torch.arange(6), real.x, real.label)


def test_rows_hold_floors_and_baselines() -> None:
    train, heldout, samples = classes(300, 1), classes(90, 2), classes(120, 3)
    wrong = Labelled(samples.x, (samples.label + 1) % 3)
    report, rows = label_rows(samples, train, heldout, {"wrong": wrong})
    assert [row.name for row in rows] == [
        "label agreement",
        "label agreement, worst class",
        "classifier trained on samples",
        "within-class diversity",
    ]
    overall, worst, reverse, diversity = rows
    assert {row.group for row in rows} == {"The label that was asked for?"}
    assert reverse.value == reverse.floor == 1.0 and reverse.n == 120
    assert reverse.baselines["wrong"] == 0.0 and reverse.baselines["shuffled labels"] < 0.7
    assert overall.value == overall.floor == worst.value == 1.0
    assert worst.interval[0] < overall.interval[0] and "Bonferroni" in worst.interval_method
    assert overall.baselines["wrong"] == worst.baselines["wrong"] == 0.0
    assert overall.baselines["shuffled labels"] == pytest.approx(1 / 3)
    assert diversity.value == pytest.approx(1, abs=0.15) and diversity.floor == pytest.approx(
        1, abs=0.15
    )
    assert diversity.baselines["shuffled labels"] > 3
    content = report.content(["a", "b", "c"])
    assert content["agreement"][0] == 1.0 and set(content["per_class"]) == {"a", "b", "c"}


def test_a_classifier_trained_on_samples_reaches_the_optimal_accuracy() -> None:
    # Two classes N(+-1, 1) on the line: the best rule is right with probability Phi(1).
    def two(n: int, key: int) -> Labelled:
        label = torch.arange(n) % 2
        return Labelled((2.0 * label - 1)[:, None] + normal(n, 1, key), label)

    heldout = two(2000, 3)
    _, rows = label_rows(two(600, 1), two(800, 2), heldout, {})
    reverse = next(row for row in rows if row.name == "classifier trained on samples")
    best = float(stats.norm.cdf(1))
    stderr = (best * (1 - best) / 2000) ** 0.5
    for value in (reverse.value, reverse.floor):
        assert best - 0.03 - 3 * stderr < value < best + 3 * stderr
    assert reverse.interval[0] < reverse.value < reverse.interval[1]
    assert reverse.n == 600 and reverse.protocol["tested on"] == "2000 held-out examples"


def test_samples_of_one_class_train_no_classifier() -> None:
    one = classes(30, 1)
    same = Labelled(one.x, torch.zeros(30, dtype=torch.int64))
    _, rows = label_rows(same, classes(90, 2), classes(60, 3), {})
    assert "classifier trained on samples" not in [row.name for row in rows]


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (torch.zeros(5), "expected 6 whole numbers"),
        (torch.zeros(5, dtype=torch.int64), "expected 6 whole numbers"),
        (torch.full((6,), -2), "-2 is no label"),
        ([0] * 6, "not list"),
    ],
)
def test_bad_labels_are_named(label: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        fit_classifier(torch.ones(6, 2), label)  # type: ignore[arg-type]
