"""Figures of a study: measured points with error bars, fitted line, predicted slope and floor."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from monge.report.figures import start_figure
from monge.studies.claims import Slope
from monge.studies.verdicts import Line, Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#c2410c", "#2563a8", "#7a5195", "#2f7d4f", "#b42318", "#60646c", "#0f766e", "#a16207")
MARKS = "osD^vph*"
MOST_LINES = 16
"""Lines in one figure; further ones are in the table."""


def panels(verdicts: Sequence[Verdict]) -> list[tuple[str, Sequence[Line]]]:
    """The lines of each figure, with its title: one for each claim and value of its panel."""
    found: dict[tuple[str, str], list[Line]] = {}
    for verdict in verdicts:
        if verdict.line is not None:
            claim = verdict.line.claim
            part = f", {claim.panel} {verdict.line.group[claim.panel]}" if claim.panel else ""
            found.setdefault((claim.name, part), []).append(verdict.line)
    return [(name + part, lines[:MOST_LINES]) for (name, part), lines in found.items()]


def draw(lines: Sequence[Line]) -> Figure:
    """One figure of lines of one claim."""
    figure, ax = start_figure(6.4, 4.2)
    for number, line in enumerate(lines):
        _draw_line(ax, line, COLOURS[number % len(COLOURS)], MARKS[number % len(MARKS)])
    claim = lines[0].claim
    ax.set_yscale("log")
    if not claim.semilog:
        ax.set_xscale("log")
        _mark_places(ax, sorted({p.x for line in lines for p in line.points}))
    ax.set_xlabel(claim.against, parse_math=False)
    ax.set_ylabel(claim.quantity, parse_math=False)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _mark_places(ax: Any, places: Sequence[float]) -> None:
    """Ticks at the measured places of a short logarithmic axis, whose own labels overlap."""
    if 1 < len(places) <= 6 and places[-1] < 30 * places[0]:
        ax.set_xticks(places, [f"{x:.3g}" for x in places])
        ax.set_xticks([], minor=True)


def png(figure: Figure) -> bytes:
    """The figure as a PNG file on white."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def _draw_line(ax: Any, line: Line, colour: str, mark: str) -> None:
    shown = [p for p in line.points if not math.isnan(p.y)]
    label = ", ".join(f"{k} {v}" for k, v in line.group.items() if k != line.claim.panel)
    if line.fit is not None:
        label += f": {line.fit.slope:.2f}"
    for fitted in (True, False):
        some = [p for p in shown if (p in line.fitted) == fitted]
        if not some:
            continue
        x, y = [p.x for p in some], np.array([p.y for p in some])
        wide = np.exp(1.96 * np.array([p.spread for p in some]))
        face = colour if fitted else "white"
        style = {"fmt": mark, "ms": 4, "color": colour, "mfc": face, "lw": 0.9}
        ax.errorbar(x, y, [y - y / wide, y * wide - y], label=label if fitted else None, **style)
    if not any(p in line.fitted for p in shown) and shown:
        ax.plot([], [], mark, color=colour, mfc="white", ms=4, label=label)
    _draw_guides(ax, line, colour)
    floor = [(p.x, p.floor) for p in shown if p.floor > 0]
    if floor:
        ax.plot(*zip(*floor, strict=True), ":", color=colour, lw=0.8)


def _draw_guides(ax: Any, line: Line, colour: str) -> None:
    """The fitted line in full, the predicted slope dashed through the middle of the fitted."""
    if line.fit is None:
        return
    claim: Slope = line.claim
    ends = np.array([line.fitted[0].x, line.fitted[-1].x])
    at = ends if claim.semilog else np.log(ends)
    ax.plot(ends, np.exp(line.fit.intercept + line.fit.slope * at), "-", color=colour, lw=1)
    middle = at.mean()
    level = line.fit.intercept + line.fit.slope * middle
    ax.plot(ends, np.exp(level + line.predicted * (at - middle)), "--", color=colour, lw=0.8)
