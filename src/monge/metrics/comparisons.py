"""The comparisons of two sets of equal size that fill the table: one entry here, one or more rows.

Adding a metric between two sets is adding a `Comparison` to `comparisons`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from monge.metrics import intervals
from monge.metrics.coverage import DENSITY_NEIGHBOURS, PRECISION_NEIGHBOURS, support
from monge.metrics.intervals import Interval
from monge.metrics.samples import Samples, random_rows
from monge.metrics.table import Better, Row
from monge.metrics.two_sample import PERMUTATIONS, classifier_test, energy_distance, energy_test
from monge.metrics.wasserstein import (
    choose_solver,
    exact_w2_squared,
    gaussian_w2_squared,
    sliced_w2_squared,
    variance_ratio,
)
from monge.tensors import stream

FLOOR_DRAWS = 3
DIRECTIONS = 512


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
        jackknifed: whether the intervals need standard errors, which cost ten estimates.
    """

    estimate: Callable[[Samples, Samples], tuple[float, ...]]
    heads: tuple[Head, ...]
    settings: Mapping[str, str | int | float]
    jackknifed: bool = True

    def intervals(self, x: Samples, y: Samples, rng: torch.Generator) -> list[Interval]:
        """The interval of each head's estimate between x and y."""
        values, n = self.estimate(x, y), len(x)
        stderrs = [math.nan] * len(values)
        if self.jackknifed:
            stderrs = intervals.jackknife(lambda kept: self.estimate(x[kept], y[kept]), n, rng)
            stderrs = stderrs.tolist()
        return [
            head.interval(value, stderr, n)
            for head, value, stderr in zip(self.heads, values, stderrs, strict=True)
        ]

    def rows(self, draws: Draws, seed: int) -> list[Row]:
        """A row for each head: value, interval, floor and baselines by the same estimator."""
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
                )
            )
        return rows


def comparisons(d: int, seed: int) -> tuple[Comparison, ...]:
    """The first set, in reading order, for examples of d numbers."""
    squared = "data units²"

    def auc_and_accuracy(x: Samples, y: Samples) -> tuple[float, float]:
        test = classifier_test(x, y, seed)
        return test.auc, test.accuracy

    return (
        Comparison(
            lambda x, y: (energy_distance(x, y),),
            (Head("energy distance", _student, "lower", "data units", _energy_p_value),),
            {"estimator": "U-statistic of 2E|X-Y|-E|X-X'|-E|Y-Y'|", "permutations": PERMUTATIONS},
        ),
        Comparison(
            auc_and_accuracy,
            (
                Head("C2ST AUC", _auc_interval, "lower"),
                Head("C2ST accuracy", _accuracy_interval, "lower"),
            ),
            {"estimator": "RBF-SVM (C = 10), cross-fitted in two halves"},
            jackknifed=False,
        ),
        Comparison(
            lambda x, y: (exact_w2_squared(x, y),),
            (Head("W2² exact", _student, "near floor", squared),),
            {"estimator": "optimal assignment", "solver": choose_solver(d)},
        ),
        Comparison(
            lambda x, y: (sliced_w2_squared(x, y, DIRECTIONS, seed),),
            (Head("W2² sliced, times d", _student, "near floor", squared),),
            {"estimator": "d times the mean W2² of projections", "directions": DIRECTIONS},
        ),
        Comparison(
            lambda x, y: (gaussian_w2_squared(x, y),),
            (Head("W2² of Gaussian fits", _student, "near floor", squared),),
            {"estimator": "means, and Bures distance of covariances"},
        ),
        Comparison(
            lambda x, y: (variance_ratio(x, y),),
            (Head("variance ratio", _student, "near floor"),),
            {"estimator": "total variance of samples over that of real examples"},
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
