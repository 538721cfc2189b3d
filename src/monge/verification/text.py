"""The budget for the terminal."""

from __future__ import annotations

from typing import Any

from monge.report.words import map_laws
from monge.verification import certified
from monge.verification.terms import Term


def text(report: dict[str, Any]) -> str:
    """The budget for the terminal."""
    terms = [Term(**t) for t in report["terms"]]
    most = max((t.value for t in terms), default=0.0) or 1.0
    lines = [report["advice"]["text"]]
    lines += [f"W2 budget in {report['units']}; n = {report['n']}, seed {report['seed']}"]
    for term in terms:
        bar = "█" * round(24 * term.value / most)
        value = f"{term.value:.4g} ± {term.stderr:.2g}"
        lines.append(f"  {term.name:<15} {value:>20}  {term.kind:<8} {bar}")
        lines.append(f"  {'':<15} {'':>20}  {term.coupling}" + _setting(term))
    total = report["sum"]
    word = "at most" if all(t.kind == "upper" for t in terms) else "estimate"
    lines.append(f"  {'sum':<15} {total['value']:>12.4g} ± {total['stderr']:.2g}  ({word})")
    for name, bound in report["lower_bounds"].items():
        lines.append(f"  at least        {bound['value']:>12.4g} ± {bound['stderr']:.2g}  ({name})")
    plug = report["plug_in"]
    lines.append(
        f"  plug-in W2 at n = {plug['n']}: {plug['value']:.4g}, "
        f"of real examples {plug['floor']:.4g}"
    )
    lines += [f"  {term.loose}" for term in terms if term.loose]
    if report.get("map"):
        lines += [f"  {line}" for line in map_laws(report["map"])]
    lines += [
        f"  {line}" for line in certified.in_words(report.get("certified"), report["lipschitz"])
    ]
    if command := report["advice"].get("command"):
        lines.append(f"Next: {command}")
    return "\n".join(lines)


def _setting(term: Term) -> str:
    return f"; {term.setting}" if term.setting else ""
