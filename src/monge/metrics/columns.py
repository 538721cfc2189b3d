r"""Faults of one column of a table that a distance between whole rows does not show.

For each column some sets S of values are chosen: a value that many rows share, values beyond the
range of the other set, values that occur more than once, values with more decimals than k, values
up to t. Each compares two shares, of the samples and of the data in S, and

.. math:: |P(S) - Q(S)| \le \mathrm{TV}(P, Q)

bounds the total variation distance of the column's two laws from below. The p-values:

| sets | test |
|---|---|
| shared values, levels, decimals, missing | hypergeometric, two-sided by doubling |
| beyond the range of the other set | length of the run at the end of the pooled order, exact |
| up to t, the worst t | Kolmogorov and Smirnov |

Which sets are tried depends on the pooled values alone, so that each p-value holds for equal laws;
ties make them larger, never smaller. All of a table's are taken together by Holm's rule.

References:
    | On a test of whether one of two random variables is stochastically larger (Mann and Whitney,
    |   1947): under equal laws all orders of the pooled sample are equally likely
    | A simple sequentially rejective multiple test procedure (Holm, 1979)
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from monge.metrics.intervals import Interval, wilson
from monge.metrics.samples import Values

MOST_ATOMS = 10
"""The most frequent values of a column that are tried, at most."""

ATOM_SHARE = 0.01
MOST_COLUMNS = 256
"""Rows of more numbers, without names, are not taken for a table."""

FEWEST = 5
"""A set of fewer of the pooled values, or of all but so few, is not tried."""

DIGITS = 6
"""Decimals are those of a number with so many significant digits, which single precision keeps."""

EXACT_PAIRS = 250_000
"""Up to so many pairs of examples the Kolmogorov-Smirnov p-value is exact."""

Mark = Callable[[Values], Bool[Tensor, "_n"]]
"""Which of some values lie in a set."""


@dataclass(frozen=True)
class Columns:
    """What the numbers of a row are.

    Args:
        names: one each.
        categorical: whether a number is the code of a category.
    """

    names: tuple[str, ...]
    categorical: tuple[bool, ...]

    @staticmethod
    def plain(d: int) -> Columns:
        """Numbers without names: x0, x1, ..."""
        return Columns(tuple(f"x{j}" for j in range(d)), (False,) * d)


@dataclass(frozen=True)
class Check:
    """Two shares of one column, and the p-value of equal laws.

    Args:
        column: its number.
        what: the set of values, as a clause: "exactly 0".
        shares: of the samples and of the data.
        p_value: of this check alone.
        p_holm: adjusted for all checks of the table.
    """

    column: int
    what: str
    mark: Mark
    shares: tuple[float, float]
    p_value: float
    p_holm: float = 1.0

    @property
    def gap(self) -> float:
        """The distance of the two shares, a lower bound of the total variation."""
        return abs(self.shares[0] - self.shares[1])

    def gap_between(self, x: Float64[Tensor, "n d"], y: Float64[Tensor, "m d"]) -> float:
        """The difference of the shares of two other tables in the same set.

        Positive where it is in the direction of this check's own, so that its mean over pairs of
        one law is zero.
        """
        first, second = (self.mark(z[:, self.column]).double().mean() for z in (x, y))
        return float(first - second) * (1 if self.shares[0] >= self.shares[1] else -1)


def column_checks(
    x: Float64[Tensor, "n d"], y: Float64[Tensor, "m d"], columns: Columns
) -> list[Check]:
    """Every check of every column, the most significant first; NaN stands for missing.

    Args:
        x, y: samples and data, in the columns' own units.
    """
    beside: list[Check] = []
    counted: list[tuple[int, str, Mark]] = []
    for j, categorical in enumerate(columns.categorical):
        a, b = x[:, j], y[:, j]
        counted += [(j, what, mark) for what, mark in _marks(a, b, categorical)]
        if not categorical:
            a, b = a[~a.isnan()], b[~b.isnan()]
            if len(a) and len(b):
                beside += [*_ranges(j, a, b), _kolmogorov(j, a, b)]
    # Of equal p-values the first stays first: shared values before decimals, range and the rest.
    found = sorted([*_hypergeometric(x, y, counted), *beside], key=lambda check: check.p_value)
    adjusted, so_far = [], 0.0
    for rank, check in enumerate(found):
        so_far = max(so_far, min(1.0, (len(found) - rank) * check.p_value))
        adjusted.append(replace(check, p_holm=so_far))
    return adjusted


def gap_interval(check: Check, n: int, m: int, checks: int) -> Interval:
    """An interval of the gap of a check that was chosen among several: all of them hold at 95 %.

    Newcombe's hybrid of two score intervals (1998, method 10) for a difference of shares, each at
    the level 1 - 0.05 / checks.
    """
    level = 1 - 0.05 / max(checks, 1)
    p, q = check.shares
    one, other = wilson(p, n, level), wilson(q, m, level)
    low = p - q - math.hypot(p - one.low, other.high - q)
    high = p - q + math.hypot(one.high - p, q - other.low)
    if p < q:
        low, high = -high, -low
    method = f"Newcombe score, for the worst of {checks} checks together"
    return Interval(max(low, 0.0), min(high, 1.0), method)


def decimals(values: Values) -> Tensor:
    """How many decimals numbers have when they are rounded to six significant digits; at most 6.

    >>> decimals(torch.tensor([3.0, 0.25, 12.3456789, 0.1 + 0.2], dtype=torch.float64)).tolist()
    [0, 2, 4, 1]
    """
    size = values.abs().clamp(min=1e-300).log10().floor()
    unit = 10.0 ** (DIGITS - 1 - size).clamp(-300, 300)
    rounded = (values * unit).round() / unit
    needed = torch.zeros(len(values), dtype=torch.int64)
    for k in range(DIGITS):
        scaled = rounded * 10.0**k
        whole = (scaled - scaled.round()).abs() <= 1e-9 * scaled.abs()
        needed += ((needed == k) & ~whole).long()
    return needed


def _marks(a: Values, b: Values, categorical: bool) -> list[tuple[str, Mark]]:
    """The sets of a column whose counts are compared, chosen by the pooled values alone."""
    pooled = torch.cat([a, b])
    marks: list[tuple[str, Mark]] = [("missing", Tensor.isnan)]
    known = pooled[~pooled.isnan()]
    values, counts = known.unique(return_counts=True)
    least = max(FEWEST, ATOM_SHARE * len(known))
    for k in counts.argsort(descending=True, stable=True)[:MOST_ATOMS].tolist():
        if counts[k] >= least:
            value = float(values[k])
            name = f"of category {value:g}" if categorical else f"exactly {_shown(value)}"
            marks.append((name, lambda v, value=value: v == value))
    if not categorical:
        repeated = values[counts > 1]
        marks.append(("at repeated values", lambda v: torch.isin(v, repeated)))
        for k in range(DIGITS):
            name = f"with more than {k} decimal{'s' * (k != 1)}"
            marks.append((name, lambda v, k=k: decimals(v.nan_to_num()) > k))
    # A set that holds no value, or all, or the same values as another one or all
    # others, is no test.
    kept: dict[bytes, tuple[str, Mark]] = {}
    for what, mark in marks:
        inside = mark(pooled)
        if FEWEST <= int(inside.sum()) <= len(pooled) - FEWEST:
            same = inside if bool(inside[0]) else ~inside
            kept.setdefault(same.numpy().tobytes(), (what, mark))
    return list(kept.values())


def _shown(value: float) -> str:
    return f"{value:.6g}"


def _hypergeometric(
    x: Float64[Tensor, "n d"],
    y: Float64[Tensor, "m d"],
    counted: Sequence[tuple[int, str, Mark]],
) -> list[Check]:
    """Checks of counts: given how many of all lie in a set, those of the samples are a draw."""
    from scipy.stats import hypergeom

    if not counted:
        return []
    inside = torch.tensor(
        [[int(mark(z[:, j]).sum()) for z in (x, y)] for j, _, mark in counted], dtype=torch.int64
    )
    n, m, own, total = len(x), len(y), inside[:, 0].numpy(), inside.sum(1).numpy()
    low = hypergeom.cdf(own, n + m, total, n)
    high = hypergeom.sf(own - 1, n + m, total, n)
    return [
        Check(j, what, mark, (int(a) / n, int(b) / m), min(1.0, 2 * min(float(p), float(q))))
        for (j, what, mark), (a, b), p, q in zip(
            counted, inside.tolist(), low.tolist(), high.tolist(), strict=True
        )
    ]


def _ranges(column: int, a: Values, b: Values) -> list[Check]:
    """At each end, the values of one set beyond all of the other.

    Under equal laws the k largest of all are of one given set with probability
    n (n - 1) ... / ((n + m) (n + m - 1) ...), k factors; twice that, for either set.
    """
    checks = []
    for sign, side in ((1.0, "above"), (-1.0, "below")):
        ends = [float((sign * v).max()) for v in (a, b)]
        first = ends[0] > ends[1]
        outer, whose = (a, "data") if first else (b, "samples")
        edge = sign * min(ends)

        def mark(v: Values, sign: float = sign, edge: float = edge) -> Tensor:
            return sign * v > sign * edge

        k = int(mark(outer).sum())
        n, total = len(outer), len(a) + len(b)
        log_p = sum(math.log((n - i) / (total - i)) for i in range(k))
        bound = "largest" if sign > 0 else "smallest"
        shares = (float(mark(a).double().mean()), float(mark(b).double().mean()))
        what = f"{side} {_shown(edge)}, the {bound} of the {whose}"
        checks.append(Check(column, what, mark, shares, min(1.0, 2 * math.exp(log_p))))
    return checks


def _kolmogorov(column: int, a: Values, b: Values) -> Check:
    """The set of values up to the t where the two distribution functions differ most."""
    from scipy.stats import ks_2samp

    exact = len(a) * len(b) <= EXACT_PAIRS
    with warnings.catch_warnings():  # it falls back on the limit where the exact sum overflows
        warnings.simplefilter("ignore", RuntimeWarning)
        found = ks_2samp(a.numpy(), b.numpy(), method="exact" if exact else "asymp")
    t = float(found.statistic_location)  # type: ignore[attr-defined]

    def mark(v: Values) -> Tensor:
        return v <= t

    shares = (float(mark(a).double().mean()), float(mark(b).double().mean()))
    p_value = float(found.pvalue)  # type: ignore[attr-defined]
    return Check(column, f"up to {_shown(t)}", mark, shares, p_value)
