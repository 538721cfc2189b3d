"""The part of a report that says where the Wasserstein-2 error comes from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monge.report.page import card, escaped, facts, number, read_facts
from monge.report.sections import verify_figures
from monge.report.term import Term
from monge.report.words import map_laws
from monge.runs.layout import VERIFY


def _budget_of(folder: Path) -> dict[str, Any] | None:
    """What a verification found of a budget; None for a chain, which has certificates instead."""
    report = read_facts(folder, VERIFY)
    return None if report is None or "terms" not in report else report


def budget(folder: Path) -> str | None:
    report = _budget_of(folder)
    if report is None:
        return None
    known = bool(report["truth_known"])
    estimate = any(t["kind"] == "estimate" for t in report["terms"])
    told = (
        "Each term is an upper bound by pairing samples from the same noise, so their sum is at "
        "least the distance between samples and data."
        if known and not estimate
        else "The law of the data is not known exactly, so the velocity term (hatched) and the sum "
        "are estimates, and no inequality is claimed."
    )
    told += "".join(f" {escaped(why)}." for t in report["terms"] if (why := Term(**t).loose))
    return (
        f"<p class='lead'>{escaped(report['advice']['text'])}.</p>"
        + _command(report["advice"].get("command"))
        + card(verify_figures.waterfall(report) + f"<p class='small'>{told}</p>")
        + card(_table(report))
    )


def _command(command: str | None) -> str:
    return f"<p>Next: <code>{escaped(command)}</code></p>" if command else ""


def _table(report: Mapping[str, Any]) -> str:
    def row(t: Mapping[str, Any]) -> str:
        setting = f"<small>{escaped(t['setting'])}</small>" if t["setting"] else ""
        more = "".join(
            f"<br><small>{escaped(k.replace('_', ' '))} {number(v)}</small>"
            for k, v in (t["extra"] or {}).items()
            if v is not None
        )
        latent = number(t["latent"]) if t["latent"] is not None else ""
        return (
            f"<tr><th>{escaped(t['name'])}{setting}</th>"
            f"<td class='n'><b>{number(t['value'])}</b><small>± {number(t['stderr'])}</small></td>"
            f"<td class='n'>{latent}</td><td>{escaped(t['kind'])}</td>"
            f"<td>{escaped(t['coupling'])}{more}</td></tr>"
        )

    rows = "".join(row(t) for t in report["terms"])
    total, plug = report["sum"], report["plug_in"]
    rows += (
        f"<tr><th>sum</th><td class='n'><b>{number(total['value'])}</b>"
        f"<small>± {number(total['stderr'])}</small></td><td></td><td></td><td></td></tr>"
    )
    for name, bound in report["lower_bounds"].items():
        rows += (
            f"<tr><th>at least</th><td class='n'>{number(bound['value'])}"
            f"<small>± {number(bound['stderr'])}</small></td><td></td><td>lower</td>"
            f"<td>{escaped(name)}, samples against held-out data</td></tr>"
        )
    return (
        "<div class='wide'><table><thead><tr><th>term</th><th>W2, data units</th><th>latent units"
        f"</th><th></th><th>how</th></tr></thead><tbody>{rows}</tbody></table></div>"
        f"<p class='small'>Plug-in W2 between {plug['n']} samples and as many held-out examples: "
        f"{number(plug['value'])}; between real examples {number(plug['floor'])}. It is mostly "
        "sampling noise in high dimension, and only shown.</p>"
    )


def laws_of_map(folder: Path) -> str | None:
    """Defects, losses on slices and bounds of a learned map."""
    report = _budget_of(folder)
    if report is None or not report.get("map"):
        return None
    lines = "".join(f"<li>{escaped(line)}</li>" for line in map_laws(report["map"]))
    return card(f"<ul>{lines}</ul>", "Laws of the map")


def curves(folder: Path) -> str | None:
    report = _budget_of(folder)
    if report is None:
        return None
    drawn = [verify_figures.by_steps(report["errors_by_steps"], report["units"])]
    field = report["field_errors"]
    if field["bins"]:
        drawn.append(verify_figures.over_time(field["bins"], field["against"]))
    drawn.append(verify_figures.stretched(report["lipschitz"]))
    return f"<div class='pair trio'>{''.join(card(d) for d in drawn)}</div>"


def stretching(folder: Path) -> str | None:
    report = _budget_of(folder)
    if report is None:
        return None
    found = report["lipschitz"]
    shown = {
        "largest observed amplification of the flow": number(found["amplification"]),
        "largest Jacobian norm of the encoder": _or_none(found["encoder"]),
        "largest Jacobian norm of the decoder": _or_none(found["decoder"]),
        "certified constant of the field": _or_none(found["certified"]) or "none",
        "Groenwall bound of the velocity term, latent units": _or_none(
            report["field_errors"]["growth_bound"]
        ),
    }
    proved = report.get("certified")
    if isinstance(proved, dict):
        shown |= {
            "largest Jacobian norm of the field found by search": number(proved["found"]),
            "certified velocity bound, latent units": _or_none(proved["bound"]) or "infinite",
        }
    return card(facts(shown), "How much the maps stretch") + card(
        verify_figures.walks(report["trajectories"])
        + "<p class='small'>Noise (t = 0) on its way to samples, over real latents in grey, on the "
        "two principal axes of the latents.</p>",
        "Trajectories",
    )


def _or_none(value: float | None) -> str | None:
    return None if value is None else number(value)
