"""`monge info`: show settings, progress and quality of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from monge.system.shown import wrapped
from monge.verbs.shown import tell, width

NARROW = 72
"""Width of the terminal below which names are printed above their values."""


@dataclass(frozen=True)
class Info:
    """Show settings, progress and quality of a run."""

    run: Positional[Path]
    """Run folder."""
    trust_code: bool = False
    """Execute the components in files that the run keeps in code/, if it has any: only for a run of
    your own, or of somebody you trust."""
    json: bool = False
    """Print the result as JSON."""


def act(arguments: Info) -> dict[str, Any]:
    """Show a run."""
    from monge.runs.info import describe, in_words

    found = describe(arguments.run)
    lines = in_words(found, arguments.run)
    first = max(map(len, lines))
    if width() < NARROW:
        for key, value in lines.items():
            tell(arguments, f"{key}\n  " + wrapped(value, width() - 2).replace("\n", "\n  "))
        return found
    for key, value in lines.items():
        # Commands and paths are not wrapped.
        text = value if key in ("run", "evaluation") else wrapped(value, width() - first - 2)
        head, *rest = text.split("\n")
        tell(arguments, f"{key.ljust(first)}  {head}")
        for line in rest:
            tell(arguments, f"{'':{first}}  {line}")
    return found
