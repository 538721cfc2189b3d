"""The numbers of a comparison: how each becomes an interval, and what real data would have."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from monge.metrics.intervals import Interval
from monge.metrics.samples import Samples
from monge.metrics.table import Better
from monge.metrics.two_sample import PermutationTest


@dataclass(frozen=True)
class Head:
    """One number of a comparison, and what its row says of it.

    Args:
        name: of the row.
        interval: from the value, the jackknife's standard error (NaN without one) and n.
        p_value: of a test that both sets have one law, from the two sets and a generator.
        test: the same by permutations, which then decides the interval, too.
        equal: its value under equal laws, where that is known. It is the floor, unless the
            interval of real data against real data excludes it.
    """

    name: str
    interval: Callable[[float, float, int], Interval]
    better: Better
    unit: str = ""
    p_value: Callable[[Samples, Samples, torch.Generator], float] | None = None
    test: Callable[[Samples, Samples, torch.Generator], PermutationTest] | None = None
    equal: float | None = None

    def floor(self, measured: float, n: int) -> float:
        """The value of real data: as it was measured from n, or the known one."""
        if self.equal is None or self.interval(measured, math.nan, n).low > self.equal:
            return measured
        return self.equal
