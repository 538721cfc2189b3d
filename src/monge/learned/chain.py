"""A learned chain: blocks fitted one after another from data to noise, sampled in reverse."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from monge.components import Component, build
from monge.errors import UserError
from monge.fields import Counted
from monge.flows import Density, Walk
from monge.flows.block_walk import BlockWalk
from monge.flows.blocks import Block, NetworkVelocity, ODEBlock, ResidualBlock
from monge.learned.base import JUMPS, Learned, Program, Settings, with_settings
from monge.learned.modules import Walked
from monge.networks.exact import ExactSpec
from monge.networks.stack import Stack
from monge.objectives.base import Objective
from monge.objectives.chain import BlockPlan, ChainSpec
from monge.objectives.flow_matching import FlowMatching
from monge.paths import Linear, Path
from monge.times import Uniform
from monge.types import Cond, Latent, State, VelocityField

BLOCKS = "blocks"
"""The key of the finished blocks in a run's facts."""


@dataclass(frozen=True)
class ChainObjective(Objective):
    """The objective of a chain: it has no loss, but makes the objective of each block.

    Attributes:
        spec: the settings of the chain.
        matching: the path, coupling and times of the run.
    """

    spec: ChainSpec
    matching: FlowMatching

    learns = "chain"

    @property
    def coupling(self):  # type: ignore[override]
        """The coupling of noise and data."""
        return self.matching.coupling

    def of(self, plan: BlockPlan) -> Objective:
        """The objective of a block."""
        return self.spec.objective(plan, self.matching)

    def first_trained(self) -> Objective:
        return self.of(self.spec.planned()[0])

    def draw(self, batch: Any, rng: torch.Generator, step: int = 0) -> Any:
        raise NotImplementedError("a chain is trained block by block, by `of`")

    def loss(self, network: nn.Module, batch: Any) -> Any:
        raise NotImplementedError("a chain is trained block by block, by `of`")


@dataclass(frozen=True)
class LearnedChain(Learned):
    """Blocks from noise to data, each with its own network.

    Attributes:
        network: the networks in the order of fitting; the first one is at the data.
        plans: the settings of each block.
        spec: the settings of the chain.
        conditional: whether it takes labels or conditions.
    """

    network: Stack  # type: ignore[assignment]
    plans: tuple[BlockPlan, ...]
    spec: ChainSpec
    conditional: bool = False
    path: Path = field(default_factory=Linear)

    title = "chain of latent flow blocks"
    summary = (
        "A generative model that was fitted block by block with `monge`: an autoencoder maps data "
        "to a latent space, each block carries the output of the earlier blocks nearer "
        "to noise, and samples go back through the blocks. Every prefix of the chain has a density."
    )
    who = "chain"
    cheapest = "euler"
    default_steps = 3
    on_path = False
    eager = "each block of a chain would be compiled anew"

    @classmethod
    def check(cls, settings: Settings, teacher: bool) -> None:
        super().check(settings, teacher)
        spec: ChainSpec = build("objective", settings.objective)
        if teacher:
            raise UserError(f"objective {spec.name} has no teacher: use monge chain SOURCE")
        if settings.guidance != 1:
            raise UserError("a chain is sampled without guidance: leave out --guidance")
        if settings.output != "velocity":
            raise UserError(
                f"the networks of a chain output a velocity, not {settings.output}: leave out "
                "--output"
            )
        if build("path", settings.path).source_gap:
            raise UserError(
                f"path {settings.path} does not begin at its source: use linear or trigonometric "
                "for the blocks of a chain"
            )

    @classmethod
    def default_network(cls, network: str, few: str) -> str:
        # Slow times, so that few steps of a solver suffice; no dropout, since all stages of a
        # step must use the same network.
        return with_settings(network, "time_scale=20")

    @classmethod
    def network_of(cls, component: Component, settings: Settings) -> Component:
        if isinstance(component, ExactSpec):
            raise UserError("network exact is not trained: choose another for a chain")
        return component

    @classmethod
    def objective(
        cls, settings: Settings, matching: FlowMatching, teacher: Learned | None
    ) -> ChainObjective:
        # A block is fitted on conditional outputs of earlier blocks, so no label is dropped.
        matching = dataclasses.replace(matching, label_drop=0.0)
        return ChainObjective(build("objective", settings.objective), matching)

    @classmethod
    def build(cls, make: Callable[[], nn.Module], facts: Mapping[str, Any]) -> nn.Module:
        return Stack([make() for _ in facts.get(BLOCKS, ())])

    @classmethod
    def restored(
        cls,
        network: nn.Module,
        settings: Settings,
        facts: Mapping[str, Any],
        conditional: bool,
        teacher: Callable[[], Learned] | None,
    ) -> LearnedChain:
        plans = [
            BlockPlan(b["size"], (float(b["clock"][0]), float(b["clock"][1])))
            for b in facts.get(BLOCKS, ())
        ]
        spec = build("objective", settings.objective)
        return cls(cast("Stack", network), tuple(plans), spec, conditional)

    def first(self, n: int) -> LearnedChain:
        """The chain of the first n blocks from the data.

        Raises:
            UserError: there are fewer blocks.
        """
        if not 1 <= n <= len(self.plans):
            known = len(self.plans)
            raise UserError(f"this chain has {known} blocks: take 1 to {known} of them, not {n}")
        return dataclasses.replace(self, network=self.network.first(n), plans=self.plans[:n])

    # Velocities

    @property
    def field(self) -> VelocityField:
        return self.flow().field

    def velocity(self, guidance: float | None = None) -> VelocityField:
        _no_guidance(guidance)
        if self.spec.block == "residual":
            raise UserError("a chain of residual blocks has no velocity between their ends")
        return self.field

    # Sampling

    @classmethod
    def sampling(cls, settings: Settings) -> tuple[str, float]:
        return build("objective", settings.objective).solver, 1.0

    def flow(
        self,
        steps: int | None = None,
        solver: str | None = None,
        grid: str | None = None,
        guidance: float | None = None,
    ) -> BlockWalk:
        """The flow of the blocks, with their solver and steps or with others.

        Args:
            steps: of the whole chain, a multiple of the number of its blocks.
            grid: uniform:n=.., which also gives the number of steps.
        """
        _no_guidance(guidance)
        n = len(self.plans)
        if grid is not None:
            points = build("grid", grid)
            if points != Uniform(points.n):
                raise UserError(f"the blocks of a chain take equal steps, not the grid {grid}")
            steps = points.n if steps is None else steps
        own = 1 if self.spec.block == "residual" else self.spec.steps
        each, rest = divmod(own * n if steps is None else steps, n)
        if rest or each < 1:
            raise UserError(
                f"a chain of {n} blocks takes a multiple of {n} steps ({own * n} are "
                f"its own), not {steps}"
            )
        if solver == JUMPS:
            raise UserError("this is no flow map: make one of it by monge distil RUN")
        if self.spec.block == "residual" and (solver is not None or steps is not None):
            raise UserError("residual blocks take no solver and no steps: leave them out")
        how = self.spec.solved if solver is None else build("solver", solver)
        counts = {"calls": 0, "rows": 0}
        made: list[Block] = []
        for net, plan in zip(self.network.blocks, self.plans, strict=True):
            if self.spec.block == "residual":
                made.append(ResidualBlock(net))
            else:
                own = NetworkVelocity(net, plan.clock, self.spec.autonomous)
                made.append(ODEBlock(Counted(own, counts), how, each))
        return BlockWalk(tuple(reversed(made)), how, each)

    def evaluations(self, flow: Walk, rows: int) -> int:
        assert isinstance(flow, BlockWalk)
        solved = [b.velocity for b in flow.blocks if isinstance(b, ODEBlock)]
        if not solved:
            return rows * len(flow.blocks)
        return sum(v.counts["rows"] for v in solved[:1] if isinstance(v, Counted))

    # Measuring

    def without_budget(self) -> str | None:
        return "a chain is verified block by block, and its errors have no sum"

    # Density

    def log_density(
        self, flow: Walk, z: Latent, cond: Cond, probes: int | None, seed: int, first: int
    ) -> Density:
        assert isinstance(flow, BlockWalk)
        return flow.log_density(z, cond, probes=probes, seed=seed, first=first)

    # Export

    def program(self) -> Program:
        if self.spec.block == "residual":
            raise UserError(
                "residual blocks are inverted by iterations, which no program of torch holds: "
                "make a flow map of them by monge distil RUN, and export that"
            )
        made = [
            self.spec.made(net, plan.clock)
            for net, plan in zip(self.network.blocks, self.plans, strict=True)
        ]
        blocks = cast("list[ODEBlock]", made[::-1])
        how = f"{self.flow().label}, {self.spec.steps} steps each"
        return Program(
            lambda conditions: Walked(self.network, blocks, conditions),
            f"samples of a chain: noise x carried from t = 0 to data at t = 1 by {how}",
            "chain.pt2",
            (),
            (0.0, 1.0),
        )

    def evaluate(self, x: State, times: tuple[Tensor, ...], cond: Cond = None) -> State:
        return self.flow()(x, 0.0, 1.0, cond)


def _no_guidance(guidance: float | None) -> None:
    if guidance is not None and guidance != 1:
        what = f"{guidance:g}" if math.isfinite(guidance) else "that"
        raise UserError(f"a chain is sampled without guidance, not with {what}: leave it out")
