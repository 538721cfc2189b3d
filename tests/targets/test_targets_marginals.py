"""Laws that every target's marginals obey under every path, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from laws_targets import LINE, PATHS, TARGETS, states, states_at_all_times
from torch.func import grad, jacrev, jvp, vmap

from monge.errors import UserError
from monge.paths import MARGIN, Linear, OrnsteinUhlenbeck, Path
from monge.targets.base import Target
from monge.targets.gaussian import Gaussian
from monge.targets.mixture import GaussianMixture, MixtureSpec
from monge.tensors import value_and_divergence

paths = pytest.mark.parametrize("path", PATHS, ids=repr)
targets = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@targets
@paths
def test_derivatives_are_those_of_autograd(target: Target, path: Path) -> None:
    law, (x, t) = target.at(path), states_at_all_times(target, path)
    score = vmap(grad(lambda y, u: law.log_density(y[None], u)[0]))(x, t)
    close(law.score(x, t), score)
    jacobian = vmap(jacrev(lambda y, u: law.velocity(y[None], u)[0]))(x, t)
    close(law.jacobian(x, t), jacobian)
    close(law.divergence(x, t), jacobian.diagonal(dim1=1, dim2=2).sum(1))
    close(jacobian, jacobian.mT)


@targets
@paths
def test_continuity_equation(target: Target, path: Path) -> None:
    """d/dt log p + div v + v . score = 0, inside by autograd."""
    law = target.at(path)
    for t in (1e-3, 0.05, 0.5, 0.9, 0.999):
        x, time = states(target, path, t), torch.tensor(t, dtype=torch.float64)
        rate = jvp(lambda u, x=x: law.log_density(x, u), (time,), (torch.ones_like(time),))[1]
        velocity, score = law.velocity(x, t), law.score(x, t)
        terms = torch.stack([rate, law.divergence(x, t), (velocity * score).sum(1)])
        assert terms.sum(0).abs().max() <= 1e-10 * terms.abs().max().clamp_min(1)


@targets
@paths
@pytest.mark.parametrize("end", [0.0, 1.0])
def test_ends_are_limits(target: Target, path: Path, end: float) -> None:
    law, near = target.at(path), abs(end - 1e-11)
    x = states(target, path, end)
    for f in (law.log_density, law.score, law.velocity, law.posterior_mean, law.divergence):
        value = f(x, end)
        assert value.isfinite().all()
        close(value, f(x, near), 3e-4)


@targets
@paths
def test_posterior_means_reassemble_the_state(target: Target, path: Path) -> None:
    law, (x, t) = target.at(path), states_at_all_times(target, path)
    alpha, sigma = (c[:, None] for c in path.scales(t))
    close(alpha * law.posterior_mean(x, t) + sigma * law.noise_mean(x, t), x)


@targets
@paths
def test_every_output_converts_to_the_velocity(target: Target, path: Path) -> None:
    law = target.at(path)
    exact = {
        "velocity": law.velocity,
        "data": law.posterior_mean,
        "noise": law.noise_mean,
        "score": law.score,
    }
    for kind, output in exact.items():
        lo, hi = path.output_domain(kind)  # type: ignore[arg-type]
        for t in (lo, 0.5 * lo + 0.5 * hi, hi):
            x = states(target, path, t)
            v = path.to_velocity(kind, output(x, t), x, t)  # type: ignore[arg-type]
            close(v, law.velocity(x, t), 1e-9)


@targets
@paths
def test_times_of_every_shape_and_dtypes_agree(target: Target, path: Path) -> None:
    law = target.at(path)
    for t in (0.0, 0.3, 1.0):
        x, time = states(target, path, t), torch.tensor(t, dtype=torch.float64)
        for f in (law.log_density, law.score, law.velocity, law.jacobian, law.divergence):
            value = f(x, t)
            close(f(x, time), value, 1e-12)
            close(f(x, time.expand(len(x))), value, 1e-12)
    single = law.velocity(x.float(), t)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), law.velocity(x, t), rtol=1e-4, atol=1e-4)
    half = law.velocity(x.bfloat16(), t)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half, law.velocity(x.bfloat16().float(), t).bfloat16())


@pytest.mark.parametrize("path", PATHS, ids=repr)
@pytest.mark.parametrize("t", [0.1, 0.5, 0.85])
def test_definitions_by_quadrature_on_the_line(path: Path, t: float) -> None:
    """Density, posterior means and velocity from Bayes' rule on a grid of x1, nothing else."""
    time = torch.tensor(t, dtype=torch.float64)
    alpha, sigma, d_alpha, d_sigma = path.coefficients(time, torch.empty(0))
    x = torch.linspace(-5, 5, 11, dtype=torch.float64)[:, None]
    x1 = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    modes = [(0.1, -6.0), (0.4, 4.0), (0.5, 6.0)]
    p1 = sum(w * (-2 * (x1 - m) ** 2).exp() * math.sqrt(2 / math.pi) for w, m in modes)
    x0 = (x - alpha * x1) / sigma
    joint = p1 * (-0.5 * x0**2).exp() / (math.sqrt(2 * math.pi) * sigma)
    density = joint.sum(1) * (x1[1] - x1[0])
    given = joint / joint.sum(1, keepdim=True)
    data, noise = (given * x1).sum(1, keepdim=True), (given * x0).sum(1, keepdim=True)
    law = LINE.at(path)
    close(law.log_density(x, t), density.log(), 1e-9)
    close(law.posterior_mean(x, t), data, 1e-9)
    close(law.noise_mean(x, t), noise, 1e-9)
    close(law.velocity(x, t), d_alpha * data + d_sigma * noise, 1e-8)


@targets
def test_velocity_of_the_linear_path_at_the_source(target: Target) -> None:
    x = states(target, Linear(), 0.0)
    close(target.field(Linear())(x, 0.0), target.mean - x, 1e-13)


@pytest.mark.parametrize(
    ("t", "highest"), [(0.5, 1.36), (0.7, 4.06), (0.8, 4.00), (0.9, 2.58), (1.0, 1.0)]
)
def test_stretching_between_two_modes(t: float, highest: float) -> None:
    """lambda_max of the Jacobian on the bisector of modes at distance 2, standard deviation 1/2:
    (t c^2 - (1-t))/s^2 + t (1-t) Delta^2 / (4 s^4), s^2 = t^2 c^2 + (1-t)^2."""
    target = GaussianMixture(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), torch.tensor(0.25))
    x = torch.tensor([[0.0, 0.3]], dtype=torch.float64)
    values = torch.linalg.eigvalsh(target.at(Linear()).jacobian(x, t))[0]
    variance = t**2 / 4 + (1 - t) ** 2
    assert float(values[1]) == pytest.approx(highest, abs=0.005)
    assert float(values[0]) == pytest.approx((t / 4 - (1 - t)) / variance, abs=1e-12)


def test_posterior_mean_of_hypercube_atoms() -> None:
    """tanh(t x / (1-t)^2) in each coordinate; the field ends before t = 1."""
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3)
    atoms = GaussianMixture(corners, torch.tensor(0.0))
    x = torch.randn(9, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for t in (0.0, 0.3, 0.8, 1 - MARGIN):
        close(atoms.at(Linear()).posterior_mean(x, t), torch.tanh(t * x / (1 - t) ** 2))
    assert atoms.field(Linear()).domain == (0.0, 1 - MARGIN)
    with pytest.raises(UserError, match="outside the domain"):
        atoms.field(Linear())(x, 1.0)


def test_flat_directions_stay_exact_inside() -> None:
    flat = Gaussian(torch.zeros(3), torch.diag(torch.tensor([1.0, 2.0, 0.0])))
    direction = torch.tensor([[3.0, 0.0, 4.0], [0.0, 5.0, 0.0], [-4.0, 0.0, 3.0]]).double() / 5
    tilted = Gaussian(torch.zeros(3), direction.T @ flat.covariance @ direction)
    assert not flat.smooth and not tilted.smooth
    x = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for path in (Linear(), OrnsteinUhlenbeck()):
        assert tilted.field(path).domain == (0.0, 1 - MARGIN)
        for t in (0.0, 0.5, 1 - MARGIN):
            rotated = flat.field(path)(x @ direction.T, t) @ direction
            close(tilted.field(path)(x, t), rotated, 1e-8)


@targets
def test_field_of_a_smooth_target_reaches_the_data(target: Target) -> None:
    assert all(target.field(path).domain == (0.0, 1.0) for path in PATHS)
    assert target.field(Linear()).breakpoints == ()


@targets
def test_field_under_forward_mode_and_vmap(target: Target) -> None:
    field = target.field(OrnsteinUhlenbeck(horizon=1.5))
    for dtype, tolerance in ((torch.float32, 1e-3), (torch.float64, 1e-10)):
        for t in (0.0, 0.4, 1.0):
            x = states(target, field.path, t).to(dtype)
            value, divergence = value_and_divergence(lambda y, t=t: field(y, t), x)
            close(value, field(x, t), tolerance)
            close(divergence, field.divergence(x, t), tolerance)


@pytest.mark.parametrize("covariance", ["isotropic", "full"])
def test_the_first_call_may_run_under_any_mode(covariance: str) -> None:
    """What a mixture keeps in float32 must outlive the mode in which it was made."""
    spec = MixtureSpec(covariance=covariance)  # type: ignore[arg-type]
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    field = spec.build().field(Linear())
    with torch.inference_mode():
        expected = field(x, 0.4)
    y = x.clone().requires_grad_()
    close(field(y, 0.4), expected, 1e-5)
    (gradient,) = torch.autograd.grad(field(y, 0.4).sum(), y)
    field = spec.build().field(Linear())
    columns = torch.func.jvp(lambda y: field(y, 0.4), (x,), (torch.ones_like(x),))[1]
    close(columns, gradient, 1e-4)  # the Jacobian is symmetric
    close(torch.func.vmap(lambda y: field(y[None], 0.4)[0])(x), expected, 1e-5)


def test_gradients_reach_states_and_times() -> None:
    field, t = TARGETS["full"].field(Linear()), torch.full((4,), 0.6, dtype=torch.float64)
    x = states(TARGETS["full"], Linear(), 0.6, 4)
    assert torch.autograd.gradcheck(field, (x.requires_grad_(), t.requires_grad_()))


@pytest.mark.parametrize("name", ["isotropic", "unequal", "shared", "full"])
def test_a_label_selects_its_component(name: str) -> None:
    target = TARGETS[name]
    assert isinstance(target, GaussianMixture)
    x, path = states(target, Linear(), 0.5, 6), Linear()
    label = torch.tensor([-1, 0, 1, 2, 0, -1])
    field = target.field(path)
    v, divergence = field(x, 0.5, {"label": label}), field.divergence(x, 0.5, {"label": label})
    log_p = target.at(path).log_density(x, 0.5, label)
    for i, k in enumerate(label.tolist()):
        alone: Target = target
        if k >= 0:
            basis = target.spectrum.basis[min(k, len(target.spectrum.basis) - 1)]
            variances = target.spectrum.variances.expand(target.n_classes, target.dim)[k]
            alone = Gaussian(target.means[k], basis.T @ (variances[:, None] * basis))
        here = x[i : i + 1]
        close(v[i : i + 1], alone.field(path)(here, 0.5))
        close(divergence[i : i + 1], alone.field(path).divergence(here, 0.5))
        close(log_p[i : i + 1], alone.at(path).log_density(here, 0.5))
    close(field(x, 0.5, {"label": torch.full((6,), -1)}), field(x, 0.5))
    with pytest.raises(UserError, match="label 7 "):
        field(x, 0.5, {"label": torch.full((6,), 7)})


def test_states_of_another_dimension_are_refused() -> None:
    with pytest.raises(UserError, match=r"\(B, 6\)"):
        TARGETS["full"].field(Linear())(torch.zeros(3, 5), 0.5)
