"""What an objective holds constant: seen in its gradient alone, never in its value."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from monge.components import build
from monge.objectives.flow_map import ADAPTIVE_FLOOR, FlowMapMatching
from monge.objectives.flow_matching import FlowMatching
from monge.objectives.rules.base import Rows, Rule
from monge.paths import Linear
from monge.targets.gaussian import GaussianSpec
from monge.tensors import expand, stream
from monge.types import Cond, State

FIXED = [
    f"{name}{',' if ':' in name else ':'}clip=0"
    for name in (
        "eulerian:stop=full",
        "lagrangian:stop=full",
        "self-eulerian:stop=full",
        "self-lagrangian:stop=full",
        "shortcut",
        "continuous-consistency",
    )
]
"""Rules whose residual is a difference from one fixed target."""


class Small(nn.Module):
    """u = W x + (s, t) terms, smooth in all."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.3 * torch.randn(3, 3, generator=stream(0, "w")).double())
        self.time = nn.Parameter(torch.tensor([0.2, -0.4]).double())

    def forward(self, x: State, t: Tensor, cond: Cond = None, s: Tensor | None = None) -> State:
        start = t if s is None else s
        clock = self.time[0] * start + self.time[1] * t
        return torch.tanh(x @ self.weight) + expand(clock, x)


def made(text: str, weight: str = "none") -> tuple[FlowMapMatching, dict[str, Tensor]]:
    rule = build("objective", f"{text},weight={weight}")
    target = GaussianSpec(dim=3, condition=5.0).build()
    teacher = target.field(Linear()) if rule.teacher else None
    objective = FlowMapMatching(rule, FlowMatching(path=Linear()), teacher=teacher)
    batch = objective.draw({"x1": target.sample(8, stream(0, "x1"))}, stream(0, "draw"))
    return objective, {k: x.double() if x.is_floating_point() else x for k, x in batch.items()}


def gradient(value: Tensor, network: nn.Module) -> Tensor:
    parts = torch.autograd.grad(value, list(network.parameters()), retain_graph=True)
    return torch.cat([p.flatten() for p in parts])


def test_the_adaptive_weight_is_a_constant_of_the_gradient() -> None:
    network = Small()
    plain, batch = made("eulerian:clip=0")
    weighted, _ = made("eulerian:clip=0", "adaptive")
    squared = plain.loss(network, batch).per_example
    losses = weighted.loss(network, batch).per_example
    for k in range(8):
        expected = gradient(squared[k], network) / (float(squared[k].detach()) + ADAPTIVE_FLOOR)
        torch.testing.assert_close(gradient(losses[k], network), expected)


@pytest.mark.parametrize("text", FIXED)
def test_a_fixed_target_is_a_constant_of_the_gradient(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, seen = Small(), []
    original = Rows.towards

    def witnessed(self: Rows, u: State, target: State) -> State:
        seen.append((u, target.detach().clone()))
        return original(self, u, target)

    monkeypatch.setattr(Rows, "towards", witnessed)
    objective, batch = made(text)
    rule: Rule = objective.rule
    on = batch["s"] == batch["t"]
    loss = objective.loss(network, batch).per_example[~on].sum()
    assert len(seen) == 1, rule
    u, target = seen[0]
    assert u.requires_grad
    direct = (2 * (u.detach() - target) * u).flatten(1).mean(1).sum()
    torch.testing.assert_close(gradient(loss, network), gradient(direct, network))
    assert gradient(loss, network).norm() > 1e-6


def test_no_gradient_goes_through_what_a_residual_is_taken_towards() -> None:
    objective, batch = made("eulerian:clip=0")
    at = objective._rows(Small(), batch)
    u = torch.randn(8, 3, generator=stream(0, "u")).double().requires_grad_()
    target = torch.randn(8, 3, generator=stream(0, "target")).double().requires_grad_()
    at.towards(u, target).square().sum().backward()
    assert target.grad is None
    torch.testing.assert_close(u.grad, 2 * (u - target).detach())
