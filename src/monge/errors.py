"""Errors that speak to the user: what was wrong, where, and what to do.

The command line prints a `UserError` as one message and exits with its code; anything else
that escapes is a defect of monge and shows a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any


class UserError(ValueError):
    """Bad input. The message names what was wrong, where, and what to do."""

    exit_code = 2


class CheckFailed(UserError):
    """A check that the user asked for did not hold.

    Attributes:
        found: what was measured, for whoever reads JSON.
    """

    exit_code = 3

    def __init__(self, message: str, found: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.found = dict(found or {})


class Diverged(UserError):
    """Training produced non-finite losses several times in a row."""

    exit_code = 4


class Stopped(UserError):
    """Training was stopped by a signal and has saved its state."""

    exit_code = 130


def missing_extra(package: str, extra: str, purpose: str) -> UserError:
    """The error for an optional dependency that is not installed."""
    return UserError(f"{purpose} needs the package {package!r}: pip install 'monge[{extra}]'")


LONGEST = 400
"""Characters that are told of what another library says, which may be a whole file."""


def reason(error: Exception) -> str:
    """What another library's error says, on one line.

    >>> reason(ValueError("two\\n  lines")), reason(KeyError())
    ('two lines', 'KeyError')
    """
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= LONGEST else text[:LONGEST] + "..."


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint naming the known word nearest to a misspelt one, or all of them.

    >>> nearest("lineer", ["linear", "trigonometric"])
    "did you mean 'linear'?"
    >>> nearest("zzz", ["linear", "ou"])
    'known: linear, ou'
    """
    known = sorted(known)
    match = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {match[0]!r}?" if match else "known: " + ", ".join(known)
