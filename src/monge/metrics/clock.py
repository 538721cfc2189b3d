"""What an evaluation is doing, and how long each part has taken."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

Progress = Callable[[str, float], None]
"""Told what begins and the fraction done, in [0, 1]."""


class Clock:
    """Tells what begins, and keeps the seconds of each part."""

    def __init__(self, parts: Sequence[str], progress: Progress | None) -> None:
        self.parts, self.progress = parts, progress
        self.seconds: dict[str, float] = {}
        self.begun, self.started = 0, time.monotonic()

    def begin(self) -> None:
        """The next part begins, and the one before ends."""
        now = time.monotonic()
        if self.begun:
            self.seconds[self.parts[self.begun - 1]] = now - self.started
        self.started = now
        if self.progress:
            name = self.parts[self.begun] if self.begun < len(self.parts) else "done"
            self.progress(name, self.begun / len(self.parts))
        self.begun += 1

    end = begin
