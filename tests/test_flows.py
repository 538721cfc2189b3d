"""Flow maps against closed forms: maps, integrals, densities, inverses, chains, tangents."""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any

import pytest
import scipy.stats
import torch
import torchdiffeq
from torch import Tensor

from monge.components import build
from monge.errors import UserError
from monge.fields import Counted, Guided, Piecewise, Predict
from monge.flows import (
    Chain,
    Integrated,
    LearnedMap,
    inverse,
    log_density,
    standard_normal_log_density,
    tangent,
)
from monge.networks.exact import ExactNetwork
from monge.paths import Kind, Linear, OrnsteinUhlenbeck, Path, Power, Trigonometric
from monge.solvers import RK3, RK4, Dopri5, Euler, Heun, Midpoint
from monge.targets.gaussian import Gaussian, GaussianSpec
from monge.targets.mixture import GaussianMixture, MixtureSpec
from monge.tensors import expand, noise, stream
from monge.times import Geometric, Shifted, Uniform

PATHS: list[Path] = [
    build("path", text)
    for text in (
        "linear",
        "trigonometric",
        "ou",
        "ou:horizon=2",
        "linear_beta",
        "power:kappa=0.5",
        "power:kappa=0.75",
        "power:kappa=2",
    )
]

paths = pytest.mark.parametrize("path", PATHS, ids=repr)

GAUSSIAN = GaussianSpec(dim=3, condition=20.0, seed=1).build()

LINE = GaussianMixture(
    torch.tensor([[-1.5], [1.0]]), torch.tensor([0.2, 0.5]), torch.tensor([0.4, 0.6])
)

MIXTURE = MixtureSpec(dim=2, modes=3, spread=1.0, covariance="full").build()

EXACT = MIXTURE.field(Linear())

FINE = Dopri5(1e-8, 1e-8)


def normal(n: int, *shape: int, key: str = "x") -> Tensor:
    return torch.randn(n, *shape, dtype=torch.float64, generator=stream(0, key))


def largest(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


# Closed maps


@paths
def test_gaussian_map(path: Path) -> None:
    field = Predict(ExactNetwork(GAUSSIAN, path, "score"), path, "score")
    lo, hi = field.domain
    exact, flow = GAUSSIAN.flow_map(path), Integrated(field, FINE)
    x = exact(normal(5, 3), 0.0, lo)
    y = exact(x, lo, hi)
    assert largest(flow(x, lo, hi), y) < 1e-5
    assert largest(flow(y, hi, lo), x) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("output", ["velocity", "data", "noise", "score"])
@paths
def test_closed_forms_at_float64_accuracy(path: Path, output: Kind) -> None:
    """Map and log-density over the whole domain, whatever is predicted."""
    field = Predict(ExactNetwork(GAUSSIAN, path, output), path, output)
    flow = Integrated(field, Dopri5(1e-13, 1e-13, max_steps=10_000))
    lo, hi = field.domain
    x, law = normal(5, 3), GAUSSIAN.at(path)
    assert largest(flow(x, lo, hi), GAUSSIAN.flow_map(path)(x, lo, hi)) < 1e-10
    found = log_density(flow, x, source=lambda y: law.log_density(y, lo)).value
    assert largest(found, law.log_density(x, hi)) < 1e-9


@pytest.mark.parametrize(
    ("path", "output"),
    [(Trigonometric(), "velocity"), (OrnsteinUhlenbeck(2.0), "data"), (Power(0.75), "noise")],
    ids=repr,
)
def test_gaussian_map_by_other_outputs(path: Path, output: Kind) -> None:
    field = Predict(ExactNetwork(GAUSSIAN, path, output), path, output)
    x = normal(5, 3)
    exact = GAUSSIAN.flow_map(path)(x, *field.domain)
    assert largest(Integrated(field, FINE)(x, *field.domain), exact) < 1e-5


@paths
def test_quantile_map_of_a_mixture_on_the_line(path: Path) -> None:
    field = Predict(ExactNetwork(LINE, path, "score"), path, "score")
    lo, hi = field.domain
    exact, flow = LINE.flow_map(path), Integrated(field, FINE)
    x = torch.linspace(-3, 3, 9, dtype=torch.float64)[:, None]
    assert largest(flow(x, lo, hi), exact(x, lo, hi)) < 1e-5


def test_golden_gaussian_map() -> None:
    """N(0, 4) under the linear path: x grows by sqrt(t^2 4 + (1-t)^2), twofold in the end."""
    field = Gaussian(torch.zeros(1), torch.tensor(4.0)).field(Linear())
    flow = Integrated(field, RK4(), Uniform(200))
    x = torch.tensor([[1.0], [-3.0]], dtype=torch.float64)
    assert largest(flow(x, 0.0, 1.0), 2 * x) < 1e-9
    assert largest(flow(x, 0.0, 0.5), math.sqrt(1.25) * x) < 1e-9


@pytest.mark.parametrize("solver", [Euler(), Midpoint(), Heun(), RK3(), RK4()], ids=repr)
def test_order_of_the_map(solver: Any) -> None:
    """Over all of [0, 1], under the trigonometric path, for Gaussian and mixture."""
    for field, exact in (
        (GAUSSIAN.field(Trigonometric()), GAUSSIAN.flow_map(Trigonometric())),
        (EXACT, Integrated(EXACT, Dopri5(1e-12, 1e-12))),
    ):
        x = normal(40, *field.target.shape)
        end = exact(x, 0.0, 1.0)
        errors = [
            float((Integrated(field, solver, Uniform(n))(x, 0.0, 1.0) - end).norm(dim=1).median())
            for n in (40, 80)
        ]
        assert math.log2(errors[0] / errors[1]) == pytest.approx(solver.order, abs=0.25)


# The walk


class Watched:
    """A field that notes the times it is asked for."""

    domain = (0.0, 1.0)

    def __init__(self, breakpoints: tuple[float, ...] = ()) -> None:
        self.times: list[float] = []
        self.breakpoints = breakpoints

    def __call__(self, x: Tensor, t: Any, cond: Any = None) -> Tensor:
        self.times.append(float(t))
        return x


def test_the_walk_is_s_the_points_between_and_t() -> None:
    field = Watched()
    Integrated(field, Euler(), Uniform(4))(normal(1, 1), 0.1, 0.8)
    assert field.times == pytest.approx([0.1, 0.25, 0.5, 0.75])
    field.times.clear()
    Integrated(field, Euler(), Uniform(4))(normal(1, 1), 0.8, 0.1)
    assert field.times == pytest.approx([0.8, 0.75, 0.5, 0.25])
    field.times.clear()
    Integrated(field, Euler(), Uniform(4))(normal(1, 1), 0.25, 0.25)
    assert field.times == []
    Integrated(field, Euler(), per_span=2)(normal(1, 1), 0.2, 0.6)
    assert field.times == pytest.approx([0.2, 0.4])


def test_breakpoints_are_on_the_walk() -> None:
    field = Watched((0.3, 0.5))
    flow = Integrated(field, Euler(), Uniform(4))
    assert flow.knots == (0.0, 0.25, 0.3, 0.5, 0.75, 1.0) and flow.breakpoints == (0.3, 0.5)
    flow(normal(1, 1), 0.0, 1.0)
    assert field.times == pytest.approx([0.0, 0.25, 0.3, 0.5, 0.75])
    assert Integrated(field, Dopri5()).knots == (0.0, 0.3, 0.5, 1.0)
    field.times.clear()
    Integrated(field, Euler(), per_span=2)(normal(1, 1), 0.0, 0.4)
    assert field.times == pytest.approx([0.0, 0.2, 0.3])


def test_domain_is_the_fields_cut_by_the_grid() -> None:
    ou = MIXTURE.field(OrnsteinUhlenbeck())
    assert Integrated(ou).domain == ou.domain == (0.0, 1.0)
    assert Integrated(ou, grid=Uniform(5, stop=0.9)).domain == (0.0, 0.9)
    noise_field = Predict(ExactNetwork(MIXTURE, Linear(), "noise"), Linear(), "noise")
    flow = Integrated(noise_field, grid=Geometric(4, stop=0.99))
    assert flow.domain == (0.001, 0.99) and flow.knots[0] == 0.001 and flow.knots[-1] == 0.99
    assert flow(normal(2, 2), *flow.domain).isfinite().all()


@pytest.mark.parametrize("times", [(0.0, 1.0), (0.5, -0.1), (0.5, math.nan)])
def test_times_outside_are_refused_by_name(times: tuple[float, float]) -> None:
    flow = Integrated(EXACT, grid=Uniform(5, stop=0.9))
    x = normal(3, 2)
    for s, t in (times, tuple(torch.full((3,), u, dtype=torch.float64) for u in times)):
        with pytest.raises(UserError, match=r"outside the domain \[0, 0.9\] of Integrated"):
            flow(x, s, t)


def test_semigroup_is_exact_at_grid_points_and_of_the_order_elsewhere() -> None:
    x = normal(6, 2)
    for grid in (Uniform(10), Shifted(10)):
        flow = Integrated(EXACT, Heun(), grid)
        for u in (flow.knots[3], flow.knots[7]):
            assert torch.equal(flow(flow(x, 0.0, u), u, 1.0), flow(x, 0.0, 1.0))
            assert torch.equal(flow(flow(x, 1.0, u), u, 0.0), flow(x, 1.0, 0.0))
    defects = []
    for n in (15, 30, 60):
        flow, u = Integrated(EXACT, Heun(), Uniform(n)), 0.5 / n + 1 / 3
        stopped = flow(flow(x, 0.0, u), u, 1.0)
        defects.append(float((stopped - flow(x, 0.0, 1.0)).norm(dim=1).median()))
    # One step is split in two: a defect of one local error, of order p + 1.
    for a, b in itertools.pairwise(defects):
        assert math.log2(a / b) > 2.3


def test_steps_do_not_straddle_a_breakpoint() -> None:
    """Heun keeps order 2 across a jump that lies off the grid; blind to it, it does not."""
    pieces = (lambda x, t, cond=None: 3 * x, lambda x, t, cond=None: -2 * x)
    field = Piecewise(pieces, (0.0, 0.3717, 1.0))
    x = normal(4, 2)
    exact = x * math.exp(3 * 0.3717 - 2 * 0.6283)
    errors = [largest(Integrated(field, Heun(), Uniform(n))(x, 0.0, 1.0), exact) for n in (50, 100)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.3)
    blind = Integrated(lambda y, t, cond=None: field(y, t), Heun(), Uniform(100))
    assert largest(blind(x, 0.0, 1.0), exact) > 20 * errors[1]
    assert largest(Integrated(field, FINE)(x, 0.0, 1.0), exact) < 1e-6
    assert largest(Integrated(field, FINE)(exact, 1.0, 0.0), x) < 1e-6
    times = torch.tensor([1.0, 0.5, 0.3717, 0.2], dtype=torch.float64)
    ends = Integrated(field, RK4(), Uniform(50))(x, torch.zeros(4, dtype=torch.float64), times)
    rate = 3 * times.clamp_max(0.3717) - 2 * (times - 0.3717).clamp_min(0)
    assert largest(ends, x * rate.exp()[:, None]) < 1e-6


def test_evaluations_are_counted() -> None:
    x = normal(7, 2)
    for solver, per_step in ((Euler(), 1), (Heun(), 2), (RK4(), 4)):
        counted = Counted(EXACT)
        Integrated(counted, solver, Uniform(10))(x, 0.0, 1.0)
        assert counted.counts == {"calls": 10 * per_step, "rows": 70 * per_step}


@pytest.mark.parametrize("solver", [Heun(), RK4(), Dopri5()], ids=repr)
def test_chunks_are_the_whole(solver: Any) -> None:
    flow = Integrated(Guided(EXACT, 2.0, (0.3, 0.6)), solver, Uniform(8))
    x, cond = normal(9, 2), {"label": torch.arange(9) % 3}
    whole = flow(x, 0.0, 1.0, cond)
    parts = [
        flow(part, 0.0, 1.0, {"label": label})
        for part, label in zip(x.split(2), cond["label"].split(2), strict=True)
    ]
    assert largest(torch.cat(parts), whole) < 1e-12


def image_field(x: Tensor, t: Any, cond: Any = None) -> Tensor:
    rate = expand(torch.as_tensor(t, dtype=x.dtype), x)
    return torch.sin(x.roll(1, -1) + 2 * rate) - 0.5 * x.roll(1, 1) * rate


@pytest.mark.parametrize("shape", [(3,), (2, 4, 6), (5, 7)])
def test_same_as_torchdiffeq(shape: tuple[int, ...]) -> None:
    x = normal(4, *shape)
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    expected = torchdiffeq.odeint(
        lambda t, y: image_field(y, t), x, ends, method="dopri5", rtol=1e-10, atol=1e-10
    )[-1]
    assert largest(Integrated(image_field, FINE)(x, 0.0, 1.0), expected) < 1e-7
    times = torch.linspace(0, 1, 13, dtype=torch.float64)
    midpoint = torchdiffeq.odeint(lambda t, y: image_field(y, t), x, times, method="midpoint")[-1]
    assert largest(Integrated(image_field, Midpoint(), Uniform(12))(x, 0.0, 1.0), midpoint) < 1e-13


# Integrals along the way


@pytest.mark.parametrize("solver", [RK4(), FINE], ids=repr)
def test_running_integrals_and_their_sign(solver: Any) -> None:
    """Of 1, of t, of |v|^2 and of x, with x = e^t x0: all closed."""
    flow = Integrated(lambda x, t, cond=None: x, solver, Uniform(50))
    x = normal(3, 2)

    def quantities(s: float, t: float) -> tuple[Tensor, ...]:
        running = (
            lambda y, u, v: torch.ones(len(y), dtype=y.dtype),
            lambda y, u, v: torch.as_tensor(u, dtype=y.dtype).expand(len(y)),
            lambda y, u, v: v.square().sum(1),
            lambda y, u, v: y[:, 0],
        )
        return flow.trace(x, s, t, running)

    for s, t in ((0.2, 0.9), (0.9, 0.2)):
        end, one, time, energy, first = quantities(s, t)
        assert largest(end, x * math.exp(t - s)) < 1e-6
        assert largest(one, torch.full_like(one, t - s)) < 1e-12
        assert largest(time, torch.full_like(one, (t**2 - s**2) / 2)) < 1e-12
        closed = x.square().sum(1) * (math.exp(2 * (t - s)) - 1) / 2
        assert largest(energy, closed) < 1e-6
        assert largest(first, x[:, 0] * (math.exp(t - s) - 1)) < 1e-6


def test_divergence_integrates_to_the_log_determinant() -> None:
    path = Power(0.75)
    field = GAUSSIAN.field(path)
    flow = Integrated(field, FINE)
    lo, hi = 0.1, 0.95
    divergence = lambda y, u, v: field.divergence(y, u)  # noqa: E731
    _, integral = flow.trace(normal(2, 3), lo, hi, (divergence,))

    def log_std(t: float) -> Tensor:
        alpha, sigma = path.scales(torch.tensor(t, dtype=torch.float64))
        return (alpha**2 * GAUSSIAN.eigenvalues + sigma**2).log() / 2

    expected = float((log_std(hi) - log_std(lo)).sum())
    assert integral.tolist() == pytest.approx([expected] * 2, abs=1e-6)


# Densities


@pytest.mark.parametrize(
    ("target", "path"),
    [*((LINE, path) for path in PATHS), (GAUSSIAN, Linear()), (GAUSSIAN, Power(0.75))],
    ids=repr,
)
def test_log_density(target: Any, path: Path) -> None:
    """Of the law at the end of the domain, from the law at its start."""
    field = Predict(ExactNetwork(target, path, "score"), path, "score")
    lo, hi = field.domain
    law = target.at(path)
    x = target.sample(4, stream(0, "x"))
    found = log_density(
        Integrated(field, Dopri5(1e-7, 1e-7)), x, source=lambda y: law.log_density(y, lo)
    )
    assert largest(found.value, law.log_density(x, hi)) < 3e-5
    assert (found.space, found.units) == ("latent", "nats")
    assert not found.stderr.any()


def test_log_density_of_an_early_stop_is_that_of_the_law_there() -> None:
    flow = Integrated(EXACT, FINE, Uniform(stop=0.8))
    x = normal(5, 2)
    found = log_density(flow, x).value
    assert largest(found, MIXTURE.at(Linear()).log_density(x, 0.8)) < 1e-6


def test_log_density_has_the_order_of_the_solver() -> None:
    x = MIXTURE.sample(20, stream(0, "x"))
    exact = MIXTURE.at(Linear()).log_density(x, 1.0)
    errors = [
        float((log_density(Integrated(EXACT, RK4(), Uniform(n)), x).value - exact).abs().median())
        for n in (20, 40)
    ]
    assert math.log2(errors[0] / errors[1]) > 3.2


def test_log_density_by_labels() -> None:
    x, label = MIXTURE.sample_labelled(6, stream(0, "x"))
    cond = {"label": label}
    for solver in (Dopri5(1e-7, 1e-7), RK4()):
        flow = Integrated(EXACT, solver, Uniform(50))
        found = log_density(flow, x, cond).value
        assert largest(found, MIXTURE.at(Linear()).log_density(x, 1.0, label)) < 1e-5


def test_standard_normal_log_density() -> None:
    x = normal(4, 2, 3)
    expected = torch.distributions.Normal(0, 1).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(standard_normal_log_density(x), expected)


@pytest.mark.parametrize("solver", [RK4(), Dopri5(1e-7, 1e-7)], ids=repr)
@pytest.mark.parametrize("shape", [(6,), (2, 2, 3)])
def test_hutchinson_is_the_quadratic_form_of_its_probes(
    shape: tuple[int, ...], solver: Any
) -> None:
    """For x' = A x the estimate is e^T A e (t - s): the probes are held fixed along the way."""
    size = math.prod(shape)
    matrix = normal(size, size, key="matrix") / size

    def field(x: Tensor, t: Any, cond: Any = None) -> Tensor:
        return (x.flatten(1) @ matrix.T).reshape(x.shape)

    x, n_probes = normal(3, *shape), 4
    flow = Integrated(field, solver, Uniform(8))
    found = log_density(flow, x, probes=n_probes, seed=5)
    probes = torch.stack(
        [noise(5, 0, 3, shape, "probe", k, signs=True) for k in range(n_probes)]
    ).double()
    forms = torch.einsum("kbi,ij,kbj->bk", probes.flatten(2), matrix, probes.flatten(2))
    base = standard_normal_log_density(flow(x, 1.0, 0.0))
    torch.testing.assert_close(found.value, base - forms.mean(1), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.stderr, forms.std(1) / 2, rtol=1e-10, atol=1e-10)
    exact = log_density(flow, x)
    torch.testing.assert_close(exact.value, base - matrix.trace(), rtol=1e-6, atol=1e-6)


def test_hutchinson_keeps_its_word() -> None:
    """400 examples: unbiased within 4 standard errors, and 95 % of Student's intervals cover."""
    # A volume that changes: with std = 1 the integral of the divergence vanishes, sign and all.
    target = GaussianSpec(dim=8, std=0.5, condition=50.0, seed=3).build()
    flow = Integrated(target.field(Trigonometric()), Heun(), Uniform(6))
    x = target.sample(400, stream(0, "x"))
    exact = log_density(flow, x).value
    found = log_density(flow, x, probes=6, seed=1)
    z = (found.value - exact) / found.stderr
    error = found.value - exact
    assert abs(float(error.mean())) < 4 * float(error.std()) / 20
    covered = float((z.abs() < scipy.stats.t(5).ppf(0.975)).double().mean())
    assert 0.91 < covered < 0.98
    assert float(error.abs().mean()) > 1e-3  # the estimate is one


def test_hutchinson_depends_on_seed_and_example_alone() -> None:
    field = GaussianSpec(dim=8, std=0.5, condition=50.0, seed=3).build().field(Linear())
    flow = Integrated(field, Heun(), Uniform(5))
    x = normal(7, 8)
    whole = log_density(flow, x, probes=3, seed=2)
    parts = [log_density(flow, x[a:b], probes=3, seed=2, first=a) for a, b in ((0, 3), (3, 7))]
    assert largest(torch.cat([p.value for p in parts]), whole.value) < 1e-12
    assert largest(torch.cat([p.stderr for p in parts]), whole.stderr) < 1e-12
    assert largest(log_density(flow, x, probes=3, seed=3).value, whole.value) > 1e-3
    with pytest.raises(UserError, match="at least 2 probes, not 1"):
        log_density(flow, x, probes=1)


@pytest.mark.parametrize("probes", [2, 3, 8])
def test_hutchinsons_interval_covers_whatever_the_number_of_probes(probes: int) -> None:
    target = GaussianSpec(dim=12, std=0.5, condition=50.0, seed=3).build()
    flow = Integrated(target.field(Trigonometric()), Heun(), Uniform(6))
    x = target.sample(600, stream(0, "x"))
    exact = log_density(flow, x)
    low, high = (found := log_density(flow, x, probes=probes, seed=1)).interval()
    known = found.stderr.isfinite()
    assert known.double().mean() > 0.95
    covered = ((low <= exact.value) & (exact.value <= high))[known].double().mean()
    assert 0.92 < float(covered) < 0.985
    assert exact.probes == 0 and torch.equal(exact.interval()[0], exact.value)


def test_no_error_of_zero_where_probes_agree_by_chance() -> None:
    # One pair of coordinates is coupled: two probes see one sign of it in half of all examples.
    matrix = torch.eye(3, dtype=torch.float64)
    matrix[0, 1] = matrix[1, 0] = 0.5
    flow = Integrated(lambda x, t, cond=None: x @ matrix, Heun(), Uniform(4))
    found = log_density(flow, normal(200, 3), probes=2)
    assert not (found.stderr == 0).any()
    assert 0.4 < float(found.stderr.isnan().double().mean()) < 0.6
    # As many probes as dimensions: the trace itself.
    exact = log_density(flow, normal(200, 3), probes=3)
    assert (exact.stderr == 0).all() and exact.probes == 0
    assert largest(exact.value, log_density(flow, normal(200, 3)).value) == 0


def test_log_density_of_images() -> None:
    """A field that moves each pixel by itself: the density is a product."""
    flow = Integrated(lambda x, t, cond=None: torch.sin(x), RK4(), Uniform(40))
    x = normal(2, 3, 2, 2)
    pixels = log_density(flow, x.reshape(-1, 1)).value.reshape(2, -1).sum(1)
    assert largest(log_density(flow, x).value, pixels) < 1e-10


# Inverse


@pytest.mark.parametrize("solver", [Euler(), Heun(), RK4(), Dopri5()], ids=repr)
def test_inverse_undoes_the_discrete_map(solver: Any) -> None:
    flow = Integrated(EXACT, solver, Uniform(12))
    x = normal(6, 2)
    y = flow(x, 0.0, 1.0)
    backwards = largest(flow(y, 1.0, 0.0), x)
    assert largest(inverse(flow)(y, 1.0, 0.0), x) < 1e-11
    if solver.order <= 2:
        assert backwards > 1e-4  # running backwards is no inverse
    times = torch.linspace(0.3, 1.0, 6, dtype=torch.float64)
    start = torch.zeros(6, dtype=torch.float64)
    there = flow(x, start, times)
    assert largest(inverse(flow)(there, times, start), x) < 1e-11


def test_inverse_of_a_coarse_map_is_refused() -> None:
    flow = Integrated(lambda x, t, cond=None: -8 * x.sin(), Euler(), Uniform(2))
    with pytest.raises(UserError, match=r"the inverse has not converged.*take more steps"):
        inverse(flow)(normal(4, 2), 1.0, 0.0)


def test_inverse_in_single_precision() -> None:
    flow = Integrated(EXACT, Heun(), Uniform(12))
    x = normal(6, 2).float()
    assert largest(inverse(flow)(flow(x, 0.0, 1.0), 1.0, 0.0), x) < 1e-5


# Chains


def test_chain_is_the_maps_one_after_another() -> None:
    maps = (GAUSSIAN.flow_map(Linear()), GAUSSIAN.flow_map(Power(0.75)))
    chain = Chain(maps)
    assert chain.knots == (0.0, 0.5, 1.0) and chain.breakpoints == (0.5,)
    x = normal(5, 3)
    y = maps[1](maps[0](x, 0.0, 1.0), 0.0, 1.0)
    assert largest(chain(x, 0.0, 1.0), y) < 1e-13
    assert largest(chain(x, 0.25, 0.5), maps[0](x, 0.5, 1.0)) < 1e-13
    assert largest(chain(x, 0.2, 0.9), maps[1](maps[0](x, 0.4, 1.0), 0.0, 0.8)) < 1e-12
    assert largest(chain(y, 1.0, 0.0), x) < 1e-12
    assert torch.equal(chain(x, 0.5, 0.5), x)


def test_adding_a_block_moves_knots() -> None:
    block = Integrated(EXACT, Heun(), Uniform(5))
    x = normal(4, 2)
    two, three = Chain((block,) * 2), Chain((block,) * 3)
    assert three.knots == pytest.approx((0, 1 / 3, 2 / 3, 1))
    assert largest(three(x, 0.0, 2 / 3), two(x, 0.0, 1.0)) < 1e-12


def test_chain_of_blocks_on_other_domains() -> None:
    """Blocks are called on their own domains, whose ends are met exactly."""
    block = Integrated(
        Predict(ExactNetwork(MIXTURE, Linear(), "noise"), Linear(), "noise"),
        Heun(),
        Uniform(6, stop=0.9),
    )
    chain, x = Chain((block,) * 3), normal(3, 2)
    lo, hi = block.domain
    expected = x
    for _ in range(3):
        expected = block(expected, lo, hi)
    assert largest(chain(x, 0.0, 1.0), expected) < 1e-12


@pytest.mark.parametrize("n", [1, 3, 49])
def test_chain_times_per_example(n: int) -> None:
    """49 blocks: 49 (1/49) is less than 1 in floating point."""
    chain = Chain((LINE.flow_map(Linear()),) * n)
    x = normal(5, 1) / 4
    s = torch.tensor([0.0, 1.0, 0.3, 0.9, 1 / 3], dtype=torch.float64)
    t = torch.tensor([1.0, 0.0, 0.8, 0.2, 1 / 3], dtype=torch.float64)
    alone = [chain(x[i : i + 1], float(s[i]), float(t[i])) for i in range(5)]
    assert largest(chain(x, s, t), torch.cat(alone)) < 1e-9


@pytest.mark.parametrize("n", [2, 3, 49])
def test_tangent_of_a_chain_drives_it(n: int) -> None:
    chain = Chain(tuple(Integrated(EXACT, RK4(), Uniform(4)) for _ in range(n)))
    velocity = tangent(chain)
    x = normal(3, 2) / 4
    for knot in chain.knots:  # each knot lies in a block's domain, whatever the rounding
        assert velocity(x, knot).isfinite().all()
    times = torch.tensor(chain.knots[:3], dtype=torch.float64)
    alone = [velocity(x[i : i + 1], float(times[i])) for i in range(3)]
    assert largest(velocity(x, times), torch.cat(alone)) < 1e-10
    if n == 2:
        h = 1e-5
        difference = (chain(x, 0.3, 0.3 + h) - chain(x, 0.3, 0.3 - h)) / (2 * h)
        assert largest(velocity(x, 0.3), difference) < 1e-6
        pieces = Piecewise(tuple(map(chain._field, range(n))), chain.knots)
        assert largest(Integrated(pieces, FINE)(x, 0.0, 1.0), chain(x, 0.0, 1.0)) < 2e-2


# Tangents and learned maps


def test_tangent_of_a_function_is_its_rate() -> None:
    """X(x, s, t) = x (1 + t^2)/(1 + s^2) has the velocity 2 t x/(1 + t^2)."""

    def flow(x: Tensor, s: Any, t: Any, cond: Any = None) -> Tensor:
        s, t = (expand(torch.as_tensor(u, dtype=x.dtype), x) for u in (s, t))
        return x * (1 + t**2) / (1 + s**2)

    x = normal(4, 2)
    assert largest(tangent(flow)(x, 0.5), 0.8 * x) < 1e-14
    times = torch.tensor([0.0, 0.2, 0.5, 1.0], dtype=torch.float64)
    assert largest(tangent(flow)(x, times), (2 * times / (1 + times**2))[:, None] * x) < 1e-14


def test_tangent_of_closed_maps_and_of_integrals() -> None:
    x = normal(5, 3)
    closed = GAUSSIAN.flow_map(Power(0.75))
    plain = lambda y, s, t, cond=None: closed(y, s, t)  # noqa: E731
    for t in (0.0, 0.4, 0.9):
        exact = GAUSSIAN.field(Power(0.75))(x, t)
        assert largest(tangent(closed)(x, t), exact) < 1e-13
        assert largest(tangent(plain)(x, t), exact) < 1e-10
    assert tangent(Integrated(EXACT)) is EXACT


def test_learned_map() -> None:
    def net(x: Tensor, s: Any, t: Any, cond: Any) -> Tensor:
        return torch.sin(x) + expand(s + 2 * t, x)

    flow = LearnedMap(net, (0.0, 0.9))
    x = normal(4, 2)
    assert torch.equal(flow(x, 0.3, 0.3), x)
    assert largest(flow(x, 0.2, 0.5), x + 0.3 * (torch.sin(x) + 1.2)) < 1e-14
    assert largest(tangent(flow)(x, 0.4), torch.sin(x) + 1.2) < 1e-14
    times = torch.tensor([0.0, 0.2, 0.5, 0.9], dtype=torch.float64)
    assert largest(flow(x, times, times.flip(0))[1:2], flow(x[1:2], 0.2, 0.5)) < 1e-14
    with pytest.raises(UserError, match=r"\[0, 0.9\] of this map"):
        flow(x, 0.0, 1.0)


# Gradients


class Small(torch.nn.Module):
    """A network that is smooth in time."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(normal(2, 2, key="weight"))
        self.bias = torch.nn.Parameter(normal(2, key="bias"))

    def forward(self, x: Tensor, t: Any, cond: Any = None) -> Tensor:
        t = expand(torch.as_tensor(t, dtype=x.dtype), x)
        return torch.sin(x @ self.weight + t * self.bias)


@pytest.mark.parametrize("solver", [Heun(), RK4(), Dopri5(1e-9, 1e-9)], ids=repr)
def test_gradients_through_the_map(solver: Any) -> None:
    """With respect to the state and to a network's parameters, against central differences."""
    network = Small()

    def loss(net: Any, x: Tensor) -> Tensor:
        flow = Integrated(Predict(net, Linear()), solver, Uniform(4))
        return flow(x, 0.1, 0.7).square().sum()

    x = normal(3, 2)
    y = x.clone().requires_grad_()
    loss(network, y).backward()
    h, along = 1e-5, normal(3, 2, key="along")
    with torch.no_grad():
        slope = (loss(network, x + h * along) - loss(network, x - h * along)) / (2 * h)
        assert y.grad is not None
        assert float((y.grad * along).sum()) == pytest.approx(float(slope), rel=1e-5)
        shifted = []
        for sign in (1, -1):
            other = copy.deepcopy(network)
            for p, q in zip(other.parameters(), network.parameters(), strict=True):
                p += sign * h * torch.ones_like(q)
            shifted.append(loss(other, x))
    slope = (shifted[0] - shifted[1]) / (2 * h)
    gradient = sum(float(p.grad.sum()) for p in network.parameters() if p.grad is not None)
    assert gradient == pytest.approx(float(slope), rel=1e-5)
