"""The parts of a report that say what was run: cost, machine, data, settings, the command."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from monge.report.page import card, count, duration, escaped, facts, folded, number, read_facts
from monge.report.sections import provenance
from monge.runs import schemas
from monge.runs.folder import in_short, read_config
from monge.runs.layout import CHANGES, CONFIG, COST, DATA, ENVIRONMENT, EVALUATION
from monge.runs.spec import TrainSpec

PHASES = {
    "autoencoder_s": ("autoencoder", "third"),
    "encode_s": ("encoding", "soft"),
    "train_s": ("training", "accent"),
    "sample_s": ("sampling", "second"),
    "evaluate_s": ("evaluation", "good"),
}


def cost(folder: Path) -> str | None:
    found = read_facts(folder, COST)
    if found is None:
        return None
    phases = {k: float(found[k]) for k in PHASES if found.get(k)}
    bar = "".join(
        f"<i style='flex:{s:.4g} 0 0;background:var(--{PHASES[k][1]})'></i>"
        for k, s in phases.items()
    )
    key = "".join(
        f"<span><i style='background:var(--{PHASES[k][1]})'></i>{PHASES[k][0]} {duration(s)}</span>"
        for k, s in phases.items()
    )
    names = {
        "steps": "training steps",
        "parameters": "parameters",
        "autoencoder_parameters": "parameters of the autoencoder",
        "evaluations_per_sample": "network evaluations per sample",
        "peak_memory_mb": "peak memory (MB)",
    }
    rest = {name: count(found[key]) for key, name in names.items() if found.get(key) is not None}
    total = {"total time": duration(sum(phases.values()))} if phases else {}
    return card(f"<div class='bar'>{bar}</div><div class='key'>{key}</div>" + facts(total | rest))


def environment(folder: Path) -> str | None:
    found = read_facts(folder, ENVIRONMENT)
    if found is None:
        return None
    command = found.pop("command", None)
    shown = f"<pre>{escaped(command)}</pre>" if command else ""
    return shown + card(facts(found), "Where it ran")


def data(folder: Path) -> str | None:
    found = read_facts(folder, DATA)
    if found is None:
        return None
    shape = " × ".join(map(str, found.get("shape") or []))
    names = ", ".join(map(str, found.get("label_names") or []))
    shown = {
        "name": found.get("name"),
        "source": found.get("text"),
        "kind": found.get("kind"),
        "shape of an example": shape,
        "training examples": number(found.get("n_train")),
        "held-out examples": number(found.get("n_heldout")),
        "labels": names,
        "fingerprint": found.get("fingerprint"),
    }
    return card(facts(shown), "Data")


def configuration(folder: Path) -> str | None:
    path = folder / CONFIG
    if not path.exists():
        return None
    values, usual = (
        dataclasses.asdict(spec) for spec in (read_config(folder), in_short(TrainSpec()))
    )
    changed = {k: v for k, v in values.items() if v != usual[k]}
    rest = {k: "none" if v is None else v for k, v in values.items() if k not in changed}
    changed = {k: "none" if v is None else v for k, v in changed.items()}
    body = facts(changed) if changed else "<p class='small'>All settings are the defaults.</p>"
    body += folded(f"{len(rest)} settings at their defaults", facts(rest))
    return card(body, "Settings")


def changes(folder: Path) -> str | None:
    path = folder / CHANGES
    if not path.exists():
        return None
    lines = [
        f"<li>{escaped(entry['date'])}: {escaped(name)} {escaped(change['from'])} → "
        f"{escaped(change['to'])}</li>"
        for entry in schemas.read(folder, CHANGES)
        for name, change in entry["changed"].items()
    ]
    return card(f"<ul>{''.join(lines)}</ul>", "Settings changed on the way")


def repeat(folder: Path) -> str | None:
    found = (read_facts(folder, EVALUATION) or {}).get("card")
    return provenance.shown(found, "How to repeat this") if found else None
