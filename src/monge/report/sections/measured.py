"""The parts of a report that show an evaluation: in words, in a table, in figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monge.errors import UserError
from monge.metrics.findings import resolution, standing
from monge.metrics.table import SIGNS, Row, Table
from monge.report import figures
from monge.report.page import (
    Markup,
    card,
    count,
    escaped,
    facts,
    folded,
    number,
    picture,
    read_facts,
    table,
)
from monge.report.sections.reading import memorisation_first
from monge.runs.layout import EVALUATION


def rows_of(evaluation: Mapping[str, Any]) -> list[Row]:
    """The rows of the table in an ``evaluation.json``.

    Raises:
        UserError: it is damaged, or of a newer format.
    """
    table = evaluation["table"]
    try:
        return list(Table.from_json(table if isinstance(table, str) else json.dumps(table)))
    except UserError as error:
        raise UserError(f"{EVALUATION}: {error}") from None


def in_words(folder: Path) -> str | None:
    evaluation = read_facts(folder, EVALUATION)
    if evaluation is None:
        return None
    lines = [escaped(verdict) for verdict in evaluation.get("verdicts") or []]
    lines += [
        f"Next: {escaped(step['why'])}: <code>{escaped(step['command'])}</code>"
        for step in evaluation.get("next") or []
    ]
    lines += [_sentence(row) for row in rows_of(evaluation)[:1]]
    if memorisation_first(folder):
        lines.sort(key=lambda line: "copies of a training example" not in line)
    items = "".join(f"<li>{line}</li>" for line in lines)
    return card(f"<ul class='verdicts'>{items}</ul>" + _sampling(evaluation.get("sampling") or {}))


def _sentence(row: Row) -> str:
    others = ", ".join(f"{escaped(k)} {number(v)}" for k, v in row.baselines.items())
    name = escaped(row.name[:1].upper() + row.name[1:])
    return (
        f"{name} <b>{number(row.value)}</b> {interval(row.interval)}; two real samples of equal "
        f"size have {number(row.floor)} (the floor). Beside it: {others}."
    )


def _sampling(sampling: Mapping[str, Any]) -> str:
    if not sampling:
        return ""
    get, scale, domain = sampling.get, sampling.get("guidance"), sampling.get("domain")
    parts = [
        f"{number(get('n'))} samples, seed {escaped(get('seed'))}",
        f"solver {escaped(get('solver'))}, {escaped(get('steps'))} steps",
        f"{count(get('evaluations_per_sample'))} network evaluations per sample",
        "no guidance" if scale in (None, 1) else f"guidance {count(scale)}",
        f"final map {escaped(get('final'))}",
    ]
    if domain:
        parts.append(f"integrated from t = {count(domain[0])} to {count(domain[1])}")
    if get("source_gap"):
        parts.append(f"source gap {number(get('source_gap'))}")
    return f"<p class='small'>Sampled with: {'; '.join(parts)}.</p>"


def measurements(folder: Path) -> str | None:
    evaluation = read_facts(folder, EVALUATION)
    rows = rows_of(evaluation) if evaluation else []
    if not rows:
        return None
    names = list(dict.fromkeys(name for row in rows for name in row.baselines))
    head = ["", "this run", "floor", *map(escaped, names), "n"]
    lines: list[list[str]] = []
    for title, members in Table(rows).groups.items():
        lines += [[escaped(title)]] if title else []
        lines += [_table_row(row, names) for row in members]
    protocols = facts({row.name: protocol(row) for row in rows})
    told = (
        "Below each value its 95 % interval. The floor is what the same estimator gives for two "
        "real samples of equal size, the best that can be measured; <span class='badge'>at the "
        "floor</span> marks values whose interval reaches it and excludes the simple baselines."
    )
    return card(table(head, lines, told) + folded("How each was measured", protocols)) + card(
        figures.intervals(rows)
        + "<p class='small'>Shaded: as good as real data. Each axis has its own scale.</p>",
        "Between the floor and the baselines",
    )


def _table_row(row: Row, names: Sequence[str]) -> list[str]:
    badge = {
        "at the floor": " <span class='badge'>at the floor</span>",
        "cannot tell": f"<small>cannot tell at this n: {resolution(row)}</small>",
        "not measured": f"<small>{escaped(row.note)}</small>",
    }.get(standing(row), "")
    method = escaped(row.interval_method)
    cells = [
        f"<b>{number(row.value)}</b>{badge}"
        f"<small title='{method}'>{interval(row.interval)}</small>",
        number(row.floor),
        *(number(row.baselines.get(name)) for name in names),
        number(row.n),
    ]
    better = "" if row.better == "near floor" else " is better"
    unit = f"; {escaped(row.unit)}" if row.unit else ""
    about = f"{SIGNS[row.better]} {row.better}{better}{unit}"
    return [f"{escaped(row.name)}<small>{about}</small>", *cells]


def protocol(row: Row) -> str:
    parts = [f"{name} {value}" for name, value in row.protocol.items()]
    parts.append(f"interval: {row.interval_method}")
    if row.p_value is not None:
        parts.append(f"p-value {row.p_value:.3g}")
    return "; ".join(parts)


LABEL_LINES = {
    "agreement": "samples that show the requested label",
    "worst_class": "of the worst class",
    "classifier_on_heldout": "the same of held-out real data",
}


def labels(folder: Path) -> str | None:
    found: dict[str, Any] = (read_facts(folder, EVALUATION) or {}).get("labels") or {}
    if not found:
        return None
    known = sorted(found, key=lambda name: [*LABEL_LINES, name].index(name))
    lines = {
        LABEL_LINES.get(name, name.replace("_", " ")): _share(found[name])
        for name in known
        if name != "per_class" and found[name] is not None
    }
    classes = found.get("per_class")
    plot = ""
    if classes:
        plot = figures.by_class(
            classes, "agreement (%)", _middle(found.get("classifier_on_heldout"))
        )
    return card(facts(lines) + plot, "Does a sample show the label that was asked for?")


def _middle(value: Any) -> Any:
    """The value of a share that may come with its interval."""
    return value[0] if isinstance(value, list) else value


def _share(value: Any) -> Markup:
    """A share, or a share with its interval, in percent."""
    ends = value[1:] if isinstance(value, list) else []
    text = f"{number(100.0 * _middle(value))} %"
    return Markup(f"{text} {interval([100.0 * e for e in ends])}" if ends else text)


def interval(ends: Sequence[float]) -> str:
    """The ends of an interval for people."""
    return f"[{number(ends[0])}, {number(ends[1])}]"


def density(folder: Path) -> str | None:
    found: dict[str, Any] = (read_facts(folder, EVALUATION) or {}).get("density") or {}
    if not found:
        return None
    title = "log-density of held-out rows"
    if reason := found.get("refused"):
        return card(f"<p class='small'>None: {escaped(reason)}.</p>", title)
    lines = {"this run": _nats(found)}
    if beside := found.get("gaussian"):
        name = found.get("gaussian_is", "a Gaussian")
        lines[f"{name}, fitted to the training rows"] = _nats(beside)
        lines["this run above the Gaussian"] = _nats(found["gain"])
    if rounding := found.get("rounding"):
        lines["of it, from integrating over the cells of rounded columns"] = _nats(rounding)
    protocol = "; ".join(f"{name} {value}" for name, value in found["protocol"].items())
    body = facts({**lines, "rows": number(found["n"])})
    return card(f"{body}<p class='small'>Mean and standard error. {escaped(protocol)}.</p>", title)


def _nats(value: Mapping[str, float]) -> str:
    return f"{value['value']:.3f} ± {value['stderr']:.3f} nats"


def neighbours(folder: Path) -> str | None:
    path = folder / "evaluation" / "neighbours.png"
    if not path.exists():
        return None
    caption = (
        "In each group a sample on the left, then the training examples nearest to it. "
        "A model that copies shows the same picture twice."
    )
    return card(picture(path, caption))
