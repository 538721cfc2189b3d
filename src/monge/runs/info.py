"""Describes a run folder, as values for programs and in a few lines for people."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monge.errors import UserError
from monge.learned import kind_of
from monge.runs import schemas
from monge.runs.folder import read_config
from monge.runs.layout import CHAIN, COST, DATA, EVALUATION, QUALITY
from monge.training import checkpoint, journal

FACTS = {
    "examples": DATA,
    "autoencoder_quality": QUALITY,
    "chain": CHAIN,
    "cost": COST,
    "evaluation": EVALUATION,
}
"""Optional parts of the description, and the files that hold them."""


def describe(folder: Path) -> dict[str, Any]:
    """The settings, progress and quality of a run, from its files alone; unknown values are null.

    Damaged files of measurements are left out and named under ``damaged``.

    Raises:
        UserError: no run there, or damaged settings.
    """
    spec = read_config(folder)
    solver, guidance = kind_of(spec.objective).sampling(spec)
    log = journal.read(folder / journal.NAME)
    losses = [row["loss"] for row in log if row.get("loss") is not None]
    found: dict[str, Any] = {
        "run": str(folder),
        "data": spec.data,
        "autoencoder": spec.autoencoder,
        "network": spec.network,
        "objective": spec.objective,
        "pairs": None if spec.objective == "flow_matching" else spec.pairs,
        "teacher": spec.teacher,
        "path": spec.path,
        "output": spec.output,
        "coupling": spec.coupling,
        "conditional": spec.conditional,
        "solver": solver,
        "grid": spec.grid,
        "guidance": guidance,
        "final": spec.final,
        "steps": checkpoint.newest_step(folder) or 0,
        "steps_asked": spec.steps,
        "minutes_asked": spec.minutes,
        "last_loss": losses[-1] if losses else None,
        "damaged": [],
    }
    for key, name in FACTS.items():
        try:
            found[key] = schemas.read_if_there(folder, name)
        except UserError as error:
            found[key] = None
            found["damaged"].append(str(error))
    if found["chain"] is not None:
        found["chain"] = [block["size"] for block in found["chain"]["blocks"]]
    if found["evaluation"] is not None:
        found["evaluation"] = [_row(row) for row in found["evaluation"]["table"]["rows"]]
    return found


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("name", "value", "interval", "floor", "baselines", "n")
    return {**{key: row[key] for key in keys}, "unit": row.get("unit", "")}


def in_words(found: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """The description as names and texts, in reading order."""
    data = found["examples"]
    objective = "" if found["objective"] == "flow_matching" else found["objective"]
    if objective:
        objective += f", pairs {found['pairs']}"
    if found["teacher"]:
        objective += f", teacher {shown_path(found['teacher'])}"
    blocks = found["chain"]
    asked = found["steps_asked"] or f"{found['minutes_asked']:g} minutes"
    lines = {
        "run": found["run"],
        "data": shown_path(found["data"]),
        "examples": "" if data is None else _examples(data),
        "autoencoder": shown_path(found["autoencoder"]),
        "network": found["network"],
        "objective": objective,
        "path": f"{found['path']}, output {found['output']}, coupling {found['coupling']}",
        "given": "any columns" if found["conditional"] == "any" else "",
        "sampling": f"{found['solver']}, {found['grid']}, guidance {found['guidance']:g}, "
        f"final {found['final']}",
        "steps": f"{found['steps']} of {asked}" if blocks is None else f"{asked}, of each block",
        "blocks": ", ".join("free" if b is None else f"{b:.3g}" for b in blocks or ()),
        "last loss": "" if found["last_loss"] is None else short(found["last_loss"]),
        "autoencoder facts": _facts(found["autoencoder_quality"]),
        "cost": _facts(found["cost"]),
    }
    lines |= {f"damaged {i + 1}": text for i, text in enumerate(found["damaged"])}
    for row in found["evaluation"] or ():
        low, high = map(short, row["interval"])
        lines[row["name"]] = f"{short(row['value'])} [{low}, {high}], floor {short(row['floor'])}"
    if found["evaluation"] is None:
        lines["evaluation"] = f"none yet: monge evaluate {folder}"
    return {name: text for name, text in lines.items() if text}


def _examples(data: Mapping[str, Any]) -> str:
    shape = " x ".join(map(str, data["shape"]))
    parts = f"{data.get('n_train', '?')} and {data.get('n_heldout', '?')} held out"
    classes = len(data["label_names"])
    labels = f", {classes} class{'es' * (classes != 1)}" if classes else ""
    return f"{parts}, shape {shape}{labels}"


def _facts(values: Mapping[str, Any] | None) -> str:
    plain = {k: v for k, v in (values or {}).items() if v is not None and not isinstance(v, dict)}
    return ", ".join(f"{k} {short(v)}" for k, v in plain.items())


def shown_path(text: str) -> str:
    """A path, relative to the working directory if that is shorter."""
    if not os.path.isabs(text):
        return text
    near = os.path.relpath(text)
    return near if len(near) < len(text) else text


def short(value: Any) -> str:
    """A value with four significant digits; lists in brackets."""
    if isinstance(value, list):
        return "[" + ", ".join(map(short, value)) + "]"
    return f"{value:.4g}" if isinstance(value, float) else "-" if value is None else str(value)
