"""Output of a verb: notes on standard error, results on standard output.

With ``--json`` standard output holds only the JSON.
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
    """The arguments of a verb that printing needs."""

    @property
    def json(self) -> bool:
        """Whether the result is printed as JSON."""
        ...


def width() -> int:
    """Width of the terminal in characters; 80 without a terminal and COLUMNS."""
    return shutil.get_terminal_size((80, 24)).columns


def note(text: str) -> None:
    """Print a note on standard error."""
    print(shown_lines(text), file=sys.stderr, flush=True)


def say() -> Say:
    """The function that prints notes, which is silent except in the main process."""
    return note if processes.is_main() else quiet


def tell(arguments: Shown, text: str) -> None:
    """Print a line of the result, unless JSON was requested."""
    if processes.is_main() and not arguments.json:
        print(shown_lines(text), flush=True)
