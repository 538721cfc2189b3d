r"""What share of samples are copies of training examples, and whether the data could show it.

A sample is *flagged* when its distance :math:`d_1` to the nearest training example is at most
:math:`c` times its distance :math:`d_2` to the nearest other one. The flagged share alone says
little: in few dimensions examples that nobody has copied are flagged by chance, and where an
autoencoder adds its error to both distances copies are not flagged. So the same test is put to

- held-out examples, brought to the samples' space as samples are: they give the floor g;
- *planted copies*, training examples with noise of `STRAY` of the distance to their nearest
  neighbour, brought there as samples are: they set :math:`c`, and give the ceiling h.

With f the flagged share of samples, the share of copies solves :math:`f = \pi h + (1 - \pi) g`.
Real copies may stray less than planted ones, which is why the lower end of the interval has 1 in
the place of h. What strays farther is not counted. The test says that it cannot tell where copies
in half of the samples might pass unseen. Its ratio depends on held-out examples, planted copies
and the number of samples alone.

References:
    | Diffusion probabilistic models generalize when they fail to memorize (Yoon et al., 2023)
    | Interval estimation for the difference between independent proportions (Newcombe, 1998),
    | method 10; its extension to more terms: Zou and Donner (2008)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from monge.metrics.differences import holm
from monge.metrics.intervals import wilson
from monge.metrics.memorisation import GROUP, Neighbours, nearest_neighbours
from monge.metrics.samples import Samples, random_rows
from monge.metrics.table import Row, short
from monge.tensors import stream

STRAY = 0.3
"""Root mean square of a planted copy's noise over the distance to its nearest neighbour."""

QUANTILES = (1.0, 0.99, 0.95, 0.9)
"""Shares of planted copies that the ratio may be chosen to flag."""

DEARER = 1.25
"""By how much the detectable share may exceed the smallest, for more planted copies flagged."""

MOST_PLANTED = 500
LEVEL = 0.05
POWER = 0.8
MOST_HIDDEN = 0.5
"""Of samples: a test that may miss so many copies has no power."""

NAME = "memorised fraction"


@dataclass(frozen=True)
class Searched:
    """The sets of a search for copies in one space, as matrices of one width.

    Args:
        samples: (n, d).
        heldout: (m, d), real examples that were not trained on, brought here as samples are.
        train: (N, d) or (2 N, d), training examples as they are, perhaps followed by mirror
            images: what a copy is a copy of.
        planted: (p, d) each, copies as `plant` moves them, brought here as samples are: of one
            kind of noise or several, all of which are to be flagged.
        examples: N; row i of `train` shows example i mod N.
    """

    samples: Samples
    heldout: Samples
    train: Samples
    planted: tuple[Samples, ...]
    examples: int

    @classmethod
    def directly(cls, samples: Samples, heldout: Samples, train: Samples, seed: int) -> Searched:
        """Where samples are made in the space of the training examples itself."""
        planted, _ = plant(train, len(train), seed)
        return cls(samples, heldout, train, (planted,), len(train))


@dataclass(frozen=True)
class CopyTest:
    """The test of one space, made from held-out examples and planted copies.

    Attributes:
        ratio: c, the largest d1 / d2 that is flagged.
        floor, ceiling: flagged shares of held-out examples and of planted copies; of several
            kinds of these the smallest.
        n_heldout, n_planted: how many there are, of one kind.
    """

    ratio: float
    floor: float
    ceiling: float
    n_heldout: int
    n_planted: int

    def flagged(self, found: Neighbours) -> float:
        """The flagged share of some examples."""
        return share(found, self.ratio)

    def copied(self, flagged: float) -> float:
        """The share of copies, in [0, 1], that explains a flagged share; NaN where none does."""
        if not self.ceiling > self.floor:
            return math.nan
        return min(1.0, max(0.0, (flagged - self.floor) / (self.ceiling - self.floor)))

    def interval(self, flagged: float, n: int) -> tuple[float, float]:
        r"""95 % interval of the share of copies: where f - pi h - (1 - pi) g may be zero.

        For h it has 1 at its lower end, and the ceiling at its upper end.
        """
        from scipy.optimize import brentq

        value = self.copied(flagged)
        if math.isnan(value):
            return 0.0, 1.0
        f = wilson(flagged, n)
        g, h = wilson(self.floor, self.n_heldout), wilson(self.ceiling, self.n_planted)

        def above(pi: float) -> float:
            """The least that samples are flagged above what this share explains."""
            gap = flagged - pi - (1 - pi) * self.floor
            return gap - math.hypot(flagged - f.low, (1 - pi) * (g.high - self.floor))

        def below(pi: float) -> float:
            gap = flagged - pi * self.ceiling - (1 - pi) * self.floor
            errors = (pi * (self.ceiling - h.low), (1 - pi) * (self.floor - g.low))
            return gap + math.hypot(f.high - flagged, *errors)

        low, high = 0.0, 1.0
        if above(0.0) > 0 > above(1.0):
            low = float(brentq(above, 0.0, 1.0))  # type: ignore[arg-type]
        if below(0.0) > 0 > below(1.0):
            high = float(brentq(below, 0.0, 1.0))  # type: ignore[arg-type]
        elif below(0.0) <= 0:
            high = 0.0
        return min(low, value), max(high, value)

    def p_value(self, flagged: float, n: int) -> float:
        """Fisher's exact test that samples are flagged no more often than held-out examples."""
        return _fisher(round(flagged * n), n, round(self.floor * self.n_heldout), self.n_heldout)

    def detectable(self, n: int) -> float:
        """The smallest share of copies that n samples show in 80 % of tests; above 1 for none."""
        from scipy.stats import beta

        by_chance = round(self.floor * self.n_heldout)

        def seen(count: int) -> bool:
            return _fisher(count, n, by_chance, self.n_heldout) < LEVEL

        if not self.ceiling > self.floor or not seen(n):
            return math.inf
        low, high = 0, n  # not seen, seen
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if seen(middle) else (middle, high)
        needed = float(beta.ppf(POWER, high, n - high + 1))
        return max(0.0, needed - self.floor) / (self.ceiling - self.floor)


def share(found: Neighbours, ratio: float) -> float:
    """The share of examples whose distances have at most this ratio; exact copies always count."""
    return float((found.ratio <= ratio).double().mean())


def plant(train: Samples, examples: int, seed: int) -> tuple[Samples, Tensor]:
    """Copies of up to `MOST_PLANTED` training examples, and the rows that they copy.

    Each has isotropic Gaussian noise whose root mean square length is `STRAY` of the distance to
    the nearest other example.

    Args:
        train: (N, d), or (2 N, d) with mirror images.
        examples: N.
    """
    rows = random_rows(len(train), MOST_PLANTED, stream(seed, "planted"))
    reach = nearest_neighbours(train[rows], train, examples).second
    d = train.shape[1]
    way = torch.randn(len(rows), d, generator=stream(seed, "stray")).double() / math.sqrt(d)
    return train[rows].double() + STRAY * reach[:, None] * way, rows


def make_test(heldout: Neighbours, planted: Sequence[Neighbours], n: int) -> CopyTest:
    """The ratio by which n samples show copies best, and whom else it flags.

    Of ratios that flag most planted copies of each kind, the one that flags the most of those
    that detect nearly the smallest share.
    """
    sizes = len(heldout.distance), min(len(found.distance) for found in planted)
    tests = []
    for q in QUANTILES:
        c = max(float(found.ratio.quantile(q, interpolation="higher")) for found in planted)
        ceiling = min(share(found, c) for found in planted)
        tests.append(CopyTest(c, share(heldout, c), ceiling, *sizes))
    hidden = [test.detectable(n) for test in tests]
    return next(t for t, h in zip(tests, hidden, strict=True) if h <= DEARER * min(hidden))


def copies_row(
    searched: Searched,
    baselines: Mapping[str, Samples],
    *,
    space: str = "data",
    group: str = GROUP,
    settings: Mapping[str, str | int | float] = MappingProxyType({}),
) -> Row:
    """The share of samples that are copies of a training example, as a row.

    The value is NaN, and the interval [0, 1], where the test has no power; the protocol then has
    the reason as ``withheld``.

    Args:
        baselines: other sets in the samples' place, by name, (k, d) of any size.
        space: what distances are measured between, if not the data: part of the row's name.
    """

    def near(x: Samples) -> Neighbours:
        return nearest_neighbours(x, searched.train, searched.examples)

    samples, n = near(searched.samples), len(searched.samples)
    test = make_test(near(searched.heldout), [near(x) for x in searched.planted], n)
    flagged, hidden = test.flagged(samples), test.detectable(n)
    value, between = test.copied(flagged), test.interval(flagged, n)
    protocol: dict[str, str | int | float] = {
        **settings,
        "training examples": searched.examples,
        "mirror images": "yes" if len(searched.train) > searched.examples else "no",
        "flagged if": f"d1 <= {test.ratio:.3g} d2",
        "flagged": flagged,
        "flagged of held-out examples": test.floor,
        "held-out examples": test.n_heldout,
        "ceiling": test.ceiling,
        "ceiling is": f"the flagged share of {test.n_planted} planted copies, with noise of "
        f"{STRAY:g} of the distance to the nearest neighbour",
        "detectable share": hidden if math.isfinite(hidden) else "none",
        "floor": "zero: held-out examples are no copies",
        "p-value": "Fisher exact: flagged no more often than held-out examples",
    }
    p_value = test.p_value(flagged, n)
    others = {name: test.copied(test.flagged(near(x))) for name, x in baselines.items()}
    if hidden > MOST_HIDDEN:
        value, between, p_value = math.nan, (0.0, 1.0), math.nan
        protocol["withheld"] = f"copies in {MOST_HIDDEN:.0%} of the samples might pass unseen"
    return Row(
        name=NAME if space == "data" else f"{NAME} ({space})",
        value=value,
        interval=between,
        interval_method="Wilson's of the three flagged shares, joined",
        floor=0.0,
        baselines=others or {"planted copies": test.copied(test.ceiling)},
        n=n,
        protocol=protocol,
        better="lower",
        p_value=p_value,
        group=group,
    )


def copies_told(rows: Iterable[Row]) -> bool | None:
    """Whether samples are told to be copies, of all spaces together at 5 %; None: no power."""
    able = [r for r in rows if r.name.split(" (")[0] == NAME and not math.isnan(r.value)]
    if not able:
        return None
    return min(holm([row.p_value or 0.0 for row in able])) < LEVEL


def copies_in_words(rows: Iterable[Row]) -> str:
    """One sentence on copies, of all spaces in which they were looked for, together at 5 %."""
    told = [row for row in rows if row.name.split(" (")[0] == NAME]
    able = [row for row in told if not math.isnan(row.value)]
    if not able:
        row = max(told, key=lambda r: _number(r, "ceiling") - _of_heldout(r))
        return (
            "Whether samples are copies of a training example cannot be told: of planted copies "
            f"{_percent(_number(row, 'ceiling'))} pass the test, of held-out examples "
            f"{_percent(_of_heldout(row))} (n = {row.n} and {row.protocol['held-out examples']})."
        )
    adjusted = holm([row.p_value or 0.0 for row in able])
    found = [row for row, p in zip(able, adjusted, strict=True) if p < LEVEL]
    if found:
        row = max(found, key=lambda r: r.value)
        low, high = row.interval
        return (
            f"{_percent(row.value)} [{_percent(low)}, {_percent(high)}] of samples are copies of "
            f"a training example{_space(row)}; of planted copies "
            f"{_percent(_number(row, 'ceiling'))} are flagged, of held-out examples "
            f"{_percent(_of_heldout(row))}."
        )
    row = min(able, key=lambda r: _number(r, "detectable share"))
    return (
        f"No more samples ({_percent(_number(row, 'flagged'))}) than held-out examples "
        f"({_percent(_of_heldout(row))}) pass as copies of a training example{_space(row)}; of "
        f"planted copies {_percent(_number(row, 'ceiling'))} do. Copies in "
        f"{_percent(_number(row, 'detectable share'))} of the samples would show in "
        f"{POWER:.0%} of such tests."
    )


def _fisher(flagged: int, n: int, by_chance: int, n_heldout: int) -> float:
    """P(at least so many of the flagged ones are samples), given how many there are in all."""
    from scipy.stats import hypergeom

    return float(hypergeom.sf(flagged - 1, n + n_heldout, flagged + by_chance, n))


def _number(row: Row, key: str) -> float:
    return float(row.protocol[key])


def _of_heldout(row: Row) -> float:
    return _number(row, "flagged of held-out examples")


def _space(row: Row) -> str:
    inner = row.name.removeprefix(NAME).strip(" ()")
    where = {"": "", "latent": " in the latent space"}
    return where.get(inner, f" in the features of {inner}")


def _percent(value: float) -> str:
    return f"{short(100 * value)} %"
