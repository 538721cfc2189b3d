"""A bound on the resources that threads hold together, so that large images wait."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Budget:
    """An amount of a resource, shared by threads.

    A request for more than the total waits until no other thread holds any.

    Args:
        total: the amount, in any unit.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._left = total
        self._changed = threading.Condition()

    @contextmanager
    def holding(self, amount: int) -> Iterator[None]:
        """Wait until this amount is free, and hold it inside the block."""
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
