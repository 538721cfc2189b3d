"""Paths beyond the laws: golden values, limits at the ends, domains, refusals."""

from __future__ import annotations

import math

import pytest
import torch

from monge.components import build
from monge.errors import UserError
from monge.paths import MARGIN, Linear, LinearBeta, OrnsteinUhlenbeck, Power, Trigonometric

Span = tuple[float, float]


def at(t: float) -> torch.Tensor:
    return torch.tensor(t, dtype=torch.float64)


def test_scales_at_one_third() -> None:
    golden = {
        "linear": (1 / 3, 2 / 3),
        "trigonometric": (1 / 2, math.sqrt(3) / 2),
        "power:kappa=0.75": (1 / 3, (2 / 3) ** 0.75),
        "power:kappa=2": (1 / 3, 4 / 9),
        "ou:horizon=3": (math.exp(-2), math.sqrt(1 - math.exp(-4))),
    }
    for text, expected in golden.items():
        alpha, sigma = build("path", text).scales(at(1 / 3))
        assert (float(alpha), float(sigma)) == pytest.approx(expected, abs=1e-15), text


def test_linear_beta_against_the_sheet() -> None:
    """probability_flow_ode.md 3.1: alpha_0 = exp(-(b0+b1)/4) and 1 - sigma_0."""
    path = LinearBeta()
    assert path.source_gap == pytest.approx(math.exp(-20.1 / 4), rel=1e-12)
    assert path.source_gap == pytest.approx(0.00657, abs=5e-6)
    assert 1 - float(path.scales(at(0.0))[1]) == pytest.approx(2.2e-5, abs=1e-6)
    t = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    r = 1 - t
    beta_integral = 0.1 * r + 19.9 * r**2 / 2
    c = (0.1 + 19.9 * r) / 2
    alpha, sigma, d_alpha, d_sigma = path.coefficients(t, t)
    torch.testing.assert_close(alpha, (-beta_integral / 2).exp())
    torch.testing.assert_close(sigma, (-torch.expm1(-beta_integral)).sqrt())
    torch.testing.assert_close(d_alpha, c * alpha)
    torch.testing.assert_close(d_sigma, -c * alpha**2 / sigma)
    torch.testing.assert_close(path.noise_rate(t), -c * alpha**2)
    torch.testing.assert_close(alpha * d_sigma - sigma * d_alpha, -c * alpha / sigma)


def test_ornstein_uhlenbeck_against_the_sheet() -> None:
    """c = S, v = S (x + score); alpha_0 = e^-8 = 3.4e-4."""
    path = OrnsteinUhlenbeck()
    assert path.source_gap == pytest.approx(3.3546e-4, rel=1e-4)
    x, score = torch.randn(2, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    velocity = path.to_velocity("score", score, x, 0.37)
    torch.testing.assert_close(velocity, 8 * (x + score))
    # Also at the end, where sigma' is infinite.
    torch.testing.assert_close(path.to_velocity("score", score, x, 1.0), 8 * (x + score))


@pytest.mark.parametrize(
    ("text", "gap"),
    [("linear", 0), ("trigonometric", 0), ("power", 0), ("ou:horizon=2", math.exp(-2))],
)
def test_source_gap(text: str, gap: float) -> None:
    assert build("path", text).source_gap == pytest.approx(gap, abs=1e-15)


ALMOST = 1 - MARGIN


@pytest.mark.parametrize(
    ("text", "velocity", "data", "noise", "score"),
    [
        ("linear", (0, 1), (0, ALMOST), (MARGIN, 1), (MARGIN, 1)),
        ("trigonometric", (0, 1), (0, ALMOST), (MARGIN, 1), (MARGIN, 1)),
        ("ou", (0, ALMOST), (0, ALMOST), (0, ALMOST), (0, 1)),
        ("linear_beta", (0, ALMOST), (0, ALMOST), (0, ALMOST), (0, 1)),
        ("power", (0, ALMOST), (0, ALMOST), (MARGIN, ALMOST), (MARGIN, 1)),
        ("power:kappa=1", (0, 1), (0, ALMOST), (MARGIN, 1), (MARGIN, 1)),
        ("power:kappa=2", (0, 1), (0, ALMOST), (MARGIN, 1), (MARGIN, 1)),
    ],
)
def test_domains(text: str, velocity: Span, data: Span, noise: Span, score: Span) -> None:
    path = build("path", text)
    assert path.domain == path.output_domain("velocity") == velocity
    assert path.output_domain("data") == data
    assert path.output_domain("noise") == noise
    assert path.output_domain("score") == score


def test_limits_of_the_noise_rate() -> None:
    """sigma sigma' at t = 1, where sigma' alone is infinite."""
    limits = {
        "ou:horizon=3": -3.0,
        "linear_beta": -0.05,
        "power": -0.5,
        "power:kappa=0.75": 0.0,
        "linear": 0.0,
    }
    for text, limit in limits.items():
        assert float(build("path", text).noise_rate(at(1.0))) == pytest.approx(limit, abs=1e-15)


def test_wronskians() -> None:
    t = torch.linspace(0, 1, 5, dtype=torch.float64)
    for path, expected in ((Linear(), -1.0), (Trigonometric(), -math.pi / 2)):
        alpha, sigma, d_alpha, d_sigma = path.coefficients(t, t)
        torch.testing.assert_close(alpha * d_sigma - sigma * d_alpha, torch.full_like(t, expected))


def test_ratio_between_all_places() -> None:
    """An error e of the noise is e W/alpha of the velocity, -e sigma/alpha of the data."""
    path, t = Power(0.75), torch.linspace(0.2, 0.8, 4, dtype=torch.float64)
    alpha, sigma, d_alpha, d_sigma = path.coefficients(t, t)
    wronskian = alpha * d_sigma - sigma * d_alpha
    per_noise = {
        "noise": torch.ones_like(t),
        "score": -1 / sigma,
        "data": -sigma / alpha,
        "velocity": wronskian / alpha,
    }
    for place, a in per_noise.items():
        for output, b in per_noise.items():
            torch.testing.assert_close(path.error_ratio(place, output, t), a / b)  # type: ignore[arg-type]


def test_ratio_is_finite_at_the_source() -> None:
    """Where alpha vanishes, a velocity still tells the data: the ratio is -sigma/W."""
    assert float(Linear().error_ratio("data", "velocity", at(0.0))) == 1.0
    assert float(Linear().error_ratio("noise", "velocity", at(0.0))) == 0.0


def test_unknown_output() -> None:
    x = torch.zeros(1, 2)
    with pytest.raises(UserError, match="unknown output 'x0': known: velocity, data, noise, score"):
        Linear().to_velocity("x0", x, x, 0.5)  # type: ignore[arg-type]


def test_times_keep_float32_in_half_precision() -> None:
    x = torch.ones(2, 3, dtype=torch.bfloat16)
    assert Linear().coefficients(0.3, x)[0].dtype == torch.float32
