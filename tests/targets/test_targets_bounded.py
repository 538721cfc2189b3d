"""Box, hypercube and laws on the line by density: closed values, walls, tails and quantiles."""

from __future__ import annotations

import math

import pytest
import scipy.integrate
import scipy.stats
import torch

from monge.components import build
from monge.errors import UserError
from monge.paths import MARGIN, Linear, OrnsteinUhlenbeck, Trigonometric
from monge.targets.base import jacobian_parts
from monge.targets.coordinates import box, hypercube
from monge.targets.densities import Line, Uniform, beta, exponential, laplace, student
from monge.targets.gaussian import Gaussian
from monge.targets.latent import LinearLatent
from monge.targets.line import marginal_quantile
from monge.targets.mixture import GaussianMixture
from monge.targets.product import Product
from monge.targets.wasserstein import early_stopping, wasserstein2
from monge.tensors import stream

LINES = {
    "uniform": (Uniform(), scipy.stats.uniform(-1, 2)),
    "laplace": (laplace(), scipy.stats.laplace()),
    "exponential": (exponential(2.0), scipy.stats.expon(scale=2.0)),
    "student": (student(), scipy.stats.t(5)),
    "beta": (beta(), scipy.stats.beta(2, 5)),
}
lines = pytest.mark.parametrize("name", LINES)


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@lines
def test_laws_on_the_line_are_those_of_scipy(name: str) -> None:
    law, oracle = LINES[name]
    assert float(law.mean) == pytest.approx(oracle.mean(), abs=1e-12)
    assert float(law.covariance) == pytest.approx(oracle.var(), rel=1e-10)
    z = torch.tensor([-6.0, -2.0, -0.3, 0.0, 0.7, 3.0, 6.0], dtype=torch.float64)
    tail = scipy.stats.norm.cdf(-z.abs())
    exact = torch.from_numpy(oracle.ppf(tail)).where(z < 0, torch.from_numpy(oracle.isf(tail)))
    close(law.quantile(z), exact, 1e-10)
    x = torch.from_numpy(oracle.ppf([0.01, 0.3, 0.9]))[:, None]
    for t in (1.0, torch.ones(3, dtype=torch.float64)):
        log_p = law.at(Linear()).log_density(x, t)
        close(log_p, torch.from_numpy(oracle.logpdf(x[:, 0])), 1e-12)
    close(marginal_quantile(law, Linear(), z[1:6, None], 1.0)[:, 0], exact[1:6], 1e-9)


@lines
@pytest.mark.parametrize("t", [0.1, 0.6, 0.97])
def test_fields_on_the_line_by_bayes_rule(name: str, t: float) -> None:
    """Density and posterior mean from their definition, by another quadrature."""
    law, oracle = LINES[name]
    alpha, sigma = (float(c) for c in Linear().scales(torch.tensor(t, dtype=torch.float64)))
    x = alpha * float(law.mean) + 0.3 * sigma
    reach = 12 * sigma / alpha
    lo, hi = max(oracle.ppf(1e-13), x / alpha - reach), min(oracle.isf(1e-13), x / alpha + reach)
    points = [p for p in (0.0, x / alpha) if lo < p < hi]

    def moment(power: int) -> float:
        def f(y: float) -> float:
            likelihood = math.exp(-0.5 * ((x - alpha * y) / sigma) ** 2)
            return y**power * oracle.pdf(y) * likelihood

        return scipy.integrate.quad(f, lo, hi, points=points, epsabs=0, epsrel=1e-11, limit=300)[0]

    state = torch.tensor([[x]], dtype=torch.float64)
    mass = moment(0)
    density = math.log(mass / (sigma * math.sqrt(2 * math.pi)))
    assert float(law.at(Linear()).log_density(state, t)) == pytest.approx(density, abs=1e-9)
    mean = float(law.at(Linear()).posterior_mean(state, t))
    assert mean == pytest.approx(moment(1) / mass, abs=1e-9)


@pytest.mark.parametrize("t", [0.5, 0.9, 1 - MARGIN, 1 - 1e-6])
def test_box_is_a_truncated_normal_near_its_walls_and_near_the_data(t: float) -> None:
    """Against Mills ratios, from far inside to far outside, in noise widths from the wall."""
    noise = (1 - t) / t
    away = torch.tensor([-0.999 / noise, -5.0, -1.0, 0.0, 1.0, 8.0, 40.0, 3e3], dtype=torch.float64)
    x = t * (1 + away * noise)
    given = box(1).at(Linear()).posterior_mean(x[:, None], t)[:, 0]
    inside = (1 - given) / noise  # E of the distance to the wall
    # Truncated to u > 0 of N(-away, 1); the other wall matters only where it is near.
    far = away > -6
    mills = math.sqrt(math.pi / 2) * torch.special.erfcx(away / math.sqrt(2))
    second = 2 / noise > 20
    if second:
        # 1/mills - away loses digits far out, where the mean is 1/a - 2/a^3 + 10/a^5.
        expected = torch.where(away < 30, 1 / mills - away, 1 / away - 2 / away**3 + 10 / away**5)
        torch.testing.assert_close(inside[far], expected[far], rtol=1e-8 / noise * 1e-3, atol=1e-9)
    a, b = (-1 - x / t) / noise, (1 - x / t) / noise
    truncated = scipy.stats.truncnorm(a[1:5], b[1:5], loc=x[1:5] / t, scale=noise)
    close(given[1:5], torch.from_numpy(truncated.mean()), 1e-9)
    score = box(1).at(Linear()).score(x[:, None], t)[:, 0]
    assert bool(score.isfinite().all())
    assert abs(float(score[0])) * (1 - t) < 1e-9 or t < 0.95  # flat inside


def test_hypercube_and_box_closed_values() -> None:
    x = torch.randn(9, 3, dtype=torch.float64, generator=stream(0, "x"))
    for path in (Linear(), Trigonometric(), OrnsteinUhlenbeck(2.0)):
        for t in (0.3, 0.8):
            alpha, sigma = path.scales(torch.tensor(t, dtype=torch.float64))
            expected = 2 * torch.tanh(2 * alpha * x / sigma**2)
            close(hypercube(3, 2.0).at(path).posterior_mean(x, t), expected)
    assert repr(box(2)) == "Product(dim=2: Line(uniform on [-1, 1])^2)"
    close(box(3, 2.0).covariance, 4 / 3 * torch.eye(3, dtype=torch.float64), 1e-14)
    # Box to box, and uniform to its Gaussian of equal moments: E (F^-1(u) - z)^2.
    assert wasserstein2(box(5), box(5, 3.0)) == pytest.approx(math.sqrt(5 * 4 / 3), rel=1e-9)
    normal = Gaussian(torch.zeros(4), torch.tensor(1 / 3, dtype=torch.float64))
    exact = 2 / 3 - 2 * math.sqrt(1 / 3) / math.sqrt(math.pi)  # E z (2 Phi(z) - 1) = 1/sqrt(pi)
    assert wasserstein2(box(4), normal) == pytest.approx(math.sqrt(4 * exact), rel=1e-8)
    assert wasserstein2(hypercube(4), box(4)) == pytest.approx(math.sqrt(4 / 3), rel=1e-8)


@pytest.mark.parametrize("path", [Linear(), Trigonometric(), OrnsteinUhlenbeck(2.0)], ids=repr)
def test_lipschitz_constants_are_attained(path) -> None:
    t = 0.6
    scales, x = path.scales(torch.tensor(t, dtype=torch.float64)), torch.linspace(-4, 4, 4001)
    x = x.double()[:, None]
    pair = GaussianMixture(torch.tensor([[-1.0], [2.0]]), torch.tensor(0.3))
    uneven = GaussianMixture(pair.means, torch.tensor(0.3), torch.tensor([0.2, 0.8]))
    gaussian = Gaussian(torch.tensor([0.3]), torch.tensor(2.0))
    for law in (Uniform(-0.5, 1.5), hypercube(1), pair, uneven, gaussian):
        slopes = law.at(path).divergence(x, t)
        lowest, highest, exact = law.jacobian_range(path, t)
        assert exact
        assert float(slopes.max()) == pytest.approx(highest, rel=2e-4, abs=2e-4)
        assert float(slopes.max()) <= highest + 1e-9 and float(slopes.min()) >= lowest - 1e-9
        far = law.at(path).divergence(torch.tensor([[60.0]]).double(), t)
        assert float(far) == pytest.approx(lowest, abs=0.05)
        assert law.one_sided_lipschitz(path, t) == highest
        assert law.lipschitz(path, t) == max(abs(lowest), abs(highest))
    shrink, gain = jacobian_parts(path, t, torch.ones(()).double())
    assert hypercube(3, 2.0).one_sided_lipschitz(path, t) == pytest.approx(
        float(shrink + 4 * gain), rel=1e-12
    )
    assert scales[1] > 0
    if isinstance(path, Linear):
        closed = -1 / (1 - t) + t / (1 - t) ** 3
        assert hypercube(2).one_sided_lipschitz(path, t) == pytest.approx(closed, rel=1e-12)


def test_lipschitz_bounds_hold_and_unknown_ones_are_refused() -> None:
    rng = stream(0, "means")
    means = torch.randn(6, 3, dtype=torch.float64, generator=rng)
    shared = GaussianMixture(means, torch.diag(torch.tensor([0.2, 0.5, 1.0])))
    alike = torch.randn(3, 3, dtype=torch.float64, generator=rng)
    full = GaussianMixture(means, alike @ alike.T + 0.1 * torch.eye(3))
    for law in (shared, full):
        for t in (0.0, 0.4, 0.8, 1.0):
            lowest, highest, exact = law.jacobian_range(Linear(), t)
            x = 0.5 * law.sample(400, rng)
            values = torch.linalg.eigvalsh(law.at(Linear()).jacobian(x, t))
            assert not exact
            assert lowest <= float(values.min()) + 1e-9 and float(values.max()) <= highest + 1e-9
    unequal = GaussianMixture(means, torch.linspace(0.1, 1.0, 6))
    assert math.isinf(unequal.lipschitz(Linear(), 0.5))
    with pytest.raises(UserError, match="no closed Lipschitz"):
        laplace().lipschitz(Linear(), 0.5)
    with pytest.raises(UserError, match="outside the domain"):
        box(2).lipschitz(Linear(), 1.0)


def test_minimal_losses_on_the_line() -> None:
    """A Gaussian's as a mixture, and E Var by Monte Carlo."""
    one = GaussianMixture(torch.zeros(1, 1), torch.tensor(2.0))
    assert one.minimal_loss(Linear()) == pytest.approx(math.pi / 2 * math.sqrt(2), rel=1e-7)
    rng, n, interval = stream(0, "loss"), 20_000, (0.2, 0.9)
    for law in (box(2), hypercube(2)):
        x1 = law.sample(n, rng)
        x0 = torch.randn(n, 2, dtype=torch.float64, generator=rng)
        t = 0.2 + 0.7 * torch.rand(n, dtype=torch.float64, generator=rng)
        x, v = Trigonometric().interpolate(x0, x1, t)
        losses = 0.7 * (v - law.field(Trigonometric())(x, t)).square().sum(1)
        error = float(losses.std()) / math.sqrt(n)
        assert abs(float(losses.mean()) - law.minimal_loss(Trigonometric(), interval)) < 4 * error
    with pytest.raises(UserError, match="ends before"):
        hypercube(1).minimal_loss(OrnsteinUhlenbeck())


SMOOTH = GaussianMixture(torch.tensor([[-1.0], [0.5]]), torch.tensor(0.25), torch.tensor([1.0, 2]))


@pytest.mark.parametrize(
    ("law", "divided"),
    [
        pytest.param(SMOOTH, 2.0, id="smooth", marks=pytest.mark.slow),
        pytest.param(Gaussian(torch.ones(3), torch.tensor([0.3, 1, 2])), 2.0, id="gaussian"),
        pytest.param(box(2), 1.5, id="box"),
        pytest.param(hypercube(2), 1.0, id="atoms"),
        pytest.param(
            LinearLatent(hypercube(1), torch.eye(2)[:, :1].double(), 0.5),
            2.0,
            id="latent",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_early_stopping_slopes(law, divided: float) -> None:
    """W2(p_T, p_1) against 1 - T: slope 1, and after division by alpha that of the law."""
    near, far = 1 - 0.01, 1 - 0.02
    raw, last = ([early_stopping(law, Linear(), t, d) for t in (near, far)] for d in (False, True))
    assert math.log2(raw[1] / raw[0]) == pytest.approx(1, abs=0.1)
    assert math.log2(last[1] / last[0]) == pytest.approx(divided, abs=0.1)
    assert raw[0] <= (1 - near) * math.sqrt(law.second_moment + law.dim)


def test_early_stopping_golden() -> None:
    """Atoms stop as Gaussians of width 1 - T about T times them; far atoms stay apart."""
    far = hypercube(1, 50.0)
    exact = math.sqrt(0.1**2 + (0.1 * 50) ** 2)
    assert early_stopping(far, Linear(), 0.9) == pytest.approx(exact, rel=1e-7)
    assert early_stopping(far, Linear(), 0.9, divided=True) == pytest.approx(1 / 9, rel=1e-7)
    with pytest.raises(UserError, match="stop later"):
        early_stopping(far, Linear(), 0.0)


def test_flow_map_of_the_box_carries_quantiles_and_composes() -> None:
    flow = box(2).flow_map(Linear())
    x = torch.tensor([[0.3, -2.0], [5.0, 0.0]], dtype=torch.float64)
    end = flow(x, 0.0, 0.99)
    assert float(end.abs().max()) < 1.05 and end[0, 1] < -0.9 and abs(float(end[1, 1])) < 1e-12
    close(flow(end, 0.99, 0.0), x, 1e-7)
    exact = marginal_quantile(Uniform(), Linear(), x[:1, :1], 0.99)
    close(end[:1, :1], exact, 1e-10)


def test_products() -> None:
    law = build("target", "product:dim=5,laws=uniform+normal+beta").build()
    assert isinstance(law, Product) and law.dim == 5 and not law.smooth
    x, t = law.sample(4, stream(0, "x")), torch.tensor([0.0, 0.3, 0.6, 0.9]).double()
    whole = law.at(Linear())
    parts = [f.at(Linear()) for f in law.factors]
    each = [p.log_density(x[:, i : i + 1], t) for i, p in enumerate(parts)]
    close(whole.log_density(x, t), torch.stack(each).sum(0), 1e-13)
    columns = [p.velocity(x[:, i : i + 1], t) for i, p in enumerate(parts)]
    close(whole.velocity(x, t), torch.cat(columns, 1), 1e-13)
    moved = law.flow_map(Linear())(x, t, 0.5)
    alone = [f.flow_map(Linear())(x[:, i : i + 1], t, 0.5) for i, f in enumerate(law.factors)]
    close(moved, torch.cat(alone, 1), 1e-13)
    for text, message in (
        ("product:laws=laplas", "did you mean 'laplace'"),
        ("product:dim=0", "at least 1"),
        ("box:half=0", "positive"),
        ("hypercube:dim=0", "at least 1"),
    ):
        with pytest.raises(UserError, match=message):
            build("target", text)
    with pytest.raises(UserError, match="increasing"):
        Line("odd", torch.zeros_like, torch.tensor([1.0, 0.0]))
    with pytest.raises(UserError, match="closed form"):
        wasserstein2(
            Product([SMOOTH] * 2), Gaussian(torch.zeros(2), torch.tensor([[2.0, 1], [1, 2]]))
        )


def test_hundreds_of_dimensions() -> None:
    law = build("target", "box:dim=400").build()
    x = law.sample(64, stream(0, "x"))
    assert law.field(Linear())(x, 0.7).shape == (64, 400)
    assert law.at(Linear()).divergence(x, torch.full((64,), 0.7)).shape == (64,)
    one = wasserstein2(box(1), box(1, 2.0))
    assert wasserstein2(law, box(400, 2.0)) == pytest.approx(20 * one, rel=1e-9)
