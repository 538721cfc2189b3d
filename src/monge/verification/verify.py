"""Verifying a run, a generator, or a velocity field made elsewhere."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable
from functools import singledispatch
from pathlib import Path
from typing import Any

import torch

from monge.components import build
from monge.data.base import Data
from monge.fitting.autoencoding import pretrained
from monge.flows import Integrated
from monge.learned import Learned
from monge.learned.chain import LearnedChain
from monge.paths import Kind
from monge.report.next_steps import command_of_advice
from monge.report.report import REPORT, report_of, write_report
from monge.runs import schemas
from monge.runs.folder import monge_version
from monge.runs.layout import QUALITY, VERIFY
from monge.runs.provenance import flags
from monge.runs.run import Run
from monge.sampling.facts import DataFacts
from monge.sampling.labels import asked_labels
from monge.sampling.model import GenerativeModel
from monge.solvers import Solver
from monge.system import ownership
from monge.system.files import json_of, strict, write_json
from monge.system.progress import Say, quiet
from monge.times import Grid
from monge.types import VelocityField
from monge.verification import curves
from monge.verification.advice import Trials
from monge.verification.certified_budget import certified_budget, constants_of
from monge.verification.chain import verify_chain
from monge.verification.examine import effort_of, examine
from monge.verification.foreign import Clock, field_of
from monge.verification.longer_training import trials_of
from monge.verification.pipeline import Pipeline
from monge.verification.taken_apart import Maps, known_of, maps_of, pipeline_of, scale_of, scaled

FORMAT_VERSION = 1


def verify_run(
    run: Run,
    n: int | None = None,
    *,
    quick: bool = False,
    seed: int = 0,
    data: Data | None = None,
    say: Say = quiet,
    **sampling: Any,
) -> dict[str, Any]:
    """Verify what a run has learned; write ``verify.json`` and the report.

    Args:
        n: samples in the terms; of a chain, examples.
        quick: fewer of everything, for a first look.
        sampling: steps, solver, grid, guidance, final; the run's own unless given.

    Raises:
        UserError: settings that do not fit the run, or data that has changed.
    """
    data = run.data() if data is None else data
    how = {"quick": quick, "seed": seed, "data": data, "say": say, **sampling}
    report = verify_learned(run.learned, run, n, **how)
    write_json(run.folder / VERIFY, strict(report))
    write_report(run.folder)
    return report


def verify_budget(
    learned: Learned,
    run: Run,
    n: int | None = None,
    *,
    quick: bool,
    seed: int,
    data: Data,
    say: Say,
    **sampling: Any,
) -> dict[str, Any]:
    """The W2 budget of a run: where the error of its samples comes from, and what to change."""
    effort = effort_of(n, quick)
    final = sampling.pop("final", None)
    pipeline = pipeline_of(run, data, seed, final, effort.fine, **sampling)
    label, given = run.draw_conditions(effort.n, None, None, seed)
    home = (schemas.read_if_there(run.folder, QUALITY) or {}).get("home")
    known = known_of(data, seed, home["rmse"] * math.sqrt(math.prod(data.shape)) if home else None)
    cond = run.condition(label, given)
    trials = trials_of(run, data, effort.trial_s)
    report = {
        **_head(run, pipeline, final),
        **examine(pipeline, known, cond, data, effort, seed, say, trials),
    }
    report |= _proved(report, run, data)
    report["advice"]["command"] = command_of_advice(run, report["advice"])
    return report


verify_learned = singledispatch(verify_budget)
"""Verifies what a run has learned: ``verify_learned(learned, run, n, ...)``. By the W2 budget,
where the type of `learned` has no certificates of its own, given by `verify_learned.register`."""

verify_learned.register(LearnedChain, verify_chain)


def verify_generator(
    generator: GenerativeModel,
    data: Data,
    n: int | None = None,
    *,
    quick: bool = False,
    seed: int = 0,
    say: Say = quiet,
    **sampling: Any,
) -> dict[str, Any]:
    """The same of a generator without a folder, of which nothing is written."""
    effort = effort_of(n, quick)
    final = sampling.pop("final", None)
    pipeline = pipeline_of(generator, data, seed, final, effort.fine, **sampling)
    label, given = generator.draw_conditions(effort.n, None, None, seed)
    known, cond = known_of(data, seed), generator.condition(label, given)
    trials = Trials(elsewhere=generator.learned.velocity_elsewhere)
    found = examine(pipeline, known, cond, data, effort, seed, say, trials)
    return {**_head(generator, pipeline, final), **found, **_proved(found, generator, data)}


def _proved(report: dict[str, Any], model: GenerativeModel, data: Data) -> dict[str, Any]:
    """The certified constants of the autoencoder, and the budget that follows, if any."""
    constants = {"autoencoder_constants": constants_of(model.autoencoder, scale_of(data))}
    return {**constants, "certified_budget": certified_budget({**report, **constants})}


def _head(model: GenerativeModel, pipeline: Pipeline, final: str | None) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "monge": monge_version(),
        "run": model.name,
        "weights": "ema",
        "sampling": model.describe_sampling(pipeline.sampler, final),
    }


def verify_component(
    f: Callable[..., Any],
    data: Data,
    out: Path,
    *,
    path: str = "linear",
    clock: Clock = "noise",
    output: Kind = "velocity",
    time_scale: float = 1.0,
    autoencoder: str | None = None,
    solver: str = "heun",
    grid: str = "uniform:n=20",
    steps: int | None = None,
    n: int | None = None,
    quick: bool = False,
    seed: int = 0,
    say: Say = quiet,
    component: str = "COMPONENT",
) -> dict[str, Any]:
    """The same of a velocity field made elsewhere.

    Args:
        f: see `verify.foreign`.
        component: how it is named on the command line, for the advice.
        autoencoder: of the latents it lives on, not standardised; none: it lives on the data.
        data: held-out and training data; a known target makes the velocity term exact.
        out: folder for ``evaluation/verify.json`` and ``report.html``: new or empty, or one that
            holds nothing but an earlier such report, which is replaced.

    Raises:
        UserError: the component fails, or does not fit the data.
    """
    ownership.refuse_foreign(out, apart=("evaluation",))
    ownership.refuse_foreign(out / "evaluation")
    effort = effort_of(n, quick)
    known = known_of(data, seed)
    points = build("grid", grid)
    walk = build("solver", solver), points if steps is None else curves.with_steps(points, steps)
    lives = _home(data, autoencoder, seed)
    field = field_of(f, build("path", path), clock, output, lives[0](known.x[:2], 0), time_scale)
    pipeline = _pipeline(field, path, walk, lives, autoencoder, data, effort.fine)
    label = asked_labels(None, DataFacts.of(data), effort.n, seed)
    cond = None if label is None else {"label": label}
    settings = {"path": path, "clock": clock, "output": output, "autoencoder": autoencoder}
    report = {
        "format_version": FORMAT_VERSION,
        "monge": monge_version(),
        "run": getattr(f, "__name__", type(f).__name__),
        "weights": "as given",
        "sampling": {"solver": solver, "grid": grid, **settings},
        **examine(pipeline, known, cond, data, effort, seed, say, Trials(autoencoder)),
    }
    how = {"component": component, **{k: v for k, v in settings.items() if v is not None}}
    report["advice"]["command"] = _again(data, out, report["advice"]["change"], how)
    _write(out, report)
    return report


def _write(out: Path, report: dict[str, Any]) -> None:
    """The report as JSON and as a page, in a folder that is no run's."""
    ownership.write(out / "evaluation", {Path(VERIFY).name: json_of(strict(report)).encode()})
    ownership.write(out, {REPORT: report_of(out).encode()}, apart=("evaluation",))


def _home(data: Data, autoencoder: str | None, seed: int) -> Maps:
    """Encode and decode of the latents that a component lives on, in units of its own."""
    # Distances are measured in the units of `scale_of`.
    dtype = torch.float64 if data.target else torch.float32
    if autoencoder is None:
        return scaled(scale_of(data), dtype)
    return maps_of(pretrained(autoencoder, data), data, seed, dtype)


def _pipeline(
    field: VelocityField,
    path: str,
    walk: tuple[Solver, Grid],
    lives: Maps,
    autoencoder: str | None,
    data: Data,
    fine: int,
) -> Pipeline:
    """A component's field with a solver and a grid, between its encoder and decoder."""
    sampler = Integrated(field, *walk)
    final = "none" if sampler.domain[1] == 1 else "posterior_mean"
    truth = data.target if autoencoder is None else None
    return Pipeline(field, build("path", path), sampler, final, *lives, truth, fine)


def _again(data: Data, out: Path, change: str | None, how: dict[str, str]) -> str:
    """The command that takes a component apart again, with the change or with more samples."""
    words = ["monge", "verify", str(data.text), *flags(how)]
    changed = shlex.split(change) if change else ["-n", "4000"]
    return shlex.join([*words, *changed, "--out", f"{out}-changed"])
