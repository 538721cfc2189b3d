"""What a run that has learned a flow map adds: its jumps, at a guidance it was trained with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from monge.components import build
from monge.errors import UserError
from monge.flows import Composed, LearnedMap, MeanVelocity
from monge.paths import Path
from monge.runs.spec import TrainSpec
from monge.tensors import noise
from monge.time_pairs import PairLaw
from monge.types import Cond, State, Time, VelocityField, domain_of

if TYPE_CHECKING:
    from monge.runs.run import Run

SOLVER = "map"
"""What stands for a solver where a learned map jumps."""


def learned_map(run: Run, guidance: float | None = None) -> LearnedMap:
    """The map that jumps from any time to any later one, in one evaluation.

    Raises:
        UserError: a guidance scale that the map was not trained with.
    """
    scale = scale_of(run.spec, guidance)
    u: Callable[..., State] = MeanVelocity(run.network, run.path, run.spec.output)

    def at_scale(x: State, s: Time, t: Time, cond: Cond = None) -> State:
        return u(x, s, t, with_scale(x, cond, scale))

    return LearnedMap(at_scale if takes_guidance(run.spec) else u, domain(run))


def velocity(run: Run, guidance: float | None = None) -> VelocityField:
    """The map's own velocity, at s = t.

    Raises:
        UserError: a map that has not learned any, or a guidance scale that it was not trained with.
    """
    if not has_velocity(run.spec):
        raise UserError(
            f"a map of {run.spec.objective} has learned to jump to the data, not a velocity: it "
            "is sampled by jumps alone, and measured by monge evaluate"
        )
    scale = scale_of(run.spec, guidance)
    return AtScale(run.field, scale) if takes_guidance(run.spec) else run.field


@dataclass(frozen=True)
class AtScale:
    """A field whose network takes a guidance scale, at one scale."""

    field: VelocityField
    scale: float

    @property
    def domain(self) -> tuple[float, float]:
        return domain_of(self.field)

    def __call__(self, x: State, t: Time, cond: Cond = None) -> State:
        return self.field(x, t, with_scale(x, cond, self.scale))


def with_scale(x: State, cond: Cond, scale: float) -> dict[str, Tensor]:
    """The condition with a guidance scale for each example."""
    return {**(cond or {}), "guidance": x.new_full((len(x),), scale)}


def domain(run: Run) -> tuple[float, float]:
    """Between which times a learned map jumps."""
    lo, hi = run.facts.get("map_domain") or run.field.domain
    return float(lo), float(hi)


def takes_guidance(spec: TrainSpec) -> bool:
    """Whether the guidance scale is an input of the network."""
    lo, hi = spec.guidance_range
    return lo < hi


def scale_of(spec: TrainSpec, guidance: float | None) -> float:
    """The guidance scale of a map: one that it was trained with.

    Raises:
        UserError: another one.
    """
    lo, hi = spec.guidance_range
    if guidance is None:
        return min(max(spec.guidance, lo), hi)
    if not lo <= guidance <= hi:
        known = f"{lo:g}" if lo == hi else f"{lo:g} to {hi:g}"
        wanted = f"{min(lo, guidance):g}..{max(hi, guidance):g}"
        raise UserError(
            f"this map was trained with guidance {known}, not {guidance:g}: make another by "
            f"monge distil TEACHER --guidance {wanted}"
        )
    return guidance


def pairs_of(spec: TrainSpec) -> PairLaw:
    """The law of (s, t) that a map is trained with."""
    rule = build("objective", spec.objective)
    return build("pairs", rule.pairs if spec.pairs == "auto" else spec.pairs)


def only_to_data(spec: TrainSpec) -> bool:
    """Whether a map jumps to the data only, as consistency models do."""
    return spec.is_map and pairs_of(spec).only_to_data


def has_velocity(spec: TrainSpec) -> bool:
    """Whether a map has learned u at s = t: by rows there, or by jumps as short as one likes."""
    return build("objective", spec.objective).diagonal > 0 or not only_to_data(spec)


def follows(spec: TrainSpec) -> bool:
    """Whether a run is a map that can be held against a flow: a teacher's or its own."""
    return spec.is_map and (spec.teacher is not None or has_velocity(spec))


def renoised(
    flow: Composed, path: Path, x: State, drawn: tuple[Any, ...], cond: Cond = None
) -> State:
    """Jumps to the data, each but the first from the last one's end with new noise.

    Source: Consistency models (Song et al., 2023), Algorithm 1.

    Args:
        drawn: seed, first and last example and shape of the noise; see `tensors.noise`.
    """
    lo, *inner, hi = flow.knots
    x = flow.map(x, lo, hi, cond)
    for k, t in enumerate(inner):
        fresh = noise(*drawn, "renoised", k).to(x)
        x = flow.map(path.interpolate(fresh, x, t)[0], t, hi, cond)
    return x
