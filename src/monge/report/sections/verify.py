"""The part of a report that says where the Wasserstein-2 error comes from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monge.report.page import card, escaped, facts, number, read_facts, table
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
        + _certified(report.get("certified_budget"))
    )


def _certified(found: Mapping[str, Any] | None) -> str:
    """The budget with the certified velocity term, on laws that are known."""
    if found is None:
        return ""

    def times(value: float | None) -> str:
        return "" if value is None else number(value)

    rows = [
        [escaped(t["name"]), number(t["bound"]), times(t["loose"]), escaped(t["by"])]
        for t in found["terms"]
    ]
    rows.append(["sum", number(found["sum"]), number(found["sum"] / found["measured"]), ""])
    if found["at_least"] is not None:
        how = "lower bound less three standard errors; the sum is so many times it"
        rows.append(["at least", number(found["at_least"]), number(found["loose"]), how])
    told = "Each term as a proved upper bound, three standard errors included."
    head = ["term", "W2 at most, data units", "times the measured", "by"]
    return card(table(head, rows, told, text=(3,)), "Certified budget")


def _command(command: str | None) -> str:
    return f"<p>Next: <code>{escaped(command)}</code></p>" if command else ""


def _table(report: Mapping[str, Any]) -> str:
    def row(t: Mapping[str, Any]) -> list[str]:
        setting = f"<small>{escaped(t['setting'])}</small>" if t["setting"] else ""
        more = "".join(
            f"<small>{escaped(k.replace('_', ' '))} {number(v)}</small>"
            for k, v in (t["extra"] or {}).items()
            if v is not None
        )
        latent = number(t["latent"]) if t["latent"] is not None else ""
        how = escaped(t["coupling"]) + more
        return [escaped(t["name"]) + setting, _value(t), latent, escaped(t["kind"]), how]

    plug = report["plug_in"]
    rows = [row(t) for t in report["terms"]]
    rows.append(["sum", _value(report["sum"]), "", "", ""])
    for name, bound in report["lower_bounds"].items():
        how = f"{escaped(name)}, samples against held-out data"
        rows.append(["at least", _value(bound), "", "lower bound", how])
    head = ["term", "W2, data units", "latent units", "kind", "how"]
    told = "Each term of the distance of samples to data, with its standard error."
    return (
        table(head, rows, told, text=(3, 4))
        + f"<p class='small'>Plug-in W2 between {plug['n']} samples and as many held-out examples: "
        f"{number(plug['value'])}; between real examples {number(plug['floor'])}. It is mostly "
        "sampling noise in high dimension, and only shown.</p>"
    )


def _value(term: Mapping[str, Any]) -> str:
    return f"<b>{number(term['value'])}</b><small>± {number(term['stderr'])}</small>"


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
    if isinstance(constants := report.get("autoencoder_constants"), dict):
        shown |= {
            "certified constant of the encoder": number(constants["encoder"]),
            "certified constant of the decoder": number(constants["decoder"]),
        }
    return card(facts(shown), "How much the maps stretch") + card(
        verify_figures.walks(report["trajectories"])
        + "<p class='small'>Noise (t = 0) on its way to samples, over real latents in grey, on the "
        "two principal axes of the latents.</p>",
        "Trajectories",
    )


def _or_none(value: float | None) -> str | None:
    return None if value is None else number(value)
