"""The exact law in the network's seat: what a perfectly trained network would output."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from monge.components import Component
from monge.errors import UserError
from monge.fields import check_time
from monge.paths import Kind, Path
from monge.targets.base import Target, label_of
from monge.types import Cond, State, Time


@dataclass(frozen=True, repr=False)
class ExactSpec(Component):
    """The closed-form velocity, data, noise or score of a known target; nothing is trained."""

    name = "exact"

    def build(self, *_: object) -> nn.Module:
        raise UserError("network exact needs a known target: monge train target:mixture:...")


class ExactNetwork(nn.Module):
    """`net(x, t, cond)` that returns the target's own output of a kind, under a path."""

    name = "exact"

    def __init__(self, target: Target, path: Path, output: Kind) -> None:
        super().__init__()
        self.target, self.path, self.output = target, path, output
        marginals = target.at(path)
        self.closed_form = {
            "velocity": marginals.velocity,
            "data": marginals.posterior_mean,
            "noise": marginals.noise_mean,
            "score": marginals.score,
        }[output]

    @property
    def domain(self) -> tuple[float, float]:
        """Short of t = 1 where the target's velocity is infinite there."""
        return self.target.field(self.path).domain

    def forward(self, x: State, t: Time, cond: Cond = None) -> State:
        check_time(t, self.domain, self.target)
        return self.closed_form(x, t, label_of(cond))
