"""The comparisons of two sets of equal size that fill the table: one entry here, one or more rows.

Adding a metric between two sets is adding a `Comparison` to `comparisons`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from monge.metrics import intervals
from monge.metrics.coverage import DENSITY_NEIGHBOURS, PRECISION_NEIGHBOURS, support
from monge.metrics.intervals import Interval
from monge.metrics.mmd import kernel_gap, mmd_test
from monge.metrics.samples import Samples, distances, own_distances, random_rows
from monge.metrics.sinkhorn import sinkhorn_divergence
from monge.metrics.table import Better, Row
from monge.metrics.two_sample import (
    PERMUTATIONS,
    between_minus_within,
    classifier_test,
    energy_test,
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

FLOOR_DRAWS = 3
DIRECTIONS = 512
SINKHORN_N = 500
"""Examples of each set in a Sinkhorn divergence, at most."""

BLUR = 0.5
"""Of the Sinkhorn divergence, over the median distance between real examples."""

LAWS = "Same law as the data?"
TRANSPORT = "How far from the data, squared"
SUPPORT = "All of the data, and nothing else?"


@dataclass(frozen=True)
class Draws:
    """Sets of one size n in float64: samples, held-out examples, and what stands beside them.

    Args:
        floors: pairs of sets of one law, in the places of samples and real examples.
        protocol: what was drawn from where, for every row.
    """

    samples: Samples
    real: Samples
    floors: tuple[tuple[Samples, Samples], ...]
    baselines: Mapping[str, Samples]
    protocol: Mapping[str, str]

    def cut(self, most: int | None, seed: int) -> Draws:
        """At most so many examples of each set, at random; all if None."""
        if most is None or most >= len(self.real):
            return self
        rows = random_rows(len(self.real), most, stream(seed, "rows", "part"))
        return Draws(
            self.samples[rows],
            self.real[rows],
            tuple((x[rows], y[rows]) for x, y in self.floors),
            {name: x[rows] for name, x in self.baselines.items()},
            {**self.protocol, "part": f"{most} random examples of each set"},
        )


def draw(
    samples: Samples,
    train: Samples,
    real: Samples,
    baselines: Mapping[str, Samples],
    n: int,
    seed: int,
) -> Draws:
    """Draws of n examples without replacement; the floors are disjoint draws of training ones."""

    def cut(x: Samples, name: str) -> Samples:
        return x[random_rows(len(x), n, stream(seed, "rows", name))].double()

    order = torch.randperm(len(train), generator=stream(seed, "rows", "floor"))
    floors = order[: n * min(FLOOR_DRAWS, len(train) // n)].split(n)
    compared = cut(real, "comparison")
    return Draws(
        cut(samples, "samples"),
        compared,
        tuple((train[rows].double(), compared) for rows in floors),
        {name: cut(x, "baseline " + name) for name, x in baselines.items()},
        {
            "compared with": f"{n} held-out examples",
            "floor": f"mean of {len(floors)} disjoint draws of as many training examples",
        },
    )


@dataclass(frozen=True)
class Head:
    """One number of a comparison, and what its row says of it.

    Args:
        name: of the row.
        interval: from the value, the jackknife's standard error (NaN without one) and n.
        p_value: of a test that both sets have one law, from the two sets and a generator.
    """

    name: str
    interval: Callable[[float, float, int], Interval]
    better: Better
    unit: str = ""
    p_value: Callable[[Samples, Samples, torch.Generator], float] | None = None


@dataclass(frozen=True)
class Comparison:
    """An estimator between samples and real examples, and the rows that its numbers fill.

    Args:
        estimate: a number for each head, from two sets of equal size (n, d).
        settings: of the estimator, for the protocol.
        stderr: of each number, from the two sets and a generator; the jackknife's, which costs
            ten estimates, if None.
        jackknifed: whether the intervals need standard errors.
        group: the part of the table that its rows stand in.
        most: examples of each set that it takes; all if None.
    """

    estimate: Callable[[Samples, Samples], tuple[float, ...]]
    heads: tuple[Head, ...]
    settings: Mapping[str, str | int | float]
    stderr: Callable[[Samples, Samples, torch.Generator], Sequence[float]] | None = None
    jackknifed: bool = True
    group: str = ""
    most: int | None = None

    def intervals(self, x: Samples, y: Samples, rng: torch.Generator) -> list[Interval]:
        """The interval of each head's estimate between x and y."""
        values, n = self.estimate(x, y), len(x)
        stderrs: Sequence[float] = [math.nan] * len(values)
        if self.stderr is not None:
            stderrs = self.stderr(x, y, rng)
        elif self.jackknifed:
            stderrs = intervals.jackknife(lambda kept: self.estimate(x[kept], y[kept]), n, rng)
        return [
            head.interval(value, stderr, n)
            for head, value, stderr in zip(self.heads, values, stderrs, strict=True)
        ]

    def rows(self, draws: Draws, seed: int) -> list[Row]:
        """A row for each head: value, interval, floor and baselines by the same estimator."""
        draws = draws.cut(self.most, seed)
        x, y = draws.samples, draws.real
        values = self.estimate(x, y)
        floors = torch.tensor([self.estimate(*pair) for pair in draws.floors], dtype=torch.float64)
        baselines = {name: self.estimate(z, y) for name, z in draws.baselines.items()}
        found = self.intervals(x, y, stream(seed, "interval", self.heads[0].name))
        protocol: dict[str, str | int | float] = {
            **self.settings,
            **draws.protocol,
            "seed": seed,
        }
        rows = []
        for i, head in enumerate(self.heads):
            rng = stream(seed, "test", head.name)
            spread = {"floor sd": float(floors[:, i].std())} if len(floors) > 1 else {}
            rows.append(
                Row(
                    name=head.name,
                    value=values[i],
                    interval=(found[i].low, found[i].high),
                    interval_method=found[i].method,
                    floor=float(floors[:, i].mean()),
                    baselines={name: others[i] for name, others in baselines.items()},
                    n=len(x),
                    protocol={**protocol, **spread},
                    unit=head.unit,
                    better=head.better,
                    p_value=head.p_value(x, y, rng) if head.p_value else found[i].p_value,
                    group=self.group,
                )
            )
        return rows


def comparisons(d: int, seed: int, scale: float) -> tuple[Comparison, ...]:
    """The first set, in reading order.

    Args:
        d: numbers in an example.
        scale: the median distance between real examples that are in neither set.
    """
    squared = "data units²"

    def energy_and_mmd(x: Samples, y: Samples) -> tuple[float, float]:
        parts = distances(x, y), own_distances(x), own_distances(y)
        gaps = (kernel_gap(part, scale) for part in parts)
        return between_minus_within(*parts), between_minus_within(*gaps)

    def auc_and_accuracy(x: Samples, y: Samples) -> tuple[float, float]:
        test = classifier_test(x, y, seed)
        return test.auc, test.accuracy

    return (
        Comparison(
            energy_and_mmd,
            (
                Head("energy distance", _student, "lower", "data units", _energy_p_value),
                Head(
                    "MMD²",
                    _student,
                    "lower",
                    p_value=lambda x, y, rng: mmd_test(x, y, scale, rng).p_value,
                ),
            ),
            {
                "energy": "U-statistic of 2E|X-Y|-E|X-X'|-E|Y-Y'|",
                "MMD": "U-statistic, mean of Gaussian kernels of 1/4, 1/2, 1, 2, 4 bandwidths",
                "bandwidth": scale,
                "bandwidth is": "the median distance of training examples",
                "permutations": PERMUTATIONS,
            },
            group=LAWS,
        ),
        Comparison(
            auc_and_accuracy,
            (
                Head("C2ST AUC", _auc_interval, "lower"),
                Head("C2ST accuracy", _accuracy_interval, "lower"),
            ),
            {"estimator": "RBF-SVM (C = 10), cross-fitted in two halves"},
            jackknifed=False,
            group=LAWS,
        ),
        Comparison(
            lambda x, y: (exact_w2_squared(x, y),),
            (Head("W2² exact", _student, "near floor", squared),),
            {"estimator": "optimal assignment", "solver": choose_solver(d)},
            group=TRANSPORT,
        ),
        Comparison(
            lambda x, y: (sinkhorn_divergence(x, y, BLUR * scale),),
            (Head("W2² blurred (Sinkhorn)", _student, "near floor", squared),),
            {
                "estimator": f"Sinkhorn divergence, of at most {SINKHORN_N} examples of each set",
                "blur": BLUR * scale,
                "blur is": f"{BLUR:g} of the median distance of training examples",
            },
            group=TRANSPORT,
            most=SINKHORN_N,
        ),
        Comparison(
            lambda x, y: (sliced_w2_squared(x, y, DIRECTIONS, seed),),
            (Head("W2² sliced, times d", _student, "near floor", squared),),
            {"estimator": "d times the mean W2² of projections", "directions": DIRECTIONS},
            group=TRANSPORT,
        ),
        Comparison(
            lambda x, y: (max_sliced_w2_squared(x, y, seed),),
            (Head("W2² max-sliced", _student, "near floor", squared),),
            {
                "estimator": "W2² along the worst direction, found on one half by gradient "
                "ascent and measured on the other; mean of both ways",
            },
            stderr=lambda x, y, rng: (max_sliced_stderr(x, y, rng, seed),),
            group=TRANSPORT,
        ),
        Comparison(
            lambda x, y: (gaussian_w2_squared(x, y),),
            (Head("W2² of Gaussian fits", _student, "near floor", squared),),
            {"estimator": "means, and Bures distance of covariances"},
            group=TRANSPORT,
        ),
        Comparison(
            lambda x, y: (variance_ratio(x, y),),
            (Head("variance ratio", _student, "near floor"),),
            {"estimator": "total variance of samples over that of real examples"},
            group=SUPPORT,
        ),
        Comparison(
            _four_shares,
            (
                Head("coverage", intervals.wilson_at_effective_count, "higher"),
                Head("density", _student, "near floor"),
                Head("precision", intervals.wilson_at_effective_count, "higher"),
                Head("recall", intervals.wilson_at_effective_count, "higher"),
            ),
            {
                "neighbours": DENSITY_NEIGHBOURS,
                "neighbours of precision and recall": PRECISION_NEIGHBOURS,
            },
            group=SUPPORT,
        ),
    )


def _four_shares(x: Samples, y: Samples) -> tuple[float, ...]:
    found = support(x, y)
    return found.coverage, found.density, found.precision, found.recall


def _student(value: float, stderr: float, n: int) -> Interval:
    return intervals.student(value, stderr)


def _energy_p_value(x: Samples, y: Samples, rng: torch.Generator) -> float:
    return energy_test(x, y, rng).p_value


def _auc_interval(value: float, stderr: float, n: int) -> Interval:
    return intervals.auc_interval(value, n // 2, n // 2)


def _accuracy_interval(value: float, stderr: float, n: int) -> Interval:
    """Of 2n scores, half count: see `ClassifierTest`."""
    return intervals.wilson(value, n)
