"""The shapes in the plane and blends of laws, against closed forms found by other means."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import ive, ndtr

from monge.components import build
from monge.errors import UserError
from monge.paths import Linear, Power
from monge.targets.blend import Blend
from monge.targets.densities import Uniform
from monge.targets.gaussian import Gaussian
from monge.targets.mixture import GaussianMixture
from monge.targets.product import Product
from monge.tensors import stream

MEANS = torch.tensor([[0.0, 1.0], [2.0, -1.0], [-1.5, 0.3]], dtype=torch.float64)
WEIGHTS = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)


@pytest.mark.parametrize("path", [Linear(), Power(0.75)], ids=str)
@pytest.mark.parametrize("labelled", [False, True])
def test_a_blend_of_gaussians_is_the_mixture(path, labelled: bool) -> None:
    mixture = GaussianMixture(MEANS, torch.tensor([0.3, 0.04, 0.5]), WEIGHTS)
    parts = [Gaussian(m, torch.tensor(v)) for m, v in zip(MEANS, (0.3, 0.04, 0.5), strict=True)]
    blend = Blend(parts, WEIGHTS, labelled=labelled)
    assert torch.allclose(blend.mean, mixture.mean)
    assert torch.allclose(blend.covariance, mixture.covariance, atol=1e-12)
    x = 2 * torch.randn(40, 2, dtype=torch.float64, generator=stream(0, "x"))
    t = torch.rand(40, dtype=torch.float64, generator=stream(1, "t"))
    label = torch.arange(40) % 4 - 1 if labelled else None
    a, b = blend.at(path), mixture.at(path)
    for name in ("log_density", "velocity", "score", "posterior_mean", "jacobian", "divergence"):
        one, other = (getattr(law, name)(x, t, label) for law in (a, b))
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-9), name


def test_the_checkerboard_has_the_density_of_normal_intervals() -> None:
    law, t = build("target", "checkerboard").build(), 0.7
    x = torch.tensor([[0.3, -1.1], [2.9, 2.4], [-0.01, 0.0], [3.5, -3.0]], dtype=torch.float64)
    alpha, sigma = t, 1 - t
    ends = np.arange(-4, 5, 2.0)
    z = (x.numpy()[..., None] - alpha * ends) / sigma
    left, right = z[..., 1:], z[..., :-1]
    # From the end where both tails are small, so that digits are kept.
    inside = np.where(left > 0, ndtr(-left) - ndtr(-right), ndtr(right) - ndtr(left))
    sides = inside / (2 * alpha)  # (B, 2, 4)
    black = np.add.outer(range(4), range(4)) % 2 == 0
    p = np.einsum("bi,bj,ij->b", sides[:, 0], sides[:, 1], black) / 8
    assert law.at(Linear()).log_density(x, t).numpy() == pytest.approx(np.log(p), abs=1e-10)
    assert law.n_classes is None and not law.smooth
    drawn = law.sample(500, stream(0, "board"))
    cell = ((drawn + 4) / 2).floor().long()
    assert bool(((cell >= 0) & (cell < 4)).all()) and bool((cell.sum(1) % 2 == 0).all())
    # Variance of a coordinate: uniform on [-4, 4], since each side has two black squares.
    assert law.covariance.diagonal().tolist() == pytest.approx([16 / 3] * 2)


def test_a_ring_has_the_density_of_the_integral_around_the_circle() -> None:
    law = build("target", "rings:rings=2,noise=0.15").build()
    rho = torch.tensor([0.0, 0.5, 1.0, 1.2, 2.1, 2.6], dtype=torch.float64)
    x = rho[:, None] * torch.tensor([[math.cos(0.7), math.sin(0.7)]], dtype=torch.float64)
    t = 0.9
    variance = (t * 0.15) ** 2 + (1 - t) ** 2
    rings = [
        ive(0, rho.numpy() * t * r / variance)  # I0 times exp(-|argument|)
        * np.exp(-((rho.numpy() - t * r) ** 2) / (2 * variance))
        / (2 * math.pi * variance)
        for r in (1.0, 2.0)
    ]
    found = law.at(Linear()).log_density(x, t)
    assert found.numpy() == pytest.approx(np.log(sum(rings) / 2), abs=1e-10)
    # At t = 1 the points of the circle are 0.8 deviations apart and cannot be seen.
    at_data = ive(0, 1 / 0.15**2) / (2 * math.pi * 0.15**2) / 2
    angle = torch.linspace(0, 0.5, 9, dtype=torch.float64)
    circle = torch.stack([angle.cos(), angle.sin()], 1)
    found = law.at(Linear()).log_density(circle, 1.0).exp()
    assert found.numpy() == pytest.approx(np.full(9, at_data), rel=1e-9)


def test_moons_and_spirals_lie_where_they_should() -> None:
    moons = build("target", "moons").build()
    # The mean height of n midpoints of a half circle is 1 / (n sin(pi / 2n)).
    n = math.ceil(math.pi / 0.08)
    height = 1 / (n * math.sin(math.pi / (2 * n)))
    assert torch.stack([law.mean for law in moons.laws]).flatten().tolist() == pytest.approx(
        [0.0, height, 1.0, 0.5 - height], abs=1e-7
    )
    x, label = moons.sample_labelled(2000, stream(0, "moons"))
    centre = torch.tensor([[0.0, 0.0], [1.0, 0.5]], dtype=torch.float64)[label]
    off = (x - centre).norm(dim=1) - 1
    assert float(off.std()) == pytest.approx(0.1, rel=0.1) and moons.n_classes == 2
    spirals = build("target", "spirals:arms=3,noise=0.05").build()
    y, arm = spirals.sample_labelled(2000, stream(0, "spirals"))
    u = torch.linspace(0, 1, 999, dtype=torch.float64)
    for k in range(3):
        there = 2 * math.pi * (1.5 * u + k / 3)
        curve = 3 * (0.1 + 0.9 * u)[:, None] * torch.stack([there.cos(), there.sin()], 1)
        off = torch.cdist(y[arm == k], curve).amin(1)
        # Half normal, as the curve is nearly straight over its noise.
        assert float(off.mean()) == pytest.approx(0.05 * (2 / math.pi) ** 0.5, rel=0.1)


def test_eight_gaussians_have_the_moments_of_a_circle() -> None:
    law = build("target", "8gaussians:radius=3,std=0.2").build()
    assert law.mean.tolist() == pytest.approx([0, 0], abs=1e-12) and law.n_classes == 8
    expected = torch.eye(2, dtype=torch.float64) * (9 / 2 + 0.04)
    assert torch.allclose(law.covariance, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "text, message",
    [
        ("moons:noise=0", "noise must be at least 0.01"),
        ("spirals:arms=0", "arms must be 1 to 16"),
        ("spirals:radius=inf", "radius must be positive"),
        ("rings:rings=99", "rings must be 1 to 16"),
        ("8gaussians:std=0", "std must be positive"),
        ("checkerboard:cells=1", "cells must be 2 to 16"),
    ],
)
def test_bad_shapes_are_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build("target", text)


def test_bad_blends_are_refused() -> None:
    with pytest.raises(UserError, match="at least one law"):
        Blend([])
    with pytest.raises(UserError, match="differ in dimension"):
        Blend([Uniform(), Product([Uniform(), Uniform()])])
    with pytest.raises(UserError, match="a weight >= 0"):
        Blend([Uniform(), Uniform()], torch.tensor([1.0, -1.0]))
    pair = Blend([Uniform(), Uniform(2, 3)])
    with pytest.raises(UserError, match="labels 0 to 1"):
        pair.at(Linear()).log_density(torch.zeros(1, 1), 0.5, torch.tensor([2]))
