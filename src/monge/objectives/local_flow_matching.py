r"""Local flow matching: a block is a flow matching between a law and its Ornstein-Uhlenbeck law.

With x drawn from p_n and z standard normal, the block's source is

.. math:: x_0 = e^{-g} x + \sqrt{1 - e^{-2 g}}\, z ,

paired with x itself. Nothing is integrated in training. The last block is free: its source is z.

References:
    | Local flow matching (Xu et al., 2024), Sec. 3, Alg. 1 -- https://arxiv.org/abs/2410.02548
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from monge.couplings import Coupling, source_like
from monge.errors import UserError
from monge.flows.blocks import NetworkVelocity
from monge.objectives.base import Batch, Loss, Objective
from monge.objectives.chain import BlockPlan, ChainSpec, ou_scales
from monge.objectives.flow_matching import FlowMatching


@dataclass(frozen=True, repr=False)
class LocalFlowMatchingSpec(ChainSpec):
    """A chain of Ornstein-Uhlenbeck steps, each learned by flow matching.

    Attributes:
        time: of the first step.
        growth, largest: each step is `growth` times as long as the one before, at most `largest`.
    """

    steps: int = 8
    time: float = 0.25
    growth: float = 1.5
    largest: float = 2.0

    name = "local-flow-matching"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("time", "growth", "largest"):
            if not getattr(self, name) > 0:
                raise UserError(
                    f"objective {self.name}: {name} must be above 0, not {getattr(self, name)}"
                )
        if self.block != "ode":
            raise UserError(f"objective {self.name} learns a velocity: use block=ode")

    def size(self, k: int) -> float:
        return min(self.time * self.growth**k, self.largest)

    def objective(self, plan: BlockPlan, matching: FlowMatching) -> LocalFlowMatching:
        return LocalFlowMatching(self, plan, matching)


@dataclass(frozen=True)
class LocalFlowMatching(Objective):
    """The flow matching of one block.

    Attributes:
        spec: of the chain.
        plan: the block; without a size its source is the noise.
        matching: the path, the coupling (of a free block) and the times.
    """

    spec: LocalFlowMatchingSpec
    plan: BlockPlan
    matching: FlowMatching

    learns = "chain"

    @property
    def coupling(self) -> Coupling:  # type: ignore[override]
        """How noise and data are joined in a free block."""
        return self.matching.coupling

    def draw(self, batch: Batch, rng: torch.Generator, step: int = 0) -> Batch:
        if self.plan.size is None:
            return self.matching.draw(batch, rng)
        x, (left, spread) = batch["x1"], ou_scales(self.plan.size)
        x0 = left * x + spread * source_like(x, rng)
        return self.matching.draw({**batch, "x0": x0}, rng)

    def loss(self, network: nn.Module, batch: Batch) -> Loss:
        velocity = NetworkVelocity(network, self.plan.clock, self.spec.autonomous)
        return self.matching.loss(velocity, batch)
