"""The objectives of blocks: their values and minima, against exact steps."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from monge.components import build
from monge.errors import UserError
from monge.objectives.chain import BlockPlan, ChainSpec
from monge.objectives.flow_matching import FlowMatching
from monge.objectives.jko import JKO, JKOSpec
from monge.objectives.local_flow_matching import LocalFlowMatching, LocalFlowMatchingSpec
from monge.paths import Linear, Trigonometric
from monge.targets.gaussian import Gaussian, GaussianSpec
from monge.targets.jko import distance, divergence_to_normal, jko_step, ou_step
from monge.tensors import stream
from monge.types import Cond, State, Time


class Linearly(nn.Module):
    """x -> x W^T + b."""

    def __init__(self, matrix: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.matrix, self.shift = nn.Parameter(matrix), nn.Parameter(shift)

    def forward(self, x: State, t: Time, cond: Cond = None) -> State:
        return x @ self.matrix.T + self.shift


def law_of(dim: int) -> Gaussian:
    return GaussianSpec(dim=dim, condition=6, shift=1.0, seed=2).build()


def exactly(law: Gaussian, n: int) -> Tensor:
    """n states whose mean and covariance are those of the law, to rounding."""
    z = torch.randn(n, law.dim, generator=stream(0, "z"), dtype=torch.float64)
    z = z - z.mean(0)
    z = z @ torch.linalg.inv(torch.linalg.cholesky(z.T @ z / n)).T
    return law.mean + z @ torch.linalg.cholesky(law.covariance).T


@pytest.mark.parametrize("gamma", [0.5, 2.0, None])
def test_the_exact_step_of_a_gaussian_is_the_minimum(gamma: float | None) -> None:
    law = law_of(3)
    step = jko_step(law, math.inf if gamma is None else gamma)
    matrix = step.matrix
    shift = step.after.mean - matrix @ law.mean
    network = Linearly(matrix - torch.eye(3), shift)
    objective = JKO(JKOSpec(block="residual"), BlockPlan(gamma))
    loss = objective.loss(network, {"x1": exactly(law, 50)})
    value = loss.per_example.mean()
    value.backward()
    assert network.matrix.grad is not None and network.shift.grad is not None
    assert network.matrix.grad.abs().max() < 1e-10 and network.shift.grad.abs().max() < 1e-10
    # Up to the entropy of the law: KL + W2^2 / (2 gamma), per coordinate.
    entropy = 0.5 * float(torch.logdet(2 * math.pi * math.e * law.covariance))
    expected = divergence_to_normal(step.after) + entropy - 1.5 * math.log(2 * math.pi)
    if gamma is not None:
        expected += distance(law, step.after) ** 2 / (2 * gamma)
    assert float(value.detach()) == pytest.approx(expected / 3, rel=1e-9)


def test_the_parts_add_up_to_the_loss() -> None:
    network = Linearly(torch.full((2, 2), 0.1), torch.ones(2))
    batch = {"x1": torch.randn(4, 2, generator=stream(1, "x"))}
    loss = JKO(JKOSpec(), BlockPlan(0.5)).loss(network, batch)
    assert set(loss.parts) == {"potential", "volume", "transport"}
    torch.testing.assert_close(sum(loss.parts.values()), loss.per_example)  # type: ignore[arg-type]
    free = JKO(JKOSpec(), BlockPlan(None)).loss(network, batch)
    assert set(free.parts) == {"potential", "volume"}
    gap = loss.per_example - free.per_example
    torch.testing.assert_close(gap, loss.parts["transport"])


@pytest.mark.parametrize("block", ["ode", "residual"])
def test_a_potential_of_another_law(block: str) -> None:
    """Towards N(m, I) a free step of N(0, I) is the shift by m: there the gradient vanishes."""
    target = Gaussian(torch.tensor([1.0, -2.0]), torch.eye(2))
    law = target.at(Linear())

    def potential(x: State) -> Tensor:
        return -law.log_density(x, 1.0)

    spec = JKOSpec(block=block, divergence="exact")  # type: ignore[arg-type]
    objective = JKO(spec, BlockPlan(None), potential)
    toward = target.mean if block == "residual" else -target.mean  # a velocity points to the data
    network = Linearly(torch.zeros(2, 2).double(), toward.clone())
    batch = {"x1": exactly(Gaussian(torch.zeros(2), torch.eye(2)), 40)}
    loss = objective.loss(network, batch).per_example.mean()
    loss.backward()
    assert network.shift.grad is not None and network.matrix.grad is not None
    assert network.shift.grad.abs().max() < 1e-9 and network.matrix.grad.abs().max() < 1e-9
    entropy = math.log(2 * math.pi * math.e)
    assert float(loss.detach()) == pytest.approx(entropy / 2, rel=1e-9)


@pytest.mark.parametrize("how", ["auto", "hutchinson", "exact", "difference"])
def test_every_divergence_has_the_same_mean(how: str) -> None:
    """Over all signs, Hutchinson's estimate is the exact trace."""
    dim = 2
    spec = JKOSpec(divergence=how, probes=4, jitter=False)  # type: ignore[arg-type]
    objective = JKO(spec, BlockPlan(1.0))
    network = Linearly(torch.tensor([[0.3, 0.8], [-0.5, 0.1]]).double(), torch.zeros(2).double())
    x = torch.randn(3, dim, generator=stream(2, "x"), dtype=torch.float64)
    batch = objective.draw({"x1": x}, stream(3, "draw"))
    assert ("signs" in batch) == (how in ("hutchinson", "difference"))
    if "signs" in batch:
        assert batch["signs"].shape == (3, 4, 2) and set(batch["signs"].unique().tolist()) == {
            -1,
            1,
        }
        every = torch.tensor([[1, 1], [1, -1], [-1, 1], [-1, -1]]).double()
        batch = {**batch, "signs": every.expand(3, 4, 2)}
    loss = objective.loss(network, batch).per_example
    exact = JKO(JKOSpec(divergence="exact"), BlockPlan(1.0)).loss(network, {"x1": x}).per_example
    torch.testing.assert_close(loss, exact, rtol=1e-9, atol=1e-9)


def test_large_states_are_estimated_by_default() -> None:
    objective = JKO(JKOSpec(), BlockPlan(1.0))
    assert "signs" in objective.draw({"x1": torch.zeros(2, 3)}, stream(0, "draw"))
    assert "signs" not in objective.draw({"x1": torch.zeros(2, 2)}, stream(0, "draw"))


def test_steps_begin_at_random_places_in_training() -> None:
    objective, x = JKO(JKOSpec(), BlockPlan(1.0)), torch.ones(5, 2)
    offsets = [objective.draw({"x1": x}, stream(k, "draw"))["offset"] for k in range(20)]
    assert all(len(o) == 5 and len(o.unique()) == 1 for o in offsets)
    values = torch.stack([o[0] for o in offsets])
    assert 0 <= values.min() < 0.3 and 0.7 < values.max() < 1
    assert "offset" not in JKO(JKOSpec(jitter=False), BlockPlan(1.0)).draw(
        {"x1": x}, stream(0, "d")
    )

    class Peaks(nn.Module):
        """Its divergence is large and negative near the times that fixed steps look at."""

        def forward(self, x: State, t: Time, cond: Cond = None) -> State:
            return -3 * math.cos(6 * 2 * math.pi * float(t)) * x

    def mean(jitter: bool) -> float:
        spec = JKOSpec(jitter=jitter, divergence="exact")
        made = JKO(spec, BlockPlan(None))
        draws = [made.draw({"x1": x}, stream(k, "draw")) for k in range(40)]
        found = [made.loss(Peaks(), d).parts["volume"].mean() for d in draws]
        return float(torch.stack(found).mean())

    assert mean(False) == pytest.approx(-3.0)  # a gain that there is not: the integral is 0
    assert abs(mean(True)) < 0.6


def test_sizes_grow_up_to_the_largest() -> None:
    spec = JKOSpec(gamma=0.25, growth=1.4, largest=0.9, blocks=5)
    sizes = [plan.size for plan in spec.planned()]
    assert sizes[:5] == pytest.approx([0.25, 0.35, 0.49, 0.686, 0.9])
    assert sizes[5:] == [None]
    assert len(JKOSpec().planned()) == 9 and len(JKOSpec(free=False, blocks=2).planned()) == 2


# Local flow matching


def test_the_source_of_a_block_is_its_ornstein_uhlenbeck_law() -> None:
    objective = LocalFlowMatching(LocalFlowMatchingSpec(), BlockPlan(0.7), FlowMatching())
    x = torch.full((200_000, 1), 2.0)
    x0 = objective.draw({"x1": x}, stream(0, "draw"))["x0"]
    left = math.exp(-0.7)
    assert float(x0.mean()) == pytest.approx(2 * left, abs=0.01)
    assert float(x0.var()) == pytest.approx(1 - left**2, rel=0.02)
    free = LocalFlowMatching(LocalFlowMatchingSpec(), BlockPlan(None), FlowMatching())
    x0 = free.draw({"x1": x}, stream(0, "draw"))["x0"]
    assert float(x0.mean()) == pytest.approx(0, abs=0.01)
    assert float(x0.var()) == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize("path", [Linear(), Trigonometric()], ids=repr)
def test_the_regression_of_a_gaussian_ends_at_the_exact_block(path) -> None:
    """The velocity that minimises the loss in each slice of time is linear; its flow is the block.

    On the line, with variances l and l' and covariance e^{-g} l of the pair.
    """
    g, variance = 0.6, 4.0
    objective = LocalFlowMatching(
        LocalFlowMatchingSpec(time=g), BlockPlan(g), FlowMatching(path=path)
    )
    x = exactly(Gaussian(torch.zeros(1), torch.tensor([variance])), 400_000).float()
    drawn = objective.draw({"x1": x}, stream(5, "draw"))
    times = torch.linspace(0.02, 0.98, 25, dtype=torch.float64)
    rates = []
    for t in times.tolist():
        xt, v = path.interpolate(
            drawn["x0"].double(), drawn["x1"].double(), torch.tensor(t).double()
        )
        rates.append(float((xt * v).mean() / xt.square().mean()))
    # d log of the deviation along the flow is that rate: from the noise side to the data side.
    growth = float(torch.trapezoid(torch.tensor(rates).double(), times)) / 0.96
    exact = ou_step(Gaussian(torch.zeros(1), torch.tensor([variance])), g)
    assert growth == pytest.approx(-exact.log_abs_det, rel=0.02)


def test_the_loss_is_flow_matching_of_the_pair() -> None:
    objective = LocalFlowMatching(LocalFlowMatchingSpec(), BlockPlan(0.5), FlowMatching())
    batch = objective.draw({"x1": torch.ones(6, 2)}, stream(0, "draw"))
    network = Linearly(torch.zeros(2, 2), torch.tensor([1.0, 2.0]))
    expected = (torch.tensor([1.0, 2.0]) - (batch["x1"] - batch["x0"])).square().mean(1)
    torch.testing.assert_close(objective.loss(network, batch).per_example, expected)


# Settings


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("jko:gamma=0", "gamma must be above 0"),
        ("jko:growth=-1", "growth must be above 0"),
        ("jko:stop=nan", "stop must be above 0"),
        ("jko:eta=2", "eta must lie in"),
        ("jko:refine=-1", "rounds must not be negative"),
        ("jko:solver=dopri5", "fixed steps"),
        ("jko:block=residual,refine=1", "no times that could be split"),
        ("jko:blocks=0", "blocks must be above 0"),
        ("local-flow-matching:time=0", "time must be above 0"),
        ("local-flow-matching:block=residual", "learns a velocity"),
        ("jko:gama=1", "no setting 'gama'"),
    ],
)
def test_settings_that_mean_nothing_are_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build("objective", text)


@pytest.mark.parametrize("text", ["jko", "local-flow-matching"])
def test_the_objectives_are_components(text: str) -> None:
    spec = build("objective", text)
    assert isinstance(spec, ChainSpec) and repr(spec) == text
    assert build("objective", spec.in_full) == spec


@pytest.mark.parametrize("text", ["jko", "local-flow-matching"])
def test_the_diffusion_before_the_first_block_is_an_ornstein_uhlenbeck_step(text: str) -> None:
    x = torch.full((20000, 2), 3.0, dtype=torch.float64)
    spec: ChainSpec = build("objective", f"{text}:diffusion=0.2")
    y = spec.diffused(x, stream(0, "diffusion"))
    assert float((y.mean(0) - 3 * math.exp(-0.2)).abs().max()) < 0.02
    variance = 1 - math.exp(-0.4)
    assert float((y.T.cov() - variance * torch.eye(2)).abs().max()) < 0.02
    assert build("objective", text).diffused(x, stream(0, "diffusion")) is x
    with pytest.raises(UserError, match="diffusion must be 0 or a positive time"):
        build("objective", f"{text}:diffusion=-1")
