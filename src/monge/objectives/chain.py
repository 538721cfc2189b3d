r"""Chains: flows that are fitted block by block, each on what the earlier ones made of the data.

The settings of a chain are those of its objective, `jko` or `local-flow-matching`. Each makes the
objective of a block; `fitting.chain` fits the blocks one after another.

References:
    | JKO-iFlow (Xu et al., 2023), Alg. 1, Sec. 4 -- https://arxiv.org/abs/2212.14424
    | Local flow matching (Xu et al., 2024), Alg. 1 -- https://arxiv.org/abs/2410.02548
"""

from __future__ import annotations

import abc
import dataclasses
import itertools
import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import nn

from monge.components import Component, build
from monge.errors import UserError
from monge.flows.blocks import Block, NetworkVelocity, ODEBlock, ResidualBlock
from monge.flows.transport import Divergence, by_differences
from monge.objectives.base import Learns, Objective
from monge.objectives.flow_matching import FlowMatching
from monge.solvers import Solver
from monge.types import State

MOST = 8
"""Blocks of a chain whose number is chosen by the stopping rule, at most, without a free one."""


@dataclass(frozen=True)
class BlockPlan:
    """One block of a chain, as it is to be fitted.

    Attributes:
        size: gamma of a JKO step, or the time of an Ornstein-Uhlenbeck step; None for a free block,
            which goes to the noise however far that is.
        clock: which part of its network's time it takes.
    """

    size: float | None
    clock: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if self.size is not None and not 0 < self.size < math.inf:
            raise UserError(f"the size of a block must be positive and finite, not {self.size:g}")


@dataclass(frozen=True, repr=False)
class ChainSpec(Component, abc.ABC):
    """The settings of a chain.

    Attributes:
        blocks: how many, without the free one; none: until the stopping rule says so.
        stop: the rule: E|x - T x|^2 / E|T x|^2 below this.
        free: whether a last block without a limit on its way goes to the noise.
        warm: whether a block starts from the weights of the one before.
        block: ode, the flow of a velocity; residual, x + f(x) with its exact determinant.
        autonomous: whether the velocity of a block is the same at all its times.
        solver, steps: of each block, in training, pushing, sampling and densities alike.
        gradient: backpropagation through all steps of a block, or adjoint: each step is computed
            again for its gradient, which is the same, with the memory of one step.
        diffusion: time of an Ornstein-Uhlenbeck step that the data takes before the first block,
            for data without a density, such as points on a line in the plane. The chain then learns
            the law of the diffused data, which it does not undo.
        reparametrise: rounds that give all blocks the same way, by new sizes.
        eta: by how much a round moves the sizes towards equal ways, in (0, 1].
        refine: rounds that split each block in two.
        merge: rounds that put one block in the place of two neighbours, with the sum of their
            sizes; fewer blocks, each farther from the identity.
    """

    blocks: int | None = None
    stop: float = 0.01
    free: bool = True
    warm: bool = True
    block: Literal["ode", "residual"] = "ode"
    autonomous: bool = False
    solver: str = "rk4"
    steps: int = 3
    gradient: Literal["backpropagation", "adjoint"] = "backpropagation"
    diffusion: float = 0.0
    reparametrise: int = 0
    eta: float = 0.5
    refine: int = 0
    merge: int = 0

    learns: ClassVar[Learns] = "chain"
    teacher: ClassVar[bool] = False

    def __post_init__(self) -> None:
        positive = {"blocks": self.blocks, "steps": self.steps, "stop": self.stop}
        for name, value in positive.items():
            if value is not None and not value > 0:
                raise UserError(f"objective {self.name}: {name} must be above 0, not {value}")
        if not 0 <= self.diffusion < math.inf:
            raise UserError(
                f"objective {self.name}: diffusion must be 0 or a positive time, not "
                f"{self.diffusion:g}"
            )
        if not 0 < self.eta <= 1:
            raise UserError(f"objective {self.name}: eta must lie in (0, 1], not {self.eta}")
        if min(self.reparametrise, self.refine, self.merge) < 0:
            raise UserError(f"objective {self.name}: rounds must not be negative")
        if self.solved.adaptive:
            raise UserError(
                f"objective {self.name}: a block is trained by a solver of fixed steps, not "
                f"{self.solver}; samples can be drawn by --solver {self.solver}"
            )
        if self.block == "residual" and (self.refine or self.autonomous):
            raise UserError(
                f"objective {self.name}: a residual block has no times that could be split or "
                "left out: use block=ode"
            )

    @property
    def solved(self) -> Solver:
        """The solver of a block."""
        return build("solver", self.solver)

    @abc.abstractmethod
    def size(self, k: int) -> float:
        """The size of block k = 0, 1, ..., counted from the data."""

    @abc.abstractmethod
    def objective(self, plan: BlockPlan, matching: FlowMatching) -> Objective:
        """What trains a block."""

    def planned(self) -> list[BlockPlan]:
        """The blocks in the order of fitting, as many as there may be, the free one last."""
        n = MOST if self.blocks is None else self.blocks
        free = [BlockPlan(None)] if self.free else []
        return [BlockPlan(self.size(k)) for k in range(n)] + free

    def made(
        self,
        network: nn.Module,
        clock: tuple[float, float],
        divergence: Divergence | None = None,
        offset: float | None = None,
    ) -> Block:
        """A network as a block; in training with its divergence and the offset of its steps."""
        if self.block == "residual":
            return ResidualBlock(network)
        velocity = NetworkVelocity(network, clock, self.autonomous)
        recompute = self.gradient == "adjoint"
        return ODEBlock(velocity, self.solved, self.steps, divergence, offset, recompute)

    def diffused(self, x: State, rng: torch.Generator) -> State:
        """The data of the first block: x after the Ornstein-Uhlenbeck step of `diffusion`."""
        if not self.diffusion:
            return x
        left, spread = ou_scales(self.diffusion)
        return left * x + spread * torch.randn(x.shape, generator=rng).to(x)


def ou_scales(time: float) -> tuple[float, float]:
    """e^-g and sqrt(1 - e^-2g): what an Ornstein-Uhlenbeck step of time g makes of state, noise."""
    return math.exp(-time), math.sqrt(-math.expm1(-2 * time))


# New sizes


def equalised(sizes: list[float], ways: list[float], eta: float) -> list[float]:
    r"""Sizes moved towards equal ways, with the same sum.

    The cumulated sizes are read as times of a path with the cumulated ways as its length; the new
    times divide the length equally, and eta says how far towards them the old ones are moved.

    Source: JKO-iFlow, Sec. 4.2 (trajectory reparametrisation).

    Args:
        sizes: of the blocks.
        ways: the W2 that each has moved.

    >>> equalised([1.0, 1.0], [3.0, 1.0], 1.0)
    [0.6666666666666666, 1.3333333333333335]
    """
    total, times, lengths = sum(ways), [0.0], [0.0]
    for size, way in zip(sizes, ways, strict=True):
        times.append(times[-1] + size)
        lengths.append(lengths[-1] + way)
    if not total > 0:
        return list(sizes)
    n, found = len(sizes), [0.0]
    for k in range(1, n):
        wanted = total * k / n
        j = max(i for i in range(n) if lengths[i] <= wanted)
        gap = lengths[j + 1] - lengths[j]
        part = (wanted - lengths[j]) / gap if gap > 0 else 0.0
        at = times[j] + part * (times[j + 1] - times[j])
        found.append((1 - eta) * times[k] + eta * at)
    found.append(times[-1])
    return [b - a for a, b in itertools.pairwise(found)]


def halves(plan: BlockPlan) -> list[BlockPlan]:
    """A block of a velocity as two, each with half its size and half its clock.

    The first of them is fitted first: it lies at the data side, with the later half of the clock.
    """
    lo, hi = plan.clock
    middle, size = (lo + hi) / 2, None if plan.size is None else plan.size / 2
    return [BlockPlan(size, (middle, hi)), BlockPlan(size, (lo, middle))]


def unclocked(plan: BlockPlan) -> BlockPlan:
    """The same block on the whole of its network's time."""
    return dataclasses.replace(plan, clock=(0.0, 1.0))


def divergence_by(name: str) -> Divergence | None:
    """How a divergence is computed; None for the cheapest way that is exact to rounding."""
    return by_differences if name == "difference" else None
