"""The part of a report that shows each column of a table, samples beside held-out rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monge.report.page import card, count, escaped, folded, number, read_facts, table
from monge.runs.layout import COLUMNS

SHOWN = 24
"""Columns that are open at once; the others open on request."""

MOST_VALUES = 8
"""Values of a category that are drawn: the most frequent ones."""

MOST_PAIRS = 8
"""Pairs of columns that are listed."""

MOST_CELLS = 24
"""Columns along each side of the picture of associations."""

WIDTH, HEIGHT = 220, 84


def every(folder: Path) -> str | None:
    """A small figure for each column."""
    found = read_facts(folder, COLUMNS)
    if found is None:
        return None
    drawn = [_figure(column) for column in found["columns"]]
    shown = _multiples(drawn[:SHOWN])
    if rest := drawn[SHOWN:]:
        shown += folded(f"{len(rest)} more columns", _multiples(rest))
    key = (
        "<div class='key'><span><b style='color:var(--second)'>■</b> held-out rows "
        f"({number(found['n_heldout'])})</span><span><b style='color:var(--accent)'>■</b> "
        f"generated ({number(found['n_samples'])})</span></div>"
    )
    return card(key + shown, "Every column, generated against held-out rows")


def _multiples(figures: Sequence[str]) -> str:
    return f"<div class='small-multiples'>{''.join(figures)}</div>"


def _figure(column: Mapping[str, Any]) -> str:
    body = _histogram(column) if column["kind"] == "number" else _levels(column)
    return f"<div><h4>{escaped(column['name'])}</h4>{body}</div>"


def _histogram(column: Mapping[str, Any]) -> str:
    real, made = column["heldout"], column["samples"]
    top = max([*real, *made, 1e-12])
    bins = len(real)
    wide = WIDTH / bins

    def y(share: float) -> float:
        return HEIGHT - (HEIGHT - 2) * share / top

    bars = "".join(
        f"<rect x='{k * wide:.1f}' y='{y(s):.1f}' width='{wide:.2f}' height='{HEIGHT - y(s):.1f}'/>"
        for k, s in enumerate(real)
        if s > 0
    )
    steps = "".join(
        f"{'L' if k else 'M'}{k * wide:.1f} {y(s):.1f}H{(k + 1) * wide:.1f}"
        for k, s in enumerate(made)
    )
    label = f"histogram of {escaped(column['name'])}"
    (made_mean, real_mean), (made_std, real_std) = _told(column, "mean"), _told(column, "deviation")
    low, high = _told(column, "ends")
    return (
        f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img' aria-label='{label}'>"
        f"<g fill='var(--second)' opacity='.45'>{bars}</g>"
        f"<path d='{steps}' fill='none' stroke='var(--accent)' stroke-width='1.8'/>"
        f"<path d='M0 {HEIGHT}H{WIDTH}' stroke='var(--line)'/></svg>"
        f"<div class='ends'><span>{low}</span><span>{high}</span></div>"
        f"<p>mean {made_mean} (held-out {real_mean}), deviation {made_std} ({real_std})</p>"
    )


def _told(column: Mapping[str, Any], what: str) -> list[str]:
    """Two numbers of a column as text, HTML; dates and times in the notation of the file."""
    if texts := column.get("texts"):
        return [escaped(text) for text in texts[what]]
    edges = column["edges"]
    return [_short(v) for v in ((edges[0], edges[-1]) if what == "ends" else column[what])]


def _levels(column: Mapping[str, Any]) -> str:
    values, real, made = column["values"], column["heldout"], column["samples"]
    order = sorted(range(len(values)), key=lambda k: -max(real[k], made[k]))
    top = max([*real, *made, 1e-12])
    rows = "".join(
        f"<div class='level'><span title='{escaped(values[k])}'>{escaped(values[k])}</span><div>"
        f"<u style='width:{100 * real[k] / top:.1f}%;background:var(--second)'></u>"
        f"<u style='width:{100 * made[k] / top:.1f}%;background:var(--accent)'></u></div>"
        f"<em>{100 * made[k]:.0f} %</em></div>"
        for k in order[:MOST_VALUES]
    )
    told = []
    if rest := order[MOST_VALUES:]:
        shares = [100 * sum(side[k] for k in rest) for side in (made, real)]
        told.append(
            f"{len(rest)} more values: {shares[0]:.0f} % of generated rows, {shares[1]:.0f} % of "
            "held-out rows"
        )
    never = [k for k in range(len(values)) if made[k] == 0 and column["train"][k] > 0]
    if never:
        told.append(f"never generated: {_listed([values[k] for k in never])}")
    return rows + (f"<p>{escaped('; '.join(told))}</p>" if told else "")


def _listed(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more


def _short(value: float) -> str:
    """A number with four digits, no more than it needs.

    >>> _short(1234567.0), _short(0.5), _short(-12.3456)
    ('1,234,567', '0.5', '-12.35')
    """
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def beyond(folder: Path) -> str | None:
    """How many numbers lie beyond the range of the training rows."""
    found = read_facts(folder, COLUMNS)
    if found is None:
        return None
    columns = [c for c in found["columns"] if c["kind"] == "number"]
    out = [c for c in columns if c["beyond"]["samples"] or c["beyond"]["heldout"]]
    if not columns:
        return None
    title = "Beyond the range of the training rows"
    if not out:
        return card(f"<p>None of {len(columns)} columns of numbers has any.</p>", title)
    n = {"samples": found["n_samples"], "heldout": found["n_heldout"]}

    def cell(column: Mapping[str, Any], of: str) -> str:
        k = column["beyond"][of]
        return f"{number(k)} <small>{100 * k / max(n[of], 1):.1f} %</small>"

    rows = [
        [
            escaped(c["name"]), cell(c, "samples"), cell(c, "heldout"),
            *_told(c, "range"),
        ]
        for c in sorted(out, key=lambda c: -c["beyond"]["samples"])
    ]  # fmt: skip
    head = ["column", "generated", "held-out", "least", "greatest"]
    told = (
        f"Of {count(n['samples'])} generated and {count(n['heldout'])} held-out rows, those with a "
        "value outside the least and greatest of the training rows."
    )
    return card(table(head, rows, told), title)


def together(folder: Path) -> str | None:
    """How pairs of columns go together, generated against held-out rows."""
    found = (read_facts(folder, COLUMNS) or {}).get("associations")
    if not found or len(found["names"]) < 2:
        return None
    names, made, real = found["names"], found["samples"], found["heldout"]
    pairs = [
        (abs(made[i][j] - real[i][j]), i, j)
        for i in range(len(names))
        for j in range(i)
        if made[i][j] is not None and real[i][j] is not None
    ]
    if not pairs:
        return None
    pairs.sort(reverse=True)
    rows = [
        [f"{escaped(names[j])} and {escaped(names[i])}"]
        + [f"{v:.2f}" for v in (made[i][j], real[i][j], made[i][j] - real[i][j])]
        for _, i, j in pairs[:MOST_PAIRS]
    ]
    head = ["pair", "generated", "held-out", "difference"]
    mean = sum(p[0] for p in pairs) / len(pairs)
    told = (
        f"The {len(rows)} of {number(len(pairs))} pairs that differ most; the mean difference is "
        f"{mean:.3f}. Correlation of two numbers, Cramér's V of two categories, correlation ratio "
        "of a number and a category."
    )
    body = f"<div class='pair'><div>{_matrix(names, made, real)}</div>"
    return card(f"{body}<div>{table(head, rows, told)}</div></div>", "Columns together")


def _matrix(names: Sequence[str], made: Any, real: Any) -> str:
    """Associations as a square of cells: generated above the diagonal, held-out below."""
    n = min(len(names), MOST_CELLS)
    cells = ""
    for i in range(n):
        for j in range(n):
            value = made[i][j] if j > i else real[i][j]
            if i == j or value is None:
                continue
            colour = "accent" if value >= 0 else "second"
            which = "generated" if j > i else "held-out"
            cells += (
                f"<rect x='{j}' y='{i}' width='1' height='1' fill='var(--{colour})' "
                f"fill-opacity='{min(abs(value), 1):.2f}'><title>{escaped(names[i])} and "
                f"{escaped(names[j])}, {which}: {value:.2f}</title></rect>"
            )
    numbers = "".join(
        f"<text x='{k + 0.5}' y='{k + 0.68}' text-anchor='middle' font-size='.5' "
        f"fill='var(--soft)'>{k + 1}</text>"
        for k in range(n)
    )
    key = ", ".join(f"{k + 1} {escaped(name)}" for k, name in enumerate(names[:n]))
    most = f"max-width:{min(24, 3 * n)}rem;margin:0"
    return (
        f"<figure><svg viewBox='0 0 {n} {n}' style='{most}' role='img' "
        f"aria-label='associations of columns'>{cells}<path d='M0 0H{n}V{n}H0Z' fill='none' "
        f"stroke='var(--line)' stroke-width='.03'/>{numbers}</svg><figcaption>Above the diagonal "
        "generated, below it held-out rows; orange is positive, blue negative, deeper is stronger. "
        f"{key}.</figcaption></figure>"
    )
