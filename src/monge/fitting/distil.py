"""Distils a trained run into a flow map, or into a straighter flow (reflow)."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from monge.components import build
from monge.data.base import Data
from monge.errors import UserError
from monge.fitting.train import train
from monge.learned import kind_of
from monge.runs import places
from monge.runs.restore import read_facts
from monge.runs.run import IN_MEMORY, Run
from monge.runs.spec import TrainSpec
from monge.system.progress import Say, quiet

OBJECTIVE = "lagrangian"

OWN = ("grid", "steps", "minutes", "compile")
"""Settings of a teacher that a map does not inherit."""


def distil_spec(
    teacher: Path,
    *,
    objective: str = OBJECTIVE,
    guidance: str | None = None,
    network: str = "auto",
    **settings: Any,
) -> TrainSpec:
    """The specification of a distilled run; settings that are not given are the teacher's.

    Args:
        guidance: of the teacher: a scale, or a range such as 1..3 that the map takes as an input;
            None for the teacher's.
        network: auto for the teacher's, with a second time input.
        settings: fields of `TrainSpec`; those that are None are the teacher's.

    Raises:
        UserError: no trained run there, or an objective without a teacher.
    """
    run = Run.load(teacher, "cpu")
    rule = build("objective", objective)
    if not rule.teacher:
        raise UserError(
            f"objective {rule.name} takes no teacher: monge train {run.spec.data} --objective "
            f"{rule.name}, or distil by lagrangian, eulerian, progressive, consistency, "
            "continuous-consistency or reflow"
        )
    if run.spec.conditional == "any":
        raise UserError(
            f"{teacher} was trained with --conditional any, which no map or straighter flow learns "
            "yet: sample it with its own solver, or distil a run without --conditional"
        )
    given = {k: v for k, v in settings.items() if v is not None}
    if "steps" not in given and "minutes" not in given:
        given["steps"] = run.spec.steps
    own = run.learned.sampling(run.spec)[1]
    exact = run.spec.network == "exact"
    if network == "auto" and not exact:
        network = run.spec.network
    kept = {k: v for k, v in dataclasses.asdict(run.spec).items() if k not in OWN}
    spec = TrainSpec(
        **{
            **kept,
            "data": places.found(run.folder, "data", run.spec.data),
            "objective": objective,
            "teacher": str(run.folder.resolve()),
            "teacher_guidance": guidance or f"{own:g}",
            "autoencoder": str(run.folder.resolve()),
            "init_from": None,
            "pairs": "auto",
            "network": network,
            "grid": "auto",
            **given,
        }
    )
    _check_guidance(run, spec)
    # Pairs drawn by the teacher are already guided.
    follows = kind_of(spec.objective).follows_teacher
    return spec if follows else dataclasses.replace(spec, guidance=1.0)


def _check_guidance(run: Run, spec: TrainSpec) -> None:
    """Refuse guidance that the teacher or the objective does not support."""
    lo, hi = spec.guidance_range
    if (lo, hi) != (1.0, 1.0) and not run.label_names and not run.facts.n_vector:
        raise UserError("guidance needs a teacher with labels or conditions; this one has none")
    if lo < hi and not kind_of(spec.objective).follows_teacher:
        raise UserError(f"{spec.objective} follows one guidance scale: give a number, not a range")
    if lo < hi and run.learned.guided_as_trained:
        raise UserError(
            f"{run.folder} is a map, guided as it was trained: give one scale, or distil its "
            f"teacher{f' {run.spec.teacher}' if run.spec.teacher else ''}"
        )


def distil(
    teacher: Path,
    out: Path | None = None,
    *,
    data: Data | None = None,
    say: Say = quiet,
    **settings: Any,
) -> Run:
    """Distil a trained run into a run folder, or continue; see `distil_spec`."""
    if data is None and teacher.is_dir() and read_facts(teacher).text is None:
        raise UserError(IN_MEMORY.format(folder=teacher))
    return train(distil_spec(teacher, **settings), data, out, say=say)
