"""Straight lines through logarithms of errors, and which points may be in them.

The interval of a slope is Student's. It takes the wider of two: that of least squares through the
points, which sees curvature, and, from three repetitions on, that of the slopes of the single
repetitions, which sees noise that the points of one repetition share.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

FLOORS = 3.0
"""A point counts only where its value is this many times the floor."""

STIFFEST = 0.5
"""A point counts only where the step times the Lipschitz constant is below this."""


class Point(NamedTuple):
    """One value of the abscissa.

    Attributes:
        x: abscissa, positive.
        ys: the value of each repetition.
        floor: what the estimator would show of no error at all; 0 where there is none.
        stiffness: step times Lipschitz constant; 0 where that is no matter.
    """

    x: float
    ys: tuple[float, ...]
    floor: float = 0.0
    stiffness: float = 0.0

    @property
    def y(self) -> float:
        """The geometric mean of the repetitions; NaN where one is not positive and finite."""
        ys = np.asarray(self.ys)
        if not (np.isfinite(ys).all() and (ys > 0).all()):
            return math.nan
        return float(np.exp(np.log(ys).mean()))

    @property
    def spread(self) -> float:
        """The standard error of log y over the repetitions; 0 of one."""
        if len(self.ys) < 2 or math.isnan(self.y):
            return 0.0
        return float(np.log(self.ys).std(ddof=1) / math.sqrt(len(self.ys)))

    @property
    def excluded(self) -> str:
        """Why the point is not fitted; empty where it is."""
        if math.isnan(self.y):
            return "not finite"
        if not self.y > FLOORS * self.floor:
            return "floor"
        return "" if self.stiffness < STIFFEST else "stiff"


@dataclass(frozen=True)
class Fit:
    """log y = intercept + slope * x, where x may be a logarithm, and the 95 % interval."""

    slope: float
    intercept: float
    low: float
    high: float

    @property
    def half(self) -> float:
        return (self.high - self.low) / 2


def fit(points: Sequence[Point], semilog: bool = False) -> Fit | None:
    """The line through three points or more; None of fewer.

    Args:
        semilog: the abscissa is taken as it is, not its logarithm.

    >>> line = fit([Point(h, (3 * h**2,)) for h in (0.1, 0.05, 0.025)])
    >>> round(line.slope, 9), round(line.high - line.low, 9)
    (2.0, 0.0)
    """
    if len(points) < 3:
        return None
    x = np.array([p.x for p in points], dtype=float)
    x = x if semilog else np.log(x)
    y = np.log([p.y for p in points])
    slope, intercept, error = _least_squares(x, y)
    half = _student(len(x) - 2) * error
    repetitions = {len(p.ys) for p in points}
    if len(repetitions) == 1 and (n := repetitions.pop()) >= 3:
        slopes = [_least_squares(x, np.log([p.ys[i] for p in points]))[0] for i in range(n)]
        half = max(half, _student(n - 1) * float(np.std(slopes, ddof=1)) / math.sqrt(n))
    return Fit(slope, intercept, slope - half, slope + half)


def _least_squares(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Slope, intercept and the standard error of the slope."""
    centred = x - x.mean()
    scale = float(centred @ centred)
    slope = float(centred @ y) / scale
    residual = y - y.mean() - slope * centred
    error = math.sqrt(float(residual @ residual) / (len(x) - 2) / scale)
    return slope, float(y.mean() - slope * x.mean()), error


def _student(freedom: int) -> float:
    from scipy.stats import t

    return float(t.ppf(0.975, freedom))
