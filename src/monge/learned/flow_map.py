"""A learned flow map: its jumps, at the guidance scales of its training."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from torch import Tensor, nn

from monge.components import Component, build
from monge.errors import UserError
from monge.fields import Counted, Guided, Predict
from monge.flows import (
    Composed,
    Density,
    Integrated,
    LearnedMap,
    MeanVelocity,
    Walk,
    jump_log_density,
    log_density,
)
from monge.learned.at_scale import AtScale, with_scale
from monge.learned.base import JUMPS, Draw, Learned, Program, Settings, with_settings
from monge.learned.modules import Jump
from monge.learned.velocity import counted_rows
from monge.networks.exact import ExactSpec
from monge.objectives.base import Objective
from monge.objectives.flow_map import FlowMapMatching
from monge.objectives.flow_matching import FlowMatching
from monge.objectives.rules.base import Rule
from monge.paths import Kind, Path
from monge.tensors import noise
from monge.time_pairs import PairLaw
from monge.times import Uniform
from monge.types import Cond, Latent, State, Time, VelocityField

ERROR_STEPS = (1, 2, 4, 8, 16)
"""Numbers of jumps for which a map is compared with its flow."""

NETWORK = "time_scale=20"
"""Settings of a network that is differentiated in time."""


@dataclass(frozen=True)
class LearnedFlowMap(Learned):
    """A map that jumps from any time to a later one with one evaluation of its network.

    Attributes:
        network: ``network(x, t, cond, s)``, shaped like x.
        path, output: the path of its training, and the quantity that the network outputs.
        rule: of its training.
        pairs: the law of the times (s, t) in training.
        guidance_range: least and greatest guidance scale; an input of the network if they differ.
        domain: the times between which it jumps; None for the output's domain.
        teacher: loads the model from which it was distilled; None without a teacher.
        grid, guidance: the defaults for samples.
    """

    network: nn.Module
    path: Path
    output: Kind
    rule: Rule
    pairs: PairLaw
    guidance_range: tuple[float, float] = (1.0, 1.0)
    domain: tuple[float, float] | None = None
    teacher: Callable[[], Learned] | None = None
    grid: str = "uniform:n=4"
    guidance: float = 1.0

    title = "latent flow map"
    summary = (
        "A few-step generative model, trained with `monge`: an autoencoder maps data to a latent "
        "space, a network learns the flow map that carries noise to the law of the latents, and "
        "samples are drawn with any number of its jumps (`steps=1`, `2`, `4`, ...)."
    )
    who = "map"
    few_steps = True
    guided_as_trained = True
    default_steps = 4
    cheapest = JUMPS
    follows_teacher = True
    eager = "the derivatives of flow maps are dual numbers, which no compiler sees"
    velocity_elsewhere = (
        "it is the error of the velocity that the map follows: train that velocity longer (a "
        "teacher by its own command with more --steps, then distil again), since the map cannot be "
        "better"
    )

    @classmethod
    def check(cls, settings: Settings, teacher: bool) -> None:
        if not teacher and settings.guidance != 1:
            raise UserError(
                "a map learned without a teacher takes no guidance, and so not "
                f"{settings.guidance:g}: give --guidance 1, or train a flow with labels and distil "
                "that, by monge distil RUN --guidance .."
            )

    @classmethod
    def default_network(cls, network: str, few: str) -> str:
        return with_settings(network, NETWORK)

    @classmethod
    def network_of(cls, component: Component, settings: Settings) -> Component:
        if isinstance(component, ExactSpec):
            raise UserError("network exact is not trained: choose another for a flow map")
        if not hasattr(component, "two_times"):
            raise UserError(
                f"network {component.name} has no setting two_times, which a flow map needs: use "
                "transformer, mlp or lipschitz"
            )
        lo, hi = settings.guidance_range
        changes: dict[str, Any] = {"two_times": True, "guided": lo < hi}
        rule = build("objective", settings.objective)
        if rule.anchor == "end" and hasattr(component, "anchor"):
            changes["anchor"] = "end"
        return dataclasses.replace(component, **changes)  # type: ignore[type-var]

    @classmethod
    def objective(
        cls, settings: Settings, matching: FlowMatching, teacher: Learned | None
    ) -> Objective:
        lo, hi = settings.guidance_range
        velocity = None
        if teacher is not None:
            velocity = teacher.velocity(lo) if lo == hi else teacher.field
        return FlowMapMatching(
            build("objective", settings.objective).planned(settings.steps),
            matching,
            None if settings.pairs == "auto" else build("pairs", settings.pairs),
            velocity,
            (lo, hi) if lo < hi else None,
        )

    @classmethod
    def facts(cls, objective: Objective) -> dict[str, Any]:
        return {"map_domain": cast("FlowMapMatching", objective).domain}

    @classmethod
    def restored(
        cls,
        network: nn.Module,
        settings: Settings,
        facts: Mapping[str, Any],
        conditional: bool,
        teacher: Callable[[], Learned] | None,
    ) -> LearnedFlowMap:
        rule = build("objective", settings.objective)
        kept = facts.get("map_domain")
        return cls(
            network,
            build("path", settings.path),
            settings.output,
            rule,
            build("pairs", rule.pairs if settings.pairs == "auto" else settings.pairs),
            settings.guidance_range,
            (float(kept[0]), float(kept[1])) if kept else None,
            teacher,
            settings.grid,
            settings.guidance,
        )

    # Velocities

    @property
    def field(self) -> Predict:
        return Predict(self.network, self.path, self.output)

    def velocity(self, guidance: float | None = None) -> VelocityField:
        """The map's own velocity, at s = t."""
        if not self.has_velocity:
            raise UserError(
                f"a map of {self.rule} has learned to jump to the data, not a velocity: it "
                "is sampled by jumps alone, and measured by monge evaluate"
            )
        scale = self.scale(guidance)
        return AtScale(self.field, scale) if self.takes_guidance else self.field

    def followed(self, guidance: float | None = None) -> VelocityField:
        scale = self.scale(guidance)
        return (self if self.teacher is None else self.teacher()).velocity(scale)

    @property
    def reference(self) -> str:  # type: ignore[override]
        return "its own velocity" if self.teacher is None else "the teacher"

    @cached_property
    def has_velocity(self) -> bool:
        """Whether u at s = t was learned, by rows with s = t or by arbitrarily short jumps."""
        return self.rule.diagonal > 0 or not self.pairs.only_to_data

    # Guidance

    @property
    def takes_guidance(self) -> bool:
        """Whether the guidance scale is an input of the network."""
        lo, hi = self.guidance_range
        return lo < hi

    def scale(self, guidance: float | None) -> float:
        """The guidance scale, checked against those of the training.

        Raises:
            UserError: a scale outside the training.
        """
        lo, hi = self.guidance_range
        if guidance is None:
            return min(max(self.guidance, lo), hi)
        if not lo <= guidance <= hi:
            known = f"{lo:g}" if lo == hi else f"{lo:g} to {hi:g}"
            wanted = f"{min(lo, guidance):g}..{max(hi, guidance):g}"
            raise UserError(
                f"this map was trained with guidance {known}, not {guidance:g}: make another by "
                f"monge distil TEACHER --guidance {wanted}"
            )
        return guidance

    # Sampling

    @classmethod
    def sampling(cls, settings: Settings) -> tuple[str, float]:
        lo, hi = settings.guidance_range
        return JUMPS, min(max(settings.guidance, lo), hi)

    def jump(self, guidance: float | None = None) -> LearnedMap:
        """The map at a guidance scale.

        Raises:
            UserError: a scale outside the training.
        """
        scale = self.scale(guidance)
        u: Callable[..., State] = MeanVelocity(self.network, self.path, self.output)

        def at_scale(x: State, s: Time, t: Time, cond: Cond = None) -> State:
            return u(x, s, t, with_scale(x, cond, scale))

        lo, hi = self.domain or self.field.domain
        return LearnedMap(at_scale if self.takes_guidance else u, (lo, hi))

    def flow(
        self,
        steps: int | None = None,
        solver: str | None = None,
        grid: str | None = None,
        guidance: float | None = None,
    ) -> Composed | Integrated:
        """The jumps along the grid; with a solver, the map's velocity is integrated instead."""
        points = build("grid", grid or self.grid)
        if steps is not None:
            points = dataclasses.replace(points, n=steps)
        if solver in (None, JUMPS):
            learned = self.jump(guidance)
            if points.stop < learned.domain[1] and self.pairs.only_to_data:
                raise UserError(
                    f"this map jumps to the data alone: a grid cannot stop at {points.stop:g}"
                )
            return Composed(learned, points)
        velocity = Counted(self.velocity(guidance))
        return Integrated(velocity, build("solver", solver or "heun"), points)

    def guidance_of(self, flow: Walk, guidance: float | None = None) -> float:
        return self.scale(guidance)

    def deterministic(self, guidance: float | None = None) -> Walk:
        # With a map that jumps only to the data, further jumps need new noise.
        return self.flow(1 if self.pairs.only_to_data else None, guidance=guidance)

    def carried(self, flow: Walk, x0: State, draw: Draw, cond: Cond = None) -> State:
        """Carry noise by jumps; a map that jumps only to the data adds new noise between them."""
        if isinstance(flow, Composed) and self.pairs.only_to_data:
            return renoised(flow, self.path, x0, draw, cond)
        return super().carried(flow, x0, draw, cond)

    def evaluations(self, flow: Walk, rows: int) -> int:
        if isinstance(flow, Composed):
            return rows * (len(flow.knots) - 1)
        return counted_rows(flow)

    def without_inverse(self, flow: Walk) -> str | None:
        if not isinstance(flow, Composed) or self.pairs.backwards:
            return None
        return (
            "this map was trained forwards alone: train it both ways by monge distil TEACHER "
            "--pairs triangle:both=true, or integrate its velocity by --solver heun --steps 20"
        )

    # Measuring

    @property
    def error_steps(self) -> tuple[int, ...]:  # type: ignore[override]
        """Empty without a flow to follow; only 1 if further jumps draw new noise."""
        if self.teacher is None and not self.has_velocity:
            return ()
        return ERROR_STEPS[:1] if self.pairs.only_to_data else ERROR_STEPS

    @property
    def guidance_scales(self) -> tuple[float, ...]:  # type: ignore[override]
        """The default scale and the ends of the range."""
        if self.teacher is None:
            return (1.0,)
        return tuple(dict.fromkeys((self.scale(None), *self.guidance_range)))

    def examined(
        self, guidance: float | None = None, **flow: Any
    ) -> tuple[Walk, VelocityField, PairLaw | None]:
        sampler = self.flow(guidance=guidance, **flow)
        if not isinstance(sampler, Composed):
            return sampler, self.field, None
        follows = self.followed(guidance)
        sampler = dataclasses.replace(sampler, follows=follows)
        if self.pairs.only_to_data:  # further jumps draw new noise, and follow no flow
            sampler = dataclasses.replace(sampler, grid=Uniform(1))
        field = follows.field if isinstance(follows, Guided) else follows
        return sampler, field, self.pairs

    def without_density(self, solver: str | None = None) -> str | None:
        if solver not in (None, JUMPS):
            return None
        return (
            "the jumps of a map have the density of their own Jacobian, which is not that of "
            f"the integrated velocity: use solver={JUMPS!r} for the jumps, or a solver's name "
            "for the velocity"
        )

    def without_asked_density(
        self,
        solver: str | None = None,
        steps: int | None = None,
        grid: str | None = None,
        probes: int | None = None,
    ) -> str | None:
        if solver != JUMPS:
            return self.without_density(solver)
        if probes is not None:
            return "the density of jumps is exact: leave out probes"
        if not self.has_velocity:
            return "this map has no velocity, which inverting a jump needs"
        if self.pairs.only_to_data and len(self.flow(steps, grid=grid).knots) > 2:
            return "several jumps draw new noise between them: only steps=1 has a density"
        return None

    def log_density(
        self, flow: Walk, z: Latent, cond: Cond, probes: int | None, seed: int, first: int
    ) -> Density:
        if isinstance(flow, Composed):
            return jump_log_density(flow, z, cond)
        assert isinstance(flow, Integrated)
        return log_density(flow, z, cond, probes=probes, seed=seed, first=first)

    # Export

    def program(self) -> Program:
        return Program(
            lambda conditions: Jump(self.network, self.path, self.output, conditions),
            "flow map: the state at time t of x at time s",
            "map.pt2",
            ("s", "t"),
            self.jump().domain,
            ordered=not self.pairs.backwards,
            guidance=self.guidance_range if self.takes_guidance else None,
            facts={"backwards": self.pairs.backwards},
        )

    def evaluate(self, x: State, times: tuple[Tensor, ...], cond: Cond = None) -> State:
        scale = None if cond is None or "guidance" not in cond else float(cond["guidance"][0])
        return self.jump(scale)(x, times[0], times[1], cond)

    def without_scheduler(self) -> str | None:
        if self.pairs.only_to_data:
            return "this map jumps to the data only, with new noise between, not by Euler steps"
        end = self.flow().domain[1]
        if end < 1:
            return f"this map ends at t = {end:g}, and diffusers' scheduler at 1"
        return None


def renoised(flow: Composed, path: Path, x: State, draw: Draw, cond: Cond = None) -> State:
    """Jumps to the data; each jump after the first starts from the last result with new noise.

    Source: Consistency models (Song et al., 2023), Algorithm 1.
    """
    lo, *inner, hi = flow.knots
    x = flow.map(x, lo, hi, cond)
    for k, t in enumerate(inner):
        fresh = noise(draw.seed, draw.first, draw.last, draw.shape, "renoised", k).to(x)
        x = flow.map(path.interpolate(fresh, x, t)[0], t, hi, cond)
    return x
