"""Trains a run from a specification: loads and encodes the data, trains, and writes the folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import singledispatch
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_bytes

from monge.data import sources
from monge.data.base import Data
from monge.data.columns import schema
from monge.errors import UserError
from monge.fitting.at_once import fit_at_once, heldout_loss
from monge.fitting.autoencoding import (
    keep_autoencoder_of,
    prepare_autoencoder,
)
from monge.fitting.chain import fit_chain
from monge.fitting.job import Job
from monge.fitting.map_errors import keep_map_errors
from monge.fitting.objective import (
    make_objective,
)
from monge.fitting.resolve import check, resolve
from monge.learned import kind_of
from monge.learned.chain import ChainObjective
from monge.report.card import write_card
from monge.report.report import write_report
from monge.runs import folder as folders
from monge.runs import places, planned, same_data, schemas
from monge.runs.layout import DATA, DATA_REPORT, QUALITY, SPLIT
from monge.runs.restore import pick_device, read_facts, set_threads
from monge.runs.run import IN_MEMORY, Run
from monge.runs.spec import TrainSpec
from monge.sampling import conditions
from monge.sampling.facts import DataFacts
from monge.system import lock, processes
from monge.system.files import write_atomic, write_json
from monge.system.own_faults import blamed
from monge.system.progress import Say, quiet, survived
from monge.training import checkpoint

fit_learned = singledispatch(fit_at_once)
"""Fits the model of an objective: ``fit_learned(objective, job)``. The default fits one network;
`fit_learned.register` gives another type of objective its own procedure."""

fit_learned.register(ChainObjective, fit_chain)


@blamed(anywhere=True)
def train(
    spec: TrainSpec,
    data: Data | None = None,
    out: Path | None = None,
    *,
    say: Say = quiet,
) -> Run:
    """Train a run in its folder, or continue it.

    Args:
        data: the data, if `spec.data` does not name it.
        out: the run folder; by default ``runs/<data>-<8 hex of the specification>``.
        say: receives progress notes.

    Raises:
        UserError: impossible settings, or a folder that holds another run.
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
        shape = tuple(autoencoder.latent_shape)
        fit_learned(objective, Job(spec, facts, data, latents, shape, teacher, folder, device, say))
        run = Run.load(folder, spec.device)
        if processes.is_main():
            _measure_and_report(run, data, taught=teacher is not None, say=say)
    return run


def _measure_and_report(run: Run, data: Data, *, taught: bool, say: Say) -> None:
    """Measure the error of a map, and write the card and the report of any run."""
    if run.learned.error_steps:
        say("measuring the map against the flow that it follows")
        keep_map_errors(run, None if taught else heldout_loss(run, data))
    with survived("the card and the report were not written", say):
        write_card(run.folder)
        write_report(run.folder)


def _load(spec: TrainSpec, say: Say) -> Data:
    """The data; the main process decodes into the cache first, and prints the notes."""
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
    """Lock and open the run folder in the main process; the others wait until it is open."""
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
    """Write the data report, the rows of each side of the split, and a table's codec."""
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
    """Train an autoencoder alone, or continue; returns its folder and its quality."""
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
