"""What a verb prints: notes on standard error, results on standard output.

With ``--json`` standard output holds the JSON alone.
"""

from __future__ import annotations

import shutil
import sys
from typing import Protocol, runtime_checkable

from monge.data.images.raw import shown_lines
from monge.system import processes
from monge.system.progress import Say, quiet


@runtime_checkable
class Shown(Protocol):
    """The arguments of a verb, as far as printing is concerned."""

    @property
    def json(self) -> bool:
        """Whether the result is printed as JSON."""
        ...


def width() -> int:
    """Characters of a line of the terminal; 80 where there is none, and no COLUMNS."""
    return shutil.get_terminal_size((80, 24)).columns


def note(text: str) -> None:
    """A line for the person watching."""
    print(shown_lines(text), file=sys.stderr, flush=True)


def say() -> Say:
    """Where notes go: nowhere but from the main process."""
    return note if processes.is_main() else quiet


def tell(arguments: Shown, text: str) -> None:
    """A line of the result, unless JSON was asked for."""
    if processes.is_main() and not arguments.json:
        print(shown_lines(text), flush=True)
