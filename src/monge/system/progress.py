"""Progress of long work other than training: a bar on a terminal, else an occasional line."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from monge.errors import reason

Say = Callable[[str], None]
"""Receives progress notes, one line each."""

PLAIN_EVERY_S = 15.0

Advance = Callable[[int], None]
"""Receives the number of items finished since the last call."""


def counted(n: float, what: str) -> str:
    """A number with its noun in the singular or plural.

    >>> counted(1, "jump"), counted(2.5, "jump")
    ('1 jump', '2.5 jumps')
    """
    return f"{n:g} {what}{'s' * (n != 1)}"


def quiet(_: str) -> None:
    """Print nothing."""


def aloud(text: str) -> None:
    """Say it on standard error."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def survived(what: str, say: Say = aloud) -> Iterator[None]:
    """Continue after a failure to draw or report something, and print a note.

    Args:
        what: the note's text: "the report was not written".
    """
    try:
        yield
    except Exception as error:  # drawing libraries raise many kinds; training goes on
        say(f"{what}: {reason(error)}")


@contextmanager
def counting(what: str, total: int | None, say: Say, done: int = 0) -> Iterator[Advance]:
    """Show the progress of a count, with its rate and the time left, unless `say` is `quiet`.

    Args:
        what: the activity: "reading photos".
        total: the number of items, if known.
        done: items that an earlier, interrupted count finished.
    """
    if say is quiet:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, highlight=False)
    begun = time.monotonic()
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}", markup=False),  # names of folders may hold [ ]
            BarColumn(bar_width=24),
            TextColumn("{task.completed}/{task.total}  {task.fields[rate]}  ETA"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(what, total=total, completed=done, rate="")
            fresh = 0

            def advance(n: int) -> None:
                nonlocal fresh
                fresh += n
                rate = f"{fresh / max(time.monotonic() - begun, 1e-9):.0f}/s"
                bar.update(task, advance=n, rate=rate)

            yield advance
        return
    fresh, told = 0, begun

    def plain(n: int) -> None:
        nonlocal fresh, told
        fresh += n
        now = time.monotonic()
        if now - told < PLAIN_EVERY_S:
            return
        told = now
        rate = fresh / (now - begun)
        line = f"{what}: {done + fresh}" + ("" if total is None else f"/{total}")
        left = "" if total is None else f", {(total - done - fresh) / rate:.0f} s left"
        say(f"{line}, {rate:.0f}/s{left}")

    yield plain


def size(n_bytes: float) -> str:
    """A number of bytes for people.

    >>> size(1234567890)
    '1.23 GB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.3g} TB"
