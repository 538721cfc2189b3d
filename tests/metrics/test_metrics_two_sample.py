"""Two-sample tests: closed forms, unbiasedness, and behaviour under the null."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch import Tensor

from monge.errors import UserError
from monge.metrics.catalogue import laws
from monge.metrics.samples import distances, own_distances
from monge.metrics.two_sample import (
    area_under_roc,
    classifier_test,
    energy_distance,
    energy_test,
    mean_of_pairs,
    of_rows,
    of_splits,
    pairs_variance,
)
from monge.tensors import stream


def normal(n: int, d: int, *key: int) -> Tensor:
    return torch.randn(n, d, generator=stream(0, "two-sample", *key), dtype=torch.float64)


def mean_norm(scale: float, shift: float, d: int) -> float:
    """E|s Z + shift e1| for Z ~ N(0, I_d)."""
    ratio = math.exp(special.gammaln((d + 1) / 2) - special.gammaln(d / 2))
    kummer = special.hyp1f1(-0.5, d / 2, -(shift**2) / (2 * scale**2))
    return float(scale * math.sqrt(2) * ratio * kummer)


def energy_of_shift(d: int, shift: float) -> float:
    """Squared energy distance of N(0, I) and N(shift e1, I)."""
    return 2 * (mean_norm(math.sqrt(2), shift, d) - mean_norm(math.sqrt(2), 0, d))


# Energy distance


@pytest.mark.parametrize(
    ("d", "value"), [(2, 0.01770), (8, 0.00969), (32, 0.00496), (128, 0.00250)]
)
def test_closed_form_has_the_values_of_the_fact_sheet(d: int, value: float) -> None:
    assert energy_of_shift(d, 0.2) == pytest.approx(value, abs=6e-6)


def test_u_statistic_is_the_double_sum() -> None:
    x, y = normal(7, 3, 1), normal(5, 3, 2)

    def mean(pairs: object) -> float:
        return float(np.mean([float((a - b).norm()) for a, b in pairs]))  # type: ignore[union-attr]

    expected = (
        2 * mean(itertools.product(x, y))
        - mean(itertools.combinations(x, 2))
        - mean(itertools.combinations(y, 2))
    )
    assert energy_distance(x, y) == pytest.approx(expected, rel=1e-9)
    assert energy_distance(y, x) == pytest.approx(expected, rel=1e-9)


def test_scipys_is_the_root_of_the_biased_version() -> None:
    x, y = normal(40, 1, 1), 0.5 + normal(30, 1, 2)
    own_x, own_y = mean_of_pairs(own_distances(x)), mean_of_pairs(own_distances(y))
    biased = energy_distance(x, y) + float(own_x) / 40 + float(own_y) / 30
    library = stats.energy_distance(x[:, 0].numpy(), y[:, 0].numpy())
    assert biased == pytest.approx(library**2, rel=1e-9)


@pytest.mark.parametrize("shift", [0.0, 0.8])
@pytest.mark.parametrize("d", [2, 32])
def test_unbiased_at_small_n(d: int, shift: float) -> None:
    e1 = torch.eye(d, dtype=torch.float64)[0]
    values = np.asarray(
        [energy_distance(normal(12, d, r, 0) + shift * e1, normal(8, d, r, 1)) for r in range(400)]
    )
    assert abs(values.mean() - energy_of_shift(d, shift)) < 3.5 * values.std() / 20


def test_variance_estimate_is_unbiased_exactly() -> None:
    # Over all samples of size 4 from three atoms, the estimate averages to the true variance.
    atoms = torch.tensor([[0.0], [1.0], [3.0]], dtype=torch.float64)
    draws = [own_distances(atoms[list(i)]) for i in itertools.product(range(3), repeat=4)]
    means = torch.stack([mean_of_pairs(own) for own in draws])
    estimates = [pairs_variance(own) for own in draws]
    assert sum(estimates) / len(draws) == pytest.approx(float(means.var(correction=0)), rel=1e-10)


def test_permutation_p_value_is_uniform_under_the_null() -> None:
    # With 19 permutations p takes 20 values, each equally likely.
    p = [
        energy_test(normal(10, 2, r, 0), normal(14, 2, r, 1), stream(r), 19).p_value
        for r in range(400)
    ]
    counts = np.bincount(np.rint(np.asarray(p) * 20).astype(int), minlength=21)[1:]
    assert counts.sum() == 400
    assert stats.chisquare(counts).pvalue > 1e-3


def test_permutation_p_value_is_least_for_separated_samples_and_repeats() -> None:
    x, y = normal(20, 3, 1), normal(20, 3, 2)
    assert energy_test(x + 9, y, stream(0), 199).p_value == 1 / 200
    assert energy_test(x, y, stream(0)) == energy_test(x, y, stream(0))
    assert energy_test(x, x, stream(0), 99).p_value == 1.0


def test_splits_share_one_matrix_and_agree_with_the_estimator() -> None:
    pooled = normal(11, 2, 1)
    chosen = torch.zeros(11, 2, dtype=torch.float64)
    chosen[[0, 3, 5, 9], 0] = 1
    chosen[:4, 1] = 1
    found = of_splits(own_distances(pooled), chosen)
    for value, mask in zip(found, chosen.T.bool(), strict=True):
        assert float(value) == pytest.approx(energy_distance(pooled[mask], pooled[~mask]), rel=1e-9)


# Classifier test


def test_area_under_roc_is_scikit_learns_with_ties() -> None:
    from sklearn.metrics import roc_auc_score

    scores = torch.randint(0, 6, (50,), generator=stream(0)).double()
    label = torch.randint(0, 2, (50,), generator=stream(1))
    expected = roc_auc_score(label.numpy(), scores.numpy())
    assert area_under_roc(scores[label == 1], scores[label == 0]) == pytest.approx(expected)


def test_classifier_is_at_chance_under_the_null() -> None:
    found = [classifier_test(normal(40, 3, r, 0), normal(40, 3, r, 1), r) for r in range(100)]
    auc = np.asarray([t.auc for t in found])
    accuracy = np.asarray([t.accuracy for t in found])
    assert abs(auc.mean() - 0.5) < 3.5 * auc.std() / 10
    assert abs(accuracy.mean() - 0.5) < 3.5 * accuracy.std() / 10
    # The spread that intervals allow for: half of the scores' count, not all.
    assert 0.8 < auc.std() / math.sqrt(1 / (6 * 20)) < 1.1


def test_classifier_approaches_the_best_possible_area() -> None:
    # N(0, 1) against N(shift, 1): the likelihood ratio has area Phi(shift / sqrt 2).
    shift = 1.5
    found = classifier_test(shift + normal(1000, 1, 1), normal(1000, 1, 2))
    best = stats.norm.cdf(shift / math.sqrt(2))
    assert best - 0.05 < found.auc < best + 0.02
    assert stats.norm.cdf(shift / 2) - 0.03 < found.accuracy < stats.norm.cdf(shift / 2) + 0.02


def test_classifier_separates_and_repeats() -> None:
    x, y = normal(30, 4, 1), normal(50, 4, 2)
    found = classifier_test(x + 20, y)
    assert found.auc == 1.0 and found.accuracy > 0.95
    assert classifier_test(x, y, 3) == classifier_test(x, y, 3)


def test_classifier_scores_only_what_it_has_not_seen() -> None:
    # Two samples of pure noise in high dimension: a classifier is perfect on what it was fitted to.
    assert classifier_test(normal(40, 500, 1), normal(40, 500, 2)).auc < 0.75


def test_constant_sets_are_at_chance() -> None:
    found = classifier_test(torch.ones(10, 2), torch.ones(10, 2))
    assert found.auc == 0.5


def test_too_few_examples_are_refused() -> None:
    with pytest.raises(UserError, match="not 7 and 9"):
        classifier_test(normal(7, 2), normal(9, 2))


def test_the_statistic_of_some_rows_is_that_of_the_parts() -> None:
    x, y = (normal(n, 3, n) for n in (30, 50))
    first, second = torch.arange(0, 30, 2), torch.arange(5, 50)
    parts = distances(x, y), own_distances(x), own_distances(y)
    found = of_rows(parts, first, second)
    assert found == pytest.approx(energy_distance(x[first], y[second]), rel=1e-10)
    listed = laws(0, 1.5)[0]
    assert listed.of_parts is not None
    again = listed.of_parts(x, y)(first, second)
    assert again == pytest.approx(listed.estimate(x[first], y[second]), rel=1e-10)
    assert listed.estimate(x, y + 1) != listed.estimate(x, y)
