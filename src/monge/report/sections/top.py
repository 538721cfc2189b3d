"""The top of a report: what the model is, in a sentence, and the first numbers to look for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monge.learned import kind_of
from monge.report.page import duration, escaped, number, read_facts, tiles
from monge.report.sections import measured
from monge.runs.folder import read_config
from monge.runs.layout import CONFIG, COST, DATA, EVALUATION


def title(folder: Path) -> str:
    return f"<div class='brand'>monge</div><h1>{escaped(folder.resolve().name)}</h1>"


def sentence(folder: Path) -> str | None:
    """What the model makes, and how good that is, for somebody who reads nothing else."""
    data = read_facts(folder, DATA)
    if data is None:
        return None
    text = f"This model makes {_examples(data)} like those of {escaped(data['name'])}."
    evaluation = read_facts(folder, EVALUATION)
    text += f" {_judged(evaluation)}" if evaluation else " How good they are was not measured yet."
    return f"<p class='sentence'>{text}</p>"


def _examples(data: Mapping[str, Any]) -> str:
    shape = list(data.get("shape") or [])
    if data.get("kind") == "image" and len(shape) == 3:
        return f"images of {escaped(shape[2])} × {escaped(shape[1])} pixels"
    if data.get("kind") == "table":
        return "rows of a table"
    return "examples"


def _judged(evaluation: Mapping[str, Any]) -> str:
    """The verdicts in everyday words."""
    lines = [str(line) for line in evaluation.get("verdicts") or []]
    differ = [line for line in lines if "samples differ from held-out data" in line]
    same = [line for line in lines if "cannot be told from held-out data" in line]
    n = number((evaluation.get("sampling") or {}).get("n"))
    text = ""
    if same:
        text = f"Statistical tests cannot tell {n} of them from real ones."
    elif differ:
        text = f"Statistical tests tell {n} of them from real ones."
    for line in lines:
        if "copies of a training example" in line and line.startswith("Not good"):
            text += " Some are copies of training examples."
        elif "copies of a training example" in line and line.startswith("Good"):
            text += " No more of them than of real ones pass as copies of training examples."
        elif "coverage is" in line and line.startswith("Not good"):
            text += " Some kinds of real examples are missing."
    share = (evaluation.get("labels") or {}).get("agreement")
    if share is not None:
        share = share[0] if isinstance(share, list) else share
        text += f" {number(100.0 * share)} % show the requested label."
    return text


def lead(folder: Path) -> str | None:
    """What kind of model it is and what it was trained on."""
    data = read_facts(folder, DATA)
    if data is None:
        return None
    objective = "flow_matching"
    if (folder / CONFIG).exists():
        objective = read_config(folder).objective
    learned = kind_of(objective)
    model = learned.title + (f" ({escaped(objective)})" if learned.few_steps else "")
    return f"<p class='lead'>A {model}, trained on {number(data['n_train'])} examples.</p>"


def numbers(folder: Path) -> str:
    evaluation, cost = (
        read_facts(folder, EVALUATION),
        read_facts(folder, COST) or {},
    )
    items = []
    if evaluation:
        labels = evaluation.get("labels") or {}
        if (share := labels.get("agreement")) is not None:
            share = share[0] if isinstance(share, list) else share
            items.append((f"{number(100.0 * share)} %", "of samples show the requested label"))
        for row in measured.rows_of(evaluation)[:2]:
            items.append((number(row.value), f"{escaped(row.name)}; floor {number(row.floor)}"))
    if cost.get("train_s") is not None:
        steps = f", {number(cost['steps'])} steps" if "steps" in cost else ""
        items.append((duration(cost["train_s"]), "training" + steps))
    if cost.get("parameters") is not None:
        items.append((number(cost["parameters"]), "parameters of the network"))
    return tiles(items)
