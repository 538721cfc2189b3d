"""The report of a component's laws."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from types import ModuleType
from typing import Any

from monge.conformance.measuring import Broken, DoesNotApply, Outcome
from monge.system.loading import last_line

Law = Callable[[Any], Outcome]


@dataclass(frozen=True)
class Row:
    """One law of one component.

    Attributes:
        law: its name.
        statement: what it says.
        passed: whether it holds, or says nothing of this component.
        measured, tolerance: the largest deviation and what is allowed, where these are numbers.
        message: what was wrong, or why the law does not apply.
    """

    law: str
    statement: str
    passed: bool
    measured: float | None
    tolerance: float | None
    message: str = ""

    def text(self) -> str:
        mark = "ok" if self.passed else "BROKEN"
        if self.passed and self.message:
            return f"  -       {self.law}: does not apply: {self.message}"
        if not self.passed:
            return f"  {mark:7} {self.law}: {self.message}\n          law: {self.statement}"
        numbers = f" ({self.measured:.2g}, allowed {self.tolerance:.2g})" if self.tolerance else ""
        return f"  {mark:7} {self.law}{numbers}"


@dataclass(frozen=True)
class Report:
    """All laws of one component."""

    component: str
    family: str
    rows: tuple[Row, ...]

    @property
    def failed(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if not row.passed)

    @property
    def n_failed(self) -> int:
        return len(self.failed)

    @property
    def passed(self) -> bool:
        return not self.failed

    def text(self) -> str:
        """The report for the terminal."""
        verdict = "all hold" if self.passed else f"{self.n_failed} BROKEN"
        head = f"{self.family} {self.component}: {len(self.rows)} laws, {verdict}"
        return "\n".join([head, *(row.text() for row in self.rows)])

    def to_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return {
            "component": self.component,
            "family": self.family,
            "passed": self.passed,
            "rows": [asdict(row) for row in self.rows],
        }


def laws_of(module: ModuleType) -> list[Law]:
    """The laws of a module, in the order of its text."""
    return [law for name, law in vars(module).items() if name.startswith("law_")]


def apply(law: Law, component: Any) -> Row:
    """One law applied to one component. A component that raises breaks the law."""
    name = law.__name__.removeprefix("law_")
    statement = " ".join((law.__doc__ or "").split())
    try:
        outcome = law(component)
    except Broken as broken:
        return Row(name, statement, False, broken.measured, broken.tolerance, str(broken))
    except Exception as error:  # the component is a stranger's; whatever it raises is the finding
        said = f"raised {type(error).__name__}: {error}{_place(error, component)}"
        return Row(name, statement, False, None, None, said)
    if isinstance(outcome, DoesNotApply):
        return Row(name, statement, True, None, None, outcome.reason)
    return Row(name, statement, True, outcome.value, outcome.tolerance)


def _place(error: Exception, component: Any) -> str:
    """Where in the component's own file an error was raised."""
    kind = component if hasattr(component, "__module__") else type(component)
    file = getattr(sys.modules.get(kind.__module__), "__file__", None) or ""
    line = last_line(error, file)
    return f" ({file}, line {line})" if line else ""
