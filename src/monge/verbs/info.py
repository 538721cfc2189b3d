"""`monge info`: what a run is, how far it is, and how good."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from monge.verbs.shown import tell


@dataclass(frozen=True)
class Info:
    """What a run is, how far it is, and how good."""

    run: Positional[Path]
    """Run folder."""
    trust_code: bool = False
    """Execute the components in files that the run keeps in code/, if it has any: only for a run of
    your own, or of somebody you trust."""
    json: bool = False
    """Print the result as JSON."""


def act(arguments: Info) -> dict[str, Any]:
    """What a run is."""
    from monge.runs.info import describe

    facts = describe(arguments.run)
    width = max(map(len, facts))
    for key, value in facts.items():
        tell(arguments, f"{key.ljust(width)}  {value}")
    return facts
