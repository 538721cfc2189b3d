"""The part of a report that shows a flow map: its errors, and quality against evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monge.report.figures import ACCENT, GOOD, SECOND, SOFT, plain_log, start_figure, svg
from monge.report.page import card, escaped, number, read_facts, table
from monge.runs import map_errors
from monge.runs.layout import STEPS

LINES = {
    "map, best weights": (GOOD, "--"),
    "map": (ACCENT, "-"),
    "this run": (ACCENT, "-"),
    "teacher": (SECOND, "-"),
}


def errors(folder: Path) -> str | None:
    """How far the jumps are from the flow that the map follows."""
    kept = map_errors.read(folder)
    if kept is None:
        return None
    loss, beside = kept["velocity_loss"], ""
    if loss is not None:
        beside = f" The held-out loss of that velocity is {number(loss)}."
    rows = [
        [escaped(e["steps"]), f"{e['guidance']:g}", number(e["rms"])]
        + [f"{100 * e[key]:.2f} %" for key in ("relative", "median", "quantile90")]
        for e in kept["errors"]
    ]
    head = [
        "jumps", "guidance", "error, rms per coordinate", "squared error / squared displacement",
        "median", "90 % quantile",
    ]  # fmt: skip
    told = (
        f"Against {escaped(kept['reference'])}, from the same noise; n = {kept['n']}, "
        f"{escaped(kept['units'])}.{beside}"
    )
    return card(table(head, rows, told), "Error of the map")


def by_evaluations(folder: Path) -> str | None:
    """Quality against the number of evaluations of the network."""
    found = read_facts(folder, STEPS)
    if found is None:
        return None
    withheld, network = found.get("withheld") or "", found["network"]
    keys = ["energy", "auc", "frechet"] + (["features"] if network else [])
    rows = [
        [escaped(p["who"]), escaped(p["how"]), f"{p['evaluations']:g}"]
        + [number(p[key]) for key in keys]
        for p in found["points"]
    ]
    floor = [number(found["floor"][key]) for key in keys[:3]]
    rows.append(["floor", "training examples", "", *floor, *[""] * (len(keys) - 3)])
    head = [
        "", "by", "evaluations", "energy distance (latent)", "C2ST AUC (latent)",
        "Frechet (latent)", *([f"Frechet ({escaped(network)})"] if network else []),
    ]  # fmt: skip
    told = (
        f"n = {found['n']} samples and held-out examples, seed {found['seed']}, the same noise for "
        "all; the teacher by the best of its solvers at as many evaluations."
        f"{f' Frechet (latent) {escaped(withheld)}.' if withheld else ''}"
    )
    drawn = "" if withheld and not network else card(_figure(found))
    return drawn + card(table(head, rows, told, text=(1,)), "By network evaluations")


def _figure(found: Mapping[str, Any]) -> str:
    figure, ax = start_figure(6.4, 3.2)
    key = "features" if found["network"] else "frechet"
    points: Sequence[Mapping[str, Any]] = found["points"]
    for who, (colour, style) in LINES.items():
        own = sorted((p["evaluations"], p[key]) for p in points if p["who"] == who)
        if own:
            x, y = zip(*own, strict=True)
            ax.plot(x, y, "o", ls=style, color=colour, label=who, lw=1.6, ms=4)
    for p in points:
        if p["who"] == "teacher as it is":
            label = f"teacher, {p['evaluations']:g} evaluations"
            ax.axhline(p[key], color=SECOND, ls="--", lw=1.2, label=label)
    if key == "frechet":
        ax.axhline(found["floor"]["frechet"], color=SOFT, ls=":", lw=1.2, label="floor")
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.xaxis.set_major_formatter(lambda v, _: f"{v:g}")
    plain_log(ax.yaxis)
    ax.set_xlabel("network evaluations for a sample")
    ax.set_ylabel(f"Frechet distance ({found['network'] or 'latent units²'})")
    ax.legend(frameon=False, fontsize=8, labelcolor=SOFT)
    return svg(figure, "Frechet distance against network evaluations")
