"""`monge sample`: draw samples from a trained run and write them."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monge.system import row_sharing
from monge.system.progress import counted
from monge.verbs.arguments import Sampling, load_run, sampling
from monge.verbs.shown import tell

if TYPE_CHECKING:
    from monge.runs.run import Run


MOST_MOVING = 1000
"""Most samples in an animation."""


@dataclass(frozen=True)
class Sample(Sampling):
    """Draw samples; writes a grid, and files in the requested formats."""

    steps: int | None = None
    """Steps of the solver, or jumps of a map; none: the run's own."""
    label: str | None = None
    """Names of labels separated by commas, or all; a name with a comma is in double quotes; none:
    by their frequency in the data."""
    condition: str | None = None
    """Values of a table's condition columns, "a=3.5,b=1"; none: those of training rows. Of a run
    trained with --conditional any, values of any columns, "age=40,sex=F", and "age=" for a missing
    value; none: nothing is given."""
    out: Path | None = None
    """Folder for the samples: new, empty, or with only earlier samples, which are replaced; by
    default RUN/samples/seed-<seed>-<6 hex of the settings>."""
    trajectory: bool = False
    """Also write trajectory.gif: the trajectories of the samples from noise to data."""
    format: str | None = None
    """png, npz (arr_0, as ADM's evaluation reads it), csv, parquet; several separated by commas;
    none: png for images, csv for tables."""


def act(arguments: Sample) -> dict[str, Any]:
    """Draw samples and write them."""
    run = load_run(arguments.run, arguments.device, arguments.threads)
    with row_sharing.lead(*run.tasks()) as leading:
        return _sample(arguments, run) if leading else {}


def _sample(arguments: Sample, run: Run) -> dict[str, Any]:
    from monge.components import build
    from monge.data.naming import labels_in
    from monge.learned import JUMPS
    from monge.runs import map_errors
    from monge.system import ownership

    if arguments.out is not None:
        ownership.refuse_foreign(arguments.out)
    formats = run.origin.check_formats(arguments.format.split(",") if arguments.format else None)
    labels = labels_in(arguments.label, run.label_names) if arguments.label else None
    start = time.monotonic()
    samples = run.sample(
        arguments.n, labels, condition=arguments.condition, **sampling(arguments, arguments.steps)
    )
    seconds = time.monotonic() - start
    # Other settings get another folder, so that pictures are never mixed.
    settings = [arguments.n, labels, *sampling(arguments, arguments.steps).values()]
    settings += [] if arguments.condition is None else [arguments.condition]
    mark = hashlib.sha256(repr(settings).encode()).hexdigest()[:6]
    own = run.folder / "samples" / f"seed-{arguments.seed}-{mark}"
    folder = arguments.out or ownership.free_place(own)
    more = _moving(arguments, run, labels) if arguments.trajectory else {}
    written = samples.save(folder, formats, more)
    info = samples.info
    # For a table the rows, for images the picture of all.
    shown = written[0] if run.facts.kind == "image" else written[-1]
    tell(arguments, f"{len(samples)} samples in {seconds:.1f} s: {shown}")
    tell(
        arguments,
        f"{info['solver']}, {counted(info['steps'], 'step')}, "
        f"{counted(info['evaluations_per_sample'], 'evaluation')} per sample, "
        f"guidance {info['guidance']:g}, final map {info['final']}, "
        f"times {info['domain'][0]:g} to {info['domain'][1]:g}, "
        f"source gap {info['source_gap']:.2g}",
    )
    found = {"files": [str(path) for path in written], "seconds": seconds, **info}
    if info["solver"] == JUMPS:
        grid = build("grid", info["grid"])
        error = map_errors.expected(run.folder, grid, info["guidance"])
        told = (
            f"no error was measured for {counted(info['steps'], 'jump')}, grid {grid}"
            if error is None
            else map_errors.in_words(error)
        )
        if error and error["guidance"] != info["guidance"]:
            told += f", at guidance {error['guidance']:g}"
        tell(arguments, told)
        found["expected_error"] = error
    return found


def _moving(arguments: Sample, run: Run, labels: Any) -> dict[str, bytes]:
    """The animation of the samples, by file name."""
    from monge.sampling import trajectory

    n, settings = min(arguments.n, MOST_MOVING), sampling(arguments, arguments.steps)
    moving = trajectory.trajectory(run, n, labels, condition=arguments.condition, **settings)
    return {"trajectory.gif": trajectory.gif(run, *moving)}
