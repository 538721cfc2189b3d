"""Every component of monge's obeys the laws of its family."""

from __future__ import annotations

import importlib
import re
from importlib.util import find_spec
from typing import Any

import pytest
from components_under_test import NAMED, NEED_FILES, OTHERS

from monge.components import FAMILIES, build
from monge.conformance import LAWS, Measured, check, family_of
from monge.paths import Linear

CASES = [
    (family, component)
    for group in (NAMED, OTHERS)
    for family, components in group.items()
    for component in components
]

DEAR = ("flow", "network", "solver", "target")
"""Families whose laws take seconds: beyond the default settings, and some flows, they are slow."""

FIRST_FLOWS = 4


def tier(family: str, component: Any) -> tuple[Any, ...]:
    """The mark of a case: none, or slow."""
    defaults = [build(family, name) for name in FAMILIES.get(family, {}) if name not in NEED_FILES]
    fast = family not in DEAR or any(
        component is one for one in OTHERS.get(family, [])[:FIRST_FLOWS]
    )
    return () if fast or component in defaults else (pytest.mark.slow,)


def id_of(family: str, component: Any) -> str:
    """The text of a component, less the random folder or address that some have."""
    text = re.sub(r"/.*tiny-models-[^/]*/| at 0x[0-9a-f]+", "", str(component))
    return f"{family}-{text[:60]}"


@pytest.mark.parametrize(
    ("family", "component"),
    [pytest.param(f, c, marks=tier(f, c), id=id_of(f, c)) for f, c in CASES],
)
def test_laws_hold(family: str, component: Any) -> None:
    report = check(component)
    assert report.family == family
    assert report.passed, report.text()
    assert [row.law for row in report.rows] == [
        law.__name__.removeprefix("law_") for law in LAWS[family]
    ]


def test_every_registered_component_is_in_the_list() -> None:
    for family in NAMED:
        names = FAMILIES[family]
        listed = {type(component) for component in NAMED[family]}
        for name, where in names.items():
            module, _, attribute = where.partition(":")
            if name in ("diffusers", "taesd") and not find_spec("diffusers"):
                continue  # an extra
            cls = getattr(importlib.import_module(module), attribute)
            assert cls in listed, f"{family} {name} is in no list of the conformance tests"


REGISTERED = [(family, name) for family in NAMED for name in FAMILIES[family]]
REGISTERED.remove(("network", "exact"))  # its golden value is its target's
# The golden values of real weights are in the tests of these autoencoders.
REGISTERED = [row for row in REGISTERED if row[1] not in NEED_FILES]


@pytest.mark.parametrize(("family", "name"), REGISTERED)
def test_every_registered_component_has_a_golden_value(family: str, name: str) -> None:
    component = build(family, name)
    assert family_of(component) == family
    names = {law.__name__: law for law in LAWS[family]}
    golden = next(law for name, law in names.items() if "golden" in name or "quartiles" in name)
    assert isinstance(golden(component), Measured)


def test_every_law_states_itself_in_one_line() -> None:
    for laws in LAWS.values():
        assert laws
        for law in laws:
            lines = (law.__doc__ or "").strip().splitlines()
            assert len(lines) == 1 and lines[0].endswith("."), law.__name__


def test_report_reads_well() -> None:
    report = check(build("path", "ou"))
    text, json = report.text(), report.to_json()
    assert text.splitlines()[0] == f"path ou: {len(LAWS['path'])} laws, all hold"
    assert "does not apply: the velocity target is declared" in text
    assert json["passed"] and json["component"] == "ou" and len(json["rows"]) == len(LAWS["path"])
    assert json["rows"][0]["statement"].startswith("At t = 1 the state is the datum")


def test_a_component_of_any_class_has_a_report() -> None:
    class Plain(Linear):
        """Not decorated as a dataclass."""

    class Silent(Linear):
        def __repr__(self) -> str:
            raise TypeError("no text")

    assert check(Plain()).passed and check(Plain()).component == "linear"
    assert check(Silent()).component == "Silent"
