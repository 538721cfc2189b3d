"""The comparisons of two sets that fill the table: one entry here, one or more rows.

Adding a metric between two sets is adding a `Comparison` to `comparisons`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from monge.metrics import intervals
from monge.metrics.classifiers import Judges
from monge.metrics.coverage import DENSITY_NEIGHBOURS, PRECISION_NEIGHBOURS, support
from monge.metrics.draws import FLOOR_DRAWS, Draws, Sees, draw
from monge.metrics.heads import Head
from monge.metrics.intervals import GROUPS, Interval
from monge.metrics.mmd import kernel_gap, mmd_test
from monge.metrics.samples import Rows, Samples, distances, own_distances
from monge.metrics.sinkhorn import sinkhorn_divergence
from monge.metrics.table import Row
from monge.metrics.two_sample import (
    PERMUTATIONS,
    PermutationTest,
    energy_test,
    mean_of_pairs,
    of_rows,
)
from monge.metrics.wasserstein import (
    choose_solver,
    exact_w2_squared,
    gaussian_w2_squared,
    max_sliced_stderr,
    max_sliced_w2_squared,
    sliced_w2_squared,
    variance_ratio,
)
from monge.tensors import stream

DIRECTIONS = 512
SINKHORN_N = 500
"""Examples of each set in a Sinkhorn divergence, at most."""

BLUR = 0.5
"""Of the Sinkhorn divergence, over the median distance between real examples."""

LAWS = "Same law as the data?"
TRANSPORT = "How far from the data, squared"
KERNEL_ALONE = Judges()

SUPPORT = "All of the data, and nothing else?"


__all__ = ["FLOOR_DRAWS", "Comparison", "Draws", "Head", "comparisons", "draw"]


@dataclass(frozen=True)
class Comparison:
    """An estimator between samples and real examples, and the rows that its numbers fill.

    Args:
        estimate: a number for each head, from two sets of equal size (n, d); then one for each
            name in `also`.
        settings: of the estimator, for the protocol.
        stderr: of each number, from the two sets and a generator; the jackknife's, which costs
            ten estimates, if None.
        jackknifed: whether the intervals need standard errors.
        group: the part of the table that its rows stand in.
        most: examples of each set that it takes; all if None.
        any_size: whether its mean does not depend on the sizes, so that all examples are taken.
        floors: draws of the floor that it takes, at most; all if None.
        sees: what it is given of an example.
        also: numbers that stand in the protocol only.
        of_parts: the estimate of some rows of two sets, from what all parts share; none: the
            estimate is made of each part anew.
        unknown: why there is no interval, where the standard error is NaN.
        withheld: why its numbers would mean nothing; they are then not computed.
    """

    estimate: Callable[[Samples, Samples], tuple[float, ...]]
    heads: tuple[Head, ...]
    settings: Mapping[str, str | int | float]
    stderr: Callable[[Samples, Samples, torch.Generator], Sequence[float]] | None = None
    jackknifed: bool = True
    group: str = ""
    most: int | None = None
    any_size: bool = False
    floors: int | None = None
    sees: Sees = "numbers"
    also: tuple[str, ...] = ()
    of_parts: Callable[[Samples, Samples], Callable[[Rows, Rows], tuple[float, ...]]] | None = None
    unknown: str = "its standard error is not known"
    withheld: str = ""

    def draws(self, draws: Draws, seed: int) -> Draws:
        """The examples that it takes."""
        seen = draws.seen(self.sees, self.any_size).cut(self.most, seed)
        return seen.with_floors(self.floors)

    def intervals(
        self,
        x: Samples,
        y: Samples,
        rng: torch.Generator,
        seed: int = 0,
        values: Sequence[float] | None = None,
    ) -> list[Interval]:
        """The interval of each head's estimate between x and y.

        Args:
            values: the estimates, if they are known.
        """
        values = (self.estimate(x, y) if values is None else values)[: len(self.heads)]
        # Of equal sizes their common one; the variance of most estimates goes by 1/n + 1/m.
        n = _common(len(x), len(y))
        stderrs: Sequence[float] = [math.nan] * len(values)
        if self.stderr is not None:
            stderrs = self.stderr(x, y, rng)
        elif self.jackknifed:

            def left_out(first: Rows, second: Rows) -> tuple[float, ...]:
                return self.estimate(x[first], y[second])

            part = left_out if self.of_parts is None else self.of_parts(x, y)
            stderrs = intervals.jackknife_of_two(part, len(x), len(y), rng)
        found = []
        for head, value, stderr in zip(self.heads, values, stderrs, strict=True):
            interval = head.interval(value, stderr, n)
            if head.test:
                test = head.test(x, y, stream(seed, "test", head.name))
                interval = replace(
                    intervals.of_test(value, stderr, test.critical), p_value=test.p_value
                )
            found.append(interval)
        return found

    def rows(self, draws: Draws, seed: int) -> list[Row]:
        """A row for each head: value, interval, floor and baselines by the same estimator."""
        draws = self.draws(draws, seed)
        x, y = draws.samples, draws.real
        protocol = {**self.settings, **draws.protocol, "seed": seed}
        if self.withheld:
            return [self._without(head, draws, protocol) for head in self.heads]
        values = self.estimate(x, y)
        floors = torch.tensor([self.estimate(*pair) for pair in draws.floors], dtype=torch.float64)
        known = [(z, f) for (z, _), f in zip(draws.floors, floors.tolist(), strict=True)]
        baselines = {
            name: next((f for x0, f in known if _one_memory(x0, z)), None) or self.estimate(z, y)
            for name, z in draws.baselines.items()
        }
        found = self.intervals(x, y, stream(seed, "interval", self.heads[0].name), seed, values)
        protocol |= dict(zip(self.also, values[len(self.heads) :], strict=True))
        size = _common(*(len(z) for z in draws.floors[0]))
        rows = []
        for i, head in enumerate(self.heads):
            rng = stream(seed, "test", head.name)
            spread = {"floor sd": float(floors[:, i].std())} if len(floors) > 1 else {}
            if head.equal is not None:
                spread["real against real"] = float(floors[:, i].mean())
            rows.append(
                Row(
                    name=head.name,
                    value=values[i],
                    interval=(found[i].low, found[i].high),
                    interval_method=found[i].method,
                    floor=head.floor(float(floors[:, i].mean()), size),
                    baselines={name: others[i] for name, others in baselines.items()},
                    n=len(x),
                    protocol={**protocol, **spread},
                    unit=head.unit,
                    better=head.better,
                    p_value=head.p_value(x, y, rng) if head.p_value else found[i].p_value,
                    group=self.group,
                    note=self.unknown if math.isnan(found[i].low) else "",
                )
            )
        return rows

    def _without(self, head: Head, draws: Draws, protocol: Mapping[str, str | int | float]) -> Row:
        """The row of a number that is withheld."""
        return Row(
            name=head.name,
            value=math.nan,
            interval=(math.nan, math.nan),
            interval_method="none",
            floor=math.nan,
            baselines=dict.fromkeys(draws.baselines, math.nan),
            n=len(draws.samples),
            protocol=protocol,
            unit=head.unit,
            better=head.better,
            group=self.group,
            note=self.withheld,
        )


def comparisons(
    d: int, seed: int, scale: float, judges: Judges = KERNEL_ALONE
) -> tuple[Comparison, ...]:
    """The first set, in reading order.

    Args:
        d: numbers in an example.
        scale: the median distance between real examples that are in neither set.
        judges: the classifiers.
    """
    return (*laws(seed, scale, judges), *_transport(d, seed, scale), *_support())


def laws(seed: int, scale: float, judges: Judges = KERNEL_ALONE) -> tuple[Comparison, ...]:
    """The tests of one law, by distances and by classifiers; see `comparisons`."""
    return _energy_and_mmd(scale), _classifiers(seed, judges)


def _energy_and_mmd(scale: float) -> Comparison:
    # Held-out examples stand in one estimate after another: what is within them is kept.
    held: list[tuple[Samples, tuple[Tensor, Tensor]]] = []

    def within(z: Samples) -> tuple[Tensor, Tensor]:
        own = own_distances(z)
        return mean_of_pairs(own), mean_of_pairs(kernel_gap(own, scale))

    def energy_and_mmd(x: Samples, y: Samples) -> tuple[float, float]:
        if not held or not _one_memory(held[0][0], y):
            held[:] = [(y, within(y))]
        across = distances(x, y)
        gaps = across, kernel_gap(across, scale)
        energy, mmd = (
            float(2 * xy.mean() - xx - yy)
            for xy, xx, yy in zip(gaps, within(x), held[0][1], strict=True)
        )
        return energy, mmd

    def of_parts(x: Samples, y: Samples) -> Callable[[Rows, Rows], tuple[float, ...]]:
        parts = distances(x, y), own_distances(x), own_distances(y)
        kernels = [kernel_gap(part, scale) for part in parts]

        def estimate(first: Rows, second: Rows) -> tuple[float, ...]:
            return of_rows(parts, first, second), of_rows(kernels, first, second)

        return estimate

    def mmd(x: Samples, y: Samples, rng: torch.Generator) -> PermutationTest:
        return mmd_test(x, y, scale, rng)

    return Comparison(
        energy_and_mmd,
        (
            Head("energy distance", _student, "lower", "data units", test=energy_test),
            Head("MMD²", _student, "lower", test=mmd),
        ),
        {
            "energy": "U-statistic of 2E|X-Y|-E|X-X'|-E|Y-Y'|",
            "MMD": "U-statistic, mean of Gaussian kernels of 1/4, 1/2, 1, 2, 4 bandwidths",
            "bandwidth": scale,
            "bandwidth is": "the median distance of training examples",
            "permutations": PERMUTATIONS,
        },
        group=LAWS,
        any_size=True,
        of_parts=of_parts,
    )


def _classifiers(seed: int, judges: Judges) -> Comparison:
    def area(value: float, stderr: float, n: int) -> Interval:
        return judges.interval(value, n)

    return Comparison(
        lambda x, y: judges.strongest(x, y, seed),
        (
            Head("C2ST AUC", area, "lower", equal=0.5),
            Head("C2ST accuracy", _accuracy_interval, "lower", equal=0.5),
        ),
        {"estimator": judges.describe()},
        jackknifed=False,
        group=LAWS,
        any_size=True,
        floors=1,
        sees="all",
        also=tuple(f"AUC of {name}" for name in judges.names),
    )


def _transport(d: int, seed: int, scale: float) -> tuple[Comparison, ...]:
    """How far the mass of the data is from that of the samples."""

    def entry(
        estimate: Callable[[Samples, Samples], float],
        name: str,
        settings: Mapping[str, str | int | float],
        **more: Any,
    ) -> Comparison:
        head = Head(name, _student, "near floor", "data units²")
        return Comparison(
            lambda x, y: (estimate(x, y),), (head,), settings, group=TRANSPORT, **more
        )

    return (
        entry(
            exact_w2_squared,
            "W2² exact",
            {"estimator": "optimal assignment", "solver": choose_solver(d)},
        ),
        entry(
            lambda x, y: sinkhorn_divergence(x, y, BLUR * scale),
            "W2² blurred (Sinkhorn)",
            {
                "estimator": f"Sinkhorn divergence, of at most {SINKHORN_N} examples of each set",
                "blur": BLUR * scale,
                "blur is": f"{BLUR:g} of the median distance of training examples",
            },
            most=SINKHORN_N,
        ),
        entry(
            lambda x, y: sliced_w2_squared(x, y, DIRECTIONS, seed),
            "W2² sliced, times d",
            {"estimator": "d times the mean W2² of projections", "directions": DIRECTIONS},
        ),
        entry(
            lambda x, y: max_sliced_w2_squared(x, y, seed),
            "W2² max-sliced",
            {
                "estimator": "W2² along the worst direction, found on one half by gradient "
                "ascent and measured on the other; mean of both ways",
            },
            stderr=lambda x, y, rng: (max_sliced_stderr(x, y, rng, seed),),
            unknown=f"its error needs {4 * GROUPS} examples of each set: directions are found on "
            "one half and measured on the other",
        ),
        entry(
            gaussian_w2_squared,
            "W2² of Gaussian fits",
            {"estimator": "means, and Bures distance of covariances"},
        ),
    )


def _support() -> tuple[Comparison, ...]:
    """Whether samples lie where the data do, and everywhere there."""
    shares = ("coverage", "density", "precision", "recall")
    return (
        Comparison(
            lambda x, y: (variance_ratio(x, y),),
            (Head("variance ratio", _student, "near floor"),),
            {"estimator": "total variance of samples over that of real examples"},
            group=SUPPORT,
        ),
        Comparison(
            _four_shares,
            tuple(
                Head(name, _student, "near floor")
                if name == "density"  # a mean number of neighbours, which may exceed 1
                else Head(name, intervals.wilson_at_effective_count, "higher")
                for name in shares
            ),
            {
                "neighbours": DENSITY_NEIGHBOURS,
                "neighbours of precision and recall": PRECISION_NEIGHBOURS,
            },
            group=SUPPORT,
        ),
    )


def _common(n: int, m: int) -> int:
    """The common size of two sets that is worth n and m."""
    return round(2 * n * m / (n + m))


def _one_memory(x: Samples, y: Samples) -> bool:
    """Whether two sets are the same part of one tensor."""
    same = x.data_ptr() == y.data_ptr() and x.shape == y.shape and x.stride() == y.stride()
    return same and x.dtype == y.dtype


def _four_shares(x: Samples, y: Samples) -> tuple[float, ...]:
    found = support(x, y)
    return found.coverage, found.density, found.precision, found.recall


def _student(value: float, stderr: float, n: int) -> Interval:
    return intervals.student(value, stderr)


def _accuracy_interval(value: float, stderr: float, n: int) -> Interval:
    """Of 2n scores, half count: see `ClassifierTest`."""
    return intervals.wilson(value, n)
