"""`monge density`: the log-density of rows under a trained run, with its error."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from monge.verbs.arguments import load_run
from monge.verbs.shown import note, tell


@dataclass(frozen=True)
class Density:
    """The log-density of each row of a file, in nats and in the file's own units, as a CSV.

    Columns: log_density, stderr (of Hutchinson's estimator; 0 for the exact trace) and
    solver_change (the change with twice the steps, which measures the solver's error). The density
    is conditional on labels and conditions if the run has them.
    """

    run: Positional[Path]
    """Run folder."""
    rows: Positional[str]
    """The rows, a file or folder as for train."""
    out: Path | None = None
    """The CSV; by default RUN/density/<name of the file>.csv."""
    limit: int | None = None
    """Most rows."""
    probes: int | None = None
    """Random signs of Hutchinson's estimator; none: 8 above 32 dimensions, exact below."""
    steps: int | None = None
    """Steps of the solver; none: the run's own."""
    solver: str | None = None
    """euler, midpoint, heun, rk3, rk4, dopri5; map for the jumps of a flow map; none: the run's
    own."""
    grid: str | None = None
    """uniform:n=.., shifted:n=..,shift=.., geometric:n=..,stop=.."""
    guidance: float | None = None
    """Classifier-free guidance scale."""
    seed: int = 0
    """Seed of the random signs."""
    device: str = "auto"
    """auto, cpu, cuda, mps."""
    threads: int | None = None
    """CPU threads."""
    trust_code: bool = False
    """Execute the run's own components in code/."""
    json: bool = False
    """Print the result as JSON."""


def act(arguments: Density) -> dict[str, Any]:
    """Compute the densities of rows, write and summarise them."""
    from monge.evaluation.row_density import density_of_rows, write_rows
    from monge.system.files import refuse_existing

    run = load_run(arguments.run, arguments.device, arguments.threads)
    out = arguments.out
    if out is None:
        out = run.folder / "density" / f"{Path(arguments.rows).stem or 'rows'}.csv"
    else:
        refuse_existing(out)
    names = ("steps", "solver", "grid", "guidance")
    flow = {name: getattr(arguments, name) for name in names}
    found = density_of_rows(
        run,
        arguments.rows,
        limit=arguments.limit,
        probes=arguments.probes,
        seed=arguments.seed,
        say=note,
        **flow,
    )
    write_rows(found, out)
    tell(arguments, f"log-density of {found.n} rows, {found.units}: {out}")
    for line in found.lines():
        tell(arguments, line)
    return {"file": str(out), **found.summary}
