"""The log-density of each row of a source under a run, with the errors of its computation."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from monge.errors import UserError
from monge.evaluation.density import PROBES
from monge.flows.density import EXACT
from monge.sampling.encoded import labels_of
from monge.sampling.inputs import read
from monge.sampling.model import GenerativeModel
from monge.system.files import write_atomic
from monge.system.progress import Say, quiet


@dataclass(frozen=True)
class RowDensities:
    """log-densities of rows in nats.

    Attributes:
        row: number of each row in its source.
        value, stderr: (N,); stderr is that of Hutchinson's estimator, 0 where the trace is exact.
        change: (N,), how far twice the steps move a value; None for an adaptive solver or where
            nothing is solved.
        units: what a volume is measured in.
        protocol: how it was computed.
    """

    row: Tensor
    value: Tensor
    stderr: Tensor
    change: Tensor | None
    units: str
    protocol: dict[str, Any]

    @property
    def n(self) -> int:
        return len(self.value)

    @property
    def summary(self) -> dict[str, Any]:
        """Means over rows, with the standard error over rows."""
        spread = float(self.value.double().std()) if self.n > 1 else math.nan
        found = {
            "n": self.n,
            "mean": float(self.value.double().mean()),
            "stderr": spread / math.sqrt(self.n),
            "trace_stderr_rms": float(self.stderr.double().square().nanmean().sqrt()),
            "units": self.units,
            "protocol": self.protocol,
        }
        if self.change is not None:
            found["solver_change_mean"] = float(self.change.double().mean())
            found["solver_change_largest"] = float(self.change.max())
        return found

    def lines(self) -> list[str]:
        """The summary for people."""
        s, p = self.summary, self.protocol
        lines = [
            f"mean {s['mean']:.4f} ± {s['stderr']:.4f} nats (standard error over rows); lowest "
            f"{float(self.value.min()):.4f} in row {int(self.row[self.value.argmin()])}",
            f"trace {p['trace']}; {p['solver']}, {p['steps']} steps",
        ]
        if self.change is not None:
            lines[1] += (
                f"; twice the steps move a row by {s['solver_change_mean']:.2g} on average, at "
                f"most {s['solver_change_largest']:.2g}"
            )
        return lines


def density_of_rows(
    run: GenerativeModel,
    source: str,
    *,
    limit: int | None = None,
    probes: int | None = None,
    seed: int = 0,
    say: Say = quiet,
    **flow: Any,
) -> RowDensities:
    """The log-density of the rows of a source, given their labels and conditions.

    In the source's own units where the autoencoder is an affine bijection, else of the latents.

    Args:
        probes: of Hutchinson's estimator; None for 8 above `flows.density.EXACT` dimensions.
        flow: steps, solver, grid, guidance; the run's own unless given.

    Raises:
        UserError: a source of another shape, or a run without a density.
    """
    if reason := run.without_density(flow.get("solver")):
        raise UserError(f"no log-density: {reason}")
    if limit is not None and limit < 1:
        raise UserError(f"limit must be at least 1, not {limit}")
    rows = read(run, source, limit, say)
    label = labels_of(run, rows.label, rows.names, len(rows))
    found: dict[str, list[Tensor]] = {"value": [], "stderr": [], "change": []}
    size, places = math.prod(run.autoencoder.latent_shape), []
    if probes is None and size > EXACT:
        probes = PROBES
    sampling = run.describe_sampling(run.flow(**_of_flow(flow)), guidance=flow.get("guidance"))
    finer = _finer(run, flow, sampling)
    space = "latent"
    for place, x in rows.chunks():
        given = [None if c is None else c[place] for c in (label, rows.vector)]
        how = {"probes": probes, "seed": seed}
        density = run.log_density(x, *given, **how, **_of_flow(flow))
        space = density.space
        found["value"].append(density.value)
        found["stderr"].append(density.stderr)
        if finer is not None:
            again = run.log_density(x, *given, **how, **finer)
            found["change"].append((again.value - density.value).abs())
        places.append(place)
    order = torch.cat(places).argsort()
    joined = {name: torch.cat(parts)[order] for name, parts in found.items() if parts}
    exact = probes is None or size <= EXACT
    protocol = {
        "trace": "exact" if exact else f"by Hutchinson's estimator, {probes} probes",
        **{name: sampling[name] for name in ("solver", "steps", "grid", "guidance", "domain")},
        "seed": seed,
    }
    numbers = torch.arange(len(rows)) if rows.rows is None else rows.rows
    parts = joined["value"], joined["stderr"], joined.get("change")
    return RowDensities(numbers, *parts, UNITS[space], protocol)


UNITS = {
    "data": "in nats, in the units of the file",
    "latent": "in nats, of standardised latents (the autoencoder is no affine bijection)",
}
"""By where a density lives."""


def _of_flow(flow: dict[str, Any]) -> dict[str, Any]:
    return {name: flow.get(name) for name in ("steps", "solver", "grid", "guidance")}


def _finer(
    run: GenerativeModel, flow: dict[str, Any], sampling: dict[str, Any]
) -> dict[str, Any] | None:
    """The flow with twice the steps; None where steps mean nothing or are fixed."""
    used = run.flow(**_of_flow(flow))
    if used.order == 0 or run.learned.fixed_steps or sampling["solver"].startswith("dopri5"):
        return None
    return {**_of_flow(flow), "steps": 2 * sampling["steps"]}


def write_rows(found: RowDensities, path: Path) -> Path:
    """Write a CSV with a line for each row; digits are those of float32."""
    text = io.StringIO()
    names = ["row", "log_density", "stderr"] + ["solver_change"] * (found.change is not None)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    columns = [found.value, found.stderr] + ([] if found.change is None else [found.change])
    for row, *values in zip(found.row.tolist(), *(c.tolist() for c in columns), strict=True):
        writer.writerow([row, *(f"{v:.8g}" for v in values)])
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_atomic(path, text.getvalue())
