"""The laws of interpolation paths."""

from __future__ import annotations

import itertools
import typing

import torch
from torch import Tensor

from monge.conformance.measuring import (
    DoesNotApply,
    Measured,
    Outcome,
    derivative,
    gap,
    holds,
    inside,
    normal,
    within,
    worst,
)
from monge.paths import Kind, Path

KINDS: tuple[Kind, ...] = typing.get_args(Kind)

INNER = inside((0.02, 0.98), 49)

STEP = 1e-3 * torch.minimum(INNER, 1 - INNER)
"""Of differences: smaller near the ends, where rates may be infinite."""

GOLDEN = {
    "linear": (0.3333333333333333, 0.6666666666666667),
    "trigonometric": (0.5, 0.8660254037844387),
    "ou": (0.004827949993831441, 0.9999883453815135),
    "linear_beta": (0.10598640535695654, 0.9943675788557825),
    "power": (0.3333333333333333, 0.816496580927726),
}
"""alpha and sigma at t = 1/3 under the default settings; ou e^(-16/3), linear_beta
probability_flow_ode.md 3.1."""


def at(t: float) -> Tensor:
    return torch.tensor(t, dtype=torch.float64)


def law_reaches_the_data(path: Path) -> Outcome:
    """At t = 1 the state is the datum: alpha = 1 and sigma = 0."""
    alpha, sigma = path.scales(at(1.0))
    return worst(within("|alpha_1 - 1|", alpha - 1, 1e-12), within("|sigma_1|", sigma, 1e-12))


def law_starts_at_noise(path: Path) -> Outcome:
    """At t = 0 the state is noise, up to the source gap: |sigma_0 - 1| <= alpha_0."""
    alpha, sigma = path.scales(at(0.0))
    holds(path.source_gap == float(alpha) >= 0, f"alpha_0 = {float(alpha):g} is no source gap")
    return within("|sigma_0 - 1|", sigma - 1, float(alpha) + 1e-12)


def law_noise_gives_way_to_data(path: Path) -> Outcome:
    """Inside, alpha and sigma are positive and alpha/sigma grows: the Wronskian is negative."""
    alpha, sigma, d_alpha, d_sigma = path.coefficients(INNER, INNER)
    low = torch.minimum(alpha, sigma).min()
    holds(bool(low > 0), f"a scale is {float(low):.3g} inside")
    wronskian = (alpha * d_sigma - sigma * d_alpha).max()
    return holds(bool(wronskian < 0), f"alpha sigma' - sigma alpha' rises to {float(wronskian):g}")


def law_rates_are_derivatives(path: Path) -> Outcome:
    """The rates are the central differences of the scales."""
    _, _, *rates = path.coefficients(INNER, INNER)
    differences = derivative(lambda t: torch.stack(path.scales(t), dim=1), INNER, STEP).unbind(1)
    return worst(
        *(
            within(f"relative error of the rate of {name}", (a - b) / (1 + a.abs()), 1e-7)
            for name, a, b in zip(("alpha", "sigma"), rates, differences, strict=True)
        )
    )


def law_velocity_is_the_rate_of_the_state(path: Path) -> Outcome:
    """The velocity on the way from x0 to x1 is the central difference of the state."""
    x0, x1 = normal(len(INNER), 2, 3, key="x0"), normal(len(INNER), 2, 3, key="x1")
    difference = derivative(lambda t: path.interpolate(x0, x1, t)[0], INNER, STEP)
    velocity = path.interpolate(x0, x1, INNER)[1]
    return within("relative error of the velocity", gap(velocity, difference), 1e-7)


def law_endpoints_invert(path: Path) -> Outcome:
    """From a state and its velocity, `endpoints` recovers both ends of the way."""
    x0, x1 = normal(len(INNER), 2, 3, key="x0"), normal(len(INNER), 2, 3, key="x1")
    found = path.endpoints(*path.interpolate(x0, x1, INNER), INNER)
    return worst(within("x0", gap(found[0], x0), 1e-9), within("x1", gap(found[1], x1), 1e-9))


def law_times_per_example(path: Path) -> Outcome:
    """A time for each example does to it what that time alone does, in its precision."""
    x0, x1 = normal(len(INNER), 3, key="x0"), normal(len(INNER), 3, key="x1")
    together = path.interpolate(x0, x1, INNER)[0]
    alone = [
        path.interpolate(x0[i : i + 1], x1[i : i + 1], float(t))[0] for i, t in enumerate(INNER)
    ]
    single = path.scales(INNER.float())
    holds(all(c.dtype == torch.float32 for c in single), "float32 times give other scales")
    return within("difference", gap(together, torch.cat(alone)), 1e-13)


def law_noise_rate(path: Path) -> Outcome:
    """The noise rate is sigma sigma', and finite on all of [0, 1]."""
    _, sigma, _, d_sigma = path.coefficients(INNER, INNER)
    ends = path.noise_rate(inside((0.0, 1.0), 3))
    holds(bool(ends.isfinite().all()), f"the noise rate at t = 0, 1/2, 1 is {ends.tolist()}")
    error = (path.noise_rate(INNER) - sigma * d_sigma) / (1 + (sigma * d_sigma).abs())
    return within("relative error of the noise rate", error, 1e-9)


def law_declared_finite_rates_are(path: Path) -> Outcome:
    """On the path's domain, ends included, all rates are finite."""
    lo, hi = path.domain
    holds(0 <= lo < hi <= 1, f"the domain {lo:g}, {hi:g} is no interval of [0, 1]")
    coefficients = torch.stack(path.coefficients(inside((lo, hi), 5), torch.ones(5)))
    bad = ~coefficients.isfinite()
    return holds(not bool(bad.any()), f"not finite on the domain: {coefficients[bad].tolist()}")


def law_declared_velocity_variance_is_finite(path: Path) -> Outcome:
    """Where it is declared finite, the energy alpha'^2 + sigma'^2 has an integral up to t = 1."""
    if not path.velocity_variance_is_finite:
        return DoesNotApply("the velocity target is declared to have infinite variance")
    # The energy in three decades of 1 - t: of an integrable power they fall geometrically.
    edges = torch.tensor([1e-3, 1e-5, 1e-7, 1e-9], dtype=torch.float64).log()
    decades = []
    for a, b in itertools.pairwise(edges):
        rest = torch.linspace(float(a), float(b), 201, dtype=torch.float64).exp()
        _, _, d_alpha, d_sigma = path.coefficients(1 - rest, rest)
        energy = (d_alpha.square() + d_sigma.square()) * rest
        decades.append(float(energy.mean()))
    return within("growth of the energy from decade to decade", decades[2] / decades[1], 0.99)


def law_outputs_agree(path: Path) -> Outcome:
    """Velocity, data, noise and score of one way stand for one velocity."""
    x0, x1 = normal(17, 3, key="x0"), normal(17, 3, key="x1")
    found = []
    for kind in KINDS:
        t = inside(path.output_domain(kind), 17, margin=1e-3)
        x, velocity = path.interpolate(x0, x1, t)
        sigma = path.coefficients(t, x)[1]
        output = {"velocity": velocity, "data": x1, "noise": x0, "score": -x0 / sigma}[kind]
        error = (path.to_velocity(kind, output, x, t) - velocity) / (1 + velocity.abs())
        found.append(within(f"relative error from {kind}", error, 1e-8))
    return worst(*found)


def law_outputs_are_finite_at_the_ends(path: Path) -> Outcome:
    """At both ends of an output's domain a finite output stands for a finite velocity."""
    x, output = normal(2, 3), normal(2, 3, key="output")
    for kind in KINDS:
        lo, hi = path.output_domain(kind)
        holds(0 <= lo < hi <= 1, f"the domain of {kind} is {lo:g}, {hi:g}")
        finite = path.to_velocity(kind, output, x, inside((lo, hi), 2)).isfinite().all()
        holds(bool(finite), f"the velocity from {kind} is infinite at an end of {lo:g}, {hi:g}")
    return Measured(0.0, 0.0)


def law_error_ratio(path: Path) -> Outcome:
    """An error e of an output is an error e times the ratio of the velocity."""
    x, error = normal(17, 3), normal(17, 3, key="error")
    found = []
    for kind in KINDS:
        t = inside(path.output_domain(kind), 17, margin=0.02)
        output = normal(17, 3, key="output")
        change = path.to_velocity(kind, output + error, x, t) - path.to_velocity(kind, output, x, t)
        expected = path.error_ratio("velocity", kind, t)[:, None] * error
        relative = (change - expected) / (1 + expected.abs())
        found.append(within(f"relative error of the ratio for {kind}", relative, 1e-9))
    return worst(*found)


def law_golden_value(path: Path) -> Outcome:
    """Under its default settings, a path of monge's has the printed scales at t = 1/3."""
    if repr(path) not in GOLDEN:
        return DoesNotApply("no scales are printed for it")
    scales = torch.stack(path.scales(at(1 / 3)))
    golden = torch.tensor(GOLDEN[repr(path)], dtype=torch.float64)
    return within(f"error of the scales {GOLDEN[repr(path)]}", scales - golden, 1e-12)
