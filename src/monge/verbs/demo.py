"""`monge demo`: train, sample and evaluate on the bundled digits."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monge.system import row_sharing
from monge.verbs.shown import note, say, tell, width
from monge.verbs.trained import cost

if TYPE_CHECKING:
    from monge.runs.run import Run


@dataclass(frozen=True)
class Demo:
    """Train, sample and evaluate on the bundled digits: about three minutes on two cores."""

    out: Path | None = None
    """Run folder."""
    threads: int | None = None
    """CPU threads."""
    json: bool = False
    """Print the result as JSON."""


def act(arguments: Demo) -> dict[str, Any]:
    """Train, sample and evaluate the digits recipe."""
    from monge import recipes as book
    from monge.fitting.train import train as train_run

    start = time.monotonic()
    spec = dataclasses.replace(book.find("digits").SPEC, threads=arguments.threads)
    run = train_run(spec, out=arguments.out, say=say())
    with row_sharing.lead(*run.tasks()) as leading:
        return _demo(arguments, run, start) if leading else {}


def _demo(arguments: Demo, run: Run, start: float) -> dict[str, Any]:
    from monge.evaluation.evaluate import evaluate_run
    from monge.system import ownership

    note("sampling and evaluating")
    place = ownership.free_place(run.folder / "samples" / "seed-0")
    grid = run.sample(100, "all").save(place, formats=())[0]
    result = evaluate_run(run)
    tell(arguments, result.text(width()))
    tell(arguments, f"\npictures  {grid}")
    tell(arguments, f"report    {run.folder / 'report.html'}")
    tell(arguments, f"done in {time.monotonic() - start:.0f} s")
    seconds = time.monotonic() - start
    metrics = {row.name: row.value for row in result.table}
    floors = {row.name: row.floor for row in result.table}
    files = {"run": str(run.folder), "grid": str(grid)}
    return {**files, "seconds": seconds, "metrics": metrics, "floors": floors, **cost(run.folder)}
