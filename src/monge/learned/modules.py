"""Networks as modules with only tensors as inputs, for export."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from monge.flows import MeanVelocity
from monge.flows.blocks import ODEBlock
from monge.paths import Path
from monge.tensors import expand
from monge.types import Time


def _named(names: tuple[str, ...], given: tuple[Tensor, ...]) -> dict[str, Tensor] | None:
    """Conditions by their names; None without any."""
    return dict(zip(names, given, strict=True)) or None


class _Conditioned(nn.Module):
    """A network, the quantity that it outputs, and the names of its conditions after the times."""

    def __init__(
        self, net: nn.Module, path: Path, output: Any, conditions: tuple[str, ...]
    ) -> None:
        super().__init__()
        self.net, self.path, self.output, self.conditions = net, path, output, conditions

    def cond(self, given: tuple[Tensor, ...]) -> dict[str, Tensor] | None:
        return _named(self.conditions, given)


class Walked(nn.Module):
    """Noise x at t = 0 carried to latents at t = 1 by blocks, each with its solver and steps."""

    def __init__(
        self, net: nn.Module, blocks: Sequence[ODEBlock], conditions: tuple[str, ...]
    ) -> None:
        super().__init__()
        self.net, self.conditions = net, conditions  # the net holds the weights of the blocks
        # The knots are numbers before anything is traced.
        self.steps = [(b.velocity, b.solver, list(pairwise(b.flow.knots))) for b in blocks]

    def forward(self, x: Tensor, *given: Tensor) -> Tensor:
        cond = _named(self.conditions, given)
        for velocity, solver, spans in self.steps:

            def rates(y: tuple[Tensor, ...], u: Time, _: Any, v: Any = velocity) -> Any:
                return (v(y[0], u, cond),)

            for start, end in spans:
                (x,) = solver.advance(rates, (x,), start, end)
        return x


class Velocity(_Conditioned):
    """v(x, t, *conditions)."""

    def forward(self, x: Tensor, t: Tensor, *given: Tensor) -> Tensor:
        return self.path.to_velocity(self.output, self.net(x, t, self.cond(given)), x, t)


class Jump(_Conditioned):
    """X(x, s, t, *conditions): the state at time t of x at time s, in one evaluation."""

    def forward(self, x: Tensor, s: Tensor, t: Tensor, *given: Tensor) -> Tensor:
        u = MeanVelocity(self.net, self.path, self.output)
        return x + expand(t - s, x) * u(x, s, t, self.cond(given))
