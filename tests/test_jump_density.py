"""The density of a map's jumps is that of what they make, not of the flow that they approximate."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from monge.errors import UserError
from monge.flows import Composed, LearnedMap
from monge.flows.jump_density import jump_log_density
from monge.networks.mlp import MLPSpec
from monge.paths import Linear
from monge.targets.gaussian import Gaussian, GaussianSpec
from monge.targets.mixture import MixtureSpec
from monge.tensors import expand, stream
from monge.times import Uniform
from monge.types import Cond, FlowMap, State

PATH = Linear()


def learned(exact: FlowMap, factor: float = 1.0) -> LearnedMap:
    """An exact map in a network's seat, its ends stretched where s is not t."""

    def u(x: State, s: Tensor, t: Tensor, cond: Cond = None) -> State:
        end = exact(x, s, t) * (1 + (factor - 1) * expand(t - s, x))
        # At s = t the mean velocity is the velocity: by a difference, good enough for a start.
        late = torch.where(t == s, t + 1e-4 * torch.where(t > 0.5, -1.0, 1.0), t)
        velocity = (exact(x, s, late) - x) / expand(late - s, x)
        there = expand(t == s, x)
        return torch.where(there, velocity, (end - x) / expand(torch.where(t == s, 1.0, t - s), x))

    return LearnedMap(u)


@pytest.mark.parametrize("jumps", [1, 3])
@pytest.mark.parametrize(
    "target", [GaussianSpec(dim=3, condition=10.0).build(), MixtureSpec(dim=1, modes=3).build()]
)
def test_exact_jumps_have_the_density_of_the_target(target, jumps: int) -> None:
    x = target.sample(200, stream(0, "x"))
    flow = Composed(learned(target.flow_map(PATH)), Uniform(jumps))
    found = jump_log_density(flow, x)
    torch.testing.assert_close(found.value, target.at(PATH).log_density(x, 1.0), atol=1e-7, rtol=0)


def test_wrong_jumps_have_their_own_density_and_not_that_of_their_velocity() -> None:
    """One jump to c times N(m, S): the law N(c m, c^2 S)."""
    mean, c = torch.tensor([1.0, -2.0]).double(), 1.3
    covariance = torch.tensor([[2.0, 0.3], [0.3, 0.5]]).double()
    target = Gaussian(mean, covariance)
    reached = Gaussian(c * mean, c**2 * covariance)
    x = reached.sample(200, stream(0, "x"))
    flow = Composed(learned(target.flow_map(PATH), c), Uniform(1))
    expected = reached.at(PATH).log_density(x, 1.0)
    torch.testing.assert_close(jump_log_density(flow, x).value, expected, atol=1e-7, rtol=0)
    of_velocity = target.at(PATH).log_density(x, 1.0)
    assert (of_velocity - expected).abs().mean() > 0.1


def test_the_density_of_a_network_integrates_to_one() -> None:
    """An untrained network's small jump, in float64: its density over a fine grid."""
    network = MLPSpec(width=16, depth=1, two_times=True).build((2,), rng=stream(0, "net")).double()
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=stream(1, "p"), dtype=p.dtype))
    flow = Composed(LearnedMap(lambda x, s, t, cond: network(x, t, cond, s)), Uniform(2))
    line = torch.linspace(-7, 7, 141, dtype=torch.float64)
    x = torch.cartesian_prod(line, line)
    found = jump_log_density(flow, x).value
    assert bool(found.isfinite().all())
    assert float(found.exp().sum() * 0.1**2) == pytest.approx(1, abs=1e-6)


def test_where_space_is_folded_nothing_is_made_up() -> None:
    """y = x^2 reaches no negative number: NaN there, and the density of one branch elsewhere."""

    def u(x: State, s: Tensor, t: Tensor, cond: Cond = None) -> State:
        return torch.where(expand(s == t, x), 0.5 * torch.ones_like(x), x.square() - x)

    flow = Composed(LearnedMap(u), Uniform(1))
    y = torch.tensor([[-1.0], [1.0], [4.0]]).double()
    found = jump_log_density(flow, y).value
    assert found.isnan().tolist() == [True, False, False]
    x = y[1:].sqrt()
    expected = -0.5 * x.square() - 0.5 * torch.log(torch.tensor(2 * torch.pi)) - (2 * x).log()
    torch.testing.assert_close(found[1:], expected[:, 0])


def test_large_states_are_refused() -> None:
    flow = Composed(LearnedMap(lambda x, s, t, cond: x), Uniform(1))
    with pytest.raises(UserError, match="512 coordinates at most"):
        jump_log_density(flow, torch.zeros(2, 3, 32, 32))
