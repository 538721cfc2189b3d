"""The part of a report that shows a chain: its blocks, their certificates, and its prefixes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monge.report.figures import ACCENT, GOOD, SECOND, SOFT, plain_log, start_figure, svg
from monge.report.page import card, escaped, number, read_facts
from monge.runs.layout import ANYTIME, CHAIN, VERIFY

PANELS = 8
"""Stages that are drawn, at most."""


def blocks(folder: Path) -> str | None:
    """The blocks as they were fitted, from the training latents."""
    found = read_facts(folder, CHAIN)
    if found is None or not found.get("blocks"):
        return None
    rows = "".join(
        f"<tr><th>{k}</th><td class='n'>{_size(b)}</td><td class='n'>{number(b['moved'])}</td>"
        f"<td class='n'>{number(b['ratio'])}</td><td class='n'>{number(b['steps'])}</td>"
        f"<td class='n'>{b['train_s']:.0f}</td></tr>"
        for k, b in enumerate(found["blocks"], 1)
    )
    return card(
        "<div class='wide'><table><thead><tr><th>block, from the data</th><th>size</th>"
        "<th>W2 moved</th><th>E|x − Tx|² / E|Tx|²</th><th>training steps</th><th>seconds</th></tr>"
        f"</thead><tbody>{rows}</tbody></table></div>"
        "<p class='small'>On the training latents. Each block is fitted on what the earlier ones "
        "made of the data; every prefix is a model with a density.</p>"
    )


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
        rows.append(
            f"<tr><th>{k}</th>" + "".join(f"<td class='n'>{c}</td>" for c in cells) + "</tr>"
        )
    verdicts = "".join(f"<li>{escaped(v)}</li>" for v in report["violations"])
    verdict = (
        f"<div class='note'>Violated: <ul>{verdicts}</ul></div>"
        if verdicts
        else "<p class='small'>No inequality is violated.</p>" * known
    )
    return (
        card(_pushed(report), "Data pushed block by block, on its two principal axes")
        + f"<div class='pair'>{card(_divergences(report))}{card(_moved(report))}</div>"
        + card(
            "<div class='wide'><table><thead><tr>"
            + "".join(f"<th>{escaped(name)}</th>" for name in head)
            + f"</tr></thead><tbody>{''.join(rows)}</tbody></table></div>{verdict}"
            + f"<p class='small'>In nats; ± is a standard error over {report['n']} examples; trace "
            f"{escaped(report['trace'])}. Data to noise and back: {report['round_trip']:.1e} rms "
            "per coordinate.</p>",
            "Certificates",
        )
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
        rows.append(
            f"<tr><th>{p['blocks']}</th><td class='n'>{p['evaluations']:g}</td>"
            f"<td class='n'>{like}</td><td class='n'>{number(p['energy'])}</td>"
            f"<td class='n'>{number(p['auc'])}</td><td class='n'>{number(p['frechet'])}</td></tr>"
        )
    return card(
        "<div class='wide'><table><thead><tr><th>blocks</th><th>evaluations</th>"
        "<th>held-out log-density</th><th>energy distance (latent)</th><th>C2ST AUC (latent)</th>"
        f"<th>Frechet (latent)</th></tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        f"<p class='small'>n = {found['n']}, seed {found['seed']}; floor of the energy distance "
        f"{number(found['floor']['energy'])}.</p>",
        "Every prefix is a model",
    )


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
    rows = "".join(
        f"<tr><th>{escaped(w['solver'])}{' (its own)' * w['own']}</th>"
        f"<td class='n'>{w['steps'] or 'adaptive'}</td><td class='n'>{_pm(w)}</td>"
        f"<td class='n'>{w['round_trip']:.1e}</td></tr>"
        for w in report["solvers"]
    )
    return card(
        "<div class='wide'><table><thead><tr><th>solver</th><th>steps a block</th>"
        f"<th>log-density</th><th>back again</th></tr></thead><tbody>{rows}</tbody></table></div>"
        "<p class='small'>One discretisation is used in training, sampling and densities; others "
        "are shown beside it.</p>",
        "Discretisation",
    )


PARTS = (certificates, anytime, blocks)
"""Of the section, in order."""
