"""The curve from normal scores to one column of numbers, and the range of its numbers.

A flow starts from normal noise. Columns with spikes, skew, bounds or several modes are easier to
learn as normal scores, which `autoencoders.marginals` converts back exactly. The curve is fitted to
the training rows: through their quantiles, or by the power transform of the largest likelihood.

References:
    | Conover (1999), Practical nonparametric statistics, Sec. 5.10, for normal scores
    | A new family of power transformations (Yeo & Johnson, 2000), Eq. 2.1
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import special

Choice = Literal["auto", "quantile", "power", "none"]

FEWEST = 50
"""Number of training rows below which a curve would overfit."""

MOST_KNOTS = 128

EDGES = 64
"""Most levels of a grid for which every edge between two cells is a knot."""

NEAREST = 0.02
"""Least distance of two knots in normal scores."""

KEPT_END = 0.01
"""Share of the rows exactly at an end from which that end counts as a bound."""

ROUND_ENDS = (0.0, 1.0, 100.0, -1.0)
"""Numbers that count as bounds if a column comes near them and never crosses."""

NEAR = 0.1
"""The meaning of near, as a fraction of the column's range."""

MOST_POWER_ROWS = 20_000
"""Most rows to which a power is fitted."""


@dataclass(frozen=True)
class Marginal:
    """An increasing curve from normal scores u to coordinates x.

    Attributes:
        u, x: knots, both increasing.
        low, high: bounds of the curve, or None; no data lie on them.
        least, most: range of samples, or None.
        rule: the method of the fit.
    """

    u: tuple[float, ...]
    x: tuple[float, ...]
    low: float | None = None
    high: float | None = None
    least: float | None = None
    most: float | None = None
    rule: str = "quantile"

    def __post_init__(self) -> None:
        object.__setattr__(self, "u", tuple(self.u))
        object.__setattr__(self, "x", tuple(self.x))

    @property
    def ends(self) -> tuple[float, float]:
        """The range of samples."""
        return (
            -np.inf if self.least is None else self.least,
            np.inf if self.most is None else self.most,
        )

    @property
    def curve(self) -> dict[str, Any]:
        """The curve as `autoencoders.marginals.Curves` takes it."""
        return {"u": list(self.u), "x": list(self.x), "low": self.low, "high": self.high}


@dataclass(frozen=True)
class Range:
    """The range of numbers of a column.

    Attributes:
        least, most: the smallest and largest possible number, or None.
        width: of the cells of its grid; 0 without a grid.
    """

    least: float | None
    most: float | None
    width: float = 0.0


def possible_range(numbers: np.ndarray, width: float = 0.0) -> Range:
    """The range of a column, guessed from its numbers (N,).

    An end is a bound if at least `KEPT_END` of the rows lie on it. Numbers that are never negative
    are at least 0. Numbers that come near 1, 100 or -1 and never cross have a bound there.

    >>> possible_range(np.array([0.2, 0.5, 0.97]))
    Range(least=0.0, most=1.0, width=0.0)
    >>> possible_range(np.linspace(-3, 5.5, 500))
    Range(least=None, most=None, width=0.0)
    """
    low, high = float(numbers.min()), float(numbers.max())
    enough = max(KEPT_END * len(numbers), 5)
    near = NEAR * (high - low)
    least = low if (numbers == low).sum() >= enough else None
    most = high if (numbers == high).sum() >= enough else None
    if least is None:
        below = [end for end in ROUND_ENDS if end <= low <= end + near]
        least = max(below, default=0.0 if low >= 0 else None)
    if most is None:
        most = min((end for end in ROUND_ENDS if high <= end <= high + near), default=None)
    return Range(least, most, width)


def fitted(
    x: np.ndarray, possible: Range, choice: Choice, levels: np.ndarray | None = None
) -> Marginal | None:
    """The curve of a column, or None if the column is learned unchanged.

    Args:
        x: training coordinates (n,), dequantised if they are on a grid.
        possible: the range, in coordinates.
        choice: auto makes no curve if the column is indistinguishable from a normal law.
        levels: the different values on a grid, in coordinates, increasing.
    """
    if choice == "none" or len(x) < FEWEST:
        return None
    x = np.sort(x.astype(np.float64))
    scale = float(x.std())
    if scale == 0 or (choice == "auto" and is_normal(x)):
        return None
    u, knots = _power_knots(x) if choice == "power" else _quantile_knots(x, levels)
    low, high = _open_ends(x, possible)
    inside = np.ones(len(u), bool)
    inside &= knots > low if low is not None else True
    inside &= knots < high if high is not None else True
    u, knots = _apart(u[inside], knots[inside], 1e-9 * scale)
    if len(u) < 4:
        return None
    ends = {"low": low, "high": high, "least": possible.least, "most": possible.most}
    rule = "power" if choice == "power" else "quantile"
    return Marginal(tuple(u.tolist()), tuple(knots.tolist()), **ends, rule=rule)


def is_normal(x: np.ndarray) -> bool:
    """Whether sorted numbers (n,) pass the test of normality of Lilliefors (1967).

    The 5 % point of its distance is 0.886 / sqrt(n) for large n.
    """
    n = len(x)
    expected = special.ndtr((x - x.mean()) / x.std())
    steps = np.arange(n + 1) / n
    distance = max(np.abs(expected - steps[1:]).max(), np.abs(expected - steps[:-1]).max())
    return bool(distance < 0.886 / np.sqrt(n))


def _open_ends(x: np.ndarray, possible: Range) -> tuple[float | None, float | None]:
    """Bounds of the curve: outside the cells of the range's ends, and outside all data."""
    low, high = possible.least, possible.most
    if low is not None:
        low -= possible.width / 2
        if low >= x[0]:
            low = x[0] - _gap(x)
    if high is not None:
        high += possible.width / 2
        if high <= x[-1]:
            high = x[-1] + _gap(-x[::-1])
    return low, high


def _gap(x: np.ndarray) -> float:
    """The distance from the first to the fifth of the distinct sorted numbers."""
    return float(np.unique(x)[:5][-1] - x[0]) or 1.0


def _quantile_knots(x: np.ndarray, levels: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Knots at quantiles of sorted numbers, even in normal scores, and at edges of cells."""
    n = len(x)
    ranks = (np.arange(n) + 0.5) / n
    ends = special.ndtri(ranks[[0, -1]])
    even = np.linspace(ends[0], ends[1], MOST_KNOTS + 1)
    even[[0, -1]] = ends
    u, knots = even, np.interp(special.ndtr(even), ranks, x)
    knots[[0, -1]] = x[[0, -1]]
    first = np.zeros(len(u), int)
    first[[0, -1]] = 2
    if levels is not None and 1 < len(levels) <= EDGES:
        edges = (levels[1:] + levels[:-1]) / 2
        u = np.concatenate([u, special.ndtri(np.searchsorted(x, edges) / n)])
        knots, first = np.concatenate([knots, edges]), np.concatenate([first, np.ones(len(edges))])
    mass = max(5.0, n ** (1 / 3)) / n
    kept: list[int] = []
    for k in np.lexsort((u, -first)):
        near = any(
            abs(u[k] - u[j]) < NEAREST
            or (abs(special.ndtr(u[k]) - special.ndtr(u[j])) < mass and not first[k])
            or (knots[k] - knots[j]) * (u[k] - u[j]) <= 0
            for j in kept
        )
        if np.isfinite(u[k]) and not near:
            kept.append(int(k))
    order = sorted(kept, key=lambda k: u[k])
    return u[order], knots[order]


def _power_knots(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Knots on the Yeo-Johnson curve of the largest likelihood, with a power in [0, 2].

    With these powers the curve reaches all numbers. The numbers are first scaled to deviation 1
    around their median.
    """
    from scipy import stats

    centre, scale = float(np.median(x)), float(x.std())
    some = (x[:: max(1, len(x) // MOST_POWER_ROWS)] - centre) / scale
    power = float(np.clip(stats.yeojohnson_normmax(some), 0, 2))
    scores = np.asarray(stats.yeojohnson(some, power))
    even = np.linspace(x[0], x[-1], MOST_KNOTS + 1)
    u = (stats.yeojohnson((even - centre) / scale, power) - scores.mean()) / scores.std()
    return u, even


def _apart(u: np.ndarray, x: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Knots that increase by at least `least` in x, and strictly in u; the others are dropped."""
    kept = [0] if len(u) else []
    for k in range(1, len(u)):
        if x[k] - x[kept[-1]] > least and u[k] > u[kept[-1]]:
            kept.append(k)
    return u[kept], x[kept]
