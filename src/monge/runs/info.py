"""What a run folder holds, in a few lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from monge.files import read_json
from monge.learned import kind_of
from monge.runs.folder import read_config
from monge.runs.layout import CHAIN, COST, EVALUATION, QUALITY
from monge.runs.spec import TrainSpec
from monge.training import checkpoint, journal


def describe(folder: Path) -> dict[str, Any]:
    """What the run is, how far it is and how good, from its files alone.

    Raises:
        UserError: no run there, or damaged files.
    """
    spec = read_config(folder)
    solver, guidance = kind_of(spec.objective).sampling(spec)
    facts: dict[str, Any] = {
        "run": str(folder),
        "data": spec.data,
        "autoencoder": spec.autoencoder,
        "network": spec.network,
        **_objective(spec),
        "path": f"{spec.path}, output {spec.output}, coupling {spec.coupling}",
        "sampling": f"{solver}, {spec.grid}, guidance {guidance:g}, final {spec.final}",
    }
    newest = checkpoint.newest_step(folder)
    facts["steps"] = f"{newest or 0} of {spec.steps or f'{spec.minutes:g} minutes'}"
    if (folder / CHAIN).exists():
        sizes = [b["size"] for b in read_json(folder / CHAIN)["blocks"]]
        facts["steps"] = f"{spec.steps or f'{spec.minutes:g} minutes in all'}, of each block"
        facts["blocks"] = ", ".join("free" if s is None else f"{s:.3g}" for s in sizes)
    log = journal.read(folder / journal.NAME)
    losses = [row["loss"] for row in log if "loss" in row]
    if losses:
        facts["last loss"] = losses[-1]
    for name, title in ((QUALITY, "autoencoder"), (COST, "cost")):
        if (folder / name).exists():
            values = read_json(folder / name)
            facts[f"{title} facts"] = ", ".join(f"{k} {_short(v)}" for k, v in values.items())
    evaluation = folder / EVALUATION
    if evaluation.exists():
        for row in read_json(evaluation)["table"]["rows"]:
            low, high = row["interval"]
            facts[row["name"]] = (
                f"{_short(row['value'])} [{_short(low)}, {_short(high)}], "
                f"floor {_short(row['floor'])}"
            )
    else:
        facts["evaluation"] = f"none yet: monge evaluate {folder}"
    return facts


def _objective(spec: TrainSpec) -> dict[str, str]:
    """What is trained, where it is no plain flow matching."""
    if spec.objective == "flow_matching":
        return {}
    taught = f", teacher {spec.teacher}" if spec.teacher else ""
    return {"objective": f"{spec.objective}, pairs {spec.pairs}{taught}"}


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
