"""Sampling, moments, flow maps, minimal losses and settings of the targets."""

from __future__ import annotations

import math

import pytest
import scipy.integrate
import scipy.special
import torch
from laws_targets import LINE, PATHS, TARGETS, states
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from monge.components import build
from monge.errors import UserError
from monge.flows import Integrated
from monge.paths import Linear, OrnsteinUhlenbeck, Path, Power, Trigonometric
from monge.solvers import Dopri5
from monge.targets import slices
from monge.targets.base import Target
from monge.targets.gaussian import Gaussian, GaussianSpec
from monge.targets.line import log_cdf, normal_score
from monge.targets.mixture import GaussianMixture, MixtureSpec
from monge.tensors import stream, value_and_rate
from monge.types import domain_of

paths = pytest.mark.parametrize("path", PATHS, ids=repr)
targets = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
CLOSED = ("gaussian-diagonal", "gaussian-full", "line")
closed = pytest.mark.parametrize("name", CLOSED)


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def components(target: Target) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Weights, means and dense covariances, from what the constructor was given."""
    if isinstance(target, Gaussian):
        target = target.mixture
    assert isinstance(target, GaussianMixture)
    c, eye = target.covariances, torch.eye(target.dim, dtype=torch.float64)
    dense = c if c.ndim >= 2 else c.reshape(-1, 1, 1) * eye
    shape = (target.n_classes, target.dim, target.dim)
    return target.weights, target.means, dense.expand(shape)


@targets
def test_density_at_the_data_is_that_of_torch(target: Target) -> None:
    weights, means, covariances = components(target)
    law = MixtureSameFamily(Categorical(weights), MultivariateNormal(means, covariances))
    x = states(target, Linear(), 1.0)
    close(target.at(Linear()).log_density(x, 1.0), law.log_prob(x))


@targets
def test_moments(target: Target) -> None:
    weights, means, covariances = components(target)
    mean = (weights[:, None] * means).sum(0)
    outer = covariances + means[:, :, None] * means[:, None, :]
    close(target.mean, mean, 1e-13)
    close(target.covariance, (weights[:, None, None] * outer).sum(0) - torch.outer(mean, mean))
    assert target.second_moment == pytest.approx(
        float((weights[:, None, None] * outer).sum(0).trace())
    )


@targets
def test_samples_have_the_moments_and_labels_of_the_law(target: Target) -> None:
    n = 40_000
    x, label = target.sample_labelled(n, stream(0, "samples"))
    assert x.dtype == torch.float64 and x.shape == (n, *target.shape)
    error = (x.mean(0) - target.mean) / (target.covariance.diagonal() / n).sqrt()
    assert error.abs().max() < 4
    centred = x - target.mean
    products = centred[:, :, None] * centred[:, None]
    error = (products.mean(0) - target.covariance) / (products.std(0) / math.sqrt(n))
    assert error.abs().max() < 4.5
    assert torch.equal(x, target.sample(n, stream(0, "samples")))
    weights, means, covariances = components(target)
    assert (label is None) == (target.n_classes is None)
    if label is not None:
        counts = label.bincount(minlength=len(weights))
        spread = (n * weights * (1 - weights)).sqrt()
        assert ((counts - n * weights) / spread).abs().max() < 4
        for k in range(len(weights)):
            own = x[label == k] - means[k]
            whitened = own @ torch.linalg.inv(torch.linalg.cholesky(covariances[k])).T
            assert whitened.mean(0).abs().max() < 4.5 / math.sqrt(len(own))
            assert (whitened.square().mean(0) - 1).abs().max() < 4.5 * math.sqrt(2 / len(own))


@closed
@pytest.mark.parametrize("path", [Linear(), Trigonometric(), Power(0.75)], ids=repr)
def test_flow_map_is_the_integral_of_the_velocity(name: str, path: Path) -> None:
    target = TARGETS[name]
    x = torch.randn(5, target.dim, dtype=torch.float64, generator=stream(3, "x"))
    exact = target.flow_map(path)
    numeric = Integrated(target.field(path), Dopri5(rtol=1e-8, atol=1e-8))
    close(exact(x, 0.0, 1.0), numeric(x, 0.0, 1.0), 1e-6)


@closed
@paths
def test_flow_map_is_a_semigroup_with_the_velocity_as_tangent(name: str, path: Path) -> None:
    target = TARGETS[name]
    flow = target.flow_map(path)
    x = 1.2 * torch.randn(9, target.dim, dtype=torch.float64, generator=stream(4, "x"))
    end = flow(x, 0.0, 1.0)
    close(flow(x, 0.4, 0.4), x, 1e-10)
    close(flow(flow(x, 0.0, 0.6), 0.6, 1.0), end, 1e-9)
    close(flow(end, 1.0, 0.0), x, 1e-9)
    assert flow.tangent == target.field(path)  # type: ignore[attr-defined]
    s = torch.linspace(0, 0.9, 9, dtype=torch.float64)
    t = torch.linspace(0.95, 0.1, 9, dtype=torch.float64)
    (y,), (rate,) = value_and_rate(lambda u: (flow(x, s, u),), t)
    close(rate, target.field(path)(y, t), 1e-9)
    # d_s X + (grad X) v = 0, which tests the derivative in s and x together.
    velocity = target.field(path)(x, s)
    still = torch.func.jvp(lambda y, u: flow(y, u, t), (x, s), (velocity, torch.ones_like(s)))[1]
    close(still, torch.zeros_like(x), 1e-9)


@closed
@paths
def test_flow_map_carries_the_density_along(name: str, path: Path) -> None:
    """log p_s(x) = log p_t(X(x)) + log |det grad X|."""
    target = TARGETS[name]
    flow, law = target.flow_map(path), target.at(path)
    x = torch.randn(6, target.dim, dtype=torch.float64, generator=stream(6, "x"))
    for s, t in ((0.0, 0.7), (0.2, 1.0), (0.8, 0.1)):
        start = flow(x, 0.0, s)
        jacobian = torch.func.vmap(torch.func.jacfwd(lambda y, s=s, t=t: flow(y[None], s, t)[0]))(
            start
        )
        moved = law.log_density(flow(start, s, t), t) + torch.linalg.slogdet(jacobian)[1]
        close(moved, law.log_density(start, s), 1e-8)


def test_gaussian_map_of_the_linear_path_is_the_optimal_one() -> None:
    target = TARGETS["gaussian-full"]
    values, vectors = torch.linalg.eigh(target.covariance)
    root = (vectors * values.sqrt()) @ vectors.T
    x = torch.randn(4, 6, dtype=torch.float64, generator=stream(0, "x"))
    for path in (Linear(), Trigonometric(), Power(2.0)):  # the end does not know the schedule
        close(target.flow_map(path)(x, 0.0, 1.0), target.mean + x @ root, 1e-12)
    unit = Gaussian(torch.ones(2), torch.tensor(1.0)).flow_map(Linear())
    x = torch.tensor([[0.7, -0.2]], dtype=torch.float64)
    close(unit(x, 0.0, 1.0), x + 1, 1e-14)
    close(unit(x, 0.0, 0.5), x / math.sqrt(2) + 0.5, 1e-14)


def test_quantile_map_far_out_and_by_label() -> None:
    path, flow = Linear(), LINE.flow_map(Linear())
    x = torch.tensor([[-8.0], [-5.0], [5.0], [8.0]], dtype=torch.float64)
    y = flow(x, 0.0, 1.0)
    # In the tails a single mode is left: w Phi((y - m) / c) = Phi(x).
    outer = torch.tensor([[0.1], [0.1], [0.5], [0.5]], dtype=torch.float64)
    mode = torch.tensor([-6.0, -6.0, 6.0, 6.0]).double()[:, None]
    sign = x.sign()
    tail = outer * normal_cdf(-sign * (y - mode) / 0.5)
    torch.testing.assert_close(tail, normal_cdf(-sign * x), rtol=1e-9, atol=0.0)
    label = {"label": torch.tensor([0, 1, 2, -1])}
    mean = torch.tensor([[-6.0], [4.0], [6.0]]).double()
    close(flow(x, 0.0, 1.0, label)[:3], mean + 0.5 * x[:3], 1e-10)
    close(flow(x, 0.0, 1.0, label)[3:], y[3:], 1e-13)
    single = flow(x.float(), 0.0, 1.0)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), y, rtol=1e-4, atol=1e-4)
    assert domain_of(flow) == (0.0, 1.0) and repr(path) in repr(flow)


def test_normal_tails_keep_their_digits() -> None:
    z = torch.tensor([-1e4, -30.0, -9.0, -1.0, -1e-9, 0.0, 0.5, 3.0, 20.0], dtype=torch.float64)
    exact = torch.from_numpy(scipy.special.log_ndtr(z.numpy()))
    torch.testing.assert_close(log_cdf(z), exact, rtol=1e-12, atol=0.0)
    torch.testing.assert_close(normal_score(exact[:6]), z[:6], rtol=1e-12, atol=1e-15)


def normal_cdf(z: torch.Tensor) -> torch.Tensor:
    return log_cdf(z).exp()


def test_quantiles_of_the_line() -> None:
    z = torch.tensor([-9.0, -1.5, 0.0, 0.3, 9.0], dtype=torch.float64)
    y = LINE.quantile(z)
    close(y[:, None], LINE.flow_map(Linear())(z[:, None], 0.0, 1.0), 1e-12)
    weights = torch.tensor([0.1, 0.4, 0.5], dtype=torch.float64)
    means = torch.tensor([-6.0, 4.0, 6.0]).double()
    lower = (weights * normal_cdf(2 * (y[:, None] - means))).sum(1)
    torch.testing.assert_close(lower[:4], normal_cdf(z[:4]), rtol=1e-10, atol=0.0)
    gaussian = Gaussian(torch.tensor([1.0]), torch.tensor(4.0))
    close(gaussian.quantile(z), 1 + 2 * z, 1e-15)
    atoms = GaussianMixture(torch.tensor([[-1.0], [0.0], [1.0]]), torch.tensor(0.0))
    close(atoms.quantile(z), torch.tensor([-1.0, -1, 0, 0, 1]).double(), 1e-12)


def test_what_is_not_closed_says_so() -> None:
    target = TARGETS["full"]
    with pytest.raises(UserError, match=r"Integrated\(target\.field\(path\)\)"):
        target.flow_map(Linear())
    with pytest.raises(UserError, match="minimal"):
        target.minimal_loss(Linear())
    for law in (target, TARGETS["gaussian-full"]):
        with pytest.raises(UserError, match="one-dimensional"):
            law.quantile(torch.zeros(1))


def test_minimal_loss_closed_forms() -> None:
    target = TARGETS["gaussian-full"]
    root = float(torch.linalg.eigvalsh(target.covariance).sqrt().sum())
    assert target.minimal_loss(Linear()) == pytest.approx(math.pi / 2 * root, rel=1e-11)
    assert target.minimal_loss(Power(1.0)) == pytest.approx(math.pi / 2 * root, rel=1e-11)
    assert target.minimal_loss(Trigonometric()) == pytest.approx(math.pi**2 / 4 * root, rel=1e-11)
    unit = Gaussian(torch.ones(3), torch.tensor(1.0))
    assert unit.minimal_loss(Linear()) == pytest.approx(3 * math.pi / 2, rel=1e-12)
    assert math.isinf(unit.minimal_loss(OrnsteinUhlenbeck()))
    assert math.isinf(unit.minimal_loss(Power(0.5)))
    parts = [unit.minimal_loss(Linear(), bin) for bin in ((0, 0.3), (0.3, 0.9), (0.9, 1))]
    assert sum(parts) == pytest.approx(3 * math.pi / 2, rel=1e-11)
    with pytest.raises(UserError, match="interval"):
        unit.minimal_loss(Linear(), (0.5, 1.5))


@pytest.mark.parametrize("kappa", [0.55, 0.75, 0.9])
@pytest.mark.parametrize("variance", [0.01, 1.0, 9.0])
def test_minimal_loss_with_an_infinite_rate(kappa: float, variance: float) -> None:
    """W^2 = (1-t)^(2 kappa - 2) (1 - (1 - kappa) t)^2, with the singular factor as a weight."""

    def smooth(t: float) -> float:
        spread = t**2 * variance + (1 - t) ** (2 * kappa)
        return (1 - (1 - kappa) * t) ** 2 * variance / spread

    head = scipy.integrate.quad(lambda t: smooth(t) * (1 - t) ** (2 * kappa - 2), 0, 0.5)[0]
    tail = scipy.integrate.quad(
        smooth, 0.5, 1, weight="alg", wvar=(0, 2 * kappa - 2), epsrel=1e-10, limit=400
    )[0]
    target = Gaussian(torch.zeros(2), torch.tensor(variance))
    assert target.minimal_loss(Power(kappa)) == pytest.approx(2 * (head + tail), rel=2e-6)


@paths
def test_minimal_loss_is_the_loss_of_the_exact_field(path: Path) -> None:
    target, n = TARGETS["gaussian-diagonal"], 200_000
    rng = stream(8, "loss")
    x1 = target.sample(n, rng)
    x0 = torch.randn(n, 3, dtype=torch.float64, generator=rng)
    t = 0.05 + 0.85 * torch.rand(n, dtype=torch.float64, generator=rng)
    x, v = path.interpolate(x0, x1, t)
    losses = 0.85 * (v - target.field(path)(x, t)).square().sum(1)
    error = float(losses.std()) / math.sqrt(n)
    assert abs(float(losses.mean()) - target.minimal_loss(path, (0.05, 0.9))) < 4 * error


def test_slices_do_not_change_results(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("isotropic", "shared", "full"):
        target = TARGETS[name]
        law, x = target.at(Linear()), states(target, Linear(), 0.5, 23)
        t = torch.linspace(0, 1, 23, dtype=torch.float64)
        label = torch.arange(23) % 4 - 1
        calls = [law.log_density, law.moments, law.velocity, law.divergence, law.jacobian]
        whole = [f(x, t, label) for f in calls]
        monkeypatch.setattr(slices, "CHUNK", 200)
        for before, f in zip(whole, calls, strict=True):
            torch.testing.assert_close(f(x, t, label), before, rtol=1e-12, atol=1e-12)
        monkeypatch.undo()


@pytest.mark.parametrize("covariance", ["isotropic", "shared", "full"])
def test_hundreds_of_modes_in_hundreds_of_dimensions(covariance: str) -> None:
    """Against dense algebra with an explicit inverse; the responsibilities are not trivial."""
    d = 120 if covariance == "full" else 200
    target = MixtureSpec(
        dim=d,
        modes=d,
        spread=0.05,
        std=1.0,
        covariance=covariance,  # type: ignore[arg-type]
    ).build()
    x1 = target.sample(100, stream(0, "x1"))
    x0 = torch.randn(100, d, dtype=torch.float64, generator=stream(0, "x0"))
    t, law = 0.3, target.at(Linear())
    x = t * x1 + (1 - t) * x0
    weights, means, covariances = components(target)
    variance = t**2 * covariances + (1 - t) ** 2 * torch.eye(d, dtype=torch.float64)
    pull = torch.linalg.solve(variance, (x[:4, None] - t * means)[..., None])[..., 0]
    quadratic = ((x[:4, None] - t * means) * pull).sum(-1)
    logits = weights.log() - 0.5 * (quadratic + torch.linalg.slogdet(variance)[1])
    r = logits.softmax(-1)
    assert float(r.max()) < 0.99
    score = -(r[..., None] * pull).sum(1)
    velocity, scores = law.velocity(x, t), law.score(x, t)
    close(scores[:4], score, 1e-9)
    close(velocity[:4], (x[:4] + (1 - t) * score) / t, 1e-9)
    close(law.divergence(x, t)[:2], law.jacobian(x[:2], t).diagonal(dim1=1, dim2=2).sum(1), 1e-9)
    log_p = logits.logsumexp(-1) - d / 2 * math.log(2 * math.pi)
    close(law.log_density(x, t)[:4], log_p, 1e-9)


def test_settings_determine_the_law() -> None:
    target = build("target", "mixture:dim=16,modes=4,seed=3").build()
    assert (
        isinstance(target, GaussianMixture) and repr(target) == "GaussianMixture(dim=16, modes=4)"
    )
    assert target.n_classes == 4 and target.shape == (16,)
    assert torch.equal(target.means, MixtureSpec(dim=16, modes=4, seed=3).build().means)
    assert not torch.equal(target.means, MixtureSpec(dim=16, modes=4).build().means)
    assert (
        repr(build("target", "mixture:covariance=full,std=0.3"))
        == "mixture:std=0.3,covariance=full"
    )
    means = MixtureSpec(dim=400, modes=50, spread=2.0).build().means
    assert float(means.std()) == pytest.approx(2.0, rel=0.02)
    wishart = MixtureSpec(dim=200, modes=3, std=0.5, covariance="full").build().covariances
    # 0.25 (W^T W / d + I) / 2 has mean eigenvalue 0.25 and least eigenvalue 0.125.
    assert float(wishart.diagonal(dim1=1, dim2=2).mean()) == pytest.approx(0.25, rel=0.02)
    assert float(torch.linalg.eigvalsh(wishart).min()) == pytest.approx(0.125, rel=0.01)


def test_gaussian_settings() -> None:
    target = build("target", "gaussian:dim=5,std=2,condition=100,seed=4").build()
    values = torch.linalg.eigvalsh(target.covariance)
    assert float(values[-1] / values[0]) == pytest.approx(100, rel=1e-9)
    assert float(values.log().mean()) == pytest.approx(math.log(4), rel=1e-9)
    assert GaussianSpec(dim=1, std=3.0).build().covariance.item() == pytest.approx(9.0)
    assert target.n_classes is None and repr(target) == "Gaussian(dim=5)"


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ("mixture:modes=0", "at least 1"),
        ("mixture:std=-1", "negative"),
        ("mixture:covariance=diagonal", "covariance"),
        ("mixture:mode=3", "did you mean 'modes'"),
        ("gaussian:condition=0.5", "at least 1"),
        ("gaussian:dim=two", "whole number"),
    ],
)
def test_bad_settings_are_refused(family: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build("target", family)


@pytest.mark.parametrize(
    ("means", "covariances", "weights", "message"),
    [
        (torch.zeros(3), torch.tensor(1.0), None, r"means must be \(K, D\)"),
        (torch.zeros(3, 2), torch.ones(2), None, "shapes"),
        (torch.zeros(3, 2), torch.tensor(-1.0), None, "negative eigenvalue"),
        (torch.zeros(3, 2), torch.tensor([[1.0, 2.0], [2.0, 1.0]]), None, "negative eigenvalue"),
        (torch.zeros(3, 2), torch.tensor([[1.0, 0.5], [0.0, 1.0]]), None, "symmetric"),
        (torch.zeros(3, 2), torch.tensor(1.0), torch.tensor([1.0, -1.0, 1.0]), "weights"),
        (torch.zeros(3, 2), torch.tensor(math.nan), None, "finite"),
    ],
)
def test_what_is_no_mixture_is_refused(means, covariances, weights, message) -> None:
    with pytest.raises(UserError, match=message):
        GaussianMixture(means, covariances, weights)
