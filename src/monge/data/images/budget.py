"""A bound on what several threads hold at once: large images wait for each other."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Budget:
    """So much of something, shared by threads.

    A request for more than there is waits until nobody else holds any.

    Args:
        total: what there is, in any unit.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._left = total
        self._changed = threading.Condition()

    @contextmanager
    def holding(self, amount: int) -> Iterator[None]:
        """Wait until so much is left, and hold it meanwhile."""
        amount = max(0, min(amount, self.total))
        with self._changed:
            self._changed.wait_for(lambda: self._left >= amount)
            self._left -= amount
        try:
            yield
        finally:
            with self._changed:
                self._left += amount
                self._changed.notify_all()
