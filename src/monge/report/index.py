"""The page over a folder of runs: what differs between them, and how good each is."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from monge.errors import UserError
from monge.metrics.table import SIGNS, Row
from monge.report.page import (
    DAMAGED,
    card,
    duration,
    escaped,
    note,
    number,
    page,
    picture,
    read_facts,
    table,
)
from monge.report.sections.measured import interval, rows_of
from monge.runs.folder import read_config
from monge.runs.layout import CONFIG, COST, DATA, EVALUATION, REPORT
from monge.system.files import is_regular, read_own, status, write_atomic

INDEX = "index.html"

MARK = re.compile(rb"\n<!-- monge ([0-9a-f]{64}) -->\n\Z")
"""The last line of a page of ours: the SHA-256 of what stands before it."""

METRICS = ("energy distance", "C2ST AUC", "coverage", "label agreement", "KL(target | run)")
"""Shown first, where runs have them."""

MOST_METRICS = 4
PICTURES = ("evaluation/by_label.png", "evaluation/samples.png")

LEFT_OUT = ("out", "device", "threads", "dry_run")
"""Settings that say nothing of what was learned."""


@dataclass(frozen=True)
class Entry:
    """A run, as far as the page shows it; `damage` says what could not be read."""

    folder: Path
    settings: dict[str, object] = dataclasses.field(default_factory=dict)
    rows: tuple[Row, ...] = ()
    data: str = ""
    cost: dict[str, Any] = dataclasses.field(default_factory=dict)
    damage: str = ""


def write_index(folder: Path) -> Path:
    """Write ``index.html`` into a folder of runs, in the place of an earlier one of monge's.

    Raises:
        UserError: no run in the folder, or an index.html that monge did not write or that was
            changed since.
    """
    folder = Path(folder)
    runs = runs_in(folder)
    if not runs:
        raise UserError(
            f"{folder} holds no run: give the folder of a run, or the folder that holds them"
        )
    out = folder / INDEX
    if status(out) is not None and not _is_ours(out):
        raise UserError(
            f"{out} was not written by monge, or was changed since: rename it or remove it"
        )
    text = index_of(folder, [read_entry(run) for run in runs]).encode("utf-8", "backslashreplace")
    mark = hashlib.sha256(text).hexdigest()
    return write_atomic(out, text + f"\n<!-- monge {mark} -->\n".encode())


def runs_in(folder: Path) -> list[Path]:
    """The run folders in a folder, by name; links are not followed.

    Raises:
        UserError: no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"no such folder: {folder}")
    found = sorted(folder.iterdir())
    return [p for p in found if not p.is_symlink() and p.is_dir() and (p / CONFIG).is_file()]


def _is_ours(path: Path) -> bool:
    if not is_regular(path):
        return False
    content = read_own(path)
    found = MARK.search(content)
    return found is not None and (
        hashlib.sha256(content[: found.start()]).hexdigest().encode() == found[1]
    )


def read_entry(folder: Path) -> Entry:
    """What the page shows of a run."""
    try:
        settings = dataclasses.asdict(read_config(folder))
        data = read_facts(folder, DATA) or {}
        evaluation = read_facts(folder, EVALUATION)
        return Entry(
            folder,
            {k: v for k, v in settings.items() if k not in LEFT_OUT},
            tuple(rows_of(evaluation)) if evaluation else (),
            f"{data.get('name', '')}, {number(data.get('n_train'))} examples" if data else "",
            read_facts(folder, COST) or {},
        )
    except DAMAGED as error:
        return Entry(folder, damage=str(error).replace(f"{folder}/", ""))


def differing(entries: Sequence[Entry]) -> list[str]:
    """Names of the settings that are not the same in all runs, in their order."""
    known = [e.settings for e in entries if not e.damage]
    names = list(dict.fromkeys(name for settings in known for name in settings))
    return [n for n in names if len({str(settings.get(n)) for settings in known}) > 1]


def metrics(entries: Sequence[Entry]) -> list[str]:
    """Names of the metrics that are shown: the known ones first, then those of most runs."""
    counts: dict[str, int] = {}
    for entry in entries:
        for row in entry.rows:
            counts[row.name] = counts.get(row.name, 0) + 1
    first = [name for name in METRICS if name in counts]
    rest = sorted((n for n in counts if n not in first), key=lambda n: -counts[n])
    return [*first, *rest][:MOST_METRICS]


def index_of(folder: Path, entries: Sequence[Entry]) -> str:
    """The page."""
    name = folder.resolve().name
    changed, measured = differing(entries), metrics(entries)
    evaluated = sum(bool(e.rows) for e in entries)
    top = (
        f"<div class='brand'>monge</div><h1>{escaped(name)}</h1><p class='sentence'>"
        f"{len(entries)} runs, {evaluated} of them evaluated. "
        + (f"They differ in {escaped(', '.join(changed))}." if changed else "")
        + "</p>"
    )
    sections = [("runs", "Runs", card(_table(entries, changed, measured)))]
    if pictures := "".join(_picture(entry) for entry in entries):
        sections.append(("pictures", "Pictures", f"<div class='pair trio'>{pictures}</div>"))
    damaged = [e for e in entries if e.damage]
    if damaged:
        notes = "".join(note(f"{e.folder.name}: {e.damage}") for e in damaged)
        sections.append(("unread", "Not read", notes))
    foot = f"Written by <code>monge report</code> from the runs in <code>{escaped(name)}</code>."
    return page(f"{name} · monge", top, sections, foot)


def _table(entries: Sequence[Entry], changed: Sequence[str], measured: Sequence[str]) -> str:
    sign = {row.name: SIGNS[row.better] for entry in entries for row in entry.rows}
    signs = [f"{sign[name]} {escaped(name)}" for name in measured]
    head = ["run", "settings that differ", *signs, "training"]
    rows = []
    for entry in entries:
        by_name = {row.name: row for row in entry.rows}
        told = "".join(
            f"<small>{escaped(name)}: {escaped(entry.settings.get(name))}</small>"
            for name in changed
            if not entry.damage
        )
        cells = [_value(by_name.get(name)) for name in measured]
        rows.append([_link(entry), told, *cells, _cost(entry)])
    caption = (
        "Below each value its 95 % interval, then the floor: what two real samples of equal size "
        "have. ↓ lower, ↑ higher is better, ≈ as near to the floor as possible."
    )
    return table(head, rows, caption, text=(1,))


def _link(entry: Entry) -> str:
    name = escaped(entry.folder.name)
    if (entry.folder / REPORT).is_file():
        name = f"<a href='{quote(entry.folder.name)}/{REPORT}'>{name}</a>"
    return f"{name}<small>{escaped(entry.data)}</small>" if entry.data else name


def _value(row: Row | None) -> str:
    if row is None:
        return "–"
    return (
        f"<b>{number(row.value)}</b><small>{interval(row.interval)}</small>"
        f"<small>floor {number(row.floor)}</small>"
    )


def _cost(entry: Entry) -> str:
    seconds, steps = entry.cost.get("train_s"), entry.cost.get("steps")
    parts = [duration(float(seconds))] if isinstance(seconds, int | float) else []
    parts += [f"<small>{number(steps)} steps</small>"] if isinstance(steps, int) else []
    return "".join(parts) or "–"


def _picture(entry: Entry) -> str:
    found = [entry.folder / name for name in PICTURES if (entry.folder / name).is_file()]
    return card(picture(found[0], entry.folder.name, most=960)) if found else ""
