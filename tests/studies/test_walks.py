"""The walks and laws of the studies against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from monge.components import build
from monge.paths import Linear, Trigonometric
from monge.studies.dimension import gaussian_gap, spectrum
from monge.studies.early_stopping import (
    after_last_step,
    atoms_after_last_step,
    exact_gaussian,
    law_of,
)
from monge.studies.laws import marginals, published_mixture, shared_mixture, velocity
from monge.studies.score_error import form_of, jacobian, phi, score_gain
from monge.studies.walks import (
    applies,
    divergences,
    nodes_on_the_line,
    order,
    pushed,
    reference,
    uniform,
    walk,
)
from monge.targets.gaussian import Gaussian
from monge.targets.mixture import GaussianMixture
from monge.targets.quadrature import integrate


def normal(variance: float) -> GaussianMixture:
    return GaussianMixture(torch.zeros(1, 1), torch.tensor(variance, dtype=torch.float64))


@pytest.mark.parametrize(
    ("path", "w2"), [(Linear(), 321331 / 3559400), (Trigonometric(), 0.130374)], ids=str
)
def test_four_heun_steps_from_variance_one_to_four(path: Linear | Trigonometric, w2: float) -> None:
    # The velocity is linear, so the walk multiplies by a rational number; W2 is |factor - 2|.
    # Worked out by hand in theory/probability_flow_ode.md.
    one = torch.ones(1, 1, dtype=torch.float64)
    factor = float(walk(marginals(normal(4.0), path), "heun", uniform(4), one))
    assert abs(factor - 2) == pytest.approx(w2, abs=5e-7)


def test_averaged_squared_lipschitz_constants_rank_those_two_paths_wrongly() -> None:
    law = Gaussian(torch.zeros(1), torch.tensor(4.0))

    def averaged(path: Linear | Trigonometric) -> float:
        def square(t: torch.Tensor) -> torch.Tensor:
            return torch.tensor([law.lipschitz(path, float(u)) ** 2 for u in t])

        return integrate(square, 0.0, 1.0, rtol=1e-7, pieces=2)

    linear, trigonometric = averaged(Linear()), averaged(Trigonometric())
    assert linear == pytest.approx(5 * math.pi / 8 - 1, abs=1e-6)
    assert trigonometric == pytest.approx(math.pi**2 / 16, abs=1e-6)
    assert linear > trigonometric  # yet the linear path errs less: 0.0903 against 0.1304


@pytest.mark.parametrize("path", ["linear", "ou:horizon=8.0"])
@pytest.mark.parametrize("dim", [1, 5])
def test_the_cheap_form_of_shared_covariances_is_the_general_one(path: str, dim: int) -> None:
    law = shared_mixture(dim, seed=1)
    cheap, general = marginals(law, build("path", path)), law.at(build("path", path))
    assert type(cheap) is not type(general)
    x = 2 * torch.randn(40, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for t in (0.0, 0.4, 1.0):
        assert torch.allclose(cheap.velocity(x, t), general.velocity(x, t), atol=1e-11)
        assert torch.allclose(velocity(cheap, x, t), general.velocity(x, t), atol=1e-11)
        assert torch.allclose(cheap.posterior_mean(x, t), general.posterior_mean(x, t), atol=1e-11)


def test_the_published_mixtures_of_fewer_dimensions_are_blocks_of_one() -> None:
    large, small = published_mixture(128, 3), published_mixture(8, 3)
    assert torch.equal(large.means[:, :8], small.means)
    assert torch.equal(large.covariances[:, :8, :8], small.covariances)
    # E of a variance is (128/128 + 1) / 8; 640 of them with relative deviation 1/16 each.
    assert float(large.covariances.diagonal(dim1=1, dim2=2).mean()) == pytest.approx(0.25, rel=0.01)


@pytest.mark.parametrize("solver", ["euler", "heun", "rk4"])
def test_the_density_of_a_walk_of_a_gaussian_is_closed(solver: str) -> None:
    law = marginals(normal(4.0), Linear())
    x, weights = nodes_on_the_line(law, 2001)
    push = pushed(law, solver, uniform(4), x)
    factor = float(walk(law, solver, uniform(4), torch.ones(1, 1, dtype=torch.float64)))
    tv, kl = divergences(push.log_ratio, weights)
    ratio = (factor / 2) ** 2
    assert kl == pytest.approx((ratio - 1 - math.log(ratio)) / 2, rel=1e-6)
    # Densities of N(0, f^2) and N(0, 4) cross at +-c.
    c = math.sqrt(math.log(1 / ratio) / (1 / factor**2 - 1 / 4))
    inside = [math.erf(c / s / math.sqrt(2)) for s in (factor, 2)]
    assert tv == pytest.approx(abs(inside[0] - inside[1]), rel=1e-4)
    assert push.folded == 0


def test_the_first_exponential_integrator_is_ddim() -> None:
    path = build("path", "ou:horizon=3.0")
    law = marginals(published_mixture(2, 0), path)
    x = torch.tensor([[0.3, -1.0]], dtype=torch.float64)
    s, t = 0.25, 0.75
    (a, a2), (o, o2) = (
        [float(path.scales(torch.tensor(u, dtype=torch.float64))[k]) for u in (s, t)]
        for k in (0, 1)
    )
    eps = law.noise_mean(x, s)
    by_hand = a2 * (x - o * eps) / a + o2 * eps  # DDIM: predicted data, then noise put back
    assert torch.allclose(walk(law, "exp1", [s, t], x), by_hand, atol=1e-12)
    assert not applies("exp1", Linear()) and applies("exp2", path) and order("exp3") == 3


def test_a_reference_knows_its_error_and_the_lipschitz_constant() -> None:
    law = marginals(normal(0.25), Linear())
    x = torch.randn(64, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = reference(law, x, 64, seed=0)
    error = (found.end - x / 2).norm(dim=1)
    assert torch.allclose(found.error, error, rtol=0.3, atol=1e-15)
    exact = max(normal(0.25).lipschitz(Linear(), k / 16) for k in range(17))
    assert found.lipschitz == pytest.approx(exact) and found.steepest == pytest.approx(exact)


def test_the_staircase_of_the_published_errors() -> None:
    x = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, -1.0, 5.0], dtype=torch.float64)
    assert phi(x).tolist() == [0.0, 0.125, 0.5, 0.875, 1.0, -0.5, 2.5]
    grid = torch.linspace(-3, 3, 6001, dtype=torch.float64)
    first = phi(grid).diff() / 1e-3
    assert float(first.abs().max()) <= 1 and float(first.diff().abs().max()) <= 1.01e-3


def test_a_unit_of_score_is_the_horizon_of_velocity() -> None:
    law = marginals(published_mixture(2, 0), build("path", "ou:horizon=5.0"))
    x = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert score_gain(law, 0.3) == pytest.approx(5.0)
    assert torch.allclose(law.velocity(x, 0.3), 5 * (x + law.score(x, 0.3)), atol=1e-10)


def test_the_jacobian_of_a_form() -> None:
    mean = torch.tensor([1.0, -2.0], dtype=torch.float64)
    x = torch.tensor([[0.3, 0.7], [2.0, -1.0]], dtype=torch.float64)
    found = jacobian(form_of("sinusoidal", mean, 0.01), x)
    own = (x.cos() * (x - mean) + x.sin()) / math.sqrt(2)
    assert torch.allclose(found, torch.diag_embed(own))


def test_the_gap_of_a_gaussian_is_that_of_a_walk() -> None:
    variances = spectrum("decaying", 3)
    assert variances.tolist() == pytest.approx([1 / 4, 1 / 16, 1 / 36])
    one = torch.ones(1, 1, dtype=torch.float64)
    gaps = []
    for variance in variances.tolist():
        law = marginals(normal(variance), Linear())
        times = [0.0, 0.2, 0.5, 0.9]
        std = math.sqrt(0.1**2 + 0.9**2 * variance)
        gaps.append(float(walk(law, "euler", times, one)) - std)
    assert gaussian_gap(variances, times) == pytest.approx(math.hypot(*gaps), rel=1e-10)


def test_the_last_step_of_a_gaussian_is_closed() -> None:
    assert after_last_step(law_of("gaussian"), 0.9) == pytest.approx(
        exact_gaussian(0.1, "last"), rel=1e-8
    )


def test_the_last_step_of_atoms_by_samples() -> None:
    law, rng = law_of("atoms"), torch.Generator().manual_seed(0)
    x1 = law.sample(200_000, rng)
    x = 0.6 * x1 + 0.4 * torch.randn(x1.shape, dtype=torch.float64, generator=rng)
    ends = law.at(Linear()).posterior_mean(x, 0.6)
    # Quantile coupling: each end goes to the atom of its sign.
    square = (ends - ends.sign()).square()
    error = float(square.std()) / len(square) ** 0.5
    assert atoms_after_last_step(0.4) ** 2 == pytest.approx(float(square.mean()), abs=4 * error)
