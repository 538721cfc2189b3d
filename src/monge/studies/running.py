"""Cells computed in any order, by any backend of joblib, and kept.

A finished cell is a file of its own, written atomically by the process that asked for it and
named by a hash of the study's name, the cell's coordinates and the version of the code; so an
interrupted study goes on where it was, and other values of an axis reuse the cells they share.
The backend is joblib's: processes on this machine, or what `joblib.parallel_config` has chosen.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monge.errors import Stopped, UserError
from monge.studies.code_version import code_version
from monge.studies.study import Cell, Row, Study, Value
from monge.system import files
from monge.system.loading import load
from monge.system.lock import hold
from monge.system.progress import Say, quiet

EVERY_S = 15.0
"""Seconds between lines of progress."""

CELLS = "cells"
"""The subfolder of finished cells."""


@dataclass(frozen=True)
class Computed:
    """A cell that was computed.

    Attributes:
        rows: what it measured; None where it failed.
        seconds: how long it took.
        error: the traceback of its failure.
    """

    cell: Cell
    rows: list[Row] | None
    seconds: float
    error: str = ""


@dataclass(frozen=True)
class Results:
    """What a study measured.

    Attributes:
        rows: of all cells, in their order.
        chosen: the values of each axis.
        seconds: of computing, summed over the cells, those computed earlier included.
        failures: the cells that failed, with their errors.
        reused: how many cells were there already.
    """

    study: Study
    rows: tuple[Row, ...]
    chosen: Mapping[str, tuple[Value, ...]]
    seconds: float
    failures: tuple[Computed, ...] = ()
    reused: int = 0


def run(
    study: Study,
    given: Mapping[str, Iterable[Value]] | None = None,
    *,
    quick: bool = False,
    out: Path | None = None,
    jobs: int = 1,
    reference: str | None = None,
    say: Say = quiet,
) -> Results:
    """Measure all cells of a study.

    Args:
        given: values of axes, in the place of the study's own.
        out: folder in whose `cells/` finished cells are kept; None keeps none.
        jobs: how many cells at once; -1 for one on each core.
        reference: ``MODULE:NAME`` or ``FILE.py:NAME`` of the study, which other processes load;
            needed for more than one job.
        say: where progress goes.

    Raises:
        UserError: an unknown axis, or more than one job without a reference.
    """
    if jobs != 1 and reference is None:
        raise UserError(f"study {study.name}: more than one job needs the study's file and name")
    chosen = study.chosen(given, quick)
    cells = list(study.cells(chosen))
    if out is None:
        return _results(study, chosen, cells, {}, _compute_all(study, cells, jobs, reference, say))
    keys = _keys(study, cells, reference)
    folder = out / CELLS
    with hold(folder):
        found = {i: kept for i, key in enumerate(keys) if (kept := _read(folder / f"{key}.json"))}
        missing = [cell for i, cell in enumerate(cells) if i not in found]
        say(_budget(study, cells, missing))
        at = {id(cell): i for i, cell in enumerate(cells)}
        fresh = []
        for done in _compute_all(study, missing, jobs, reference, say):
            fresh.append(done)
            if done.rows is not None:
                content = {"cell": dict(done.cell.at), "seconds": done.seconds, "rows": done.rows}
                files.write_json(folder / f"{keys[at[id(done.cell)]]}.json", content)
    return _results(study, chosen, cells, found, fresh)


def _keys(study: Study, cells: Sequence[Cell], reference: str | None) -> list[str]:
    if reference is not None:
        source = reference.rpartition(":")[0]
        code = code_version(Path(source) if source.endswith(".py") else source)
    else:
        code = code_version(Path(inspect.getfile(study.cell)))
    texts = (json.dumps([study.name, code, dict(cell.at)], sort_keys=True) for cell in cells)
    return [hashlib.sha256(text.encode()).hexdigest()[:24] for text in texts]


def _read(path: Path) -> dict[str, Any] | None:
    """A finished cell; None where there is none, or a damaged one, which is computed again."""
    try:
        found = json.loads(files.read_own(path))
        rows = found["rows"]
        fine = isinstance(rows, list) and all(isinstance(row, dict) for row in rows)
        return {"rows": rows, "seconds": float(found["seconds"])} if fine else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _budget(study: Study, cells: Sequence[Cell], missing: Sequence[Cell]) -> str:
    line = f"{study.name}: {len(cells)} cells"
    if len(missing) < len(cells):
        line += f", {len(cells) - len(missing)} of them kept from before"
    if study.minutes is not None:
        every = len(list(study.cells(study.chosen())))
        line += f"; all {every} in full took {study.minutes:g} minutes of one core"
    return line


def _compute_all(
    study: Study, cells: Sequence[Cell], jobs: int, reference: str | None, say: Say
) -> Iterator[Computed]:
    """The cells as they get done."""
    if not cells:
        return
    from joblib import Parallel, delayed

    what = study if reference is None else reference
    work = Parallel(n_jobs=jobs, return_as="generator_unordered")
    tasks = (delayed(_compute)(what, index, dict(cell.at)) for index, cell in enumerate(cells))
    begun = told = time.monotonic()
    results: Any = work(tasks)
    for number, (index, rows, seconds, error) in enumerate(results, 1):
        now = time.monotonic()
        if now - told >= EVERY_S or number == len(cells):
            left = (now - begun) / number * (len(cells) - number)
            say(f"{study.name}: {number}/{len(cells)} cells, {left:.0f} s left")
            told = now
        yield Computed(cells[index], rows, seconds, error)


def _compute(
    what: Study | str, index: int, at: Mapping[str, Any]
) -> tuple[int, list[Row] | None, float, str]:
    """One cell, wherever this runs; on one thread, so that cells do not compete."""
    import torch

    study = load(what) if isinstance(what, str) else what
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = tuple(axis.name for axis in study.axes if not axis.together)
    begun = time.monotonic()
    try:
        rows = study.measure(Cell(study.name, at, alone))
    except Stopped:  # a signal, which the training of a cell took for itself
        raise Stopped(
            f"study {study.name} was stopped: run it again with the same --out to continue it"
        ) from None
    except Exception:
        # A cell that fails says so in the results; the others are worth having.
        return index, None, time.monotonic() - begun, traceback.format_exc(limit=-3)
    finally:
        torch.set_num_threads(threads)
    return index, rows, time.monotonic() - begun, ""


def _results(
    study: Study,
    chosen: Mapping[str, tuple[Value, ...]],
    cells: Sequence[Cell],
    found: Mapping[int, Mapping[str, Any]],
    computed: Iterable[Computed],
) -> Results:
    fresh = {id(done.cell): done for done in computed}
    rows: list[Row] = []
    seconds = 0.0
    for i, cell in enumerate(cells):
        if i in found:
            rows += found[i]["rows"]
            seconds += found[i]["seconds"]
        elif (done := fresh[id(cell)]).rows is not None:
            rows += done.rows
            seconds += done.seconds
    failures = tuple(done for done in fresh.values() if done.rows is None)
    return Results(study, tuple(rows), chosen, seconds, failures, len(found))
