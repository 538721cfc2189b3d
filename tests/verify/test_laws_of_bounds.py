"""Laws of bounds and errors: where a rate is integrated, and what neither shrinks nor shifts."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from monge.fields import Predict
from monge.flows import Composed, Integrated, LearnedMap
from monge.networks.exact import ExactNetwork
from monge.paths import Linear
from monge.solvers import RK4
from monge.targets.gaussian import Gaussian
from monge.tensors import expand, noise, stream
from monge.times import Uniform
from monge.types import Cond, State
from monge.verification.budget import Known, _velocity, draw
from monge.verification.curves import FieldError, growth_bound
from monge.verification.maps import map_facts
from monge.verification.pipeline import Pipeline
from monge.verification.terms import Term, spread_of, switched


def contracting(x: State, t: object, cond: Cond = None) -> State:
    return -3 * x


@pytest.mark.parametrize("at_end", [False, True])
def test_the_bound_of_a_map_holds_where_the_field_contracts(at_end: bool) -> None:
    """X^_{0,t} = X_{0,t} + d(t): the residual is d' + 3 d, and W2 is |d(1)| exactly."""

    def moved(t: Tensor) -> Tensor:
        # Made in the last tenth of the span, where nothing contracts it any more; or steadily.
        return 2 * (t - 0.9).clamp(min=0) if at_end else 0.2 * t

    def u(x: State, s: Tensor, t: Tensor, cond: Cond = None) -> State:
        end = x * expand((-3 * (t - s)).exp(), x) + expand(moved(t) - moved(s), x)
        return (end - x) / expand(torch.where(t == s, 1e-9, t - s), x)

    flow = Composed(LearnedMap(u))
    reference = Integrated(contracting, RK4(), Uniform(64))
    x0 = noise(0, 0, 200, (1,), "x0").double()
    found = map_facts(flow, reference, x0, None, -3.0, False)
    rate = {True: (2 + 3 * 2 * torch.linspace(0, 0.1, 2001).double(), 0.1)}
    rate[False] = (0.2 + 3 * 0.2 * torch.linspace(0, 1, 2001).double(), 1.0)
    residual, span = rate[at_end]
    expected = span * float(torch.trapezoid(residual.square(), dx=1 / 2000))
    assert found.lagrangian == pytest.approx(expected, rel=0.1)
    assert found.lagrangian_bound >= math.sqrt(found.lagrangian) * (1 - 1e-9)
    assert found.lagrangian_bound >= 0.2  # W2 of the map's law and the flow's: a shift


def one_bin(lo: float, hi: float) -> list[FieldError]:
    return [FieldError(lo, hi, 0.0, 0.0, 0.09, 0.0)]  # a root mean square error of 0.3


@pytest.mark.parametrize("lo", [0.1, 0.4, 0.8])
def test_an_error_grows_from_where_it_is_made_to_the_end(lo: float) -> None:
    times = torch.linspace(0, 1, 21).tolist()
    middle = lo + 0.05
    twice = growth_bound(one_bin(lo, lo + 0.1), times, [2 * t for t in times])
    assert twice == pytest.approx(0.3 * 0.1 * math.exp(1 - middle**2), rel=1e-3)
    # A rate of 4 in the first half of the time and of none in the second one, joined in 0.05.
    early = growth_bound(one_bin(lo, lo + 0.1), times, [4.0 * (t < 0.5) for t in times])
    grown = max(4 * (0.45 - middle), 0) + 4 * 0.05 / 2 if lo < 0.4 else 0.0
    if lo != 0.4:
        assert early == pytest.approx(0.3 * 0.1 * math.exp(grown), rel=1e-2)


def test_an_error_at_the_end_is_not_amplified() -> None:
    times = torch.linspace(0, 1, 11).tolist()
    found = growth_bound(one_bin(0.98, 1.0), times, [2 * t for t in times])
    assert found == pytest.approx(0.3 * 0.02, rel=0.03)


@pytest.mark.parametrize("shift", [0.0, 1000.0])
def test_spread_and_switched_samples_do_not_depend_on_where_the_data_lies(shift: float) -> None:
    x = 0.5 * torch.randn(20_000, 4, generator=stream(0, "spread")).double() + shift
    assert spread_of(x) == pytest.approx(0.5 * 2, rel=0.02)  # s sqrt d
    gap = torch.zeros(10, 4).double()
    gap[:3, 0] = 0.6
    assert switched(gap, spread_of(x)) == pytest.approx(0.3)


def velocity_term(pipeline: Pipeline, known: Known, n: int, seed: int) -> tuple[Term, Tensor]:
    """The term, and the samples of the flow."""
    draws = draw(pipeline, known, None, n, seed)
    z = pipeline.latents(pipeline.reference, draws.x0)
    own = pipeline.data(z)
    return _velocity(pipeline, draws, known, draws.x0, None, own, z, seed), own


def learned(target: Gaussian, off: float) -> Pipeline:
    """A pipeline whose truth is not known and whose samples are `off` away from the data."""
    path = Linear()
    field = Predict(ExactNetwork(target, path, "velocity"), path, "velocity")
    return Pipeline(
        field, path, Integrated(field, RK4(), Uniform(8)), "none", lambda x, _: x, lambda z: z + off
    )


@pytest.mark.slow
def test_the_stated_error_of_an_estimated_velocity_term_is_its_spread() -> None:
    target = Gaussian(torch.zeros(2), torch.tensor(1.0))
    values, errors = [], []
    for k in range(60):
        rng = stream(k, "data")
        made = learned(target, 0.0)
        data = target.sample(200, rng) + 1.0  # samples are apart from the data by (1, 1)
        known = Known(data, train=target.sample(200, rng) + 1.0)
        term, _ = velocity_term(made, known, 200, k)
        values.append(term.value)
        errors.append(term.stderr)
    spread = float(torch.tensor(values).std())
    stated = sum(errors) / len(errors)
    assert spread / 1.5 < stated < 1.5 * spread
    assert sum(values) / len(values) == pytest.approx(math.sqrt(2), rel=0.1)


def test_the_error_of_a_velocity_term_is_that_of_a_jackknife(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a mean in the place of W2, by the same code: its error is s / sqrt n."""
    from monge.verification import budget as module

    def mean(x: Tensor, y: Tensor) -> float:
        return float(x[:, 0].mean()) + 4.0

    monkeypatch.setattr(module, "exact_w2_squared", mean)
    monkeypatch.setattr(module, "_real_floor", lambda *_: 0.0)
    target = Gaussian(torch.zeros(2), torch.tensor(1.0))
    ratios = []
    for k in range(20):
        made = learned(target, 0.0)
        known = Known(target.sample(100, stream(k, "h")), train=target.sample(100, stream(k, "t")))
        term, own = velocity_term(made, known, 100, k)
        ratios.append(2 * term.value * term.stderr / float(own[:, 0].std() / 10))
    assert sum(ratios) / 20 == pytest.approx(1.0, abs=0.15)
