"""The budget against ground truth: exact fields, injected errors, known distances."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from monge.fields import Final, Predict
from monge.flows import Integrated
from monge.networks.exact import ExactNetwork
from monge.paths import Linear, OrnsteinUhlenbeck, Power, Trigonometric
from monge.solvers import RK4, Euler, Heun, Midpoint
from monge.targets.base import Target
from monge.targets.gaussian import Gaussian
from monge.targets.wasserstein import bures
from monge.tensors import stream
from monge.times import Geometric, Uniform
from monge.types import Cond, State, Time
from monge.verification.pipeline import Pipeline
from monge.verification.selftest import (
    GROUPS,
    gaussian,
    measured,
    overlapping,
    pipeline_of,
    term,
)

N = 2000


@pytest.mark.parametrize("group", GROUPS)
def test_what_the_theory_predicts_is_measured(group: str) -> None:
    checks = list(GROUPS[group](False))
    assert len(checks) >= 2
    assert [check.text for check in checks if not check.holds] == []


def test_terms_that_are_absent_are_exactly_zero() -> None:
    target = gaussian(3)
    found = measured(pipeline_of(target, solver=RK4(), steps=40, fine=32), target, N)
    assert all(term(found, k).value == 0 for k in ("guidance", "source", "early stopping"))
    assert term(found, "velocity").value < 1e-6 and term(found, "discretisation").value < 1e-5
    assert term(found, "reconstruction").value == 0
    assert not found.violations


@pytest.mark.parametrize(("mean", "theta"), [((3.0, 4.0), 1.0), ((0.0, 0.0), 0.3)])
def test_a_source_gap_is_what_the_path_leaves(mean: tuple[float, ...], theta: float) -> None:
    """With N(m, I) under OU the flow is a translation, by m (1 - alpha_0) from either start."""
    target = Gaussian(torch.tensor(mean, dtype=torch.float64), torch.tensor(1.0))
    path = OrnsteinUhlenbeck(theta)
    found = measured(
        pipeline_of(target, path=path, solver=RK4(), steps=16, stop=0.999, fine=32), target, N
    )
    alpha, sigma = math.exp(-theta), math.sqrt(1 - math.exp(-2 * theta))
    # E|x0 - (alpha z + sigma x0)|^2 with z ~ N(m, I), d = 2.
    square = sum(m**2 for m in mean)
    expected = math.sqrt(alpha**2 * (square + 2) + 2 * (1 - sigma) ** 2)
    assert term(found, "source").value == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("final", ["none", "divide"])
def test_early_stopping_is_at_least_the_exact_distance(final: Final) -> None:
    """Of Gaussians, for which W2(p_T, p_1) is closed."""
    target, stop = gaussian(2), 0.9
    found = measured(pipeline_of(target, stop=stop, final=final, solver=RK4()), target, N)
    alpha = 1.0 if final == "divide" else stop
    noise = (1 - stop) ** 2 / (stop**2 if final == "divide" else 1) * torch.eye(2).double()
    exact = bures(
        alpha * target.mean, alpha**2 * target.covariance + noise, target.mean, target.covariance
    )
    early = next(t for t in found.terms if t.name == "early stopping")
    assert early.value + 3 * early.stderr >= exact
    assert early.extra is not None and early.extra["along_the_flow"] == pytest.approx(
        exact, rel=0.05
    )
    assert early.extra["along_the_flow"] < early.value, "the flow couples better than noise"


@pytest.mark.parametrize("seed", range(30))
def test_the_sum_bounds_the_distance(seed: int) -> None:
    """In random configurations, at three standard errors: the claim of the budget."""
    found, target, data = configuration(seed)
    result = measured(found, target, 400, seed, data)
    assert result.known and not result.violations


def test_a_sum_that_is_too_small_is_a_violation() -> None:
    """Data of another law than the pipeline is told: no term sees it, the lower bounds do."""
    target = gaussian(2)
    found = measured(pipeline_of(target, fine=32), target, 300, data=lambda z: z + 3.0)
    assert found.sum < 0.1 and len(found.violations) == 2


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(30, 1000))
def test_the_sum_bounds_the_distance_in_more(seed: int) -> None:
    test_the_sum_bounds_the_distance(seed)


def configuration(seed: int) -> tuple[Pipeline, Target, Callable[[Tensor], Tensor]]:
    """A random target, path, output, solver, number of steps, T, final map and decoder."""
    rng = stream(seed, "configuration")

    def pick(*options):  # type: ignore[no-untyped-def]
        return options[int(torch.randint(len(options), (), generator=rng))]

    dim = pick(1, 2, 5)
    target = pick(gaussian, overlapping)(dim)
    path = pick(Linear(), Trigonometric(), OrnsteinUhlenbeck(2.0), Power(0.75))
    output = pick("velocity", "data", "noise", "score")
    exact = Predict(ExactNetwork(target, path, output), path, output)
    eps = pick(0.0, 0.1, 0.5)

    @dataclass(frozen=True)
    class Field:
        domain = exact.domain
        breakpoints = ()

        def __call__(self, x: State, t: Time, cond: Cond = None) -> State:
            return exact(x, t, cond) + eps * torch.sin(3 * x)

    stop = min(pick(0.8, 0.95, 1.0), exact.domain[1])
    final = "none" if stop == 1 else pick("none", "divide", "posterior_mean")
    grid = pick(Uniform(pick(4, 10), stop=stop), Geometric(8, stop=min(stop, 0.99)))
    solver = pick(Euler(), Heun(), Midpoint(), RK4())
    lift = torch.randn(dim, dim + pick(0, 2), generator=rng, dtype=torch.float64)
    back = torch.linalg.pinv(lift)
    shift = pick(0.0, 0.3)  # the decoder reconstructs with an error
    made = Pipeline(
        Field(), path, Integrated(Field(), solver, grid), final,
        lambda x, _: x @ back, lambda z: z @ lift + shift, target, 32,
    )  # fmt: skip
    return made, target, lambda z: z @ lift
