"""The laws of targets, given as a specification that builds one, or built.

Each is checked along two paths against the next simpler function: the density alone is taken on
trust, and that it is a density is checked by its moments.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from monge.conformance.measuring import (
    DoesNotApply,
    Outcome,
    derivative,
    gap,
    holds,
    inside,
    within,
    worst,
)
from monge.errors import UserError
from monge.paths import OrnsteinUhlenbeck, Path, Trigonometric
from monge.targets.base import Target, TargetSpec
from monge.tensors import stream, value_and_divergence

N = 7

PATHS: tuple[Path, ...] = (Trigonometric(), OrnsteinUhlenbeck(2.0))

TIMES = (0.05, 0.5, 0.95)

MOMENTS_N = 20_000

GOLDEN = {
    "gaussian": (0.594952521424344, -2.025043559175506),
    "mixture": (1.5499498570357, 2.379799034767397),
    "box": (-0.531561464328334, -0.262028272045341),
    "hypercube": (0.150151653641475, 0.12970975786952686),
    "product": (0.258860395531102, 0.0751048835967999),
    "latent": (-0.356445448638969, 1.04569077274025),
    "moons": (0.519366510046643, -0.0460891989235027),
    "checkerboard": (1.99375169383515, 1.12054846400798),
    "spirals": (0.849218847054545, 0.257349864532680),
    "rings": (0.886077509906485, 0.443038754953242),
    "8gaussians": (4.24651703368382, 2.12639635804860),
}
"""The velocity at x = (1, 1/2, 0, ...) and t = 1/3 under the trigonometric path and the default
settings, its first two coordinates: from matrix inverses (probability_flow_ode.md, section 3) and
from Bayes' rule by quadrature to 20 digits at least; that of the rings over whole circles, those
of moons and spirals over their points, found from the length of the curves."""


def built(component: Any) -> Target:
    return component.build() if isinstance(component, TargetSpec) else component


def marginal_states(target: Target, path: Path, t: float) -> Tensor:
    """Samples of the law at t."""
    rng = stream(0, "conformance", "states")
    x1 = target.sample(N, rng)
    x0 = torch.randn(x1.shape, generator=rng, dtype=torch.float64)
    return path.interpolate(x0, x1, t)[0]


def law_samples_have_the_moments(component: Any) -> Outcome:
    """Mean and covariance of samples are the declared ones, and equal generators sample equally."""
    target = built(component)
    x = target.sample(MOMENTS_N, stream(0, "samples"))
    same = x.shape == (MOMENTS_N, *target.shape) and x.dtype == torch.float64
    holds(same, f"samples are {tuple(x.shape)} {x.dtype}")
    holds(torch.equal(x, target.sample(MOMENTS_N, stream(0, "samples"))), "sampling is not fixed")
    centred = x - target.mean
    products = centred[:, :, None] * centred[:, None, :]
    root = MOMENTS_N**0.5
    error = (products.mean(0) - target.covariance) * root / products.std(0).clamp_min(1e-12)
    return worst(
        within("error of the mean in standard errors", centred.mean(0) * root / x.std(0), 4.5),
        within("error of the covariance in standard errors", error, 5.0),
    )


def law_score_is_the_gradient(component: Any) -> Outcome:
    """The score is the gradient of the log-density."""
    target = built(component)
    found = []
    for path in PATHS:
        for t in TIMES:
            x = marginal_states(target, path, t)
            y = x.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(target.at(path).log_density(y, t).sum(), y)
            score = target.at(path).score(x, t)
            found.append(within(f"error, {path}, t = {t}", gap(score, gradient), 1e-9))
    return worst(*found)


def law_noise_and_data_make_the_state(component: Any) -> Outcome:
    """alpha E[x1 | x] + sigma E[x0 | x] = x, and the velocity is the same sum of their rates."""
    target = built(component)
    found = []
    for path in PATHS:
        for t in TIMES:
            x = marginal_states(target, path, t)
            law = target.at(path)
            x0, x1 = law.noise_mean(x, t), law.posterior_mean(x, t)
            state, velocity = path.interpolate(x0, x1, t)
            found.append(within(f"error of the state, {path}, t = {t}", gap(state, x), 1e-9))
            error = gap(law.velocity(x, t), velocity)
            found.append(within(f"error of the velocity, {path}, t = {t}", error, 1e-9))
    return worst(*found)


def law_jacobian_and_divergence(component: Any) -> Outcome:
    """The Jacobian of the velocity and its trace are those of automatic differentiation."""
    target = built(component)
    found = []
    for path in PATHS:
        for t in TIMES:
            x = marginal_states(target, path, t)
            law = target.at(path)
            jacobian = torch.func.vmap(
                torch.func.jacfwd(lambda y, law=law, t=t: law.velocity(y[None], t)[0])
            )(x)
            error = gap(law.jacobian(x, t), jacobian)
            found.append(within(f"error of the Jacobian, {path}, t = {t}", error, 1e-9))
            trace = value_and_divergence(lambda y, law=law, t=t: law.velocity(y, t), x)[1]
            error = gap(law.divergence(x, t), trace)
            found.append(within(f"error of the divergence, {path}, t = {t}", error, 1e-9))
    return worst(*found)


def law_continuity(component: Any) -> Outcome:
    """The velocity carries the density: d/dt log p + v . score + div v = 0."""
    target = built(component)
    found = []
    for path in PATHS:
        for t in TIMES:
            x = marginal_states(target, path, t)
            law = target.at(path)
            when = torch.full((N,), t, dtype=torch.float64)
            rate = derivative(lambda u, law=law, x=x: law.log_density(x, u), when, 1e-4)
            flux = (law.velocity(x, t) * law.score(x, t)).sum(1) + law.divergence(x, t)
            found.append(within(f"residual, {path}, t = {t}", gap(rate, -flux), 1e-7))
    return worst(*found)


def law_finite_on_the_domain(component: Any) -> Outcome:
    """The exact field is finite on its whole domain, ends included, for times per example."""
    target = built(component)
    found = []
    for path in PATHS:
        velocity = target.field(path)
        times = inside(velocity.domain, N)
        x = marginal_states(target, path, 0.5)
        together = velocity(x, times)
        holds(bool(together.isfinite().all()), f"not finite under {path}")
        alone = torch.cat([velocity(x[i : i + 1], float(t)) for i, t in enumerate(times)])
        error = gap(together, alone)
        found.append(within(f"difference of times per example, {path}", error, 1e-12))
    return worst(*found)


def law_flow_map(component: Any) -> Outcome:
    """A closed flow map leaves the identity along the exact field, and composes."""
    target = built(component)
    try:
        flow = target.flow_map(PATHS[0])
    except UserError:
        return DoesNotApply("it has no closed flow map")
    x = marginal_states(target, PATHS[0], 0.3)
    end = torch.full((N,), 0.8, dtype=torch.float64)
    y, rate = torch.func.jvp(lambda u: flow(x, 0.3, u), (end,), (torch.ones_like(end),))[:2]
    return worst(
        within("movement from a time to itself", gap(flow(x, 0.3, 0.3), x), 1e-9),
        within("difference by a stop", gap(flow(flow(x, 0.3, 0.6), 0.6, 0.8), y), 1e-8),
        within("error of the rate", gap(rate, target.field(PATHS[0])(y, 0.8)), 1e-8),
    )


def law_labels(component: Any) -> Outcome:
    """Labels count from 0; the law without a label is the average of its parts."""
    target = built(component)
    _, label = target.sample_labelled(200, stream(0, "labels"))
    if target.n_classes is None:
        return holds(label is None, "it gives labels and declares none")
    assert label is not None
    holds(0 <= int(label.min()) <= int(label.max()) < target.n_classes, f"labels {label.unique()}")
    x = marginal_states(target, PATHS[0], 0.5)
    law = target.at(PATHS[0])
    none = law.velocity(x, 0.5, torch.full((N,), -1))
    return within("difference of label -1 from no label", gap(none, law.velocity(x, 0.5)), 1e-12)


def law_golden_velocity(component: Any) -> Outcome:
    """Under its default settings, a target of monge's has the printed velocity."""
    if repr(component) not in GOLDEN:
        return DoesNotApply("no velocity is printed for it")
    target = built(component)
    x = torch.zeros(1, target.dim, dtype=torch.float64)
    x[:, :2] = torch.tensor([1.0, 0.5])
    golden = torch.tensor([GOLDEN[repr(component)]], dtype=torch.float64)
    velocity = target.at(Trigonometric()).velocity(x, 1 / 3)[:, :2]
    return within(f"distance from {GOLDEN[repr(component)]}", velocity - golden, 1e-9)
