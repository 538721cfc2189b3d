"""What a person sees of long work that is not training: a bar, or a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from monge.errors import reason

Say = Callable[[str], None]
"""Where progress notes go, a line each."""

PLAIN_EVERY_S = 15.0

Advance = Callable[[int], None]
"""Told how many more are done."""


def counted(n: float, what: str) -> str:
    """A number of things.

    >>> counted(1, "jump"), counted(2.5, "jump")
    ('1 jump', '2.5 jumps')
    """
    return f"{n:g} {what}{'s' * (n != 1)}"


def quiet(_: str) -> None:
    """Say nothing."""


def aloud(text: str) -> None:
    """Say it on standard error."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def survived(what: str, say: Say = aloud) -> Iterator[None]:
    """Go on where something that is made for looking at fails, and say so.

    Args:
        what: is then missing, "the report was not written".
    """
    try:
        yield
    except Exception as error:  # of drawing libraries, of any kind: training goes on
        say(f"{what}: {reason(error)}")


@contextmanager
def counting(what: str, total: int | None, say: Say, done: int = 0) -> Iterator[Advance]:
    """Shows how far a count has come, with its rate and the time left, unless `say` is `quiet`.

    Args:
        what: "reading photos", say.
        total: what it counts to, where that is known.
        done: what an earlier, interrupted count has done already.
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
    """A number of bytes as a person reads it.

    >>> size(1234567890)
    '1.23 GB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.3g} TB"
