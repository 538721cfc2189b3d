"""The batches of a run, drawn in a thread beside the steps where that pays."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import torch

from monge.objectives.base import Batch
from monge.training.spec import Batches


@contextmanager
def drawing(batches: Batches, steps: int, device: torch.device) -> Iterator[Callable[[int], Batch]]:
    """Draws the batch of each step, in a thread ahead of it where that pays.

    A device works while the host draws. On a CPU a coupling that plans has its next plan solved
    during the step, where a core is left for it: the solver of large plans leaves Python to the
    other threads. Where several steps are drawn at once, as such a coupling plans more rows than
    a batch has, the next of these blocks is drawn during the steps of this one. Every batch
    depends on its step alone, so no number changes.
    """
    ahead = getattr(batches, "span", 1)
    plans = ahead > 1 or getattr(batches, "plans", False)
    if device.type == "cpu" and not (plans and torch.get_num_threads() < cores()):
        yield batches.draw
        return
    with ThreadPoolExecutor(1) as pool:
        pending: dict[int, Future[Batch]] = {}

        def draw(step: int) -> Batch:
            for later in range(step, min(step + ahead + 1, steps)):
                if later not in pending:
                    pending[later] = pool.submit(batches.draw, later)
            return pending.pop(step).result()

        try:
            yield draw
        finally:
            pool.shutdown(cancel_futures=True)


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
