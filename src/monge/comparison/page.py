"""The page of a comparison, made of the files in its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from monge.errors import UserError
from monge.metrics.spaces import GAUSSIAN
from monge.metrics.table import SIGNS, Row, Table
from monge.metrics.table_baselines import INDEPENDENT
from monge.report import figures
from monge.report.page import card, escaped, facts, note, number, page, picture
from monge.report.sections import provenance
from monge.report.sections.measured import interval, protocol
from monge.system.files import read_json, write_atomic

COMPARISON = "comparison.json"
PAGE = "comparison.html"
PICTURE = {"A": "a.png", "B": "b.png", "reference": "reference.png"}
"""The picture of each set."""

CAPTION = "None selected. Columns of a table are in deviations."


def write_page(folder: Path) -> Path:
    """Write ``comparison.html`` from the files of a comparison's folder.

    Raises:
        UserError: no comparison there, or one that is damaged.
    """
    found = read_json(folder / COMPARISON)
    try:
        html = _page(folder, found)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{folder / COMPARISON} is damaged ({error!r}): compare again into another folder"
        ) from None
    return write_atomic(folder / PAGE, html)


def _page(folder: Path, found: Mapping[str, Any]) -> str:
    sets = found["card"]["sets"]
    asked = "closer to a reference?" if "tables" in found else "of one law?"
    which = "Which of two sets of samples is" if "tables" in found else "Are two sets of samples"
    title = " and ".join(_short(sets[name]["source"]) for name in ("A", "B"))
    top = (
        f"<div class='brand'>monge compare</div><h1>{escaped(title)}</h1>"
        f"<p class='lead'>{which} {asked}</p>"
    )
    sections = [
        ("verdict", "Verdict", _verdict(found)),
        ("sets", "The sets", _sets(folder, sets)),
        ("measurements", "Measurements", _measurements(found)),
        ("repeat", "How to repeat this", provenance.shown(found["card"])),
    ]
    foot = f"Written by monge from <code>{escaped(COMPARISON)}</code>."
    return page(f"{title} · monge", top, sections, foot)


def _short(source: object) -> str:
    return "arrays" if source is None else str(source).rstrip("/").rpartition("/")[2]


def _verdict(found: Mapping[str, Any]) -> str:
    notes = "".join(note(text) for text in found["notes"])
    lines = [f"<p><b>{escaped(found['verdict']['text'])}</b></p>"]
    lines += [f"<p class='small'>{escaped(text)}</p>" for text in found.get("of_tables", [])]
    return card("".join(lines)) + notes


def _sets(folder: Path, sets: Mapping[str, Mapping[str, Any]]) -> str:
    cards = ""
    for name, known in sets.items():
        shown = {"source": known["source"], "taken": known["taken"]}
        if sampling := known.get("sampling"):
            shown["sampled with"] = (
                f"{sampling['solver']}, {sampling['steps']} steps, guidance "
                f"{sampling['guidance']}, seed {sampling['seed']}"
            )
        path = folder / PICTURE.get(name, "none")
        image = picture(path, CAPTION) if path.is_file() else ""
        cards += card(image + facts(shown), escaped(name))
    return f"<div class='pair trio'>{cards}</div>"


def _measurements(found: Mapping[str, Any]) -> str:
    if "tables" not in found:
        rows = _rows(found["table"])
        return _table(rows) + _figure(rows)
    a, b = (_rows(found["tables"][side]) for side in ("A", "B"))
    tested = {d["name"]: d for d in found["differences"]}
    beside = [
        replace(x, baselines={"B": y.value, **x.baselines}) for x, y in zip(a, b, strict=True)
    ]
    return _sides(a, b, tested) + _figure(beside)


def _rows(content: Mapping[str, Any]) -> list[Row]:
    return list(Table.from_json(json.dumps(content)))


def _figure(rows: Sequence[Row]) -> str:
    below = "<p class='small'>Shaded: as good as real data. Each axis has its own scale.</p>"
    return card(figures.intervals(rows, "A") + below, "A between the floor and the others")


def _about(row: Row) -> str:
    better = "" if row.better == "near floor" else " is better"
    unit = f"; {escaped(row.unit)}" if row.unit else ""
    small = f"<small>{SIGNS[row.better]} {row.better}{better}{unit}</small>"
    return f"<th>{escaped(row.name)}{small}</th>"


def _value(row: Row) -> str:
    method = escaped(row.interval_method)
    return f"<b>{number(row.value)}</b><small title='{method}'>{interval(row.interval)}</small>"


def _table(rows: Sequence[Row]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row.baselines))
    body = ""
    for row in rows:
        cells = [_value(row), number(row.floor)]
        cells += [number(row.baselines.get(name)) for name in names]
        cells.append(number(row.p_value))
        body += f"<tr>{_about(row)}{_cells(cells)}</tr>"
    head = ["", "A against B", "floor", *map(escaped, names), "p"]
    legend = (
        "Below each value its 95 % interval. The floor is what the same estimator gives for two "
        "sets into which A and B, mixed, are dealt at random. p: of one law; the verdict takes "
        "all of them together by Holm's rule."
    )
    return _boxed(head, body, legend, rows)


def _sides(a: Sequence[Row], b: Sequence[Row], tested: Mapping[str, Mapping[str, Any]]) -> str:
    body = ""
    shown = [k for k in (GAUSSIAN, INDEPENDENT) if any(k in row.baselines for row in a)]
    for x, y in zip(a, b, strict=True):
        cells = [_value(x), _value(y), number(x.floor)]
        cells += [number(x.baselines.get(name)) for name in shown]
        if d := tested.get(x.name):
            ends = interval([float("nan") if e is None else float(e) for e in d["interval"]])
            badge = f" <span class='badge'>{escaped(d['closer'])} closer</span>"
            cells.append(
                f"{number(d['value'])}{badge if d['closer'] else ''}"
                f"<small title='{escaped(d['method'])}'>{ends}</small>"
            )
            cells.append(f"{number(d['p_value'])}<small>{number(d['p_holm'])}</small>")
        else:
            cells += ["–"] * 2
        body += f"<tr>{_about(x)}{_cells(cells)}</tr>"
    head = ["", "A", "B", "floor", *shown, "A farther by", "p"]
    legend = (
        "Below each value its 95 % interval. The floor is what the same estimator gives for other "
        "real examples in the place of A and B. A farther by: below zero A is closer; told at 5 % "
        "for each metric alone. Below p the same by Holm's rule, for all metrics together."
    )
    return _boxed(head, body, legend, a)


def _cells(cells: Sequence[str]) -> str:
    return "".join(f"<td class='n'>{cell}</td>" for cell in cells)


def _boxed(head: Sequence[str], body: str, legend: str, rows: Sequence[Row]) -> str:
    titles = "".join(f"<th>{name}</th>" for name in head)
    protocols = facts({row.name: protocol(row) for row in rows})
    return card(
        f"<div class='wide'><table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"
        f"</div><p class='small'>n = {number(rows[0].n)}. {legend}</p>"
        f"<details><summary>How each was measured</summary>{protocols}</details>"
    )
