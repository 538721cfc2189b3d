"""Exact JKO steps and Ornstein-Uhlenbeck blocks, against printed numbers and other methods."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from monge.errors import UserError
from monge.targets.gaussian import Gaussian, GaussianSpec
from monge.targets.jko import (
    AffineStep,
    LineLaw,
    distance,
    distance_to_normal,
    divergence_to_normal,
    evolution_slack,
    jko_step,
    line_jko_step,
    line_law,
    line_moved,
    ou_step,
    plateau,
    steps_needed,
    steps_of,
)
from monge.targets.mixture import GaussianMixture

ROSE = [0.25 * 1.4**k for k in range(8)]
"""The step sizes of the published two-dimensional example."""

# 0.3 N(-2, 0.16) + 0.7 N(1.5, 0.36): convex Newton on a grid of 40,000 nodes, by another program.
MIXTURE_KL = {
    0.5: [1.05978, 0.23723, 0.06107, 0.01829, 0.00619, 0.00230, 0.00091],
    1.0: [1.05978, 0.09982, 0.01302, 0.00226, 0.00047, 0.00011, 0.00003],
}
MIXTURE_VARIANCE = {
    0.5: [2.8725, 1.8137, 1.3831, 1.1865, 1.0921, 1.0458, 1.0228],
    1.0: [2.8725, 1.4880, 1.1524, 1.0499, 1.0165, 1.0055, 1.0018],
}


def gaussian(mean: float, variance: float) -> Gaussian:
    return Gaussian(torch.tensor([mean]), torch.tensor([variance]))


def mixture() -> GaussianMixture:
    means, variances = torch.tensor([[-2.0], [1.5]]), torch.tensor([0.16, 0.36])
    return GaussianMixture(means, variances, torch.tensor([0.3, 0.7]))


def test_the_printed_sequence_of_a_gaussian() -> None:
    steps = steps_of(jko_step, gaussian(2.0, 0.25), [0.5] * 4)
    found = [divergence_to_normal(law) for law in (steps[0].before, *(s.after for s in steps))]
    assert found == pytest.approx([2.31815, 0.94798, 0.40827, 0.17872, 0.07880], abs=5e-6)
    assert [float(s.after.mean) for s in steps] == pytest.approx(
        [1.33333, 0.88889, 0.59259, 0.39506], abs=5e-6
    )
    assert [float(s.after.covariance) for s in steps] == pytest.approx(
        [0.58920, 0.78743, 0.89208, 0.94565], abs=5e-6
    )


def test_the_printed_step_of_the_reference_configuration() -> None:
    law = Gaussian(torch.zeros(2), torch.tensor([[7.0, 5.0], [5.0, 7.0]]))
    variances = torch.linalg.eigvalsh(jko_step(law, 10.0).after.covariance)
    assert variances.tolist() == pytest.approx([1.04022, 1.26301], abs=5e-6)


def test_the_printed_end_of_the_schedule_of_the_rose() -> None:
    last = steps_of(jko_step, gaussian(0.0, 4.0), ROSE)[-1].after
    assert float(last.covariance) == pytest.approx(1.00065, abs=5e-6)
    assert divergence_to_normal(last) == pytest.approx(1.1e-7, rel=0.05)
    assert float(steps_of(jko_step, gaussian(1.0, 1.0), ROSE)[-1].after.mean) == pytest.approx(
        0.0049, abs=5e-5
    )


@pytest.mark.parametrize("gamma", [0.3, 0.5, 3.0])
def test_a_gaussian_step_is_the_minimum_of_its_functional(gamma: float) -> None:
    law = GaussianSpec(dim=2, condition=30, shift=1.5, seed=3).build()
    exact = jko_step(law, gamma)

    def functional(numbers: np.ndarray) -> float:
        mean, factor = torch.tensor(numbers[:2]), torch.tensor(numbers[2:]).reshape(2, 2)
        after = Gaussian(mean, factor @ factor.T + 1e-12 * torch.eye(2))
        return divergence_to_normal(after) + distance(law, after) ** 2 / (2 * gamma)

    start = np.concatenate([law.mean.numpy(), np.eye(2).ravel()])
    found = minimize(functional, start, method="BFGS")
    factor = torch.tensor(found.x[2:]).reshape(2, 2)
    assert found.x[:2] == pytest.approx(exact.after.mean.numpy(), abs=1e-4)
    torch.testing.assert_close(factor @ factor.T, exact.after.covariance, atol=2e-4, rtol=0)
    value = divergence_to_normal(exact.after) + exact.moved**2 / (2 * gamma)
    assert value <= found.fun + 1e-9


@pytest.mark.parametrize("step", [jko_step, ou_step])
def test_the_map_of_a_block_carries_its_law(step) -> None:
    law = GaussianSpec(dim=5, condition=20, seed=1).build()
    block: AffineStep = step(law, 0.4)
    x = law.sample(7, torch.Generator().manual_seed(0))
    torch.testing.assert_close(block(law.mean[None])[0], block.after.mean)
    torch.testing.assert_close(block.matrix @ law.covariance @ block.matrix, block.after.covariance)
    jacobian = torch.autograd.functional.jacobian(lambda z: block(z[None])[0], x[0])
    assert float(torch.linalg.slogdet(jacobian)[1]) == pytest.approx(block.log_abs_det)
    # An affine optimal map moves a law by the distance between the two.
    excess = (block.matrix - torch.eye(5)) @ law.covariance @ (block.matrix - torch.eye(5))
    moved = float(excess.trace() + (block.after.mean - law.mean).square().sum())
    assert block.moved**2 == pytest.approx(moved)


def test_an_ornstein_uhlenbeck_block_has_the_law_of_its_pair() -> None:
    after = ou_step(gaussian(3.0, 4.0), math.log(2)).after
    assert float(after.mean) == pytest.approx(1.5)
    assert float(after.covariance) == pytest.approx(0.25 * 4.0 + 0.75)


@pytest.mark.parametrize(("step", "size"), [(jko_step, 2.0), (ou_step, 0.8)])
def test_many_blocks_compose_to_the_whitening_map(step, size: float) -> None:
    law = GaussianSpec(dim=3, condition=40, shift=2.0, seed=5).build()
    x = law.sample(6, torch.Generator().manual_seed(1))
    y = x
    for block in steps_of(step, law, [size] * 40):
        y = block(y)
    variances, axes = torch.linalg.eigh(law.covariance)
    white = (x - law.mean) @ (axes @ torch.diag(variances.rsqrt()) @ axes.T)
    torch.testing.assert_close(y, white, atol=1e-8, rtol=0)


@pytest.mark.parametrize("gamma", [0.2, 0.5, 1.0, 5.0])
@pytest.mark.parametrize("law", [gaussian(2.0, 0.25), gaussian(0.0, 4.0), gaussian(0.3, 0.01)])
def test_the_inequality_and_the_contraction_hold_for_gaussians(law: Gaussian, gamma: float) -> None:
    step = jko_step(law, gamma)
    before, after = distance_to_normal(law), distance_to_normal(step.after)
    kl = divergence_to_normal(step.after)
    assert evolution_slack(before, after, step.moved, kl, gamma) >= -1e-12
    assert kl <= divergence_to_normal(law) / (1 + gamma) ** 2 + 1e-12
    # Something that moves nothing is no step.
    assert evolution_slack(before, before, 0.0, divergence_to_normal(law), gamma) < 0


def test_a_shift_attains_the_contraction() -> None:
    law = gaussian(3.0, 1.0)
    ratio = divergence_to_normal(jko_step(law, 0.7).after) / divergence_to_normal(law)
    assert ratio == pytest.approx(1.7**-2)


def test_a_free_step_ends_at_the_limit() -> None:
    after = jko_step(GaussianSpec(dim=4, seed=2).build(), math.inf).after
    assert divergence_to_normal(after) == pytest.approx(0.0, abs=1e-12)


@pytest.fixture(scope="module", params=[0.5, 1.0])
def on_the_line(request: pytest.FixtureRequest) -> tuple[float, list[LineLaw]]:
    laws = [line_law(mixture())]
    for _ in range(6):
        laws.append(line_jko_step(laws[-1], request.param))
    return request.param, laws


def test_the_printed_sequence_of_the_mixture(on_the_line: tuple[float, list[LineLaw]]) -> None:
    gamma, laws = on_the_line
    assert [law.kl for law in laws] == pytest.approx(MIXTURE_KL[gamma], abs=6e-6)
    assert [law.variance for law in laws] == pytest.approx(MIXTURE_VARIANCE[gamma], abs=1.1e-4)


def test_the_exact_identities_hold_on_the_mixture(on_the_line: tuple[float, list[LineLaw]]) -> None:
    gamma, laws = on_the_line
    for before, after in itertools.pairwise(laws):
        assert after.mean == pytest.approx(before.mean / (1 + gamma), abs=1e-12)
        x, y, mass = before.nodes, after.nodes, before.mass
        assert float(mass @ (y.square() + y * (y - x) / gamma)) == pytest.approx(1.0, abs=1e-12)


def test_the_inequality_holds_on_the_mixture(on_the_line: tuple[float, list[LineLaw]]) -> None:
    gamma, laws = on_the_line
    for before, after in itertools.pairwise(laws):
        away = before.distance_to_normal, after.distance_to_normal, line_moved(before, after)
        assert evolution_slack(*away, after.kl, gamma) > 0
        assert after.kl < before.kl / (1 + gamma) ** 2
    left = (1 + gamma) * laws[1].distance_to_normal ** 2 + 2 * gamma * laws[1].kl
    left += line_moved(laws[0], laws[1]) ** 2
    assert left == pytest.approx({0.5: 0.8845, 1.0: 0.8865}[gamma], abs=5e-5)
    assert laws[0].distance_to_normal ** 2 == pytest.approx(0.9491, abs=5e-5)


def test_the_line_agrees_with_the_closed_form() -> None:
    law = gaussian(2.0, 0.25)
    found, exact = line_jko_step(line_law(law), 0.5), jko_step(law, 0.5).after
    assert found.kl == pytest.approx(divergence_to_normal(exact), abs=1e-6)
    assert found.variance == pytest.approx(float(exact.covariance), abs=1e-6)
    assert found.distance_to_normal == pytest.approx(distance_to_normal(exact), abs=1e-6)


def test_a_first_order_error_leaves_a_floor() -> None:
    """Steps whose residual is a constant b end at distance |b|, below the bound 2 |b|."""
    error, gamma, law = 0.05, 0.5, gaussian(2.0, 0.25)
    for _ in range(60):
        exact = jko_step(law, gamma).after
        # grad V + grad log p - (x - y) / gamma of a shifted step is the shift times 1 + 1/gamma.
        shift = error / (1 + 1 / gamma)
        law = Gaussian(exact.mean + shift, exact.covariance)
    assert distance_to_normal(law) ** 2 == pytest.approx(error**2, rel=1e-6)
    assert distance_to_normal(law) ** 2 <= plateau(error)


def test_the_number_of_steps_grows_with_the_logarithm_of_the_error() -> None:
    errors = [10.0**-k for k in range(1, 6)]
    needed = [steps_needed(2.0, error, 0.5) for error in errors]
    gaps = np.diff(needed)
    expected = 2 * math.log(10) / math.log(1.25)
    assert all(abs(gap - expected) <= 1 for gap in gaps)
    assert steps_needed(1.0, 2.0, 0.5) == 0


@pytest.mark.parametrize("gamma", [0.5, 1.0])
def test_exact_steps_reach_an_error_in_logarithmically_many(gamma: float) -> None:
    """N = a + log(1/error) / log(1 + gamma), over three decades: the mean is the slowest."""
    law = GaussianSpec(dim=5, condition=10, shift=1.0, seed=6).build()
    errors, needed, n = [10 ** (-1 - k / 4) for k in range(13)], [], 0
    for error in errors:
        while distance_to_normal(law) > error:
            law, n = jko_step(law, gamma).after, n + 1
        needed.append(n)
    slope, start = np.polyfit(-np.log(errors), needed, 1)
    assert slope == pytest.approx(1 / math.log1p(gamma), rel=0.05)
    assert np.abs(np.polyval([slope, start], -np.log(errors)) - needed).max() <= 1
    bound = [steps_needed(8.0, error, gamma) for error in errors]
    assert all(few <= many for few, many in zip(needed, bound, strict=True))


@pytest.mark.parametrize("size", [0.0, -1.0, math.nan])
def test_sizes_that_are_none_are_refused(size: float) -> None:
    with pytest.raises(UserError, match="greater than 0"):
        jko_step(gaussian(0.0, 1.0), size)
    with pytest.raises(UserError, match="greater than 0"):
        line_jko_step(line_law(gaussian(0.0, 1.0), 101), size)


def test_laws_without_an_exact_step_are_refused() -> None:
    with pytest.raises(UserError, match="not singular"):
        jko_step(gaussian(0.0, 0.0), 0.5)
    with pytest.raises(UserError, match="on the line"):
        line_law(GaussianSpec(dim=2).build())
