"""Decimal grids: dequantises numbers that lie on a grid, and rounds samples back to it.

A flow has a density and so cannot learn a law with atoms. Values on a grid are spread uniformly
over their cells, x + step (u - 1/2), and samples are rounded back. The law of the rounded samples
is right if the law of the spread ones is.

References:
    | Uria et al. (2013), RNADE, Sec. 5 -- https://arxiv.org/abs/1306.0186
    | Theis et al. (2016), Sec. 3.1 -- https://arxiv.org/abs/1511.01844
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from monge.data.naming import drop, flag
from monge.errors import UserError

MOST_DECIMALS = 15
"""Decimal places of the finest grid that is tried for floating-point numbers."""

RESOLVED = 2**22
"""Levels that float32 resolves, with room for the noise within a cell."""

MOST_LEVEL = 2**62
"""Bound of levels; differences of two then fit int64."""


@dataclass(frozen=True)
class Grid:
    """The numbers (origin + step m) / 10^decimals for whole levels m.

    The integers are exact, so 2015.3 is restored to exactly the number written "2015.3".
    """

    origin: int
    step: int
    decimals: int = 0

    @property
    def width(self) -> float:
        """The distance of neighbours, in the numbers' units."""
        return self.step / 10**self.decimals

    def levels(self, values: np.ndarray) -> np.ndarray:
        """The nearest level of each number (N,), int64."""
        if values.dtype.kind == "i":
            return _divided(values.astype(np.int64) - self.origin, self.step)
        whole = np.rint(values.astype(np.float64) * 10.0**self.decimals)
        return np.rint((whole - self.origin) / self.step).astype(np.int64)

    def values(self, levels: np.ndarray, whole: bool) -> np.ndarray:
        """The numbers at levels (N,) int64: int64 if `whole`, else float64."""
        numerators = self.origin + self.step * levels
        return numerators if whole else numerators / 10.0**self.decimals


def _divided(difference: np.ndarray, step: int) -> np.ndarray:
    """Integer division, rounded to the nearest."""
    return (difference + step // 2) // step


def grid_of_integers(values: np.ndarray, name: str) -> Grid:
    """The coarsest grid that holds integers (N,), int64.

    Raises:
        UserError: numbers as far apart as only identifiers are.
    """
    low, high = int(values.min()), int(values.max())
    if high - low >= MOST_LEVEL:
        raise UserError(
            f"column {name!r} has integers from {low} to {high}, which look like identifiers: "
            f"{drop([name])} leaves it out, {flag('--categorical', [name])} learns its values"
        )
    return Grid(low, int(np.gcd.reduce(values - low)) or 1)


def grid_of_floats(values: np.ndarray) -> Grid | None:
    """The coarsest decimal grid that holds floating-point numbers (N,), or None.

    The grid follows from the decimals alone; values need not repeat.

    Args:
        values: finite, float32 or float64; a number is on the grid if it is the one nearest to
            a decimal of at most `MOST_DECIMALS` places.
    """
    largest = np.abs(values).max()
    for decimals in range(MOST_DECIMALS + 1):
        step = 10.0**-decimals
        # On a fine enough grid, every float32 or float64 number is the nearest to some decimal.
        if step < 4 * float(np.spacing(largest)) or float(largest) >= 2**52 * step:
            return None
        numerators = np.rint(values.astype(np.float64) * 10.0**decimals)
        if np.array_equal((numerators / 10.0**decimals).astype(values.dtype), values):
            whole = numerators.astype(np.int64)
            low = int(whole.min())
            return Grid(low, int(np.gcd.reduce(whole - low)) or 1, decimals)
    return None
