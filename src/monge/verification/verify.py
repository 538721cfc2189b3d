"""Verifying a run: its budget, its error over time and steps, how it stretches, what to change."""

from __future__ import annotations

import dataclasses
import math
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from monge import ownership
from monge.autoencoders.identity import Identity
from monge.components import build
from monge.data.base import Data
from monge.errors import UserError
from monge.files import json_of, read_json, write_json
from monge.fitting.autoencoding import pretrained
from monge.flows import Composed, Integrated
from monge.metrics.samples import random_rows
from monge.paths import Kind
from monge.progress import Say, quiet
from monge.report.next_steps import command_of_advice
from monge.report.report import REPORT, report_of, write_report
from monge.report.words import map_laws
from monge.runs.folder import monge_version
from monge.runs.layout import QUALITY, VERIFY
from monge.runs.provenance import flags
from monge.runs.run import Run
from monge.sampling.facts import DataFacts
from monge.sampling.labels import asked_labels
from monge.sampling.model import GenerativeModel
from monge.targets.affine import rescaled
from monge.targets.atoms import Atoms
from monge.targets.base import Target
from monge.tensors import noise, stream
from monge.types import Cond
from monge.verification import certified, curves
from monge.verification.advice import Advice, Trials, advise
from monge.verification.budget import Budget, Known, budget, draw
from monge.verification.foreign import Clock, field_of
from monge.verification.lipschitz import along, stretching
from monge.verification.longer_training import trials_of
from monge.verification.maps import map_facts
from monge.verification.pipeline import Pipeline
from monge.verification.terms import Term, as_points

FORMAT_VERSION = 1

MOST_TRAIN = 4000
"""Training examples that enter floors and the memoriser, at most."""

FEWEST_HELDOUT = 20
"""Two in each of the ten groups of the jackknife."""

MOST_HELDOUT = 10_000
"""Held-out examples that terms are drawn from, at most."""


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
    """Say where the Wasserstein-2 error of a run comes from; write ``verify.json`` and the report.

    Args:
        n: samples in the terms.
        quick: fewer of everything, for a first look.
        sampling: steps, solver, grid, guidance, final; the run's own unless given.

    Raises:
        UserError: settings that do not fit the run, or data that has changed.
    """
    data = run.data() if data is None else data
    effort = _effort(n, quick)
    final = sampling.pop("final", None)
    pipeline = pipeline_of(run, data, seed, final, effort.fine, **sampling)
    label, given = run.draw_conditions(effort.n, None, None, seed)
    quality = run.folder / QUALITY
    home = (read_json(quality) if quality.exists() else {}).get("home")
    known = known_of(data, seed, home["rmse"] * math.sqrt(math.prod(data.shape)) if home else None)
    cond = run.condition(label, given)
    trials = trials_of(run, data, effort.trial_s)
    report = {
        **_head(run, pipeline, final),
        **examine(pipeline, known, cond, data, effort, seed, say, trials),
    }
    report["advice"]["command"] = command_of_advice(run, report["advice"])
    write_json(run.folder / VERIFY, _portable(report))
    write_report(run.folder)
    return report


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
    effort = _effort(n, quick)
    final = sampling.pop("final", None)
    pipeline = pipeline_of(generator, data, seed, final, effort.fine, **sampling)
    label, given = generator.draw_conditions(effort.n, None, None, seed)
    known, cond = known_of(data, seed), generator.condition(label, given)
    trials = Trials(elsewhere=generator.learned.velocity_elsewhere)
    found = examine(pipeline, known, cond, data, effort, seed, say, trials)
    return {**_head(generator, pipeline, final), **found}


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
    effort = _effort(n, quick)
    made = build("path", path)
    scale = _scale(data)
    known = known_of(data, seed)
    # A component lives in the data's own units; distances are measured in those of `_scale`.
    dtype = torch.float64 if data.target else torch.float32

    if autoencoder is None:
        encode, decode = _scaled(scale, dtype)
    else:
        encode, decode = _maps_of(pretrained(autoencoder, data), data, seed, dtype)
    field = field_of(f, made, clock, output, encode(known.x[:2], 0), time_scale)
    points = build("grid", grid)
    points = points if steps is None else curves.with_steps(points, steps)
    sampler = Integrated(field, build("solver", solver), points)
    end = sampler.domain[1]
    pipeline = Pipeline(
        field,
        made,
        sampler,
        "none" if end == 1 else "posterior_mean",
        encode,
        decode,
        data.target if autoencoder is None else None,
        effort.fine,
    )
    cond = None
    if data.train_label is not None:
        facts = DataFacts.of(data)
        label = asked_labels(None, facts, effort.n, seed)
        cond = None if label is None else {"label": label}
    report = {
        "format_version": FORMAT_VERSION,
        "monge": monge_version(),
        "run": getattr(f, "__name__", type(f).__name__),
        "weights": "as given",
        "sampling": {
            "solver": solver,
            "grid": grid,
            "path": path,
            "clock": clock,
            "output": output,
            "autoencoder": autoencoder,
        },
        **examine(pipeline, known, cond, data, effort, seed, say, Trials(autoencoder)),
    }
    how = {"component": component, "path": path, "clock": clock, "output": output}
    how |= {} if autoencoder is None else {"autoencoder": autoencoder}
    report["advice"]["command"] = _again(data, out, report["advice"]["change"], how)
    ownership.write(out / "evaluation", {Path(VERIFY).name: json_of(_portable(report)).encode()})
    ownership.write(out, {REPORT: report_of(out).encode()}, apart=("evaluation",))
    return report


def _again(data: Data, out: Path, change: str | None, how: dict[str, str]) -> str:
    """The command that takes a component apart again, with the change or with more samples."""
    words = ["monge", "verify", str(data.text), *flags(how)]
    changed = shlex.split(change) if change else ["-n", "4000"]
    return shlex.join([*words, *changed, "--out", f"{out}-changed"])


def _effort(n: int | None, quick: bool) -> Effort:
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
    optimum, z, z_cond = pipeline.truth, draws.z, draws.z_cond
    if optimum is None and known.train is not None:
        optimum, z, z_cond = _empirical(pipeline, known, effort.n)
    errors = []
    if optimum is not None:
        domain = (pipeline.begin, pipeline.end)
        errors = curves.field_errors(
            pipeline.field, pipeline.path, optimum, z, z_cond, domain, effort.bins, seed
        )
    say("error against steps")
    few = slice(0, effort.curves_n)
    steps = curves.errors_by_steps(
        pipeline, draws.x0[few], _rows(draws.cond, few), found.reference[few], steps=effort.steps
    )
    say("Lipschitz constants along trajectories")
    some = slice(0, effort.stretched)
    stretched = stretching(
        pipeline,
        draws.x0[some],
        _rows(draws.cond, some),
        draws.x[some],
        effort.times,
        effort.iterations,
    )
    facts = None
    law = pipeline.map_law
    if law is not None and not law.only_to_data:
        say("laws of the map")
        rates = stretched.rate
        if pipeline.guidance != 1:  # those were of the field without guidance
            x0, given = draws.x0[some], _rows(draws.cond, some)
            flow, domain = pipeline.reference, (pipeline.begin, pipeline.end)
            seen = along(flow, flow.field, x0, given, domain, effort.times, effort.iterations)
            rates = [point.rate for point in seen]
        facts = map_facts(
            cast("Composed", pipeline.sampler),  # laws of a map are given of no other
            pipeline.reference,
            draws.x0[few],
            _rows(draws.cond, few),
            max(rates),
            law.backwards,
            seed,
        )
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
        "units": _units(data),
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


def pipeline_of(
    run: GenerativeModel,
    data: Data,
    seed: int = 0,
    final: str | None = None,
    fine: int = 64,
    **flow: Any,
) -> Pipeline:
    """A run taken apart. Data are flattened in units in which distances mean something: images
    as they are, table columns in standard deviations of the training rows."""
    sampler, field, law = run.learned.examined(**flow)
    encode, decode = _maps_of(run.autoencoder, data, seed, run.dtype, run.device)
    return Pipeline(
        field,
        run.path,
        sampler,
        run.final(sampler, final),
        encode,
        decode,
        _truth(run, data),
        fine,
        law,
    )


Maps = tuple[Callable[[Tensor, int], Tensor], Callable[[Tensor], Tensor]]
"""Encode and decode, as `Pipeline` has them, on data in the units of `_scale`."""


def _scaled(scale: Tensor, dtype: torch.dtype) -> Maps:
    """No autoencoder: the data in their own units."""

    def encode(x: Tensor, first: int) -> Tensor:
        return (x * scale).to(dtype)

    def decode(z: Tensor) -> Tensor:
        return z / scale

    return encode, decode


def _maps_of(
    autoencoder: Any, data: Data, seed: int, dtype: torch.dtype, device: torch.device | None = None
) -> Maps:
    """Those of an autoencoder, whose posterior is drawn from."""
    scale = _scale(data).to(device)

    def encode(x: Tensor, first: int) -> Tensor:
        posterior = autoencoder.encode((x.to(device) * scale).float())
        z = posterior.mean
        if posterior.logvar is not None:
            e = noise(seed, first, first + len(x), tuple(z.shape[1:]), "verify", "posterior")
            z = z + (posterior.logvar / 2).exp() * e.to(z)
        return z.to(dtype)

    def decode(z: Tensor) -> Tensor:
        x = autoencoder.decode(z.float())
        x = x.clamp(-1, 1) if data.kind == "image" else x / scale
        return x.cpu()

    return encode, decode


def _truth(run: GenerativeModel, data: Data) -> Target | None:
    """The exact law of the run's latents, where it is known."""
    if data.target is None or run.autoencoder.log_abs_det is None:
        return None
    if not isinstance(run.autoencoder.autoencoder, Identity):
        return None
    return rescaled(data.target, run.autoencoder.mean, run.autoencoder.std)


def known_of(data: Data, seed: int, home: float | None = None) -> Known:
    """The real examples of a source, in the units of `_scale`.

    Raises:
        UserError: fewer than `FEWEST_HELDOUT` are held out.
    """
    if len(data.heldout) < FEWEST_HELDOUT:
        raise UserError(
            f"verify needs at least {FEWEST_HELDOUT} held-out examples to tell its errors, and "
            f"this data has {len(data.heldout)}: train on more data"
        )
    scale = _scale(data)
    rows = random_rows(len(data.train), MOST_TRAIN, stream(seed, "verify", "train"))
    shown = random_rows(len(data.heldout), MOST_HELDOUT, stream(seed, "verify", "real"))
    cond = {}
    if data.heldout_label is not None:
        cond["label"] = data.heldout_label[shown]
    if data.heldout_vector is not None:
        cond["vector"] = data.heldout_vector[shown].float()
    train_cond = {}
    if data.train_label is not None:
        train_cond["label"] = data.train_label[rows]
    if data.train_vector is not None:
        train_cond["vector"] = data.train_vector[rows].float()
    return Known(
        data.heldout[shown] / scale,
        cond or None,
        data.train[rows] / scale,
        train_cond or None,
        home,
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


def _scale(data: Data) -> Tensor:
    if data.kind == "image":
        return torch.ones(())
    deviation = data.train[:].std(0)
    return torch.where(deviation > 0, deviation, 1.0)


def _units(data: Data) -> str:
    if data.kind == "image":
        return "pixels in [-1, 1], Euclidean over an image"
    return "standard deviations of the training data, Euclidean over a row"


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


def _portable(value: Any) -> Any:
    """Strict JSON: what is not finite becomes null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {k: _portable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_portable(v) for v in value]
    return value


def text(report: dict[str, Any]) -> str:
    """The budget for the terminal."""
    terms = [Term(**t) for t in report["terms"]]
    most = max((t.value for t in terms), default=0.0) or 1.0
    lines = [report["advice"]["text"]]
    lines += [f"W2 budget in {report['units']}; n = {report['n']}, seed {report['seed']}"]
    for term in terms:
        bar = "█" * round(24 * term.value / most)
        value = f"{term.value:.4g} ± {term.stderr:.2g}"
        lines.append(f"  {term.name:<15} {value:>20}  {term.kind:<8} {bar}")
        lines.append(f"  {'':<15} {'':>20}  {term.coupling}" + _setting(term))
    total = report["sum"]
    word = "at most" if all(t.kind == "upper" for t in terms) else "estimate"
    lines.append(f"  {'sum':<15} {total['value']:>12.4g} ± {total['stderr']:.2g}  ({word})")
    for name, bound in report["lower_bounds"].items():
        lines.append(f"  at least        {bound['value']:>12.4g} ± {bound['stderr']:.2g}  ({name})")
    plug = report["plug_in"]
    lines.append(
        f"  plug-in W2 at n = {plug['n']}: {plug['value']:.4g}, "
        f"of real examples {plug['floor']:.4g}"
    )
    lines += [f"  {term.loose}" for term in terms if term.loose]
    if report.get("map"):
        lines += [f"  {line}" for line in map_laws(report["map"])]
    lines += [
        f"  {line}" for line in certified.in_words(report.get("certified"), report["lipschitz"])
    ]
    if command := report["advice"].get("command"):
        lines.append(f"Next: {command}")
    return "\n".join(lines)


def _setting(term: Term) -> str:
    return f"; {term.setting}" if term.setting else ""
