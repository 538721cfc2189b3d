"""The part of a report that shows a flow map: its errors, and quality against evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monge.report.figures import ACCENT, GOOD, SECOND, SOFT, plain_log, start_figure, svg
from monge.report.page import card, escaped, number, read_facts
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
        beside = f" That velocity loses {number(loss)} on held-out data."
    how = f"n = {kept['n']}, {escaped(kept['units'])}"
    rows = "".join(
        f"<tr><th>{e['steps']}</th><td class='n'>{e['guidance']:g}</td>"
        f"<td class='n'>{number(e['rms'])}</td>"
        + "".join(
            f"<td class='n'>{100 * e[key]:.2f} %</td>"
            for key in ("relative", "median", "quantile90")
        )
        + "</tr>"
        for e in kept["errors"]
    )
    return card(
        "<div class='wide'><table><thead><tr><th>jumps</th><th>guidance</th>"
        "<th>error, rms per coordinate</th>"
        "<th>of the squared displacement</th><th>median</th><th>90 % quantile</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div><p class='small'>Against "
        f"{escaped(kept['reference'])}, from the same noise; {how}.{beside}</p>",
        "Error of the map",
    )


def by_evaluations(folder: Path) -> str | None:
    """Quality against the number of evaluations of the network."""
    found = read_facts(folder, STEPS)
    if found is None:
        return None
    rows = "".join(
        f"<tr><th>{escaped(p['who'])}</th><td>{escaped(p['how'])}</td>"
        f"<td class='n'>{p['evaluations']:g}</td>"
        + "".join(
            f"<td class='n'>{number(p[key])}</td>"
            for key in ("energy", "auc", "frechet", "features")
            if p[key] is not None or key == "frechet"
        )
        + "</tr>"
        for p in found["points"]
    )
    floor = found["floor"]
    rows += "<tr><th>floor</th><td>training examples</td><td></td>" + "".join(
        f"<td class='n'>{number(floor[key])}</td>" for key in ("energy", "auc", "frechet")
    )
    seen = f"<th>Frechet ({escaped(found['network'])})</th>" if found["network"] else ""
    withheld = found.get("withheld") or ""
    drawn = "" if withheld and not found["network"] else card(_figure(found))
    return drawn + card(
        "<div class='wide'><table><thead><tr><th></th><th>by</th><th>evaluations</th>"
        "<th>energy distance (latent)</th><th>C2ST AUC (latent)</th><th>Frechet (latent)</th>"
        f"{seen}</tr></thead><tbody>{rows}</tr></tbody></table></div><p class='small'>n = "
        f"{found['n']} samples and held-out examples, seed {found['seed']}, the same noise for "
        "all; the teacher by the best of its solvers at as many evaluations."
        f"{f' Frechet (latent) {escaped(withheld)}.' if withheld else ''}</p>"
    )


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
