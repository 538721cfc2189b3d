r"""Which of two sets is closer to a reference, metric by metric, and what may be said of all.

For a metric :math:`f` and sets A, B and R of one size n, the quantity is *how much farther A is
than B*: :math:`f(A, R) - f(B, R)` where lower is better, its negative where higher is better, and
:math:`|f(A, R) - \phi| - |f(B, R) - \phi|` where the best value is the floor :math:`\phi`. Below
zero A is closer, whatever the metric.

Both sides meet the same examples of R, whose luck cancels in the difference. Its error is the
paired grouped jackknife's: the same tenth of the rows is left out of A, B and R (and of the
floor's set, where the floor matters). Not a paired bootstrap: that repeats points, at distance
zero from themselves, and `docs/log.md` has what it does to each metric here. Rows with intervals
of another kind (shares, areas under the curve) have theirs combined.

References:
    | A simple sequentially rejective multiple test procedure (Holm, 1979)
    | Construction of confidence limits about effect measures (Zou and Donner, 2008)
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from monge.metrics import intervals
from monge.metrics.catalogue import Comparison, Draws
from monge.metrics.intervals import GROUPS
from monge.metrics.samples import Samples
from monge.metrics.table import Better, Row
from monge.tensors import stream

LEVEL = 0.05
"""Of each test, and of all tests of one comparison together (Holm)."""

Side = Literal["A", "B"]


@dataclass(frozen=True)
class Difference:
    """How much farther A is from the reference than B, by one metric.

    Args:
        name: of the metric.
        value: below zero where A is closer; in the metric's unit.
        interval: 95 % interval (low, high).
        method: how it was made.
        p_value: of equal distances, two-sided.
        p_holm: the same, adjusted for all differences of the comparison.
    """

    name: str
    value: float
    interval: tuple[float, float]
    method: str
    p_value: float
    p_holm: float = 1.0

    @property
    def closer(self) -> Side | None:
        """The closer set by this metric alone at 5 %; None where that cannot be told."""
        return self._side(self.p_value)

    @property
    def closer_among_all(self) -> Side | None:
        """The closer set where all metrics together are wrong 5 % of the time."""
        return self._side(self.p_holm)

    def _side(self, p: float) -> Side | None:
        if not p < LEVEL:
            return None
        return "A" if self.value < 0 else "B"


def differences(comparison: Comparison, a: Draws, b: Draws, seed: int) -> list[Difference]:
    """The difference in each head of a jackknifed comparison.

    Args:
        a, b: draws of one size with the same real examples and floors.
    """
    estimate, heads, real = comparison.estimate, comparison.heads, a.real
    in_a, in_b = (_tensor(estimate(side.samples, real)) for side in (a, b))
    floor = torch.stack([_tensor(estimate(*pair)) for pair in a.floors]).mean(0).tolist()
    sign_a, sign_b = (
        _tensor([_sign(h.better, *pair) for h, *pair in zip(heads, x, floor, strict=True)])
        for x in (in_a.tolist(), in_b.tolist())
    )

    def farther(a: Tensor, b: Tensor, floor: Tensor) -> Tensor:
        # On one side of the floor it cancels, and is not even estimated.
        return sign_a * a - sign_b * b - (sign_a - sign_b) * floor

    def left_out(kept: Tensor) -> list[float]:
        first, second = (_tensor(estimate(s.samples[kept], real[kept])) for s in (a, b))
        middle = torch.zeros(len(heads), dtype=torch.float64)
        if not torch.equal(sign_a, sign_b):
            middle = _tensor(estimate(*(x[kept] for x in a.floors[0])))
        return farther(first, second, middle).tolist()

    # The groups of the intervals of A and of B: with `remembered` nothing is estimated twice.
    rng = stream(seed, "interval", heads[0].name)
    stderrs = intervals.jackknife(left_out, len(real), rng)
    values = farther(in_a, in_b, _tensor(floor))
    return [
        of_student(head.name, float(value), float(stderr))
        for head, value, stderr in zip(heads, values, stderrs, strict=True)
    ]


def _sign(better: Better, value: float, floor: float) -> float:
    """Whether a larger value is farther: 1 or -1."""
    if better == "near floor":
        return 1.0 if value >= floor else -1.0
    return 1.0 if better == "lower" else -1.0


def of_student(name: str, value: float, stderr: float) -> Difference:
    """A difference with the interval and the test of a grouped jackknife's standard error."""
    from scipy.stats import t

    interval = intervals.student(value, stderr)
    if stderr > 0:
        p_value = float(2 * t.sf(abs(value) / stderr, GROUPS - 1))
    else:
        p_value = 0.0 if value else 1.0
    return Difference(
        name, value, (interval.low, interval.high), f"paired {interval.method}", p_value
    )


def of_intervals(a: Row, b: Row) -> Difference:
    """The difference in a row whose own interval is no jackknife's: from the ends of the two.

    As of independent estimates (Zou and Donner), which is safe where they share examples of the
    reference. The p-value is the level at which a normal interval so skewed would end at zero.
    """
    sign_a, sign_b = (_sign(a.better, row.value, a.floor) for row in (a, b))
    value = sign_a * a.value - sign_b * b.value - (sign_a - sign_b) * a.floor
    up_a, down_a = _reach(a, sign_a)
    up_b, down_b = _reach(b, sign_b)
    low, high = value - math.hypot(down_a, up_b), value + math.hypot(up_a, down_b)
    towards_zero = value - low if value > 0 else high - value
    p_value = math.erfc(1.96 * abs(value) / towards_zero / math.sqrt(2)) if towards_zero else 1.0
    method = f"from the two intervals ({a.interval_method})"
    return Difference(a.name, value, (low, high), method, p_value)


def _reach(row: Row, sign: float) -> tuple[float, float]:
    """How far the interval of sign * value reaches up and down."""
    low, high = row.interval
    up, down = high - row.value, row.value - low
    return (up, down) if sign > 0 else (down, up)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted by Holm's rule: together below 5 % is wrong at most 5 % of the time.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, so_far = [1.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        so_far = max(so_far, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = so_far
    return adjusted


def with_holm(found: Sequence[Difference]) -> tuple[Difference, ...]:
    """The differences with their adjusted p-values."""
    adjusted = holm([difference.p_value for difference in found])
    return tuple(replace(d, p_holm=p) for d, p in zip(found, adjusted, strict=True))


def remembered(comparison: Comparison) -> Comparison:
    """The same comparison, estimating once what it is asked again for equal sets."""
    found: dict[bytes, tuple[float, ...]] = {}
    estimate: Callable[[Samples, Samples], tuple[float, ...]] = comparison.estimate

    def once(x: Samples, y: Samples) -> tuple[float, ...]:
        digest = hashlib.blake2b()
        for part in (x, y):
            digest.update(repr(tuple(part.shape)).encode())
            digest.update(np.ascontiguousarray(part.numpy()).data)
        key = digest.digest()
        if key not in found:
            found[key] = estimate(x, y)
        return found[key]

    return replace(comparison, estimate=once)


def _tensor(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)
