"""How a measurement is repeated, as HTML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monge.report.page import Markup, card, escaped, facts


def shown(found: Mapping[str, Any], heading: str = "") -> str:
    """A card as HTML: the command, then everything else."""
    rest = dict(found)
    command = rest.pop("command", None)
    rest.pop("format_version", None)
    above = "<p class='small'>Measured on arrays in memory: no command reads them again.</p>"
    if command:
        above = (
            f"<pre>{escaped(command)}</pre><p class='small'>On the same machine and versions this "
            "gives the same numbers to the bit.</p>"
        )
    return card(above + facts(_flat(rest)), heading)


def _flat(found: Mapping[str, Any], before: str = "") -> dict[str, object]:
    """Nested values as lines, one for each."""
    lines: dict[str, object] = {}
    for name, value in found.items():
        key = f"{before}{name}"
        if isinstance(value, Mapping):
            lines |= _flat(value, f"{key}: ")
        elif isinstance(value, list):
            lines[key] = ", ".join(map(str, value))
        else:
            lines[key] = Markup(f"<code>{escaped(value)}</code>") if "sha" in name else value
    return lines
