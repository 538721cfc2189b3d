"""What a person sees while a run goes: a live line in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

TERMINAL_EVERY_S = 1.0
PLAIN_EVERY_S = 15.0


class Display:
    """Shows the progress of a run on the standard error stream.

    Args:
        step: the step from which the run goes on.
        steps: the step at which it will end.
        rows: size of the global batch.
        quiet: show nothing.
        live: keep a line up to date in a terminal.
    """

    def __init__(
        self, step: int, steps: int, rows: int, quiet: bool = False, live: bool = True
    ) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False)
        self._quiet = quiet
        self._steps = steps
        self._rows = rows
        self._means: Mapping[str, float] = {}
        self._mark = (time.monotonic(), step)
        self._rate = 0.0
        self._bar: Progress | None = None
        self._every_s = PLAIN_EVERY_S
        if self.console.is_terminal and live and not quiet:
            self._every_s = TERMINAL_EVERY_S
            text = TextColumn("step {task.completed}/{task.total}  {task.description}")
            wide = self.console.width >= 100
            # No refresh thread: it would compete with a small network's steps.
            self._bar = Progress(
                *([BarColumn(bar_width=16)] if wide else []),
                text,
                console=self.console,
                auto_refresh=False,
            )
            self._task = self._bar.add_task("", total=steps, completed=step)
            self._bar.start()

    def say(self, text: str) -> None:
        """Print a line above the progress."""
        self.console.print(text, markup=False, soft_wrap=True)

    def update(self, step: int, means: Mapping[str, float] | None = None) -> None:
        """After every step; `means` when the log has new ones."""
        self._means = means or self._means
        now = time.monotonic()
        before, at = self._mark
        if self._quiet or (now - before < self._every_s and step < self._steps):
            return
        rate = (step - at) / max(now - before, 1e-9)
        self._rate = rate if self._rate == 0 else 0.5 * (self._rate + rate)
        self._mark = (now, step)
        line = self._line(step)
        if self._bar is None:
            self.say(f"step {step}/{self._steps}  {line}")
        else:
            self._bar.update(self._task, completed=step, description=line)
            self._bar.refresh()

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _line(self, step: int) -> str:
        numbers = [f"{name} {value:.3g}" for name, value in self._means.items()]
        left = (self._steps - step) / self._rate if self._rate else 0.0
        speed = f"{self._rate:.3g} steps/s  {self._rate * self._rows:.0f} samples/s"
        return "  ".join((f"ETA {clock(left)}", *numbers, speed))


def clock(seconds: float) -> str:
    """A duration as a person reads it.

    >>> clock(75), clock(3 * 3600 + 62)
    ('1:15', '3:01:02')
    """
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"
