r"""95 % intervals, one construction for each kind of estimate.

| estimate | interval |
|---|---|
| fraction of independent trials | Wilson's score interval |
| fraction that depends on two random sets | Wilson's, at the count that the jackknife finds |
| quantile | order statistics, exact for any law |
| area under the ROC curve | Newcombe's score interval |
| other functions of two samples of equal size | grouped jackknife over pairs, Student's t |
| energy distance, kernel discrepancy | score interval of their permutation test (`of_test`) |
| the kernel distance | the jackknife's for its root, squared |
| mean of independent numbers | standard error (`densities`), normal |
| mean over pairs in one sample | unbiased variance (`two_sample.pairs_variance`), normal |

No bootstrap: a resample repeats points, and distances of a point to itself are zero, which biases
every estimator here. No unbiased variance for the energy distance either: it is exact on average,
but so noisy where the two laws agree that its intervals cover 60 % there. Estimators whose mean
depends on n (plug-in Wasserstein distances, coverage) get an interval for that mean at this n,
which is what a floor of equal n can be compared with. The classifier that is trained on samples is
taken as it was found: its interval is given it.

References:
    | Interval estimation for a binomial proportion (Brown et al., 2001)
    | Confidence intervals for an effect size measure based on the Mann-Whitney statistic,
    | part 2 (Newcombe, 2006), method 5
    | The jackknife estimate of variance (Efron and Stein, 1981)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from monge.errors import UserError
from monge.metrics.samples import Rows, Values

LEVEL = 0.95
GROUPS = 10


@dataclass(frozen=True)
class Interval:
    """A 95 % interval, the name of its method and, from some methods, a p-value."""

    low: float
    high: float
    method: str
    p_value: float | None = None


def normal(value: float, stderr: float, method: str) -> Interval:
    """Value plus and minus 1.96 standard errors."""
    half = _z(LEVEL) * stderr
    return Interval(value - half, value + half, method)


def wilson(fraction: float, n: float, level: float = LEVEL) -> Interval:
    """Wilson's score interval of a fraction of n independent trials (Brown et al., Eq. 4).

    >>> interval = wilson(0.0, 100)
    >>> interval.low, round(interval.high, 4)
    (0.0, 0.037)
    """
    z2 = _z(level) ** 2
    centre = (fraction + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (fraction * (1 - fraction) / n + z2 / (4 * n**2))) / (1 + z2 / n)
    # At the ends of [0, 1] the interval contains its fraction exactly, not up to rounding.
    low, high = min(centre - half, fraction), max(centre + half, fraction)
    return Interval(max(low, 0.0), min(high, 1.0), "Wilson")


def auc_interval(auc: float, m: int, n: int, level: float = LEVEL) -> Interval:
    r"""Newcombe's score interval of an area under the ROC curve from m and n scores.

    Solves :math:`(A - \theta)^2 = z^2 V(\theta)` with Hanley and McNeil's variance at equal mean
    size. Unlike DeLong's it does not shrink to a point when the scores separate completely.
    The p-value is that of an area of 1/2, against larger ones.
    """
    from scipy.optimize import brentq

    def variance(theta: float) -> float:
        spread = 1 + ((m + n) / 2 - 1) * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return theta * (1 - theta) * spread / (m * n)

    def gap(theta: float) -> float:
        return (auc - theta) ** 2 - _z(level) ** 2 * variance(theta)

    low = brentq(gap, 0.0, auc) if gap(0.0) > 0 else 0.0
    high = brentq(gap, auc, 1.0) if gap(1.0) > 0 else 1.0
    p_value = math.erfc((auc - 0.5) / math.sqrt(2 * variance(0.5))) / 2
    return Interval(float(low), float(high), "Newcombe score", p_value)  # type: ignore[arg-type]


def quantile_interval(values: Values, q: float) -> Interval:
    """Order statistics around the q-quantile of non-negative values; exact for any law.

    Where n is too small for an end to exist it is 0 or infinity.
    """
    from scipy.stats import binom

    n, tail = len(values), (1 - LEVEL) / 2
    low = int(binom.ppf(tail, n, q)) - 1
    while low >= 0 and binom.cdf(low, n, q) > tail:
        low -= 1
    high = int(binom.ppf(1 - tail, n, q))
    while high < n and binom.sf(high, n, q) > tail:
        high += 1
    ordered = values.double().sort().values
    return Interval(
        float(ordered[low]) if low >= 0 else 0.0,
        float(ordered[high]) if high < n else math.inf,
        "order statistics",
    )


def jackknife(
    estimate: Callable[[Rows], Sequence[float]],
    n: int,
    rng: torch.Generator,
    groups: int = GROUPS,
) -> list[float]:
    """Standard errors of estimates from n independent examples, by deleting groups of them.

    `estimate` is given the rows to keep. For two independent samples of equal size an example is
    a pair. Too long, by up to about 1.9 times, where an estimate is degenerate (both samples of
    one law) or counts neighbours, and up to 2.8 times where it then also chooses directions or
    batches anew. Right elsewhere, but for skewed estimates of few examples: at n = 60 nominal
    95 % intervals covered 90 to 96 % in 100 repetitions (N(0.3, 0.7² I) against N(0, I) in two
    dimensions, seven estimators).

    Raises:
        UserError: fewer than two examples for each group.
    """
    if n < 2 * groups:
        raise UserError(f"a jackknife in {groups} groups needs {2 * groups} examples, not {n}")
    group = torch.empty(n, dtype=torch.int64)
    group[torch.randperm(n, generator=rng)] = torch.arange(n) % groups
    left_out = torch.tensor(
        [list(estimate((group != g).nonzero()[:, 0])) for g in range(groups)], dtype=torch.float64
    )
    return ((groups - 1) * left_out.var(0, correction=0)).sqrt().tolist()


def jackknife_of_two(
    estimate: Callable[[Rows, Rows], Sequence[float]], n: int, m: int, rng: torch.Generator
) -> list[float]:
    """`jackknife` for two independent samples of any sizes: a tenth of each is left out at once.

    `estimate` is given the rows to keep of each. For equal sizes an example is a pair.

    Raises:
        UserError: fewer than two examples for each group in a sample.
    """
    if n == m:
        return jackknife(lambda kept: estimate(kept, kept), n, rng)
    if min(n, m) < 2 * GROUPS:
        raise UserError(
            f"a jackknife in {GROUPS} groups needs {2 * GROUPS} examples, not {min(n, m)}"
        )
    groups = [torch.randperm(size, generator=rng).argsort() % GROUPS for size in (n, m)]
    left_out = torch.tensor(
        [list(estimate(*((g != k).nonzero()[:, 0] for g in groups))) for k in range(GROUPS)],
        dtype=torch.float64,
    )
    return ((GROUPS - 1) * left_out.var(0, correction=0)).sqrt().tolist()


def student(value: float, stderr: float, groups: int = GROUPS) -> Interval:
    """Value plus and minus Student's quantile times the grouped jackknife's standard error."""
    from scipy.stats import t

    half = float(t.ppf((1 + LEVEL) / 2, groups - 1)) * stderr
    return Interval(value - half, value + half, f"jackknife in {groups} groups, Student's t")


def student_of_root(value: float, stderr: float, groups: int = GROUPS) -> Interval:
    """`student` of the root of a square, squared again: for squares whose error grows with them.

    The root's error is stderr / (2 root), so in squares both ends move up by
    (t stderr)^2 / (4 value), here with no less than t stderr for the value. The kernel distance of
    N(0.4, I) and N(0, I) (d = 4, n = 200) is thus covered in 95.6 % of 2,000 repetitions; by
    `student` in 93.8 %, and then four times out of five the interval lies too low.

    >>> interval = student_of_root(1.0, 0.1)
    >>> round(interval.low, 3), round(interval.high, 3)
    (0.787, 1.239)
    """
    around = student(value, stderr, groups)
    half = (around.high - around.low) / 2
    shift = half**2 / (4 * max(value, half)) if half > 0 else 0.0
    method = f"jackknife in {groups} groups, Student's t, for the root"
    return Interval(around.low + shift, around.high + shift, method)


def of_test(value: float, stderr: float, critical: float) -> Interval:
    r"""A score interval of a squared distance: it lies above zero exactly where the test rejects.

    The value v of an unbiased estimate is compared with a distance :math:`\delta` at the error
    that it would have there: the test's critical value c at 0, Student's t times the jackknife's
    error s at v, and between them as the variance of a squared distance grows, linearly:

    .. math:: (v - \delta)^2 = c^2 + (t^2 s^2 - c^2)_+ \, \delta / v .

    The lower end solves this. The upper one is v + t s. Since no distance is negative, the lower
    end is one-sided at zero. Where the test does not reject, the interval holds zero.

    >>> interval = of_test(1.0, 0.1, 0.5)
    >>> round(interval.low, 3), round(interval.high, 3), of_test(0.4, 0.1, 0.5).low <= 0
    (0.5, 1.226, True)
    """
    around = student(value, stderr)
    half, method = around.high - value, f"test by permutations, {around.method}"
    if not value > critical:
        return Interval(min(around.low, 0.0), max(around.high, 0.0), method)
    at_zero = max(critical, 0.0)
    growth = max(half**2 - at_zero**2, 0.0) / value if value > 0 else 0.0
    middle = value + growth / 2
    low = middle - math.sqrt(middle**2 - (value**2 - at_zero**2))
    return Interval(low, max(around.high, value), method)


def wilson_at_effective_count(fraction: float, stderr: float, n: int) -> Interval:
    """Wilson's interval of a fraction whose n trials share two random sets.

    Counted as many independent trials as explain the jackknife's error, between n/6 and n/2: the
    ends of what was measured for shares of neighbours, in 1 to 64 dimensions. Without limits the
    jackknife, which sees nothing or too much near 0 and 1, would decide there.
    """
    explained = fraction * (1 - fraction) / stderr**2 if stderr > 0 else math.inf
    count = min(max(explained, n / 6), n / 2)
    interval = wilson(fraction, count)
    return Interval(interval.low, interval.high, f"Wilson at the jackknife's count ({count:.0f})")


def _z(level: float) -> float:
    return math.sqrt(2) * float(torch.special.erfinv(torch.tensor(level, dtype=torch.float64)))
