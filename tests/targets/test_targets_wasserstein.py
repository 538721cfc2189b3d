"""Closed Wasserstein-2 distances against golden values, and the quadrature behind them."""

from __future__ import annotations

import math

import pytest
import torch
from laws_targets import LINE, TARGETS

from monge.errors import UserError
from monge.targets.gaussian import Gaussian, GaussianSpec
from monge.targets.mixture import GaussianMixture
from monge.targets.quadrature import integrate
from monge.targets.wasserstein import bures, wasserstein2


def point(*x: float) -> Gaussian:
    return Gaussian(torch.tensor(x), torch.tensor(0.0))


def test_gaussians_golden() -> None:
    a = Gaussian(torch.tensor([0.0, 0.0]), torch.tensor([1.0, 4.0]))
    b = Gaussian(torch.tensor([3.0, 4.0]), torch.tensor([9.0, 1.0]))
    assert wasserstein2(a, b) == pytest.approx(math.sqrt(25 + 4 + 1), rel=1e-14)
    # Non-commuting: A = [[2,1],[1,2]], B = diag(1,4): (tr (AB)^(1/2))^2 = tr AB + 2 sqrt(det AB).
    c = Gaussian(torch.zeros(2), torch.tensor([[2.0, 1.0], [1.0, 2.0]]))
    d = Gaussian(torch.zeros(2), torch.tensor([1.0, 4.0]))
    expected = 4 + 5 - 2 * math.sqrt(10 + 2 * math.sqrt(12))
    assert wasserstein2(c, d) == pytest.approx(math.sqrt(expected), rel=1e-13)
    assert wasserstein2(point(1, 2), point(4, 6)) == pytest.approx(5, rel=1e-14)


def test_gaussians_against_the_eigenvalue_formula() -> None:
    a, b = GaussianSpec(dim=6, seed=1).build(), GaussianSpec(dim=6, seed=2, std=2.0).build()
    values, vectors = torch.linalg.eigh(a.covariance)
    root = (vectors * values.sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ b.covariance @ root).sqrt().sum()
    squared = a.covariance.trace() + b.covariance.trace() - 2 * cross
    squared = squared + (a.mean - b.mean).square().sum()
    assert wasserstein2(a, b) == pytest.approx(float(squared.sqrt()), rel=1e-12)
    assert wasserstein2(b, a) == pytest.approx(wasserstein2(a, b), rel=1e-13)


def test_close_gaussians_keep_their_digits() -> None:
    a = GaussianSpec(dim=5, condition=1e4, seed=3).build()
    assert wasserstein2(a, a) < 1e-13
    scaled = Gaussian(a.mean, a.covariance * (1 + 1e-9) ** 2)
    spread = math.sqrt(float(a.covariance.trace()))
    assert wasserstein2(a, scaled) == pytest.approx(1e-9 * spread, rel=1e-4)


def test_flat_gaussians() -> None:
    a = Gaussian(torch.zeros(3), torch.tensor([1.0, 0.0, 0.0]))
    b = Gaussian(torch.zeros(3), torch.tensor([0.0, 4.0, 0.0]))
    assert wasserstein2(a, b) == pytest.approx(math.sqrt(5), rel=1e-13)
    assert wasserstein2(a, a) < 1e-13


def test_laws_on_the_line_golden() -> None:
    a = Gaussian(torch.tensor([1.0]), torch.tensor(4.0))
    b = Gaussian(torch.tensor([-2.0]), torch.tensor(0.25))
    exact = math.sqrt(9 + 1.5**2)
    assert wasserstein2(a, b) == pytest.approx(exact, rel=1e-14)
    mixtures = [GaussianMixture(g.mean[None], g.covariance) for g in (a, b)]
    assert wasserstein2(*mixtures) == pytest.approx(exact, rel=1e-12)
    assert wasserstein2(a, mixtures[1]) == pytest.approx(exact, rel=1e-12)


def test_moved_and_scaled_mixtures_on_the_line() -> None:
    """x -> c x + b is increasing, so W2^2 = E |(c-1) x + b|^2."""
    c, b = 0.7, 0.4
    moved = GaussianMixture(c * LINE.means + b, c**2 * LINE.covariances, LINE.weights)
    second = LINE.second_moment
    expected = (c - 1) ** 2 * second + 2 * (c - 1) * b * float(LINE.mean) + b**2
    assert wasserstein2(LINE, moved) == pytest.approx(math.sqrt(expected), rel=1e-9)


def test_atoms_on_the_line() -> None:
    atoms = GaussianMixture(torch.tensor([[-1.0], [1.0]]), torch.tensor(0.0))
    weights = torch.tensor([0.3, 0.7], dtype=torch.float64)
    uneven = GaussianMixture(atoms.means, torch.tensor(0.0), weights)
    assert wasserstein2(atoms, point(0.0)) == pytest.approx(1, rel=1e-9)
    assert wasserstein2(atoms, uneven) == pytest.approx(math.sqrt(0.2 * 4), rel=1e-8)
    # E (|z| - 1)^2 for z standard normal.
    normal = Gaussian(torch.zeros(1), torch.tensor(1.0))
    exact = math.sqrt(2 - 2 * math.sqrt(2 / math.pi))
    assert wasserstein2(atoms, normal) == pytest.approx(exact, rel=1e-8)


def test_pairs_without_a_closed_form_are_refused() -> None:
    with pytest.raises(UserError, match="no closed form"):
        wasserstein2(TARGETS["full"], TARGETS["gaussian-full"])
    with pytest.raises(UserError, match="dimensions 1 and 6"):
        wasserstein2(LINE, TARGETS["full"])


def test_bures_of_equal_moments_bounds_any_two_laws() -> None:
    a, b = TARGETS["line"], Gaussian(torch.zeros(1), torch.tensor(1.0))
    bound = bures(a.mean, a.covariance, b.mean, b.covariance)
    assert 0 < bound < wasserstein2(a, b)


def test_quadrature() -> None:
    assert integrate(torch.exp, 0.0, 2.0) == pytest.approx(math.expm1(2), rel=1e-14)
    assert integrate(lambda t: t**-0.5, 0.0, 1.0) == pytest.approx(2, rel=1e-9)
    step = integrate(lambda t: (t > 1 / math.pi).double(), 0.0, 1.0)
    assert step == pytest.approx(1 - 1 / math.pi, rel=1e-11)
    with pytest.raises(UserError, match="not converged"):
        integrate(lambda t: 1 / t, 0.0, 1.0)
