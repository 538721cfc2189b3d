"""Laws of the mathematics that a check of shapes, ends or averages lets pass."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from monge.components import build
from monge.flows import Chain, Composed
from monge.networks.transformer import grid_positions
from monge.paths import Path
from monge.targets.base import Target
from monge.targets.gaussian import Gaussian
from monge.targets.mixture import MixtureSpec
from monge.targets.noised import Blurred, Noised
from monge.targets.wasserstein import between_quantiles, early_stopping
from monge.tensors import as_time, expand, stream
from monge.time_pairs import LogitSpans
from monge.times import Uniform
from monge.types import Cond, State, Time

PATHS: list[Path] = [build("path", text) for text in ("linear", "trigonometric", "power:kappa=2")]


def twisted(x: State, s: Time, t: Time, cond: Cond = None) -> State:
    """A map that does not commute between pieces: an Euler jump of a field that depends on time."""
    s, t = as_time(s, x), as_time(t, x)
    return x + expand((t - s) * (1 + 3 * s), x) * (1 + x**2) / 2


@pytest.mark.parametrize("pieces", [3, 5])
def test_rows_with_their_own_times_walk_as_one_does_alone(pieces: int) -> None:
    composed = Composed(twisted, Uniform(pieces))
    rng = stream(0, "walks")
    x = torch.randn(12, 2, generator=rng).double() / 4
    s, t = torch.rand(2, 12, generator=rng).double()
    s[0], t[0] = 0.95, 0.05  # through all pieces backwards
    s[1], t[1] = 0.05, 0.95
    assert (s > t).sum() >= 3 and (s < t).sum() >= 3
    together = composed(x, s, t)
    for i in range(12):
        alone = composed(x[i : i + 1], float(s[i]), float(t[i]))
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-12, atol=1e-12)


class Bent:
    """The exact flow of dx/dt = rate (1 + t) x, on a domain of its own."""

    def __init__(self, rate: float, domain: tuple[float, float]) -> None:
        self.rate, self.domain = rate, domain

    def __call__(self, x: State, s: Time, t: Time, cond: Cond = None) -> State:
        s, t = as_time(s, x), as_time(t, x)
        return x * expand((self.rate * (t - s + (t**2 - s**2) / 2)).exp(), x)


@pytest.mark.parametrize("t", [0.1, 0.4, 0.6, 0.85])
def test_the_velocity_of_a_chain_is_the_difference_of_its_walk(t: float) -> None:
    chain = Chain((Bent(0.7, (0.0, 0.5)), Bent(-0.4, (0.2, 1.0))))
    x, h = torch.randn(5, 2, generator=stream(0, "chain")).double(), 1e-5
    difference = (chain(x, t, t + h) - chain(x, t, t - h)) / (2 * h)
    torch.testing.assert_close(chain.tangent(x, t), difference, rtol=1e-7, atol=1e-9)


def test_given_its_span_the_start_is_uniform() -> None:
    from scipy.stats import kstest

    s, t = LogitSpans(mean=1.0, std=0.7).unit(100_000, stream(0, "spans"))
    assert (t <= 1).all() and (s >= 0).all()
    start = (s.double() / (1 - (t - s).double())).numpy()
    assert kstest(start, "uniform").pvalue > 1e-3
    logit = torch.logit((t - s).double().clamp(1e-6, 1 - 1e-6))
    assert float(logit.mean()) == pytest.approx(1.0, abs=4 * 0.7 / math.sqrt(1e5))


@pytest.mark.parametrize("path", PATHS, ids=repr)
@pytest.mark.parametrize("t", [0.3, 0.5, 0.8])
def test_a_point_mass_divided_by_alpha_is_off_by_the_noise_that_is_left(
    path: Path, t: float
) -> None:
    alpha, sigma = (float(c) for c in path.scales(torch.tensor(t, dtype=torch.float64)))
    point = Gaussian(torch.ones(4).double(), torch.tensor(0.0))
    found = early_stopping(point, path, t, divided=True)
    assert found == pytest.approx(2 * sigma / alpha, rel=1e-9)
    mixture = MixtureSpec(dim=1, modes=2, seed=1).build()
    there: Target = Noised(mixture, 1.0, sigma / alpha)
    expected = between_quantiles(there, mixture)
    assert early_stopping(mixture, path, t, divided=True) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("path", PATHS, ids=repr)
@pytest.mark.parametrize("std", [0.4, 1.5])
def test_the_noise_rate_of_a_blurred_path_is_half_the_rate_of_its_variance(
    path: Path, std: float
) -> None:
    blurred = Blurred(path, 0.7, std)
    t, h = torch.linspace(0.05, 0.95, 13, dtype=torch.float64), 1e-6
    variance = [blurred.scales(t + k)[1].square() for k in (h, -h)]
    half = (variance[0] - variance[1]) / (4 * h)
    torch.testing.assert_close(blurred.noise_rate(t), half, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("grid", [(3, 5), (4, 2)])
def test_positions_tell_rows_from_columns(grid: tuple[int, int]) -> None:
    found = grid_positions(grid, 16)
    gaps = torch.cdist(found, found).fill_diagonal_(torch.inf)
    assert float(gaps.min()) > 1e-3
    parts: tuple[Tensor, ...] = found.reshape(*grid, 2, 8).unbind(2)
    for axis, part in enumerate(parts):
        across = part.movedim(axis, 0)
        assert torch.equal(across, across[:, :1].expand_as(across))
        assert float((across[1:] - across[:-1]).norm(dim=-1).min()) > 1e-3
