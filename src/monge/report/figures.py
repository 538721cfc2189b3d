"""The figures of a report, as SVG whose colours follow the page's theme."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from monge.metrics.table import Row
from monge.report.page import escaped
from monge.report.style import LIGHT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_POINTS = 1500
"""Points of a curve that are drawn."""

WIDEST = 7.0
"""Width of a figure on a wide screen, in rem for each inch that it is drawn in."""

MARKS = [("o", "○"), ("s", "□"), ("D", "◇"), ("^", "△"), ("v", "▽"), ("p", "⬠"), ("h", "⬡")]
"""Marks of the baselines in a figure and in its legend."""

INK, SOFT, LINE, ACCENT, SECOND, GOOD, PAPER = (
    LIGHT[name] for name in ("ink", "soft", "line", "accent", "second", "good", "paper")
)


def curve(points: Sequence[tuple[int, float]], label: str, *, noisy: bool = True) -> str:
    """A quantity against the training step.

    A noisy one is drawn faint with its running mean strong, on a logarithmic axis where its
    values are positive and span more than a factor of four.
    """
    x, y = np.asarray(points, float).T
    log = bool(noisy and y.min() > 0 and y.max() > 4 * y.min())
    figure, ax = start_figure(3.7, 2.6)
    width = max(1, len(y) // 25) if noisy else 1
    thin = slice(None, None, max(1, len(x) // MOST_POINTS))
    if width > 1:
        ax.plot(x[thin], y[thin], color=ACCENT, alpha=0.3, lw=1)
        y = _running_mean(np.log(y) if log else y, width)
        y = np.exp(y) if log else y
    ax.plot(x[thin], y[thin], color=ACCENT, lw=1.8)
    if log:
        ax.set_yscale("log")
        plain_log(ax.yaxis)
    ax.set_xlabel("training step")
    ax.set_ylabel(label, parse_math=False)
    return svg(figure, f"{label} along training")


def intervals(rows: Sequence[Row], name: str = "this run") -> str:
    """Measurements with their intervals, floors and baselines, each on an axis of its own.

    Two figures, side by side on a wide screen, below a legend.
    """
    names = list(dict.fromkeys(name for row in rows for name in row.baselines))
    marks = {name: MARKS[i % len(MARKS)] for i, name in enumerate(names)}
    legend = [("accent", "●", f"{name}, 95 % interval"), ("good", "┃", "floor: real against real")]
    legend += [("second", sign, name) for name, (_, sign) in marks.items()]
    key = "".join(
        f"<span><b style='color:var(--{colour})'>{sign}</b> {escaped(name)}</span>"
        for colour, sign, name in legend
    )
    drawn = ""
    half = -(-len(rows) // 2)
    for part in filter(None, (rows[:half], rows[half:])):
        figure, axes = start_figure(4.8, 0.1 + 0.72 * len(part), rows=len(part))
        for ax, row in zip(axes, part, strict=True):
            _interval(ax, row, marks)
        drawn += "<div>" + svg(figure, ", ".join(row.name for row in part)) + "</div>"
    return f"<div class='key'>{key}</div><div class='pair'>{drawn}</div>"


def _interval(ax: Axes, row: Row, marks: Mapping[str, tuple[str, str]]) -> None:
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.set_ylim(-1, 1)
    unit = f" ({row.unit})" if row.unit else ""
    points = np.asarray([row.value, row.floor, *row.interval, *row.baselines.values()])
    points = points[np.isfinite(points)]
    if len(points):
        low, high = points.min(), points.max()
        if low > 0 and high > 20 * low:
            ax.set_xscale("log")
            plain_log(ax.xaxis)
            ax.set_xlim(low / 1.3, high * 1.3)
            unit += ", log scale"
        else:
            margin = 0.06 * (high - low) or 0.05 * abs(high) or 1
            ax.set_xlim(low - margin, high + margin)
    ax.set_title(f"{row.name}{unit}", loc="left", size=9, color=INK, pad=3, parse_math=False)
    if math.isfinite(row.floor):
        if row.better != "near floor":
            side = ax.get_xlim()[row.better == "higher"]
            ax.axvspan(*sorted((side, row.floor)), color=GOOD, alpha=0.13, lw=0)
        ax.axvline(row.floor, color=GOOD, lw=1.8)
    for name, value in row.baselines.items():
        ax.plot([value], [0], marks[name][0], mfc="none", mec=SECOND, mew=1.3, ms=6)
    ax.plot(row.interval, [0, 0], color=ACCENT, lw=2.5, solid_capstyle="butt")
    ax.plot([row.value], [0], "o", color=ACCENT, ms=7)


def by_class(values: Mapping[str, Sequence[float]], label: str, reference: float | None) -> str:
    """A share of each class with its interval, in percent, and a line for real data."""
    names = list(values)
    numbers = 100 * np.asarray([values[name] for name in names], float)
    figure, ax = start_figure(5.0, 2.5)
    places = np.arange(len(names))
    spread = np.abs(numbers[:, 1:].T - numbers[:, 0])
    ax.bar(places, numbers[:, 0], color=ACCENT, alpha=0.75, width=0.72)
    ax.errorbar(places, numbers[:, 0], spread, fmt="none", ecolor=INK, elinewidth=1.2, capsize=2)
    if len(names) <= 20:
        for place, share in zip(places, numbers[:, 0], strict=True):
            ax.text(place, 4, f"{share:.0f}", ha="center", size=9, color=PAPER)
    if reference is not None:
        ax.axhline(100 * reference, color=GOOD, lw=1.6, label="held-out real data")
        figure.legend(loc="outside upper left", frameon=False)
    shown = [name if len(name) < 13 else name[:11] + "…" for name in names]
    ax.set_xticks(places, shown, parse_math=False)
    if sum(map(len, names)) > 40:
        ax.tick_params(axis="x", rotation=60)
    ax.set_ylim(0, 102)
    ax.set_xlabel("requested label")
    ax.set_ylabel(label)
    ax.grid(axis="x", visible=False)
    return svg(figure, label)


def start_figure(width: float, height: float, rows: int = 0) -> tuple[Figure, Any]:
    """A figure in the style of the page: one axes, or an array of `rows` of them."""
    from matplotlib.figure import Figure

    figure = Figure((width, height), layout="constrained")
    axes = figure.subplots(max(rows, 1), 1, squeeze=False)[:, 0]
    for ax in axes:
        ax.patch.set_visible(False)
        ax.tick_params(colors=SOFT, labelcolor=SOFT, length=3, labelsize=9)
        ax.spines[["top", "right"]].set_visible(False)
        ax.spines[["left", "bottom"]].set_color(LINE)
        ax.xaxis.label.set_color(SOFT)
        ax.yaxis.label.set_color(SOFT)
        if not rows:
            ax.grid(color=LINE, lw=0.7)
        ax.set_axisbelow(True)
    figure.patch.set_visible(False)
    return figure, axes if rows else axes[0]


def svg(figure: Figure, label: str) -> str:
    """The figure as inline SVG: text stays text, colours become the page's variables."""
    import matplotlib

    for legend in figure.legends:
        for text in legend.get_texts():
            text.set_color(SOFT)
            text.set_fontsize(9)
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "monge"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r' (width|height)="[^"]*pt"', "", text)
    text = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", text)
    most = f"style='max-width:{figure.get_figwidth() * WIDEST:.0f}rem'"
    text = text.replace("<svg", f"<svg role='img' aria-label='{escaped(label)}' {most}", 1)
    for name, colour in LIGHT.items():
        text = text.replace(colour, f"var(--{name})")
    return text


def plain_log(axis: Any) -> None:
    """Ticks of a log axis at 1, 2, 5 times powers of ten, written as plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(10, subs=(1, 2, 5), numticks=8))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _running_mean(values: np.ndarray, width: int) -> np.ndarray:
    """The mean of the `width` values around each, of fewer at the ends."""
    kernel = np.ones(width)
    return np.convolve(values, kernel, "same") / np.convolve(np.ones_like(values), kernel, "same")
