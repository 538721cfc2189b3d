"""The Frechet distance against closed forms and POT, its floor and its limit against repetition."""

from __future__ import annotations

import statistics

import pytest
import torch
from torch import Tensor

from monge.errors import UserError
from monge.metrics.catalogue import Comparison, Head
from monge.metrics.frechet import frechet_at_infinity, frechet_distance, frechet_floor
from monge.metrics.intervals import student
from monge.metrics.wasserstein import gaussian_w2_squared
from monge.tensors import stream


def normal(n: int, d: int, *key: int) -> Tensor:
    return torch.randn(n, d, generator=stream(0, "frechet", *key), dtype=torch.float64)


def with_moments(mean: Tensor, deviation: Tensor, *key: int) -> Tensor:
    """Fifty examples whose sample mean and covariance are exactly these."""
    x = normal(50, len(mean), *key)
    x = x - x.mean(0)
    x = torch.linalg.solve_triangular(torch.linalg.cholesky(x.T.cov()), x.T, upper=False).T
    return mean + deviation * x


def test_closed_form_where_covariances_commute() -> None:
    a, b = torch.tensor([2.0, 1.0, 0.5]).double(), torch.tensor([1.0, 3.0, 0.0]).double()
    rotation = torch.linalg.qr(normal(3, 3, 0)).Q
    shift = torch.tensor([1.0, -2.0, 0.5]).double()
    x = with_moments(torch.zeros(3).double(), a, 1) @ rotation
    y = with_moments(shift, b, 2) @ rotation
    expected = float(shift.square().sum() + (a - b).square().sum())  # 5.25 + 1 + 4 + 0.25
    assert expected == pytest.approx(10.5)
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("n", [200, 12])
def test_agrees_with_pot_and_with_the_trace_formula(n: int) -> None:
    gaussian = pytest.importorskip("ot.gaussian")
    x = normal(n, 8, 1) @ normal(8, 8, 2)
    y = normal(n, 8, 3) @ normal(8, 8, 4) + 1
    moments = [x.mean(0), y.mean(0), x.T.cov(), y.T.cov()]
    expected = float(gaussian.bures_wasserstein_distance(*(m.numpy() for m in moments))) ** 2
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(x, y) == pytest.approx(gaussian_w2_squared(x, y), rel=1e-9)


def test_fewer_examples_than_features() -> None:
    x, y = normal(10, 30, 1), 2 * normal(15, 30, 2)
    assert frechet_distance(x, y) == pytest.approx(gaussian_w2_squared(x, y), rel=1e-8)


def test_symmetric_and_zero_on_itself_where_features_are_constant_or_repeated() -> None:
    x, y = normal(40, 6, 1), normal(60, 6, 2) + 0.3
    for z in (x, y):
        z[:, 1] = 2.0
        z[:, 2] = z[:, 3]
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(y, x), rel=1e-10)
    assert frechet_distance(x, y) > 0.1
    assert frechet_distance(x, x) < 1e-12
    assert frechet_distance(x, x[torch.randperm(40, generator=stream(0))]) < 1e-12
    assert frechet_distance(x, x + 0.5) == pytest.approx(6 * 0.25, rel=1e-10)


def test_one_feature() -> None:
    x = torch.tensor([[-1.0], [1.0]])  # mean 0, variance 2
    y = torch.tensor([[0.0], [4.0]])  # mean 2, variance 8
    assert frechet_distance(x, y) == pytest.approx(4 + 2)


def test_floor_is_what_two_samples_of_one_law_give() -> None:
    deviation = torch.tensor([3.0, 2.0, 1.0, 1.0, 0.3, 0.0]).double()
    n, repetitions = 300, 150
    found = [
        frechet_distance(deviation * normal(n, 6, 1, k), deviation * normal(n, 6, 2, k))
        for k in range(repetitions)
    ]
    expected = frechet_floor(deviation * normal(100_000, 6, 3), n)
    stderr = statistics.stdev(found) / repetitions**0.5
    assert stderr < 0.05 * expected
    assert abs(statistics.mean(found) - expected) < 3 * stderr + 0.02 * expected


def test_floor_of_white_features_is_closed() -> None:
    d, n = 128, 2048
    x = normal(2000, d, 1)
    x = x - x.mean(0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(x.T.cov()), x.T, upper=False).T
    assert frechet_floor(white, n) == pytest.approx((d * (d + 1) / 2 + 2 * d) / n)
    assert frechet_floor(white, n) == pytest.approx(4.156, abs=1e-3)
    constant = torch.cat([white, torch.ones(2000, 3).double()], 1)
    assert frechet_floor(constant, n) == pytest.approx(frechet_floor(white, n))


def pair(k: int, n: int = 200) -> tuple[Tensor, Tensor]:
    """Two laws at squared Frechet distance 1 + 1: a shift, and one deviation of 2 for 1."""
    x, y = normal(n, 10, 3, k), normal(n, 10, 4, k)
    x[:, 0] += 1
    x[:, 1] *= 2
    return x, y


def test_at_infinity_the_bias_is_gone() -> None:
    repetitions = 80
    at_n = [frechet_distance(*pair(k)) for k in range(repetitions)]
    limit = [frechet_at_infinity(*pair(k)) for k in range(repetitions)]
    stderr = statistics.stdev(limit) / repetitions**0.5
    assert stderr < 0.06
    assert abs(statistics.mean(limit) - 2) < 3 * stderr
    assert statistics.mean(at_n) - 2 > 0.3  # the bias that is removed: about 0.4


def test_at_infinity_between_samples_of_one_law_is_zero_on_average() -> None:
    found = [frechet_at_infinity(normal(200, 10, 5, k), normal(200, 10, 6, k)) for k in range(60)]
    stderr = statistics.stdev(found) / 60**0.5
    floor = frechet_distance(normal(200, 10, 5, 0), normal(200, 10, 6, 0))
    assert abs(statistics.mean(found)) < 3 * stderr + 0.02 * floor
    assert 0.2 < floor < 0.6
    assert min(found) < 0  # not clipped: that would be a bias again


def test_the_interval_at_infinity_covers_the_truth() -> None:
    comparison = Comparison(
        lambda x, y: (frechet_at_infinity(x, y),),
        (Head("limit", lambda value, stderr, n: student(value, stderr), "lower"),),
        {},
    )
    intervals = [comparison.intervals(*pair(k), stream(0, k))[0] for k in range(60)]
    covered = sum(i.low <= 2 <= i.high for i in intervals)
    assert covered >= 52  # below it 1 % of the time if each covers with 95 %
    assert statistics.mean(i.high - i.low for i in intervals) < 2.5


def test_the_limit_depends_on_its_seed_alone() -> None:
    x, y = pair(0)
    assert frechet_at_infinity(x, y, 3) == frechet_at_infinity(x, y, 3)
    assert frechet_at_infinity(x, y, 3) != frechet_at_infinity(x, y, 4)


def test_refusals() -> None:
    with pytest.raises(UserError, match="3 numbers per example, but second set: 4"):
        frechet_distance(normal(5, 3), normal(5, 4))
    with pytest.raises(UserError, match="equal size"):
        frechet_at_infinity(normal(20, 3), normal(21, 3))
    with pytest.raises(UserError, match="needs 8 examples in a set, not 7"):
        frechet_at_infinity(normal(7, 3), normal(7, 3))
    with pytest.raises(UserError, match="NaN"):
        frechet_distance(normal(5, 3), torch.full((5, 3), torch.nan))
