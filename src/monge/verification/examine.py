"""Everything that is measured of a pipeline."""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor

from monge.data.base import Data
from monge.errors import UserError
from monge.flows import Composed
from monge.system.progress import Say
from monge.targets.atoms import Atoms
from monge.targets.base import Target
from monge.types import Cond
from monge.verification import certified, curves
from monge.verification.advice import Advice, Trials, advise
from monge.verification.budget import Budget, Draws, Known, budget, draw
from monge.verification.lipschitz import Stretching, along, stretching
from monge.verification.maps import MapFacts, map_facts
from monge.verification.pipeline import Pipeline
from monge.verification.taken_apart import units_of
from monge.verification.terms import as_points


@dataclass(frozen=True)
class Effort:
    """How much of everything is measured; `fine` is that of `Pipeline`, iterations are those of
    the power method, and no trial of the advice trains for longer than `trial_s`."""

    n: int = 2000
    stretched: int = 128
    curves_n: int = 400
    steps: tuple[int, ...] = curves.STEPS
    times: int = 11
    bins: int = 10
    fine: int = 64
    iterations: int = 20
    trial_s: float = 60.0


QUICK = Effort(
    n=400,
    stretched=32,
    curves_n=100,
    steps=(4, 8, 16),
    times=6,
    bins=5,
    fine=32,
    iterations=10,
    trial_s=15.0,
)


def effort_of(n: int | None, quick: bool) -> Effort:
    effort = QUICK if quick else Effort()
    if n is not None and n < 40:
        raise UserError(f"verify needs at least 40 samples to tell its errors, not {n}")
    return effort if n is None else dataclasses.replace(effort, n=n)


def examine(
    pipeline: Pipeline,
    known: Known,
    cond: Cond,
    data: Data,
    effort: Effort,
    seed: int,
    say: Say,
    trials: Trials,
) -> dict[str, Any]:
    """Everything that is measured of a pipeline, as JSON has it."""
    start = time.monotonic()
    draws = draw(pipeline, known, cond, effort.n, seed)
    found = budget(pipeline, known, draws, seed, say)
    say("error of the field over time")
    errors = _errors_of_field(pipeline, known, draws, effort, seed)
    say("error against steps")
    few = slice(0, effort.curves_n)
    steps = curves.errors_by_steps(
        pipeline, draws.x0[few], _rows(draws.cond, few), found.reference[few], steps=effort.steps
    )
    say("Lipschitz constants along trajectories")
    some = slice(0, effort.stretched)
    starts = draws.x0[some], _rows(draws.cond, some), draws.x[some]
    stretched = stretching(pipeline, *starts, effort.times, effort.iterations)
    facts = _laws_of_map(pipeline, draws, stretched, effort, seed, say)
    bound = curves.growth_bound(errors, stretched.times, stretched.rate) if errors else None
    proved = certified.certified(
        pipeline, errors, stretched.times, draws.x0, draws.cond, effort.iterations
    )
    if isinstance(proved, certified.Certified):
        stretched = dataclasses.replace(stretched, certified=proved.largest)
    say("what to change")
    trials = dataclasses.replace(
        trials,
        n_latent=math.prod(draws.z.shape[1:]),
        train=None if known.train is None else as_points(known.train),
    )
    advice = advise(pipeline, found, draws, trials)
    walk = curves.trajectories(pipeline, draws.x0, draws.cond, draws.z, times=2 * effort.times - 1)
    return {
        "seed": seed,
        "n": effort.n,
        "units": units_of(data),
        **content_of(found, advice),
        "field_errors": {
            "against": "the true field" if pipeline.truth else "the memoriser of training data",
            "bins": [dataclasses.asdict(e) for e in errors],
            "growth_bound": bound,
        },
        "map": None if facts is None else dataclasses.asdict(facts),
        "errors_by_steps": [dataclasses.asdict(e) for e in steps],
        "lipschitz": dataclasses.asdict(stretched),
        "certified": proved if isinstance(proved, str) else dataclasses.asdict(proved),
        "trajectories": dataclasses.asdict(walk),
        "seconds": round(time.monotonic() - start, 1),
    }


def _errors_of_field(
    pipeline: Pipeline, known: Known, draws: Draws, effort: Effort, seed: int
) -> list[curves.FieldError]:
    """Against the true field where that is known, else against the memoriser's, if there is one."""
    optimum, z, z_cond = pipeline.truth, draws.z, draws.z_cond
    if optimum is None and known.train is not None:
        optimum, z, z_cond = _empirical(pipeline, known, effort.n)
    if optimum is None:
        return []
    domain = (pipeline.begin, pipeline.end)
    return curves.field_errors(
        pipeline.field, pipeline.path, optimum, z, z_cond, domain, effort.bins, seed
    )


def _laws_of_map(
    pipeline: Pipeline,
    draws: Draws,
    stretched: Stretching,
    effort: Effort,
    seed: int,
    say: Say,
) -> MapFacts | None:
    """What a learned map owes; None where the sampler is none, or jumps to the data alone."""
    law = pipeline.map_law
    if law is None or law.only_to_data:
        return None
    say("laws of the map")
    rates = stretched.rate
    if pipeline.guidance != 1:  # those were of the field without guidance
        some = slice(0, effort.stretched)
        x0, given = draws.x0[some], _rows(draws.cond, some)
        flow, domain = pipeline.reference, (pipeline.begin, pipeline.end)
        seen = along(flow, flow.field, x0, given, domain, effort.times, effort.iterations)
        rates = [point.rate for point in seen]
    few = slice(0, effort.curves_n)
    return map_facts(
        cast("Composed", pipeline.sampler),  # laws of a map are given of no other
        pipeline.reference,
        draws.x0[few],
        _rows(draws.cond, few),
        max(rates),
        law.backwards,
        seed,
    )


def _empirical(pipeline: Pipeline, known: Known, n: int) -> tuple[Target | None, Tensor, Cond]:
    """The law of the training latents themselves, and draws from it with their conditions.

    Its field is the one that the training loss is least for: that of a perfect memoriser. None
    where a label or a vector condition makes its law another one for each example.
    """
    assert known.train is not None
    z = pipeline.encoded(known.train)
    cond = None if known.train_cond is None else dict(known.train_cond)
    few = None if cond is None else {k: c[:n].to(z.device) for k, c in cond.items()}
    if cond is not None and "vector" in cond:
        return None, z[:n], few
    label = None if cond is None else cond["label"]
    if label is not None and len(label.unique()) <= int(label.max()):
        return None, z[:n], few
    return Atoms(z.flatten(1).cpu(), labels=label), z[:n], few


def _rows(cond: Cond, rows: slice) -> Cond:
    return None if cond is None else {k: c[rows] for k, c in cond.items()}


def content_of(found: Budget, advice: Advice) -> dict[str, Any]:
    """A budget and its advice as JSON has them."""
    return {
        "terms": [dataclasses.asdict(term) for term in found.terms],
        "sum": {"value": found.sum, "stderr": found.sum_stderr},
        "lower_bounds": {k: {"value": v, "stderr": e} for k, (v, e) in found.lower.items()},
        "plug_in": {"value": found.plug_in, "floor": found.floor, "n": found.n_plug_in},
        "truth_known": found.known,
        "violations": found.violations,
        "advice": dataclasses.asdict(advice),
    }
