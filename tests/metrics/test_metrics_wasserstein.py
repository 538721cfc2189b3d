"""Wasserstein estimators against closed forms, other libraries and brute force."""

from __future__ import annotations

import itertools
import sys

import pytest
import torch
from torch import Tensor

from monge.errors import UserError
from monge.metrics.wasserstein import (
    choose_solver,
    exact_w2_squared,
    gaussian_w2_squared,
    max_sliced_stderr,
    max_sliced_w2_squared,
    sliced_w2_squared,
    variance_ratio,
    worst_direction,
)
from monge.targets.wasserstein import bures
from monge.tensors import stream

ESTIMATORS = [exact_w2_squared, sliced_w2_squared, gaussian_w2_squared]


def normal(n: int, d: int, *key: int) -> Tensor:
    return torch.randn(n, d, generator=stream(0, "wasserstein", *key), dtype=torch.float64)


def clusters(n: int, d: int, key: int) -> Tensor:
    centres = 4 * normal(5, d, 99)
    pick = torch.randint(0, 5, (n,), generator=stream(key))
    return centres[pick] + 0.2 * normal(n, d, key)


# Exact


def test_exact_is_the_best_of_all_permutations() -> None:
    x, y = normal(6, 2, 1), normal(6, 2, 2)
    best = min(
        float((x - y[list(order)]).square().sum(1).mean())
        for order in itertools.permutations(range(6))
    )
    for solver in ("emd", "lapjv", "scipy"):
        assert exact_w2_squared(x, y, solver) == pytest.approx(best, rel=1e-10)


@pytest.mark.parametrize("d", [2, 16])
@pytest.mark.parametrize("draw", [normal, clusters])
def test_exact_solvers_agree_with_each_other_and_with_pot(draw: object, d: int) -> None:
    import ot

    x, y = draw(150, d, 1), draw(150, d, 2)  # type: ignore[operator]
    expected = float(ot.emd2([], [], ot.dist(x.numpy(), y.numpy()), numItermax=10**7))
    for solver in ("auto", "emd", "lapjv", "scipy"):
        assert exact_w2_squared(x, y, solver) == pytest.approx(expected, rel=1e-9)


def test_exact_in_one_dimension_sorts() -> None:
    x, y = normal(200, 1, 1), 2 * normal(200, 1, 2)
    assert choose_solver(1) == "sort"
    assert exact_w2_squared(x, y) == pytest.approx(exact_w2_squared(x, y, "scipy"), rel=1e-10)
    with pytest.raises(UserError, match="one dimension"):
        exact_w2_squared(normal(10, 2), normal(10, 2), "sort")


@pytest.mark.parametrize(("solver", "module"), [("emd", "ot"), ("lapjv", "lap")])
def test_a_missing_solver_is_named_with_its_install_command(
    solver: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=r"pip install 'monge\[ot\]'"):
        exact_w2_squared(normal(5, 3, 1), normal(5, 3, 2), solver)  # type: ignore[arg-type]


def test_without_extras_scipy_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert choose_solver(2) == choose_solver(64) == "scipy"


def test_unknown_solver_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'lapjv'"):
        exact_w2_squared(normal(5, 3), normal(5, 3), "lapvj")  # type: ignore[arg-type]


def test_exact_floor_of_the_fact_sheet() -> None:
    # d = 8, n = 256, both N(0, I): 3.73.
    mean = sum(exact_w2_squared(normal(256, 8, r, 0), normal(256, 8, r, 1)) for r in range(10)) / 10
    assert mean == pytest.approx(3.73, abs=0.1)


# Laws of all three


@pytest.mark.parametrize("estimate", ESTIMATORS)
def test_symmetric_zero_on_itself_and_free_of_order(estimate: object) -> None:
    x, y = normal(80, 5, 1), 1 + normal(80, 5, 2)
    order = torch.randperm(80, generator=stream(3))
    value = estimate(x, y)  # type: ignore[operator]
    assert estimate(y, x) == pytest.approx(value, rel=1e-10)  # type: ignore[operator]
    assert estimate(x[order], y) == pytest.approx(value, rel=1e-10)  # type: ignore[operator]
    assert estimate(x, x[order]) == pytest.approx(0, abs=1e-10)  # type: ignore[operator]


@pytest.mark.parametrize("estimate", ESTIMATORS)
@pytest.mark.parametrize("d", [1, 3, 40])
def test_a_shift_counts_its_squared_length(estimate: object, d: int) -> None:
    x, shift = normal(30, d, 1), 2 * normal(1, d, 2)
    found = estimate(x, x + shift)  # type: ignore[operator]
    # Sliced: the mean of 512 random projections of the shift, relative sd sqrt(2/512) at most.
    tolerance = 0.25 if estimate is sliced_w2_squared else 1e-9
    assert found == pytest.approx(float(shift.square().sum()), rel=tolerance)


@pytest.mark.parametrize("estimate", ESTIMATORS)
def test_scaling_by_c_multiplies_by_c_squared(estimate: object) -> None:
    x, y = normal(50, 4, 1), 1 + normal(50, 4, 2)
    value = estimate(x, y)  # type: ignore[operator]
    assert estimate(3 * x, 3 * y) == pytest.approx(9 * value, rel=1e-9)  # type: ignore[operator]


# Sliced


def test_sliced_between_isotropic_gaussians() -> None:
    # Every projection is N(0, 1) against N(m.u, s^2): d times the mean is |m|^2 + d (s - 1)^2.
    d, scale = 6, 1.7
    shift = torch.tensor([1.0, 0, -0.5, 0, 0.3, 0], dtype=torch.float64)
    x, y = normal(4000, d, 1), scale * normal(4000, d, 2) + shift
    closed = float(shift.square().sum()) + d * (scale - 1) ** 2
    assert sliced_w2_squared(x, y, directions=400) == pytest.approx(closed, rel=0.05)


def test_sliced_floor_of_the_fact_sheet_and_seeds() -> None:
    # d = 8, n = 2048, both N(0, I): .026.
    values = [
        sliced_w2_squared(normal(2048, 8, r, 0), normal(2048, 8, r, 1), 100) for r in range(8)
    ]
    assert sum(values) / 8 == pytest.approx(0.026, abs=0.003)
    x, y = normal(50, 3, 1), normal(50, 3, 2)
    assert sliced_w2_squared(x, y, seed=1) == sliced_w2_squared(x, y, seed=1)
    assert sliced_w2_squared(x, y, seed=1) != sliced_w2_squared(x, y, seed=2)


def test_sliced_in_one_dimension_is_exact() -> None:
    x, y = normal(60, 1, 1), normal(60, 1, 2)
    assert sliced_w2_squared(x, y, 3) == pytest.approx(exact_w2_squared(x, y), rel=1e-10)


# Max-sliced


def largest(d: int, first: float) -> Tensor:
    return torch.cat([torch.tensor([first]), torch.ones(d - 1)]).double()


@pytest.mark.parametrize(("d", "n"), [(1, 200), (8, 400), (40, 600)])
def test_max_sliced_finds_a_shift_and_a_change_of_one_variance(d: int, n: int) -> None:
    x, y = normal(n, d, 1), normal(n, d, 2)
    shift = 3 * torch.nn.functional.normalize(normal(1, d, 3))
    u = worst_direction(x + shift, y)
    assert float(u.norm()) == pytest.approx(1)
    assert abs(float(u @ shift[0])) > 3 * 0.97
    # Along the shift the laws are N(3, 1) and N(0, 1), at W2 squared 9.
    assert max_sliced_w2_squared(x + shift, y) == pytest.approx(9, rel=0.1)
    # N(0, 9) against N(0, 1) along the first axis: (3 - 1)^2.
    assert abs(float(worst_direction(x * largest(d, 3.0), y)[0])) > 0.97
    assert max_sliced_w2_squared(x * largest(d, 3.0), y) == pytest.approx(4, rel=0.25)


def test_a_direction_found_on_one_half_is_not_optimistic_on_the_other() -> None:
    # Of one law in 64 dimensions some direction always looks bad; its other half does not.
    d, n, floors, tops = 64, 200, [], []
    for r in range(10):
        x, y = normal(n, d, r, 3), normal(n, d, r, 4)
        floors.append(max_sliced_w2_squared(x, y))
        u = worst_direction(x, y)
        tops.append(exact_w2_squared((x @ u)[:, None], (y @ u)[:, None]))
    one = [exact_w2_squared(normal(n // 2, 1, r, 5), normal(n // 2, 1, r, 6)) for r in range(100)]
    expected = sum(one) / 100
    assert sum(floors) / 10 == pytest.approx(expected, abs=0.02)
    assert sum(tops) / 10 > 10 * expected


def test_the_ascent_goes_above_the_best_of_many_random_directions() -> None:
    import ot

    x, y = clusters(150, 12, 1), 0.7 * clusters(150, 12, 2)
    u = worst_direction(x, y)
    found = exact_w2_squared((x @ u)[:, None], (y @ u)[:, None])
    best = float(ot.max_sliced_wasserstein_distance(x, y, n_projections=2000, seed=0)) ** 2
    assert found > best


def test_max_sliced_repeats_and_its_error_is_that_of_repetition() -> None:
    d, n = 4, 100
    values, errors = [], []
    for r in range(25):
        x, y = normal(n, d, r, 7) * largest(d, 2.0), normal(n, d, r, 8)
        values.append(max_sliced_w2_squared(x, y))
        errors.append(max_sliced_stderr(x, y, stream(r)))
    spread = float(torch.tensor(values).std())
    assert 0.65 * spread < sum(errors) / 25 < 1.6 * spread  # see `jackknife`
    assert max_sliced_w2_squared(x, y, 3) == max_sliced_w2_squared(x, y, 3)
    with pytest.raises(UserError, match="4 examples in a set, not 3"):
        max_sliced_w2_squared(x[:3], y[:3])


# Gaussian


def with_moments(n: int, mean: Tensor, covariance: Tensor, key: int) -> Tensor:
    """A sample with exactly this mean and covariance."""
    x = normal(n, len(mean), key)
    x = x - x.mean(0)
    white = x @ torch.linalg.inv(torch.linalg.cholesky(x.T.cov())).T
    return white @ torch.linalg.cholesky(covariance).T + mean


def test_gaussian_fit_is_the_closed_form_of_its_moments() -> None:
    import ot

    d = 5
    mean_a, mean_b = normal(2, d, 1)
    a, b = normal(9, d, 2), normal(9, d, 3)
    cov_a, cov_b = a.T @ a, b.T @ b
    x, y = with_moments(50, mean_a, cov_a, 4), with_moments(70, mean_b, cov_b, 5)
    found = gaussian_w2_squared(x, y)
    assert found == pytest.approx(bures(mean_a, cov_a, mean_b, cov_b) ** 2, rel=1e-9)
    library = ot.gaussian.bures_wasserstein_distance(mean_a, mean_b, cov_a, cov_b)
    assert found == pytest.approx(float(library) ** 2, rel=1e-8)


def test_commuting_covariances() -> None:
    a, b = torch.tensor([4.0, 9.0, 0.0]).double(), torch.tensor([1.0, 16.0, 4.0]).double()
    zero = torch.zeros(3).double()
    assert bures(zero, a.diag(), zero, b.diag()) ** 2 == pytest.approx(1 + 1 + 4, rel=1e-12)


def test_fewer_examples_than_dimensions_give_the_same_number() -> None:
    x, y = normal(20, 30, 1), 2 * normal(25, 30, 2)
    dense = bures(x.mean(0), x.T.cov(), y.mean(0), y.T.cov()) ** 2
    assert gaussian_w2_squared(x, y) == pytest.approx(dense, rel=1e-7)


def test_gaussian_floor_is_the_analytic_one() -> None:
    # d (d + 1) / 2n + 2d / n for two samples of N(0, I).
    d, n = 8, 512
    values = [gaussian_w2_squared(normal(n, d, r, 0), normal(n, d, r, 1)) for r in range(40)]
    assert sum(values) / 40 == pytest.approx((d * (d + 1) / 2 + 2 * d) / n, rel=0.06)


def test_variance_ratio() -> None:
    x = normal(50, 3, 1)
    assert variance_ratio(2 * x + 1, x) == pytest.approx(4)
    with pytest.raises(UserError, match="all examples are equal"):
        variance_ratio(x, torch.ones(50, 3))


# Bad input


@pytest.mark.parametrize("estimate", [*ESTIMATORS, max_sliced_w2_squared, variance_ratio])
@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.ones(5, 3), torch.ones(5, 4), "3 numbers per example"),
        (torch.ones(5, 3), torch.full((5, 3), torch.nan), "second set: 5 of 5 examples hold NaN"),
        (torch.ones(1, 3), torch.ones(1, 3), "too few"),
        (torch.ones(5), torch.ones(5), "expected a real tensor"),
        (torch.ones(5, 0), torch.ones(5, 0), "hold no numbers"),
    ],
    ids=["dimension", "nan", "few", "flat", "empty"],
)
def test_bad_sets_are_named(estimate: object, x: Tensor, y: Tensor, message: str) -> None:
    with pytest.raises(UserError, match=message):
        estimate(x, y)  # type: ignore[operator]


@pytest.mark.parametrize("estimate", [exact_w2_squared, sliced_w2_squared, max_sliced_w2_squared])
def test_unequal_sizes_are_refused(estimate: object) -> None:
    with pytest.raises(UserError, match="equal size, not 5 and 6"):
        estimate(torch.ones(5, 2), torch.ones(6, 2))  # type: ignore[operator]
