"""`monge check`: test a component with the conformance laws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tyro.conf import Positional

from monge.errors import CheckFailed
from monge.verbs.shown import tell


@dataclass(frozen=True)
class Check:
    """Test a component of your own with the laws that monge's components obey."""

    component: Positional[str]
    """FILE.py:NAME or PACKAGE.MODULE:NAME, a class or an instance."""
    json: bool = False
    """Print the result as JSON."""


def act(arguments: Check) -> Any:
    """Test a component with the conformance laws."""
    from monge import conformance

    report = conformance.check(conformance.load(arguments.component))
    tell(arguments, report.text())
    if not report.passed:
        raise CheckFailed(f"{arguments.component} breaks {report.n_failed} laws")
    return report.to_json()
