"""Density, coverage, precision and recall on cases that are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from monge.errors import UserError
from monge.metrics.coverage import expected_coverage, support
from monge.tensors import stream


def normal(n: int, d: int, *key: int) -> Tensor:
    return torch.randn(n, d, generator=stream(0, "coverage", *key), dtype=torch.float64)


def test_definitions_by_loops() -> None:
    x, y, k, kp = normal(30, 2, 1), 0.7 * normal(25, 2, 2), 4, 2

    def radius(of: Tensor, among: Tensor, k: int) -> float:
        return sorted(float((of - other).norm()) for other in among)[k]

    def within(p: Tensor, centre: Tensor, among: Tensor, k: int) -> bool:
        return float((p - centre).norm()) <= radius(centre, among, k) + 1e-12

    found = support(x, y, k, kp)
    assert found.density == pytest.approx(sum(within(a, b, y, k) for a in x for b in y) / k / 30)
    assert found.coverage == pytest.approx(np.mean([any(within(a, b, y, k) for a in x) for b in y]))
    assert found.precision == pytest.approx(
        np.mean([any(within(a, b, y, kp) for b in y) for a in x])
    )
    assert found.recall == pytest.approx(np.mean([any(within(b, a, x, kp) for a in x) for b in y]))


@pytest.mark.parametrize("d", [1, 3, 20])
@pytest.mark.parametrize(("n", "m"), [(60, 60), (40, 90)])
def test_means_for_equal_laws_are_the_closed_ones(d: int, n: int, m: int) -> None:
    found = [support(normal(n, d, r, 0), normal(m, d, r, 1)) for r in range(120)]
    for values, truth in (
        ([s.coverage for s in found], expected_coverage(n, m)),
        ([s.density for s in found], 1.0),
    ):
        array = np.asarray(values)
        assert abs(array.mean() - truth) < 3.5 * array.std() / 120**0.5


def test_expected_coverage_tends_to_one_less_a_power_of_two() -> None:
    assert expected_coverage(10**6, 10**6, k=5) == pytest.approx(1 - 2**-5, abs=1e-5)


def test_precision_and_recall_are_each_others_mirror() -> None:
    x, y = normal(40, 3, 1), 0.5 * normal(40, 3, 2)
    assert support(x, y).precision == support(y, x).recall
    assert support(x, y).precision < support(x, y).recall  # x is the wider


def test_far_sets_do_not_meet_and_equal_sets_do() -> None:
    x = normal(30, 3, 1)
    far = support(x + 100, x)
    assert (far.density, far.coverage, far.precision, far.recall) == (0, 0, 0, 0)
    same = support(x, x)
    assert (same.coverage, same.precision, same.recall) == (1, 1, 1)


def test_a_missing_mode_halves_coverage_and_recall() -> None:
    real = torch.cat([normal(50, 2, 1), normal(50, 2, 2) + 50])
    found = support(real[:50] + 1e-6, real)
    assert found.coverage == pytest.approx(0.5) and found.recall == pytest.approx(0.5)
    assert found.precision == 1.0


def test_needs_more_examples_than_neighbours() -> None:
    with pytest.raises(UserError, match="5 neighbours need more examples than 5 and 9"):
        support(normal(5, 2), normal(9, 2))
