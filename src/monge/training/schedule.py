"""The learning rate, a function of the step and of nothing else."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

Schedule: TypeAlias = Literal["constant", "cosine"]


def learning_rate(
    step: int, peak: float, *, warmup: int, steps: int, schedule: Schedule = "cosine"
) -> float:
    """The rate of step 0, 1, ..., steps - 1: a linear warm-up, then constant or half a cosine.

    The warm-up ends at the peak after `warmup` steps; the cosine falls to zero just after the
    last step, so that every step moves the weights.

    >>> [round(learning_rate(n, 1.0, warmup=2, steps=6), 3) for n in range(6)]
    [0.5, 1.0, 1.0, 0.854, 0.5, 0.146]
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule == "constant":
        return peak
    progress = (step - warmup) / max(steps - warmup, 1)
    return peak * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
