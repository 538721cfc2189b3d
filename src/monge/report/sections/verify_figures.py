"""The figures of a verified run: waterfall, errors, stretching, and trajectories with a slider."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

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

COLOURS = (ACCENT, SECOND, GOOD, SOFT)


def waterfall(report: Mapping[str, Any]) -> str:
    """The terms on top of each other, up to their sum, and the lower bounds as lines; each with
    two standard errors."""
    terms = [t for t in report["terms"] if t["value"] > 0 or t["stderr"] > 0]
    bounds = report["lower_bounds"]
    figure, ax = start_figure(6.4, 0.6 + 0.34 * (len(terms) + 1) + 0.2 * len(bounds))
    height = 0.0
    most = max((b["value"] + 2 * b["stderr"] for b in bounds.values()), default=0.0)
    rows = [*terms, {"name": "sum", "kind": "sum", **report["sum"]}]
    for row, term in enumerate(rows):
        total, estimate = term["kind"] == "sum", term["kind"] == "estimate"
        colour = SECOND if total else ACCENT
        start = 0.0 if total else height
        height = start + term["value"]
        ax.barh(
            row, term["value"], left=start, color="none" if estimate else colour,
            edgecolor=colour, hatch="///" if estimate else None, height=0.62, lw=1.2,
        )  # fmt: skip
        end = height + 2 * term["stderr"]
        ax.plot([max(height - 2 * term["stderr"], 0), end], [row, row], color=INK, lw=1.2)
        ax.text(end, row, f"  {term['value']:.3g}", va="center", size=9, color=INK)
        most = max(most, end)
    for k, ((name, bound), style) in enumerate(zip(bounds.items(), ("--", ":"), strict=False)):
        ax.axvline(bound["value"], color=GOOD, ls=style, lw=1.6)
        value, error = bound["value"], 2 * bound["stderr"]
        row = -0.75 - 0.5 * k
        ax.plot([max(value - error, 0), value + error], [row, row], color=GOOD, lw=1.2, gid="bound")
        ax.text(value + error, row, f" {name}", size=8, color=GOOD, va="center")
    ax.set_yticks(range(len(rows)), [row["name"] for row in rows])
    ax.set_ylim(len(terms) + 0.5, -0.6 - 0.5 * len(bounds))
    ax.set_xlim(0, 1.14 * most)
    ax.set_xlabel(f"W2 ({report['units']})")
    return svg(
        figure, "The terms of the budget, their sum and lower bounds, with two standard errors"
    )


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


SIZE = 340


def walks(found: Mapping[str, Any]) -> str:
    """Noises on their way to latents, on two principal axes, with a slider for the time.

    A canvas and a few lines of script inside the page; nothing is fetched.
    """
    every = [p for frame in (*found["points"], found["target"]) for p in frame]
    most = max((max(abs(a), abs(b)) for a, b in every), default=1.0) * 1.05 or 1.0
    data = json.dumps({"t": found["times"], "p": found["points"], "z": found["target"], "m": most})
    last = len(found["times"]) - 1
    return f"""<div class='walks'><canvas width='{2 * SIZE}' height='{2 * SIZE}'
 style='width:{SIZE}px;max-width:100%;aspect-ratio:1'
 role='img' aria-label='Trajectories on the two principal axes of the latents'></canvas>
<label style='display:flex;gap:.6rem;align-items:center'>t = <output>1</output>
<input type='range' min='0' max='{last}' value='{last}' style='flex:1;max-width:{SIZE}px'></label>
<script>(function(){{const d={data};const box=document.currentScript.parentNode;
const c=box.querySelector('canvas'),g=c.getContext('2d'),s=box.querySelector('input'),
o=box.querySelector('output'),n=c.width;
function at(p){{return [n/2+p[0]/d.m*n/2,n/2-p[1]/d.m*n/2]}}
function draw(){{const k=+s.value,css=getComputedStyle(document.documentElement);
o.textContent=d.t[k].toFixed(2);g.clearRect(0,0,n,n);
g.fillStyle=css.getPropertyValue('--line');
for(const p of d.z){{const a=at(p);g.beginPath();g.arc(a[0],a[1],5,0,7);g.fill()}}
g.strokeStyle=css.getPropertyValue('--soft');g.globalAlpha=.25;
for(let i=0;i<Math.min(60,d.p[0].length);i++){{g.beginPath();
for(let j=0;j<=k;j++){{const a=at(d.p[j][i]);j?g.lineTo(a[0],a[1]):g.moveTo(a[0],a[1])}}g.stroke()}}
g.globalAlpha=1;g.fillStyle=css.getPropertyValue('--accent');
for(const p of d.p[k]){{const a=at(p);g.beginPath();g.arc(a[0],a[1],4,0,7);g.fill()}}}}
s.addEventListener('input',draw);draw()}})()</script></div>"""
