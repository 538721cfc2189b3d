"""What `verify` has found, for the terminal."""

from __future__ import annotations

from typing import Any

from monge.report.words import map_laws
from monge.system.shown import wrapped
from monge.verification import certified, certified_budget, chain_text
from monge.verification.terms import Term

BAR = 24
"""Characters of the longest bar, at most."""


def text(report: dict[str, Any], width: int | None = None) -> str:
    """The budget, or the certificates of a chain, for the terminal.

    Args:
        width: characters of a line of the budget at most; None without a limit.
    """
    return chain_text.text(report) if "chain" in report else _budget(report, width)


def _budget(report: dict[str, Any], width: int | None) -> str:
    bar_at_most = BAR if width is None else min(BAR, max(4, width - 50))

    def note(line: str) -> str:
        return wrapped(f"  {line}", width, "    ")

    terms = [Term(**t) for t in report["terms"]]
    most = max((t.value for t in terms), default=0.0) or 1.0
    lines = [wrapped(report["advice"]["text"], width)]
    lines += [f"W2 budget in {report['units']}; n = {report['n']}, seed {report['seed']}"]
    for term in terms:
        bar = "█" * round(bar_at_most * term.value / most)
        value = f"{term.value:.4g} ± {term.stderr:.2g}"
        lines.append(f"  {term.name:<15} {value:>20}  {term.kind:<8} {bar}")
        beside = f"{'':<38}{term.coupling}{_setting(term)}"
        narrow = width is not None and len(beside) + 2 > width
        lines.append(note(f"  {beside.strip()}" if narrow else beside))
    total = report["sum"]
    word = "at most" if all(t.kind == "upper" for t in terms) else "estimate"
    lines.append(f"  {'sum':<15} {total['value']:>12.4g} ± {total['stderr']:.2g}  ({word})")
    for name, bound in report["lower_bounds"].items():
        lines.append(f"  at least        {bound['value']:>12.4g} ± {bound['stderr']:.2g}  ({name})")
    plug = report["plug_in"]
    lines.append(
        note(
            f"plug-in W2 at n = {plug['n']}: {plug['value']:.4g}, "
            f"of real examples {plug['floor']:.4g}"
        )
    )
    said = [term.loose for term in terms if term.loose]
    said += map_laws(report["map"]) if report.get("map") else []
    said += certified.in_words(report.get("certified"), report["lipschitz"])
    said += certified_budget.in_words(report)
    lines += map(note, said)
    if command := report["advice"].get("command"):
        lines.append(f"Next: {command}")
    return "\n".join(lines)


def _setting(term: Term) -> str:
    return f"; {term.setting}" if term.setting else ""
