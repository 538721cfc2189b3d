"""What to try next with a run, each with the command that does it."""

from __future__ import annotations

import shlex
from typing import Any

from torch import Tensor

from monge.metrics.column_rows import WORST
from monge.metrics.evaluate import TableOf
from monge.metrics.findings import Findings, findings
from monge.metrics.table import Row, Table
from monge.runs import schemas
from monge.runs.folder import CONFIG
from monge.runs.layout import COST
from monge.runs.run import Run

FEW_VALUES = 20
"""A number with so few different values may be learned as a category."""

SHARED = 0.05
"""Of the rows: a value of so many is not by chance."""

MORE = 2
"""Times the training steps."""

SAMPLING = ("--solver", "--steps", "--grid", "--guidance", "--final")

Step = tuple[str, str]
"""Why, and the command."""


def next_steps(run: Run, table: Table, n: int, rows: TableOf | None) -> list[Step]:
    """At most three steps, the most urgent first; at least one."""
    found = findings(table)
    steps: list[Step] = []
    if found.copies:
        shorter = max(_trained(run) // MORE, 1)
        steps.append(
            (
                "train for fewer steps: samples repeat training examples",
                retrain(run, ["--steps", str(shorter)], "-shorter"),
            )
        )
    steps += _of_columns(run, table, rows)
    if found.labels_wrong and run.spec.label_drop > 0 and not run.learned.guided_as_trained:
        steps.append(
            ("guide more strongly towards the label", f"monge evaluate {_word(run)} --guidance 2")
        )
    if found.differs or found.uncovered:
        steps += _of_training(run, found)
    if not steps:
        more = f"monge evaluate {_word(run)} -n {4 * n}"
        steps.append(("look closer, with more samples", more))
    return steps[:3]


def _of_columns(run: Run, table: Table, rows: TableOf | None) -> list[Step]:
    """What the worst column asks for: a category of few values, or bent marginals."""
    worst = [row for row in table if row.name == WORST and (row.p_value or 0.0) < 0.05]
    if rows is None or not worst or worst[0].reaches_floor:
        return []
    name = str(worst[0].protocol["column"])
    if name not in rows.columns.names:
        return []
    j = rows.columns.names.index(name)
    if rows.columns.categorical[j]:
        return []
    if len(rows.train[:, j].unique()) <= FEW_VALUES:
        given = [run.spec.categorical, f'"{name}"' if "," in name else name]
        listed = ",".join(filter(None, given))
        why = f"learn column {name!r}, which has few values, as a category"
        return [(why, retrain(run, ["--categorical", listed], "-categories"))]
    why = _lost_value(rows.train[:, j], rows.samples[:, j]) or _beyond_range(worst[0])
    if not why or run.spec.marginals != "none":
        return []
    why = f"learn numbers as normal scores: samples {why} of column {name!r}"
    return [(why, retrain(run, ["--marginals", "auto"], "-marginals"))]


def _lost_value(known: Tensor, drawn: Tensor) -> str:
    """That samples lose a value that many rows share; empty where they keep it."""
    values, counts = known[known.isfinite()].unique(return_counts=True)
    if not len(values) or int(counts.max()) < SHARED * len(known):
        return ""
    value, share = float(values[counts.argmax()]), int(counts.max()) / len(known)
    kept = float((drawn == value).double().mean())
    return f"lose the value {value:g} (in {share:.0%} of rows)" if kept < share / 2 else ""


def _beyond_range(worst: Row) -> str:
    """That samples leave the range of the data; empty where they do not."""
    told = worst.protocol
    outside = str(told["values"]).startswith(("below", "above"))
    more = float(told["share of samples"]) > float(told["share of data"])
    return "leave the range" if outside and more else ""


def _of_training(run: Run, found: Findings) -> list[Step]:
    """More training, or more jumps; and where the error comes from."""
    steps: list[Step] = []
    if run.learned.few_steps:
        steps.append(
            ("see whether more jumps help", f"monge evaluate {_word(run)} --steps 1,2,4,8,16")
        )
    elif not found.copies and _trained(run):
        longer = ["--steps", str(MORE * _trained(run))]
        steps.append((f"go on training, to {longer[1]} steps", retrain(run, longer)))
    verify = f"monge verify {_word(run)}"
    return [*steps, ("learn which part of the pipeline the error comes from", verify)]


def retrain(run: Run, change: list[str], suffix: str = "") -> str:
    """The command that trains with a change: goes on in the folder, or begins another one."""
    folder = str(run.folder)
    out = folder.rstrip("/") + suffix
    return shlex.join(["monge", "train", "--config", f"{folder}/{CONFIG}", *change, "--out", out])


def command_of_advice(run: Run, advice: dict[str, Any]) -> str:
    """The command for what `verify` advises."""
    change = shlex.split(advice["change"] or "")
    if not change:
        return _untried(run, advice["term"])
    if advice["term"] == "velocity":
        return retrain(run, change)
    if set(change[::2]) <= set(SAMPLING):
        return shlex.join(["monge", "evaluate", str(run.folder), *change])
    return retrain(run, change, "-changed")


def _untried(run: Run, term: str) -> str:
    """The command where no change was tried."""
    if run.learned.few_steps:
        return f"monge evaluate {_word(run)} --steps 1,2,4,8,16"
    if term == "source":
        return retrain(run, ["--path", "linear"], "-linear")
    if term in ("velocity", "reconstruction") and _trained(run):
        return retrain(run, ["--steps", str(MORE * _trained(run))])
    return f"monge evaluate {_word(run)}"


def _word(run: Run) -> str:
    return shlex.quote(str(run.folder))


def _trained(run: Run) -> int:
    """Training steps that were taken."""
    known = schemas.read_if_there(run.folder, COST) or {}
    return int(known.get("steps") or run.spec.steps or 0)
