"""The part of a report that shows how a table's samples give themselves away."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monge.metrics.tabular_families import TREES
from monge.report.page import card, escaped, number, read_facts
from monge.report.sections.measured import rows_of
from monge.runs.layout import COLUMNS, EVALUATION

MOST_BARS = 12
"""Columns that are drawn: those that help most."""

MOST_CELLS = 24
"""Columns along each side of the picture of differences."""

LEVEL = 0.05


def differences(folder: Path) -> str | None:
    """The difference of the associations of each pair of columns, generated less held-out."""
    found = read_facts(folder, COLUMNS) or {}
    known = found.get("associations")
    if not known or len(known["names"]) < 2:
        return None
    names, made, real = known["names"], known["samples"], known["heldout"]
    n = min(len(names), MOST_CELLS)
    gaps = {
        (i, j): made[i][j] - real[i][j]
        for i in range(n)
        for j in range(i)
        if made[i][j] is not None and real[i][j] is not None
    }
    if not gaps:
        return None
    most = max(map(abs, gaps.values()))
    chance = math.sqrt(1 / max(found["n_samples"], 1) + 1 / max(found["n_heldout"], 1))
    scale = max(most, 2 * chance)
    cells = "".join(_cell(names, i, j, gap, scale) for (i, j), gap in gaps.items())
    left = "".join(
        f"<text x='-.2' y='{k + 0.65}' text-anchor='end' font-size='.5' fill='var(--ink)'>"
        f"{escaped(_short(name))}</text>"
        for k, name in enumerate(names[:n])
    )
    below = "".join(
        f"<text transform='translate({k + 0.6} {n + 0.25}) rotate(-55)' text-anchor='end' "
        f"font-size='.5' fill='var(--ink)'>{escaped(_short(name))}</text>"
        for k, name in enumerate(names[:n])
    )
    margin = 4.5
    told = (
        f"Orange: larger in generated rows, blue: smaller; the deepest colour is "
        f"{scale:.2f}. The largest difference is {most:.2f}; two correlations near zero of "
        f"{number(found['n_samples'])} and {number(found['n_heldout'])} rows of one law differ by "
        f"about {chance:.2f} by chance."
    )
    width = f"max-width:{min(30, 3 * n + 6)}rem;margin:0"
    figure = (
        f"<figure><svg viewBox='-{margin} 0 {n + margin} {n + 3.6}' style='{width}' role='img' "
        f"aria-label='differences of the associations of columns'>{cells}{left}{below}</svg>"
        f"<figcaption>{told}</figcaption></figure>"
    )
    return card(figure, "Columns together: generated less held-out")


def _cell(names: Sequence[str], i: int, j: int, gap: float, scale: float) -> str:
    colour = "accent" if gap >= 0 else "second"
    return (
        f"<rect x='{j + 0.03}' y='{i + 0.03}' width='.94' height='.94' rx='.08' "
        f"fill='var(--line)' opacity='.35'/>"
        f"<rect x='{j + 0.03}' y='{i + 0.03}' width='.94' height='.94' rx='.08' "
        f"fill='var(--{colour})' fill-opacity='{abs(gap) / scale:.2f}'><title>"
        f"{escaped(names[j])} and {escaped(names[i])}: {gap:+.3f}</title></rect>"
    )


def _short(name: str, most: int = 14) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}\u2026"


def giveaways(folder: Path) -> str | None:
    """Which columns let boosted trees tell samples from held-out rows."""
    evaluation = read_facts(folder, EVALUATION) or {}
    found: list[dict[str, Any]] = (evaluation.get("tabular") or {}).get("giveaways") or []
    row = next((row for row in rows_of(evaluation) if row.name == TREES), None) if found else None
    if row is None:
        return None
    area, p = float(row.protocol["AUC"]), row.p_value
    if p is None or p >= LEVEL:
        told = (
            f"Boosted trees cannot tell samples from held-out rows (AUC {area:.2f}, p = "
            f"{number(p)}): no column gives them away."
        )
        return card(f"<p>{told}</p>", "Which columns give the samples away")
    shown = [each for each in found[:MOST_BARS] if each["auc_lost"] > 0]
    top = max((each["auc_lost"] for each in shown), default=1.0)
    bars = "".join(
        f"<div class='level'><span title='{escaped(each['column'])}'>{escaped(each['column'])}"
        f"</span><div><u style='width:{100 * each['auc_lost'] / top:.1f}%;"
        f"background:var(--accent)'></u></div><em>{each['auc_lost']:.3f}</em></div>"
        for each in shown
    )
    told = (
        f"Boosted trees tell samples from held-out rows with an AUC of {area:.2f} (1/2: not at "
        "all). Each bar is the part of it that is lost when the column is shuffled among the rows "
        "that are scored. A column may help by its own values or by what goes with them; columns "
        "that say the same share it."
    )
    return card(f"{bars}<p class='small'>{told}</p>", "Which columns give the samples away")
