"""The part of a report that shows a chain: its blocks, their certificates, and its prefixes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monge.report.figures import ACCENT, GOOD, SECOND, SOFT, plain_log, start_figure, svg
from monge.report.page import card, escaped, number, read_facts, table
from monge.runs.layout import ANYTIME, CHAIN, VERIFY

PANELS = 8
"""Stages that are drawn, at most."""


def blocks(folder: Path) -> str | None:
    """The blocks as they were fitted, from the training latents."""
    found = read_facts(folder, CHAIN)
    if found is None or not found.get("blocks"):
        return None
    rows = [
        [
            str(k),
            _size(b),
            *(number(b[name]) for name in ("moved", "ratio", "steps")),
            f"{b['train_s']:.0f}",
        ]
        for k, b in enumerate(found["blocks"], 1)
    ]
    head = ["block, from the data", "size", "W2 moved", "E|x − Tx|² / E|Tx|²"]
    told = (
        "On the training latents. Each block is fitted on what the earlier ones made of the data; "
        "every prefix is a model with a density."
    )
    return card(table([*head, "training steps", "seconds"], rows, told))


def certificates(folder: Path) -> str | None:
    """What must hold of each block, and what does."""
    report = read_facts(folder, VERIFY)
    if report is None or "chain" not in report:
        return None
    known = report["truth_known"]
    head = ("block", "size", "KL to noise" if known else "KL above the last block", "exact")
    head += ("log-density", "descent", "E[T] defect", "dilation defect", "|ξ|", "back again")
    rows = []
    for k, b in enumerate(report["blocks"], 1):
        exact = "" if report["exact_kl"] is None else number(report["exact_kl"][k - 1])
        xi = "" if b["residual"] is None else number(b["residual"]["value"])
        cells = [_size(b), _pm(b["kl"] if known else b["above_last"]), exact]
        cells += [_pm(b[name]) for name in ("log_density", "descent", "mean", "dilation")]
        cells += [xi, f"{b['round_trip']:.1e}"]
        rows.append([str(k), *cells])
    verdicts = "".join(f"<li>{escaped(v)}</li>" for v in report["violations"])
    verdict = (
        f"<div class='note'>Violated: <ul>{verdicts}</ul></div>"
        if verdicts
        else "<p class='small'>No inequality is violated.</p>" * known
    )
    told = (
        f"In nats; ± is a standard error over {report['n']} examples; trace "
        f"{escaped(report['trace'])}. Data to noise and back: {report['round_trip']:.1e} rms "
        "per coordinate."
    )
    if diffusion := report.get("diffusion", {}).get("time"):
        told += (
            f" The chain has learned data diffused for a time of {diffusion:g}, W2 at most "
            f"{number(report['diffusion']['moved_at_most'])} from the data in latent units."
        )
    return (
        card(_pushed(report), "Data pushed block by block, on its two principal axes")
        + f"<div class='pair'>{card(_divergences(report))}{card(_moved(report))}</div>"
        + card(table([escaped(name) for name in head], rows, told) + verdict, "Certificates")
        + _solvers(report)
    )


def anytime(folder: Path) -> str | None:
    """The quality of the prefixes."""
    found = read_facts(folder, ANYTIME)
    if found is None:
        return None
    rows = []
    for p in found["points"]:
        density = p["density"]
        like = escaped(density["refused"]) if density.get("refused") else _pm(density)
        values = [number(p[name]) for name in ("energy", "auc", "frechet")]
        rows.append([str(p["blocks"]), f"{p['evaluations']:g}", like, *values])
    head = ["blocks", "evaluations", "held-out log-density", "energy distance (latent)"]
    head += ["C2ST AUC (latent)", "Frechet (latent)"]
    told = (
        f"n = {found['n']}, seed {found['seed']}; floor of the energy distance "
        f"{number(found['floor']['energy'])}."
    )
    return card(table(head, rows, told), "Every prefix is a model")


def _size(block: Mapping[str, Any]) -> str:
    return "free" if block["size"] is None else number(block["size"])


def _pm(found: Mapping[str, float] | None) -> str:
    if found is None:
        return ""
    return f"{number(found['value'])}<small>± {number(found['stderr'], 2)}</small>"


def _pushed(report: Mapping[str, Any]) -> str:
    stages: Sequence[Sequence[Sequence[float]]] = [
        report["start"],
        *(b["shown"] for b in report["blocks"]),
    ]
    names = ["data", *(f"block {k}" for k in range(1, len(stages)))]
    chosen = sorted({round(i * (len(stages) - 1) / (PANELS - 1)) for i in range(PANELS)})
    figure, first = start_figure(9.0, 1.7)
    first.remove()
    flat = [abs(v) for k in chosen for point in stages[k] for v in point]
    reach = sorted(flat)[int(0.995 * (len(flat) - 1))] * 1.1
    for place, k in enumerate(chosen):
        ax = figure.add_subplot(1, len(chosen), place + 1)
        points = stages[k]
        second = [p[1] if len(p) > 1 else 0.0 for p in points]
        ax.plot([p[0] for p in points], second, ".", color=ACCENT, ms=2.2, alpha=0.6)
        for radius in (1, 2):
            angle = [2 * math.pi * i / 60 for i in range(61)]
            xs = [radius * math.cos(a) for a in angle]
            ys = [radius * math.sin(a) for a in angle]
            ax.plot(xs, ys, color=SOFT, lw=0.8)
        ax.set_xlim(-reach, reach)
        ax.set_ylim(-reach, reach)
        ax.set_aspect("equal")
        ax.set_xticks([])
        ax.set_yticks([])
        ax.set_title(names[k], size=8, color=SOFT)
        for side in ax.spines.values():
            side.set_visible(False)
    return svg(figure, "Data pushed block by block") + (
        "<p class='small'>The circles are one and two deviations of the noise.</p>"
    )


def _divergences(report: Mapping[str, Any]) -> str:
    known = report["truth_known"]
    found = [b["kl"] if known else b["above_last"] for b in report["blocks"]]
    before = [report["kl_before"]["value"]] if known else []
    values = [*before, *(f["value"] for f in found)]
    start = 0 if known else 1
    figure, ax = start_figure(3.9, 2.6)
    kept = [(k, v) for k, v in enumerate(values, start) if v > 0]
    if kept:
        x, y = zip(*kept, strict=True)
        ax.plot(x, y, "o-", color=ACCENT, lw=1.6, ms=4, label="measured")
        ax.set_yscale("log")
        plain_log(ax.yaxis)
    if known and report["chain"] == "jko":
        bound = [values[0]]
        for b in report["blocks"]:
            if b["size"] is None:
                break
            bound.append(bound[-1] / (1 + b["size"]) ** 2)
        ax.plot(range(len(bound)), bound, "--", color=SECOND, lw=1.2, label="contraction bound")
    if (exact := report["exact_kl"]) is not None:
        shown = [(k, v) for k, v in enumerate(exact, 1) if v > 1e-8]
        ax.plot(*zip(*shown, strict=True), "x", color=GOOD, ms=6, label="exact blocks")
    ax.set_xlabel("blocks")
    ax.set_ylabel("KL to noise (nats)" if known else "KL above the last block (nats)")
    ax.legend(frameon=False, fontsize=8, labelcolor=SOFT)
    return svg(figure, "Divergence to the noise after each block")


def _moved(report: Mapping[str, Any]) -> str:
    figure, ax = start_figure(3.9, 2.6)
    moved = [b["moved"] for b in report["blocks"]]
    ax.bar(range(1, len(moved) + 1), moved, color=ACCENT, alpha=0.75, width=0.7)
    ax.set_xlabel("block")
    ax.set_ylabel("W2 moved (latent units)")
    ax.set_xticks(range(1, len(moved) + 1))
    return svg(figure, "W2 moved by each block")


def _solvers(report: Mapping[str, Any]) -> str:
    if not report["solvers"]:
        return ""
    rows = [
        [
            escaped(w["solver"]) + " (its own)" * w["own"],
            str(w["steps"] or "adaptive"),
            _pm(w),
            f"{w['round_trip']:.1e}",
        ]
        for w in report["solvers"]
    ]
    told = "Training, sampling and densities use one discretisation; others are shown beside it."
    head = ["solver", "steps a block", "log-density", "back again"]
    return card(table(head, rows, told), "Discretisation")


PARTS = (certificates, anytime, blocks)
"""Of the section, in order."""
