"""The report of a run: one HTML page made of whatever the run folder holds.

A section is a title, the command that makes it, and parts: functions of the folder that return
HTML, or None where their files are absent. A part whose file is damaged becomes a note. A new
kind of result adds its parts and one row to `SECTIONS`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monge.errors import UserError
from monge.files import read_json, write_atomic
from monge.learned import kind_of
from monge.report import figures
from monge.report.page import (
    DAMAGED,
    card,
    count,
    duration,
    escaped,
    facts,
    note,
    number,
    page,
    picture,
    read_facts,
    tiles,
)
from monge.report.sections import chain as chain_section
from monge.report.sections import maps as map_section
from monge.report.sections import measured, provenance
from monge.report.sections import verify as verify_section
from monge.report.sections.reading import memorisation_first, reading
from monge.runs.folder import in_short, read_config
from monge.runs.layout import CHANGES, CONFIG, COST, DATA, ENVIRONMENT, QUALITY
from monge.runs.spec import TrainSpec
from monge.training import journal

Part = Callable[[Path], str | None]


REPORT = "report.html"


@dataclass(frozen=True)
class Section:
    """A section of the report; absent, with its command as a hint, if all its parts are."""

    title: str
    command: str
    parts: tuple[Part, ...]


def write_report(folder: Path) -> Path:
    """Write ``report.html`` from the files of a run folder; what is absent is left out.

    Raises:
        UserError: the folder does not exist or cannot be written.
    """
    return write_atomic(Path(folder) / REPORT, report_of(Path(folder)))


def report_of(folder: Path) -> str:
    """The page that `write_report` writes."""
    if not folder.is_dir():
        raise UserError(f"no such run folder: {folder}")
    shown, missing = [], []
    first = {"In short", COPIES} if memorisation_first(folder) else {"In short"}
    # Sorting keeps the order within the two groups.
    for section in sorted(SECTIONS, key=lambda section: section.title not in first):
        content = "".join(filter(None, (_guarded(part, folder) for part in section.parts)))
        if content:
            anchor = re.sub(r"\W+", "-", section.title.lower())
            shown.append((anchor, section.title, content))
        else:
            missing.append(section)
    if missing:
        shown.append(("not-here-yet", "Not here yet", _hints(missing)))
    top = "".join(filter(None, (_guarded(part, folder) for part in (_title, _lead, _tiles))))
    foot = f"Written by monge from the files in <code>{escaped(folder.resolve().name)}</code>."
    return page(f"{folder.resolve().name} · monge", top, shown, foot)


def _hints(missing: Sequence[Section]) -> str:
    """Which command makes what is missing."""
    titles: dict[str, list[str]] = {}
    for section in missing:
        titles.setdefault(section.command, []).append(section.title)
    lines = (
        f"<li><code>{escaped(command)}</code> makes: {escaped(', '.join(made))}</li>"
        for command, made in titles.items()
    )
    return f"<ul>{''.join(lines)}</ul>"


def _guarded(part: Part, folder: Path) -> str | None:
    """A part's HTML; a note where its file cannot be read."""
    try:
        return part(folder)
    except DAMAGED as error:
        return note(_reason(part, error).replace(f"{folder}/", ""))


def _reason(part: Part, error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
    name = part.__name__.strip("_").replace("_", " ")
    return f"{name}: a file that this is made of is not as monge writes it ({what})"


# The top: what this is, and the numbers one asks for first.


def _title(folder: Path) -> str:
    return f"<div class='brand'>monge</div><h1>{escaped(folder.resolve().name)}</h1>"


def _lead(folder: Path) -> str | None:
    data = read_facts(folder, DATA)
    if data is None:
        return None
    kind = {"image": "images", "table": "table rows"}.get(str(data.get("kind")), "data")
    objective = "flow_matching"
    if (folder / CONFIG).exists():
        objective = read_config(folder).objective
    learned = kind_of(objective)
    model = learned.title + (f" ({escaped(objective)})" if learned.few_steps else "")
    return (
        f"<p class='lead'>A {model} of {kind}, trained on "
        f"{escaped(data['name'])} ({number(data['n_train'])} examples).</p>"
    )


def _tiles(folder: Path) -> str:
    evaluation, cost = (
        read_facts(folder, measured.EVALUATION),
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


# Samples


SAMPLES = {
    "by_label.png": "Samples by requested label, one row each; none selected.",
    "samples.png": "Samples, none selected.",
}


def _samples(folder: Path) -> str | None:
    found = {folder / "evaluation" / name: caption for name, caption in SAMPLES.items()}
    shown = [card(picture(path, caption)) for path, caption in found.items() if path.exists()]
    if len(shown) < 2:
        return "".join(shown) or None
    return f"<div class='pair'>{''.join(shown)}</div>"


def _while_training(folder: Path) -> str | None:
    steps = {}
    for path in (folder / "samples").glob("step-*.png"):
        if match := re.fullmatch(r"step-(\d+)", path.stem):
            steps[int(match[1])] = path
    if not steps:
        return None
    last = max(steps)
    large = ""
    if not (folder / "evaluation" / "samples.png").exists():
        large = card(picture(steps[last], f"Samples after step {last:,}."))
    if len(steps) == 1:
        return large
    strip = "".join(picture(steps[n], f"step {n:,}", most=480) for n in sorted(steps))
    return large + card(f"<div class='strip'>{strip}</div>", "The same noise, as training went on")


# Autoencoder and training


def _quality(folder: Path) -> str | None:
    quality = read_facts(folder, QUALITY)
    if quality is None:
        return None
    shape = " × ".join(map(str, quality["latent_shape"]))
    items = [
        (escaped(quality["kind"]), "autoencoder"),
        (escaped(shape), f"latent shape, {number(quality['numbers'])} numbers"),
    ]
    if (psnr := quality.get("psnr_db")) is not None:
        pca = quality.get("pca_psnr_db")
        beside = f"; PCA with as many numbers {number(pca)} dB" if pca is not None else ""
        items.append((f"{number(psnr)} dB", f"PSNR on held-out data{beside}"))
    if (rmse := quality.get("rmse")) is not None:
        items.append((number(rmse), "RMSE on held-out data"))
    if home := quality.get("home"):
        items.append((number(home["rmse"]), "RMSE on the autoencoder's own data"))
    return tiles(items)


def _reconstructions(folder: Path) -> str | None:
    path = folder / "autoencoder" / "reconstructions.png"
    if not path.exists():
        return None
    caption = "Held-out examples above their reconstructions. Samples leave the same decoder."
    return card(picture(path, caption))


def _autoencoder_curves(folder: Path) -> str | None:
    return _curves(folder / "autoencoder" / journal.NAME)


def _training_curves(folder: Path) -> str | None:
    return _curves(folder / journal.NAME)


CURVES = {"loss": "loss", "grad_norm": "gradient norm", "lr": "learning rate"}
"""Keys of a log line that are drawn, with the names of their axes."""


def _curves(path: Path) -> str | None:
    lines = journal.read(path)
    curves: dict[str, list[tuple[int, float]]] = {}
    for row in lines:
        named = {label: row.get(key) for key, label in CURVES.items()}
        parts = row.get("parts") or {}
        if len(parts) > 1:
            named |= {f"part of the loss: {name}": value for name, value in parts.items()}
        for label, value in named.items():
            if value is not None:
                curves.setdefault(label, []).append((row["step"], float(value)))
    plots = "".join(
        card(figures.curve(points, label, noisy=label != "learning rate"))
        for label, points in curves.items()
        if len(points) > 1
    )
    events = "".join(
        f"<li>step {number(row.get('step'))}: {_event(row)}</li>" for row in lines if "event" in row
    )
    events = card(f"<ul>{events}</ul>", "What happened on the way") if events else ""
    return (f"<div class='pair trio'>{plots}</div>" if plots else "") + events or None


def _event(row: Mapping[str, Any]) -> str:
    rest = {k: v for k, v in row.items() if k not in ("event", "step", "wall")}
    return escaped(row["event"]) + "".join(f"; {escaped(k)} {escaped(v)}" for k, v in rest.items())


# Cost and conditions


PHASES = {
    "autoencoder_s": ("autoencoder", "third"),
    "encode_s": ("encoding", "soft"),
    "train_s": ("training", "accent"),
    "sample_s": ("sampling", "second"),
    "evaluate_s": ("evaluation", "good"),
}


def _cost(folder: Path) -> str | None:
    cost = read_facts(folder, COST)
    if cost is None:
        return None
    phases = {k: float(cost[k]) for k in PHASES if cost.get(k)}
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
    rest = {name: count(cost[key]) for key, name in names.items() if cost.get(key) is not None}
    total = {"total time": duration(sum(phases.values()))} if phases else {}
    return card(f"<div class='bar'>{bar}</div><div class='key'>{key}</div>" + facts(total | rest))


def _environment(folder: Path) -> str | None:
    environment = read_facts(folder, ENVIRONMENT)
    if environment is None:
        return None
    command = environment.pop("command", None)
    shown = f"<pre>{escaped(command)}</pre>" if command else ""
    return shown + card(facts(environment), "Where it ran")


def _data(folder: Path) -> str | None:
    data = read_facts(folder, DATA)
    if data is None:
        return None
    shape = " × ".join(map(str, data.get("shape") or []))
    names = ", ".join(map(str, data.get("label_names") or []))
    shown = {
        "name": data.get("name"),
        "source": data.get("text"),
        "kind": data.get("kind"),
        "shape of an example": shape,
        "training examples": number(data.get("n_train")),
        "held-out examples": number(data.get("n_heldout")),
        "labels": names,
        "fingerprint": data.get("fingerprint"),
    }
    return card(facts(shown), "Data")


def _configuration(folder: Path) -> str | None:
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
    body += f"<details><summary>{len(rest)} settings at their defaults</summary>{facts(rest)}"
    return card(body + "</details>", "Settings")


def _changes(folder: Path) -> str | None:
    path = folder / CHANGES
    if not path.exists():
        return None
    lines = [
        f"<li>{escaped(entry['date'])}: {escaped(name)} {escaped(change['from'])} → "
        f"{escaped(change['to'])}</li>"
        for entry in read_json(path)
        for name, change in entry["changed"].items()
    ]
    return card(f"<ul>{''.join(lines)}</ul>", "Settings changed on the way")


def _repeat(folder: Path) -> str | None:
    found = (read_facts(folder, measured.EVALUATION) or {}).get("card")
    return provenance.shown(found, "How to repeat this") if found else None


COPIES = "Nearest training examples"
TRAIN, EVALUATE, VERIFY = "monge train DATA", "monge evaluate RUN", "monge verify RUN"

SECTIONS: list[Section] = [
    Section("In short", EVALUATE, (measured.in_words,)),
    Section("Samples", EVALUATE, (_samples, _while_training)),
    Section(
        "Measurements",
        EVALUATE,
        (measured.measurements, measured.density, measured.labels, _repeat),
    ),
    Section(
        "Where the error comes from",
        VERIFY,
        (
            verify_section.budget,
            verify_section.laws_of_map,
            verify_section.curves,
            verify_section.stretching,
        ),
    ),
    Section("Block by block", "monge chain DATA", chain_section.PARTS),
    Section(
        "Few steps",
        f"{EVALUATE} --steps 1,2,4,8,16",
        (map_section.by_evaluations, map_section.errors),
    ),
    Section(COPIES, EVALUATE, (measured.neighbours,)),
    Section("Data", TRAIN, (reading,)),
    Section("Autoencoder", TRAIN, (_quality, _reconstructions, _autoencoder_curves)),
    Section("Training", TRAIN, (_training_curves,)),
    Section("Cost", TRAIN, (_cost,)),
    Section("What was run", TRAIN, (_environment, _configuration, _changes, _data)),
]
"""The sections in order. A new kind of result adds a row, and its parts in a module of its own."""
