"""The part of a report that says what was found when the data was read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monge.data.base import FEW
from monge.errors import UserError
from monge.report.page import card, facts, note, read_facts
from monge.runs.layout import DATA, DATA_REPORT

MOST_SHOWN = 12
"""Entries of a list or count that are shown."""


def reading(folder: Path) -> str | None:
    """Counts, duplicates, unreadable files, warnings: ``data_report.json`` for people."""
    found = read_facts(folder, DATA_REPORT)
    if found is None:
        return None
    warnings = "".join(note(text) for text in found.pop("warnings", []))
    found.pop("format_version", None)
    lines = {name.replace("_", " "): _text(value) for name, value in found.items()}
    return warnings + card(facts({k: v for k, v in lines.items() if v}), "What was read")


def memorisation_first(folder: Path) -> bool:
    """Whether the data is so small that copies are the first thing to look for."""
    try:
        found = (read_facts(folder, DATA) or {}).get("n_train")
    except UserError:  # the sections say that it is damaged
        return False
    return isinstance(found, int) and found < FEW


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        shown = [f"{name}: {_text(inner)}" for name, inner in list(value.items())[:MOST_SHOWN]]
        return "; ".join(shown) + ("; ..." if len(value) > MOST_SHOWN else "")
    if isinstance(value, list):
        shown = [_text(inner) for inner in value[:MOST_SHOWN]]
        return ", ".join(shown) + (", ..." if len(value) > MOST_SHOWN else "")
    return "" if value is None else str(value)
