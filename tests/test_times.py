"""The law of training times against scipy's, and grids against their formulas."""

from __future__ import annotations

import itertools

import pytest
import scipy.stats
import torch

from monge.components import build
from monge.tensors import stream
from monge.times import Geometric, LogitNormalTimes, Shifted, TimeLaw, Uniform, UniformTimes


def logit_normal(mean: float, std: float):
    return lambda t: scipy.stats.norm(mean, std).cdf(scipy.special.logit(t))


@pytest.mark.parametrize(
    ("law", "cdf"),
    [
        (UniformTimes(), lambda t: t),
        (LogitNormalTimes(), logit_normal(0.0, 1.0)),
        (LogitNormalTimes(-1.2, 0.4), logit_normal(-1.2, 0.4)),
    ],
    ids=("uniform", "logit-normal", "logit-normal-narrow"),
)
def test_law(law: TimeLaw, cdf) -> None:
    for lo, hi in ((0.0, 1.0), (0.001, 0.999)):
        t = law.draw(5000, (lo, hi), stream(0, "t")).double().numpy()
        assert scipy.stats.kstest((t - lo) / (hi - lo), cdf).pvalue > 0.01


def test_quantiles_of_the_logit_normal() -> None:
    """Quartiles 1 / (1 + e^(0.6745)) and its mirror image; median 1/2."""
    t = LogitNormalTimes().draw(200_000, (0.0, 1.0), stream(0, "t")).double()
    found = t.quantile(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64))
    assert found.tolist() == pytest.approx([0.33748, 0.5, 0.66252], abs=2e-3)


def test_uniform_grid() -> None:
    assert Uniform(4).points() == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert Uniform(2, stop=0.9).points() == pytest.approx((0.0, 0.45, 0.9))
    assert Uniform(1).points() == (0.0, 1.0)


def test_shifted_grid() -> None:
    """1 - t = 3/4, 1/2, 1/4 become 9/10, 3/4, 1/2 by s r / (1 + (s-1) r), s = 3."""
    assert Shifted(4).points() == pytest.approx((0.0, 0.1, 0.25, 0.5, 1.0), abs=1e-15)
    assert Shifted(7, shift=1.0).points() == pytest.approx(Uniform(7).points(), abs=1e-15)


def test_shifted_grid_is_that_of_diffusers() -> None:
    """Its noise levels are FlowMatchEulerDiscreteScheduler's: sigma -> s sigma/(1+(s-1) sigma)."""
    sigma = torch.linspace(1, 0, 11, dtype=torch.float64)
    expected = 1 - 5 * sigma / (1 + 4 * sigma)
    found = torch.tensor(Shifted(10, shift=5.0).points(), dtype=torch.float64)
    torch.testing.assert_close(found, expected)


def test_geometric_grid() -> None:
    points = Geometric(2).points()
    assert points == pytest.approx((0.0, 0.9, 0.99), abs=1e-15)
    rest = [1 - t for t in Geometric(9, stop=0.999).points()]
    ratios = [b / a for a, b in itertools.pairwise(rest)]
    assert ratios == pytest.approx([10 ** (-1 / 3)] * 9, rel=1e-9)


@pytest.mark.parametrize("text", ["uniform", "shifted", "geometric"])
@pytest.mark.parametrize("n", [1, 2, 50, 1000])
def test_ends_are_exact(text: str, n: int) -> None:
    for stop in (0.999, 0.7):
        points = build("grid", f"{text}:n={n},stop={stop}").points()
        assert len(points) == n + 1 and points[0] == 0.0 and points[-1] == stop
        assert all(a < b for a, b in itertools.pairwise(points))
