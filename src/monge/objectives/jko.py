r"""The JKO objective: a block descends the Kullback-Leibler divergence to the noise.

Block n + 1 minimises over its map T

.. math:: E_{x \sim p_n} \Bigl[ V(T x) - \log |\det \nabla T(x)|
    + \frac{1}{2 \gamma} |T x - x|^2 \Bigr], \qquad V = |x|^2 / 2,

which is :math:`\mathrm{KL}(T_\# p_n \| e^{-V}) + W_2^2 / (2 \gamma)` up to a constant. A free block
leaves out the last term.

References:
    | JKO-iFlow (Xu et al., 2023), Eq. 6, Eq. 8, Prop. 3.1 -- https://arxiv.org/abs/2212.14424
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from monge.couplings import Coupling, Independent
from monge.errors import UserError
from monge.objectives.base import Batch, Loss, Objective
from monge.objectives.chain import BlockPlan, ChainSpec, divergence_by
from monge.objectives.flow_matching import FlowMatching, conditions
from monge.tensors import sum_except_batch
from monge.types import PerExample, State

EXACT_DIM = 2
"""Dimensions up to which the exact trace costs about as much as an estimate."""


@dataclass(frozen=True, repr=False)
class JKOSpec(ChainSpec):
    """A chain of JKO steps.

    Attributes:
        gamma: the size of the first step.
        growth, largest: each step is `growth` times as large as the one before, at most `largest`.
        divergence: exact; hutchinson (random signs), difference (the same by finite differences);
            auto: exact up to two dimensions, else hutchinson.
        probes: random signs for each example.
        jitter: whether the solver's steps begin at random places in training, so that a block
            cannot fit its divergence to them.
    """

    gamma: float = 1.0
    growth: float = 1.0
    largest: float = 10.0
    divergence: Literal["auto", "exact", "hutchinson", "difference"] = "auto"
    probes: int = 1
    jitter: bool = True

    name = "jko"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("gamma", "growth", "largest", "probes"):
            if not getattr(self, name) > 0:
                raise UserError(f"objective jko: {name} must be above 0, not {getattr(self, name)}")

    def size(self, k: int) -> float:
        return min(self.gamma * self.growth**k, self.largest)

    def objective(self, plan: BlockPlan, matching: FlowMatching) -> JKO:
        return JKO(self, plan)


def half_square(x: State) -> PerExample:
    """V = |x|^2 / 2, of the standard normal law, (B,)."""
    return 0.5 * sum_except_batch(x.square())


@dataclass(frozen=True)
class JKO(Objective):
    """The JKO objective of one block, in nats per coordinate; its parts too.

    Attributes:
        spec: of the chain.
        plan: the block; without a size the transport is free.
        potential: V, of any law e^{-V}; its normalisation does not matter.
    """

    spec: JKOSpec
    plan: BlockPlan
    potential: Callable[[State], PerExample] = half_square
    coupling: Coupling = field(default_factory=Independent)

    learns = "chain"

    def draw(self, batch: Batch, rng: torch.Generator, step: int = 0) -> Batch:
        """The batch with the offset of the steps, (B,), and random signs, (B, K, ...), if any."""
        x, drawn = batch["x1"], {**batch}
        if self.spec.jitter and self.spec.block == "ode":
            # One for all rows, as a solver takes it.
            drawn["offset"] = torch.rand(1, generator=rng).expand(len(x)).to(x)
        if not self.exact(x):
            shape = (len(x), self.spec.probes, *x.shape[1:])
            drawn["signs"] = torch.randint(0, 2, shape, generator=rng).to(x) * 2 - 1
        return drawn

    def exact(self, x: State) -> bool:
        """Whether the trace is exact for states like these."""
        how = self.spec.divergence
        residual = self.spec.block == "residual"
        return residual or how == "exact" or (how == "auto" and x[0].numel() <= EXACT_DIM)

    def loss(self, network: nn.Module, batch: Batch) -> Loss:
        x = batch["x1"]
        offset = float(batch["offset"][0]) if "offset" in batch else None
        how = divergence_by(self.spec.divergence)
        block = self.spec.made(network, self.plan.clock, how, offset)
        signs = batch["signs"].transpose(0, 1) if "signs" in batch else None
        y, change = block.transport(x, 1.0, 0.0, conditions(batch), signs)
        change = change if change.ndim == 1 else change.mean(1)
        size, energy = x[0].numel(), self.potential(y)
        parts = {"potential": energy / size, "volume": -change / size}
        total = energy - change
        if self.plan.size is not None:
            moved = sum_except_batch((y - x).square()) / (2 * self.plan.size)
            parts["transport"] = moved / size
            total = total + moved
        return Loss(total / size, parts)
