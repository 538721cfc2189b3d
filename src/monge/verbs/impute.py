"""`monge impute`: draw the missing cells of a table, given the known ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from monge.system.progress import counted
from monge.verbs.arguments import load_run
from monge.verbs.shown import tell


@dataclass(frozen=True)
class Impute:
    """Draw the missing cells of a table from a run, given the known cells of their row.

    The run was trained with --conditional any. Known cells, and columns that the run does not know,
    are written back unchanged. Several draws show how uncertain a cell is.
    """

    run: Positional[Path]
    """Run folder."""
    holes: Positional[Path]
    """A .csv, .tsv or .parquet file with the columns of the run's table, or some of them."""
    draws: int = 1
    """Draws of each missing cell; of several, the rows are repeated, and a first column, draw,
    numbers them."""
    out: Path | None = None
    """The file to write; by default RUN/imputed/<name of the file>."""
    steps: int | None = None
    """Steps of the solver; none: the run's own."""
    solver: str | None = None
    """euler, midpoint, heun, rk3, rk4, dopri5:rtol=..,atol=.."""
    grid: str | None = None
    """uniform:n=.., shifted:n=..,shift=.., geometric:n=..,stop=.."""
    seed: int = 0
    """Seed of the draws."""
    device: str = "auto"
    """auto, cpu, cuda, mps."""
    threads: int | None = None
    """CPU threads."""
    trust_code: bool = False
    """Execute the run's own components in code/."""
    json: bool = False
    """Print the result as JSON."""


def act(arguments: Impute) -> dict[str, Any]:
    """Draw missing cells and write the table."""
    from monge.sampling.imputing import codec_for, impute_file
    from monge.system.files import refuse_existing, write_atomic

    run = load_run(arguments.run, arguments.device, arguments.threads)
    codec_for(run)
    out = arguments.out
    if out is None:
        out = run.folder / "imputed" / arguments.holes.name.removesuffix(".gz")
    else:
        refuse_existing(out)
    sampling = {name: getattr(arguments, name) for name in ("steps", "solver", "grid")}
    content, found = impute_file(
        run, arguments.holes, arguments.draws, seed=arguments.seed, **sampling
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, content)
    each = {name: int(missing.sum()) for name, missing in found.holes.items()}
    listed = ", ".join(f"{name!r} {n}" for name, n in each.items()) or "none"
    rows = counted(len(found.rows), "row")
    tell(arguments, f"{counted(found.cells, 'missing cell')} in {rows}: {out}")
    tell(arguments, f"by column: {listed}; {counted(arguments.draws, 'draw')}")
    return {"file": str(out), "cells": each, "rows": len(found.rows), "draws": arguments.draws}
