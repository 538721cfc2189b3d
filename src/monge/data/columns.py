"""What a table's columns were, and how rows of numbers become them again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TableCodec:
    """The columns of a table, in its order."""
