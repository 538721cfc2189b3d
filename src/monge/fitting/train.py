"""From a specification to a trained run: load, encode once, train, keep the books."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_bytes
from torch import nn

from monge import autoencoders
from monge.components import class_of
from monge.data import sources
from monge.data.base import Data
from monge.data.columns import schema
from monge.errors import UserError
from monge.fitting.autoencoding import (
    keep_autoencoder_of,
    prepare_autoencoder,
)
from monge.fitting.chain import ChainFit
from monge.fitting.map_errors import BEST_N, keep_if_best, keep_map_errors
from monge.fitting.objective import (
    batches_along,
    latent_batches,
    loop_spec,
    make_matching,
    make_objective,
    reflow_batches,
)
from monge.fitting.resolve import DEFAULT_STEPS, check, resolve
from monge.fitting.warm_start import initialise
from monge.latents.batches import Latents
from monge.learned import kind_of
from monge.learned.chain import ChainObjective
from monge.networks.exact import ExactNetwork
from monge.objectives.base import Objective
from monge.objectives.flow_matching import ReflowSpec
from monge.report.card import write_card
from monge.report.report import write_report
from monge.runs import folder as folders
from monge.runs import places, planned, same_data, schemas
from monge.runs.layout import COST, DATA, DATA_REPORT, QUALITY, SPLIT
from monge.runs.restore import build_network, pick_device, read_facts, set_threads
from monge.runs.run import IN_MEMORY, Run
from monge.runs.spec import TrainSpec
from monge.sampling import conditions
from monge.sampling.facts import DataFacts
from monge.system import lock, processes
from monge.system.files import write_atomic, write_json
from monge.system.own_faults import blamed
from monge.system.progress import Say, quiet, survived
from monge.tensors import stream
from monge.training import checkpoint
from monge.training.loop import Fitted, fit

GRIDS = 8
"""Sample grids during a run, where no interval is given."""

FEWEST_BETWEEN = 100
"""Steps between them at least: one takes as long as several steps."""


@blamed(anywhere=True)
def train(
    spec: TrainSpec,
    data: Data | None = None,
    out: Path | None = None,
    *,
    say: Say = quiet,
) -> Run:
    """Train a run, or go on training it, in its folder.

    Args:
        data: the data, where `spec.data` does not name it.
        out: the run folder; by default ``runs/<data>-<8 hex of the specification>``.
        say: told what happens.

    Raises:
        UserError: impossible settings, a folder that holds another run, ...
        Stopped, Diverged: see `training.loop.fit`; the run can be continued.
    """
    set_threads(spec.threads)
    device = pick_device(spec.device)
    processes.join()
    spec = folders.adopted(spec)
    spec = spec if out is None else places.moved(out, spec)
    if data is None:
        if out is not None and os.path.isfile(out / DATA) and read_facts(out).text is None:
            raise UserError(IN_MEMORY.format(folder=out))
        data = _load(spec, say)
    for line in data.summary:
        say(line)
    spec = resolve(spec, data, out)
    teacher = None if spec.teacher is None else Run.load(spec.teacher, spec.device)
    kind = kind_of(spec.objective)
    if teacher is not None and kind.follows_teacher and spec.precision == "float64":
        teacher.network.double()
    objective = make_objective(spec, data, teacher)
    folder = out or folders.default_folder(spec, data.name)
    spec = planned.as_planned(spec, folder)
    data = same_data.checked(data, folder, spec.changed_data)
    processes.wait()
    check(spec, data, folder)
    facts = DataFacts.of(data, kind.facts(objective))
    with _opened(folder, spec, data, facts, device, say):
        if teacher is not None and processes.is_main():
            keep_autoencoder_of(teacher.folder, folder)
        processes.wait()
        autoencoder, latents = prepare_autoencoder(spec, data, folder, device, say)
        network = build_network(spec, autoencoder.latent_shape, facts)
        if isinstance(objective, ChainObjective):
            shape = tuple(autoencoder.latent_shape)
            ChainFit(spec, objective, shape, data, folder, device, say).run(latents)
        elif not isinstance(network, ExactNetwork):
            taught = teacher is not None and not isinstance(teacher.network, ExactNetwork)
            start = spec.teacher if taught else spec.init_from
            if start is not None and checkpoint.newest_step(folder) is None:
                initialise(network, Path(start), data.label_names, say, needed=not taught)
            _fit(spec, network, objective, latents, data, folder, say, teacher)
        run = Run.load(folder, spec.device)
        if processes.is_main():
            _measure_and_report(run, data, taught=teacher is not None, say=say)
    return run


def _measure_and_report(run: Run, data: Data, *, taught: bool, say: Say) -> None:
    """The error of a map, and the card and the report of any run."""
    if run.learned.error_steps:
        say("measuring the map against the flow that it follows")
        keep_map_errors(run, None if taught else _heldout_loss(run, data))
    with survived("the card and the report were not written", say):
        write_card(run.folder)
        write_report(run.folder)


def _load(spec: TrainSpec, say: Say) -> Data:
    """The data; the main process decodes what is not in the cache yet, and tells of it."""
    with processes.main_first():
        return sources.load(spec.data, spec, say, spec.check_cache)


@contextmanager
def _opened(
    folder: Path,
    spec: TrainSpec,
    data: Data,
    facts: DataFacts,
    device: torch.device,
    say: Say,
) -> Iterator[None]:
    """Hold and open the run folder, in the main process; the others wait until it is open."""
    with ExitStack() as stack:
        if processes.is_main():
            folders.require_free(folder)
            stack.enter_context(lock.hold(folder))
            changed = folders.open_folder(folder, spec, checkpoint.newest_step(folder) or 0)
            changed |= same_data.changes(folder, facts)
            for name, (old, new) in changed.items():
                say(f"{name}: {old} -> {new}")
            say(f"run folder {folder}")
            write_json(folder / DATA, facts.to_json())
            places.keep(folder, spec, facts.text)
            _keep_reading(folder, data)
            folders.write_environment(folder, str(device))
            folders.journal_changes(folder, changed)
        if not processes.share_folder(folder):
            raise UserError(
                f"the run folder {folder} is not one folder for all processes: choose one with "
                "--out on a disk that all machines share"
            )
        yield


def _keep_reading(folder: Path, data: Data) -> None:
    """What reading found, which examples are on which side of the split, and a table's codec."""
    if data.report:
        write_json(folder / DATA_REPORT, {"format_version": 1, **data.report})
    if data.rows is not None:
        train, heldout = data.rows
        write_atomic(folder / SPLIT, to_bytes({"train": train, "heldout": heldout}))
    if data.codec is not None:
        write_json(folder / schema.FILE, data.codec.to_json())
    conditions.keep(folder, data)


@blamed(anywhere=True)
def train_autoencoder(
    spec: TrainSpec, out: Path | None = None, say: Say = quiet
) -> tuple[Path, dict[str, Any]]:
    """Train an autoencoder alone, or go on training it; returns its folder and its quality."""
    set_threads(spec.threads)
    device = pick_device(spec.device)
    processes.join()
    spec = folders.adopted(spec)
    data = _load(spec, say)
    for line in data.summary:
        say(line)
    spec = resolve(spec, data, out)
    folder = out or Path("runs") / f"autoencoder-{data.name}-{spec.digest()}"
    data = same_data.checked(data, folder, spec.changed_data)
    processes.wait()
    check(spec, data, folder)
    with _opened(folder, spec, data, DataFacts.of(data), device, say):
        prepare_autoencoder(spec, data, folder, device, say)
    return folder, schemas.read(folder, QUALITY)


def _fit(
    spec: TrainSpec,
    network: nn.Module,
    objective: Objective,
    latents: Latents,
    data: Data,
    folder: Path,
    say: Say,
    teacher: Run | None = None,
) -> Fitted:
    batches = latent_batches(spec, objective, latents, data)
    if class_of("objective", spec.objective) is ReflowSpec:
        assert teacher is not None
        batches = reflow_batches(spec, objective, data, teacher, say)
    elif teacher is not None and teacher.learned.in_blocks:
        batches = batches_along(spec, objective, latents, data, teacher, say)
    parameters = sum(p.numel() for p in network.parameters())
    size = f"{parameters / 1e6:.2f} M parameters"
    if spec.steps is not None and checkpoint.newest_step(folder) == spec.steps:
        say(
            f"{spec.network} ({size}) has done its {spec.steps} steps: nothing is left to train; "
            "more --steps would go on"
        )
    else:
        say(f"training {spec.network} ({size}) on {len(latents)} latents")
    every = spec.sample_every or max(FEWEST_BETWEEN, (spec.steps or DEFAULT_STEPS) // GRIDS)

    def show(average: nn.Module, step: int) -> None:
        run = _preview(folder, spec, average)
        with survived(f"the samples of step {step} were not drawn", say):
            shown = run.sample(PREVIEW, _preview_labels(run)).grid_png()
            write_atomic(folder / "samples" / f"step-{step:08d}.png", shown)
        if run.learned.error_steps:
            keep_if_best(run, step, 0.0 if teacher else _heldout_loss(run, data))

    loop = loop_spec(spec, sample_every=every, minutes=_minutes_left(spec, folder))
    fitted = fit(
        network,
        objective.loss,
        batches,
        loop,
        folder=folder,
        on_sample=show,
        on_plan=lambda steps: planned.keep(folder, spec, steps),
        quiet=say is quiet,
    )
    if processes.is_main():
        costs = {"train_s": fitted.seconds, "steps": fitted.step, "parameters": parameters}
        folders.add_costs(folder, **costs)
    return fitted


def _minutes_left(spec: TrainSpec, folder: Path) -> float | None:
    """The network's minutes: what the autoencoder, which has a third at most, has left."""
    if spec.minutes is None:
        return None
    costs = schemas.read_if_there(folder, COST) or {}
    spent = (costs.get("autoencoder_s") or 0.0) / 60
    return max(spec.minutes - spent, 0.5 * spec.minutes)


PREVIEW = 64
"""Samples in a grid during training."""


@torch.no_grad()
def _heldout_loss(run: Run, data: Data) -> float:
    """What flow matching loses on held-out examples, with the same draws each time."""
    rows = slice(0, BEST_N)
    given = {"label": data.heldout_label, "vector": data.heldout_vector}
    batch = {name: x[rows].to(run.device) for name, x in given.items() if x is not None}
    x = data.heldout[rows].to(run.device)
    batch["x1"] = run.autoencoder.encode(x).mean.to(next(run.network.parameters()))
    matching = make_matching(run.spec, data)
    drawn = matching.draw(batch, stream(run.spec.seed, "best"))
    return float(matching.loss(run.network, drawn).per_example.mean())


def _preview_labels(run: Run) -> str | None:
    return "all" if run.label_names else None


def _preview(folder: Path, spec: TrainSpec, average: nn.Module) -> Run:
    """The run as it stands, with the averaged weights in memory."""
    autoencoder: Any = autoencoders.load(folder / "autoencoder")
    device = next(average.parameters()).device
    facts = read_facts(folder)
    return Run.of(folder, spec, facts, autoencoder.to(device).eval(), average, device)
