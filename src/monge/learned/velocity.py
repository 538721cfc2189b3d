"""A learned velocity field, integrated by a solver."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from monge.components import build
from monge.errors import UserError
from monge.fields import Counted, Guided, Predict
from monge.flows import Density, Integrated, Walk, log_density
from monge.learned.base import JUMPS, Learned, Program, Settings
from monge.learned.modules import Velocity
from monge.objectives.base import Objective
from monge.objectives.flow_matching import FlowMatching
from monge.paths import Kind, Linear, Path
from monge.types import Cond, Latent, VelocityField


@dataclass(frozen=True)
class LearnedVelocity(Learned):
    """A velocity field, given by a network's output on a path, and its default solver.

    Attributes:
        network: ``network(x, t, cond)``, shaped like x.
        path: of its training.
        output: the network's output: velocity, data, noise or score.
        solver, grid, guidance: the defaults for samples, as on the command line.
        conditional: whether it takes labels or conditions, which guidance needs.
    """

    network: nn.Module
    path: Path = dataclasses.field(default_factory=Linear)
    output: Kind = "velocity"
    solver: str = "heun"
    grid: str = "uniform:n=20"
    guidance: float = 1.0
    conditional: bool = False

    title = "latent flow-matching model"
    summary = (
        "A latent flow-matching generative model, trained with `monge`: an autoencoder maps data "
        "to a latent space, a network learns the velocity field that carries noise to the law of "
        "the latents, and an ODE solver draws samples."
    )
    cheapest = "euler"

    @classmethod
    def check(cls, settings: Settings, teacher: bool) -> None:
        super().check(settings, teacher)
        if teacher and not build("objective", settings.objective).teacher:
            raise UserError("flow matching has no teacher: monge distil RUN --objective ...")

    @classmethod
    def objective(
        cls, settings: Settings, matching: FlowMatching, teacher: Learned | None
    ) -> Objective:
        if teacher is None and build("objective", settings.objective).teacher:
            raise UserError("objective reflow needs a teacher: monge distil RUN --objective reflow")
        return matching

    @classmethod
    def restored(
        cls,
        network: nn.Module,
        settings: Settings,
        facts: Mapping[str, Any],
        conditional: bool,
        teacher: Callable[[], Learned] | None,
    ) -> LearnedVelocity:
        return cls(
            network,
            build("path", settings.path),
            settings.output,
            settings.solver,
            settings.grid,
            settings.guidance,
            conditional,
        )

    @property
    def field(self) -> Predict:
        return Predict(self.network, self.path, self.output)

    def velocity(self, guidance: float | None = None) -> VelocityField:
        scale = self.guidance if guidance is None else guidance
        return self.field if scale == 1 else Guided(self.field, scale)

    def followed(self, guidance: float | None = None) -> VelocityField:
        return self.flow(guidance=guidance).field

    @classmethod
    def sampling(cls, settings: Settings) -> tuple[str, float]:
        return settings.solver, settings.guidance

    def flow(
        self,
        steps: int | None = None,
        solver: str | None = None,
        grid: str | None = None,
        guidance: float | None = None,
    ) -> Integrated:
        points = build("grid", grid or self.grid)
        if steps is not None:
            points = dataclasses.replace(points, n=steps)
        if solver == JUMPS:
            raise UserError(
                "this is no flow map: name a solver, or make a map of it by monge distil RUN"
            )
        velocity = Counted(self.field)
        scale = self.guidance if guidance is None else guidance
        if not math.isfinite(scale):
            raise UserError(f"guidance must be a finite number, not {scale}")
        if scale != 1 and not self.conditional:
            raise UserError("guidance needs a run with labels or conditions; this one has none")
        guided = velocity if scale == 1 else Guided(velocity, scale)
        return Integrated(guided, build("solver", solver or self.solver), points)

    def guidance_of(self, flow: Walk, guidance: float | None = None) -> float:
        return flow.field.scale if isinstance(flow.field, Guided) else 1.0

    def evaluations(self, flow: Walk, rows: int) -> int:
        return counted_rows(flow)

    def log_density(
        self, flow: Walk, z: Latent, cond: Cond, probes: int | None, seed: int, first: int
    ) -> Density:
        assert isinstance(flow, Integrated)
        return log_density(flow, z, cond, probes=probes, seed=seed, first=first)

    def program(self) -> Program:
        return Program(
            lambda conditions: Velocity(self.network, self.path, self.output, conditions),
            "velocity: dx/dt",
            "velocity.pt2",
            ("t",),
            self.field.domain,
        )

    def without_scheduler(self) -> str | None:
        return None


def counted_rows(flow: Walk) -> int:
    """The number of rows on which the counted field of a flow was evaluated."""
    inner = flow.field.field if isinstance(flow.field, Guided) else flow.field
    assert isinstance(inner, Counted)
    return inner.counts["rows"]
