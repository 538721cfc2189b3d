"""`monge check`: put a component through the conformance laws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tyro.conf import Positional

from monge.errors import CheckFailed
from monge.verbs.shown import tell


@dataclass(frozen=True)
class Check:
    """Put a component of your own through the laws that monge's own obey."""

    component: Positional[str]
    """FILE.py:NAME or PACKAGE.MODULE:NAME, a class or an instance."""
    json: bool = False
    """Print the result as JSON."""


def act(arguments: Check) -> Any:
    """Put a component through the conformance laws."""
    from monge import conformance

    report = conformance.check(conformance.load(arguments.component))
    tell(arguments, report.text())
    if not report.passed:
        raise CheckFailed(f"{arguments.component} breaks {report.n_failed} laws")
    return report.to_json()
