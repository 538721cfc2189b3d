"""The figures of a verified run: waterfall, errors, stretching, and trajectories with a slider."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from monge.report.figures import (
    ACCENT,
    GOOD,
    INK,
    LINE,
    MARKS,
    SECOND,
    SOFT,
    plain_log,
    start_figure,
    svg,
)
from monge.report.sections.film import film

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = (ACCENT, SECOND, GOOD, SOFT)


def waterfall(report: Mapping[str, Any]) -> str:
    """The terms on top of each other, up to their sum, and the lower bounds as lines; each with
    two standard errors."""
    return svg(
        waterfall_figure(report),
        "The terms of the budget, their sum and lower bounds, with two standard errors",
    )


def waterfall_figure(report: Mapping[str, Any]) -> Figure:
    """The figure of `waterfall`: values stand in a column of their own, right of all bars."""
    terms = [t for t in report["terms"] if t["value"] > 0 or t["stderr"] > 0]
    bounds = report["lower_bounds"]
    figure, ax = start_figure(6.4, 0.6 + 0.34 * (len(terms) + 1) + 0.34 * len(bounds))
    height, most = 0.0, 0.0
    rows = [*terms, {"name": "sum", "kind": "sum", **report["sum"]}]
    for row, term in enumerate(rows):
        total, estimate = term["kind"] == "sum", term["kind"] == "estimate"
        colour = SECOND if total else ACCENT
        start = 0.0 if total else height
        height, error = start + term["value"], 2 * term["stderr"]
        ax.barh(
            row, term["value"], left=start, color="none" if estimate else colour,
            edgecolor=colour, hatch="///" if estimate else None, height=0.62, lw=1.2,
        )  # fmt: skip
        ax.plot([max(height - error, 0), height + error], [row, row], color=INK, lw=1.2)
        most = max(most, height + error)
    names = [row["name"] for row in rows]
    styles = ("--", ":", "-.")
    for k, (name, bound) in enumerate(bounds.items()):
        value, error, row = bound["value"], 2 * bound["stderr"], -1.0 - k
        ax.axvline(value, color=GOOD, ls=styles[k % len(styles)], lw=1.6)
        ends = [max(value - error, 0), value + error]
        ax.plot(ends, [row, row], color=GOOD, lw=2.4, gid="bound")
        most = max(most, value + error)
        names.append(f"at least ({name})")
    places = [*range(len(rows)), *(-1.0 - k for k in range(len(bounds)))]
    values = [*(r["value"] for r in rows), *(b["value"] for b in bounds.values())]
    for place, value in zip(places, values, strict=True):
        colour = GOOD if place < 0 else INK
        ax.text(1.02, place, f"{value:.3g}", transform=ax.get_yaxis_transform(), va="center",
                ha="left", size=9, color=colour)  # fmt: skip
    ax.set_yticks(places, names, parse_math=False)
    ax.set_ylim(len(terms) + 0.5, -0.6 - len(bounds))
    ax.set_xlim(0, 1.04 * most or 1.0)
    ax.set_xlabel(f"W2 ({report['units']})", parse_math=False)
    return figure


def over_time(bins: Sequence[Mapping[str, float]], against: str) -> str:
    """The root mean square error of the field on pieces of time."""
    figure, ax = start_figure(3.7, 2.6)
    for piece in bins:
        ax.bar(
            (piece["lo"] + piece["hi"]) / 2, max(piece["excess"], 0) ** 0.5,
            width=0.86 * (piece["hi"] - piece["lo"]), color=ACCENT,
        )  # fmt: skip
    ax.set_xlabel("time t (0: noise, 1: data)")
    ax.set_ylabel("RMS error of the velocity")
    ax.set_title(f"against {against}", size=9, color=SOFT, loc="left")
    return svg(figure, "Error of the velocity field over time")


def by_steps(errors: Sequence[Mapping[str, Any]], units: str) -> str:
    """Median displacement from the fine solution against evaluations, a line for each solver."""
    figure, ax = start_figure(3.7, 2.6)
    names = list(dict.fromkeys(e["solver"] for e in errors))
    for name, colour, (mark, _) in zip(names, COLOURS, MARKS, strict=False):
        line = [e for e in errors if e["solver"] == name and e["median"] > 0]
        x, y = [e["evaluations"] for e in line], [e["median"] for e in line]
        ax.plot(x, y, color=colour, marker=mark, ms=5, lw=1.6, label=name)
    ax.set_xscale("log")
    ax.set_yscale("log")
    plain_log(ax.xaxis)
    plain_log(ax.yaxis)
    ax.set_xlabel("evaluations per sample")
    ax.set_ylabel("median error (data units)")
    ax.legend(frameon=False, fontsize=8, labelcolor=SOFT)
    return svg(figure, f"Error of the solvers against evaluations, in {units}")


def stretched(found: Mapping[str, Any]) -> str:
    """Jacobian norm and expansion rate of the field over time."""
    figure, ax = start_figure(3.7, 2.6)
    t = found["times"]
    ax.plot(t, found["norm"], color=ACCENT, marker="o", ms=4, lw=1.6, label="norm of the Jacobian")
    ax.plot(t, found["rate"], color=SECOND, marker="s", ms=4, lw=1.6, label="expansion rate")
    if found.get("exact_rate"):
        ax.plot(t, found["exact_rate"], color=GOOD, ls="--", lw=1.6, label="rate of the true field")
    ax.axhline(0, color=LINE, lw=1)
    ax.set_xlabel("time t (0: noise, 1: data)")
    ax.set_ylabel("largest observed (1 / time)")
    ax.legend(frameon=False, fontsize=8, labelcolor=SOFT)
    return svg(figure, "How the field stretches over time")


def walks(found: Mapping[str, Any]) -> str:
    """Noises on their way to latents, on two principal axes, as a film."""
    label = "Trajectories on the two principal axes of the latents"
    names = ("first principal axis", "second principal axis")
    return film(found["times"], found["points"], found["target"], names, label)
