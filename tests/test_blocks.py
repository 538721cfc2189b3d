"""Blocks of a chain: images, changes of volume and inverses, against closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from monge.errors import UserError
from monge.flows.block_walk import BlockWalk, round_trip
from monge.flows.blocks import Block, NetworkVelocity, ODEBlock, Offset, ResidualBlock
from monge.flows.integrated import Integrated
from monge.flows.transport import by_differences, transported
from monge.networks.mlp import MLPSpec
from monge.objectives.chain import BlockPlan, equalised, halves
from monge.solvers import RK3, RK4, Euler, Heun, Solver
from monge.targets.gaussian import Gaussian, GaussianSpec
from monge.targets.jko import jko_step, steps_of
from monge.tensors import stream, value_and_divergence
from monge.times import Uniform
from monge.types import Cond, State, Time

HALVED: dict[str, Block] = {
    # From the data to the noise both halve: N(0, 4) becomes N(0, 1).
    "ode": ODEBlock(lambda x, t, cond=None: math.log(2) * x, RK4(), 24),
    "residual": ResidualBlock(lambda x, t, cond=None: -0.5 * x),
}


def states(n: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randn(n, dim, generator=stream(seed, "states"), dtype=torch.float64)


def mlp(dim: int = 2, n_classes: int | None = None, n_vector: int = 0, **settings) -> nn.Module:
    spec = MLPSpec(width=16, depth=2, time_scale=20, **settings)
    made = spec.build((dim,), n_classes, n_vector, stream(0, "weights"))
    rng = stream(1, "weights")
    for p in made.parameters():
        nn.init.normal_(p, std=0.15, generator=rng)
    return made.double().eval()


@pytest.mark.parametrize("block", HALVED.values(), ids=HALVED)
def test_the_sign_of_the_change_of_volume(block: Block) -> None:
    x = states(5, 3)
    y, change = block.transport(x, 1.0, 0.0)
    torch.testing.assert_close(y, x / 2, rtol=1e-7, atol=0)
    torch.testing.assert_close(change, torch.full((5,), -3 * math.log(2)).double())
    back, grown = block.transport(y, 0.0, 1.0)
    torch.testing.assert_close(back, x, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(grown, torch.full((5,), 3 * math.log(2)).double())


@pytest.mark.parametrize("block", HALVED.values(), ids=HALVED)
def test_the_density_of_a_wide_normal_law(block: Block) -> None:
    x = states(6, 1)
    walk = BlockWalk((block,), RK4(), 24)
    wide = torch.distributions.Normal(0.0, 2.0).log_prob(x[:, 0])
    torch.testing.assert_close(walk.log_density(x).value, wide)
    assert not walk.log_density(x).stderr.any()


@pytest.mark.parametrize("given", ["nothing", "labels", "conditions"])
@pytest.mark.parametrize("clock", [(0.0, 1.0), (0.25, 0.5)])
@pytest.mark.parametrize("autonomous", [False, True])
@pytest.mark.parametrize("probes", [None, 1, 3])
def test_a_network_in_one_pass_is_forward_mode(
    given: str, clock: tuple[float, float], autonomous: bool, probes: int | None
) -> None:
    net = mlp(3, 4 if given == "labels" else None, 2 if given == "conditions" else 0)
    cond: Cond = None
    if given == "labels":
        cond = {"label": torch.tensor([0, 3, -1, 2, 1])}
    elif given == "conditions":
        cond = {"vector": states(5, 2, 7)}
    x, signs = states(5, 3), None
    if probes is not None:
        signs = torch.randint(0, 2, (probes, 5, 3), generator=stream(2, "signs")) * 2.0 - 1
        signs = signs.double()
    flow = Integrated(NetworkVelocity(net, clock, autonomous), RK4(), Uniform(2))
    found = []
    for how in (None, value_and_divergence):
        net.zero_grad()
        y, change = transported(flow, x, 1.0, 0.0, cond, signs, how)
        (y.sin().sum() + change.square().sum()).backward()
        gradient = torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])
        found.append((y.detach(), change.detach(), gradient))
    for fast, slow in zip(*found, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-12)
    assert found[0][2].norm() > 0.1


def test_the_trace_of_one_pass_is_that_of_the_jacobian() -> None:
    net, x = mlp(3), states(1, 3)
    velocity = NetworkVelocity(net)
    together = velocity.prepared(None)
    assert together is not None
    jacobian = torch.autograd.functional.jacobian(lambda z: net(z[None], 0.3, None)[0], x[0])
    value, divergence = (part.detach() for part in together(x, 0.3, None))
    torch.testing.assert_close(value, net(x, 0.3, None).detach())
    assert float(divergence[0]) == pytest.approx(float(jacobian.trace()), rel=1e-9)
    sign = torch.tensor([[[1.0, -1.0, 1.0]]]).double()
    form = sign[0, 0] @ jacobian @ sign[0, 0]
    assert float(together(x, 0.3, sign)[1][0, 0].detach()) == pytest.approx(float(form), rel=1e-9)


def test_a_network_with_dropout_in_training_has_no_divergence() -> None:
    net = mlp(2, dropout=0.5).train()
    block = ODEBlock(NetworkVelocity(net))
    with pytest.raises(UserError, match="dropout"):
        block.transport(states(3, 2), 1.0, 0.0)


# Hutchinson


def matrix(dim: int, seed: int) -> Tensor:
    return torch.randn(dim, dim, generator=stream(seed, "matrix"), dtype=torch.float64)


@pytest.mark.parametrize("signs", [True, False])
def test_the_variance_of_hutchinsons_estimator(signs: bool) -> None:
    """Random signs have 2 (|A_s|^2 - sum a_ii^2), Gaussian probes 2 |A_s|^2."""
    a, n = matrix(5, 3), 40_000
    rng = stream(4, "probes")
    draws = torch.randn(1, n, 5, generator=rng, dtype=torch.float64)
    probes = draws.sign() if signs else draws
    flow = Integrated(lambda x, t, cond=None: x @ a.T, RK4(), Uniform(3))
    _, change = transported(flow, torch.zeros(n, 5).double(), 0.0, 1.0, None, probes)
    symmetric = (a + a.T) / 2
    expected = 2 * float(symmetric.square().sum() - signs * a.diagonal().square().sum())
    assert float(change.mean()) == pytest.approx(float(a.trace()), abs=5 * (expected / n) ** 0.5)
    assert float(change.var()) == pytest.approx(expected, rel=0.05)


def test_probes_stay_the_same_along_a_walk() -> None:
    """Of a linear field the estimate is then the quadratic form itself."""
    a, x = matrix(4, 5), states(3, 4)
    signs = torch.randint(0, 2, (2, 3, 4), generator=stream(6, "signs")).double() * 2 - 1
    flow = Integrated(lambda z, t, cond=None: z @ a.T, RK4(), Uniform(5))
    _, change = transported(flow, x, 1.0, 0.0, None, signs)
    form = torch.einsum("kbi,ij,kbj->bk", signs, a, signs)
    torch.testing.assert_close(change, -form)


def test_finite_differences_err_by_the_square_of_the_spacing() -> None:
    net, x = mlp(3), states(4, 3)
    signs = torch.tensor([[1, 1, 1], [1, 1, -1], [1, -1, 1], [1, -1, -1]]).double()
    signs = torch.cat([signs, -signs])[:, None].expand(8, 4, 3)  # all of them: the exact trace
    velocity = NetworkVelocity(net)
    f: Callable[[State], State] = lambda z: velocity(z, 0.4)  # noqa: E731
    _, exact = value_and_divergence(f, x)
    value, estimates = by_differences(f, x, signs)
    torch.testing.assert_close(value, f(x))
    torch.testing.assert_close(estimates.mean(1), exact, rtol=0, atol=1e-4)
    assert (estimates[:, :4] - estimates[:, 4:]).abs().max() > 1e-4  # the odd term of one sign


# Order


def law_of_a_curved_field() -> Callable[[State, Time, Cond], State]:
    return lambda x, t, cond=None: torch.sin(2 * x) * (1 + t) + 0.5 * x


@pytest.mark.parametrize("solver", [Euler(), Heun(), RK3(), RK4()], ids=repr)
def test_densities_converge_at_the_order_of_the_solver(solver: Solver) -> None:
    x, field = states(8, 2), law_of_a_curved_field()
    counts, errors = (8, 16, 32), []
    exact = BlockWalk((ODEBlock(field, RK4(), 100),) * 2, RK4(), 100).log_density(x).value
    for n in counts:
        walk = BlockWalk((ODEBlock(field, solver, n),) * 2, solver, n)
        errors.append(float((walk.log_density(x).value - exact).abs().mean()))
    slope = np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert -slope == pytest.approx(solver.order, abs=0.3)


def test_the_way_back_undoes_the_way_there_up_to_the_solver() -> None:
    x, field = states(8, 2), law_of_a_curved_field()
    errors = []
    for n in (2, 8):
        walk = BlockWalk((ODEBlock(field, RK4(), n),) * 2, RK4(), n)
        errors.append(float(round_trip(walk, x)))
    assert 0 < errors[1] < errors[0] / 100


def test_steps_that_begin_elsewhere() -> None:
    assert Offset(4, offset=0.25).points() == pytest.approx((0, 1 / 12, 5 / 12, 3 / 4, 1))
    x, field = states(4, 2), law_of_a_curved_field()
    blocks = [ODEBlock(field, RK4(), 12, offset=u) for u in (None, 0.2, 0.7)]
    found = [float(block.transport(x, 1.0, 0.0)[1].sum()) for block in blocks]
    assert len(set(found)) == 3  # other places,
    exact = float(ODEBlock(field, RK4(), 100).transport(x, 1.0, 0.0)[1].sum())
    assert found == pytest.approx([exact] * 3, abs=2e-3)  # the same integral


# Residual blocks


class Bent(nn.Module):
    """x + 0.4 sin(x R): a bijection that is no optimal transport."""

    def __init__(self, size: float = 0.4) -> None:
        super().__init__()
        self.size, self.turn = size, matrix(3, 9)

    def forward(self, x: State, t: Time, cond: Cond = None) -> State:
        return self.size * torch.sin(x @ (self.turn / self.turn.norm()))


def test_a_residual_block_has_the_determinant_of_its_jacobian() -> None:
    block, x = ResidualBlock(Bent()), states(4, 3)
    y, change = block.transport(x, 1.0, 0.0)
    for row in range(4):
        jacobian = torch.autograd.functional.jacobian(lambda z: block(z[None], 1.0, 0.0)[0], x[row])
        assert float(change[row]) == pytest.approx(float(torch.linalg.slogdet(jacobian)[1]))
    again, back = block.transport(y, 0.0, 1.0)
    torch.testing.assert_close(again, x, atol=1e-9, rtol=0)
    torch.testing.assert_close(back, -change, atol=1e-8, rtol=0)
    _, spread = block.transport(x, 1.0, 0.0, None, torch.ones(2, 4, 3).double())
    torch.testing.assert_close(spread, change[:, None].expand(-1, 2))


def test_a_fold_has_no_density() -> None:
    block = ResidualBlock(lambda x, t, cond=None: -3.0 * torch.tanh(x))
    _, change = block.transport(torch.tensor([[0.0], [3.0]]).double(), 1.0, 0.0)
    assert change[0] == -math.inf and change[1].isfinite()


@pytest.mark.parametrize("times", [(0.5, 0.0), (1.0, 0.25), (torch.tensor([0.0, 1.0]), 1.0)])
def test_a_residual_block_has_no_times_between(times: tuple[Time, Time]) -> None:
    with pytest.raises(UserError, match="times 0 and 1 alone"):
        ResidualBlock(Bent())(states(2, 3), *times)


def test_a_determinant_of_many_dimensions_is_refused() -> None:
    with pytest.raises(UserError, match="up to 16 dimensions"):
        ResidualBlock(lambda x, t, cond=None: x).transport(states(2, 17), 1.0, 0.0)


# Chains


class Affine(nn.Module):
    """The velocity whose flow from 1 to 0 is an exact affine step; x moves on straight lines."""

    def __init__(self, matrix: Tensor, before: Tensor, after: Tensor) -> None:
        super().__init__()
        self.log = torch.linalg.eigh(matrix)
        self.before, self.after = before, after

    def forward(self, x: State, t: Time, cond: Cond = None) -> State:
        # In eigendirections e^{(1 - t) log s}; the centre moves from before to after.
        values, axes = self.log
        centre = self.after + (self.before - self.after) * t
        return -((x - centre) @ axes * values.log()) @ axes.T + (self.before - self.after)


def test_a_chain_of_exact_steps_has_the_density_of_its_law() -> None:
    law = GaussianSpec(dim=3, condition=8, shift=1.0, seed=4).build()
    steps = steps_of(jko_step, law, [0.5, 1.0, math.inf])
    fitted = [ODEBlock(Affine(s.matrix, s.before.mean, s.after.mean), RK4(), 12) for s in steps]
    walk = BlockWalk(tuple(reversed(fitted)), RK4(), 12)
    x = law.sample(6, stream(8, "x"))
    exact = torch.distributions.MultivariateNormal(law.mean, law.covariance).log_prob(x)
    torch.testing.assert_close(walk.log_density(x).value, exact, atol=1e-6, rtol=0)
    # Every prefix has the density of a law that is nearer to the noise than the one before.
    pushed = list(walk.pushed(x))
    for (y, _), step, start in zip(pushed, steps, [x, *(y for y, _ in pushed)], strict=False):
        torch.testing.assert_close(y, step(start), atol=1e-7, rtol=0)
    z = torch.randn(4000, 3, generator=stream(9, "z"), dtype=torch.float64)
    drawn = walk(z, 0.0, 1.0)
    assert (drawn.mean(0) - law.mean).abs().max() < 5 * float(law.covariance.max() / 4000) ** 0.5
    sampled = Gaussian(drawn.mean(0), drawn.T.cov())
    assert (sampled.covariance - law.covariance).abs().max() < 0.1 * float(law.covariance.max())


def test_probes_of_blocks_are_their_own() -> None:
    a = matrix(3, 11)
    block = ODEBlock(lambda x, t, cond=None: x @ a.T, RK4(), 3)
    walk, x = BlockWalk((block, block), RK4(), 3), states(400, 3)
    one = BlockWalk((block,), RK4(), 3).log_density(x, probes=2)
    two = walk.log_density(x, probes=2)
    exact = walk.log_density(x).value
    miss = (two.value - exact).std()
    alone = (one.value - BlockWalk((block,), RK4(), 3).log_density(x).value).std()
    assert float(miss / alone) == pytest.approx(2**0.5, rel=0.15)  # apart: variances add up
    assert float((two.value - exact).abs().mean()) > 0


def test_halves_compose_to_the_block() -> None:
    net, x = mlp(2), states(5, 2)
    whole = ODEBlock(NetworkVelocity(net), RK4(), 6)
    parts = halves(BlockPlan(1.0))
    assert [p.size for p in parts] == [0.5, 0.5]
    assert [p.clock for p in parts] == [(0.5, 1.0), (0.0, 0.5)]
    y, total = x, torch.zeros(5).double()
    for part in parts:  # in the order of fitting: the data side first
        y, change = ODEBlock(NetworkVelocity(net, part.clock), RK4(), 3).transport(y, 1.0, 0.0)
        total = total + change
    expected, change = whole.transport(x, 1.0, 0.0)
    torch.testing.assert_close(y, expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(total, change, atol=1e-12, rtol=0)


def test_equalised_sizes_divide_the_way() -> None:
    # Speed 4 on [0, 1] and 1 on [1, 2]: half of the way 5 is gone at 0.625.
    assert equalised([1.0, 1.0], [4.0, 1.0], 1.0) == pytest.approx([0.625, 1.375])
    assert equalised([1.0, 1.0], [4.0, 1.0], 0.5) == pytest.approx([0.8125, 1.1875])
    assert equalised([0.2, 0.5, 1.3], [1.0, 1.0, 1.0], 1.0) == pytest.approx([0.2, 0.5, 1.3])
    assert sum(equalised([0.3, 0.6, 0.9], [5.0, 0.1, 2.0], 0.7)) == pytest.approx(1.8)
    assert equalised([1.0, 2.0], [0.0, 0.0], 1.0) == [1.0, 2.0]


def test_the_adjoint_has_the_gradient_of_backpropagation_and_the_memory_of_a_step() -> None:
    net, x = mlp(3), states(64, 3)
    signs = torch.randint(0, 2, (2, 64, 3), generator=stream(0, "signs")).double() * 2 - 1

    def taken(steps: int, recompute: bool) -> tuple[list[Tensor], int]:
        block = ODEBlock(NetworkVelocity(net), RK4(), steps, recompute=recompute)
        start, stored = x.clone().requires_grad_(), 0

        def pack(kept: Tensor) -> Tensor:
            nonlocal stored
            stored += kept.numel()
            return kept

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept):
            y, change = block.transport(start, 1.0, 0.0, None, signs)
        loss = (y.square().sum(1) - change.mean(1)).mean()
        return list(
            torch.autograd.grad(loss, [start, *net.parameters()], allow_unused=True)
        ), stored

    (plain, much), (again, little) = taken(6, False), taken(6, True)
    for a, b in zip(plain, again, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)
    assert little < much / 10
