"""The comparisons of two sets of equal size that fill the table: one entry here, one or more rows.

Adding a metric between two sets is adding a `Comparison` to `comparisons`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

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

IntervalOf: TypeAlias = Callable[[float, Samples, Samples, torch.Generator], Interval]
"""The interval of a value, from the value, the two sets and a generator."""


@dataclass(frozen=True)
class Draws:
    """Sets of one size n in float64: samples, held-out examples, and what stands beside them."""

    samples: Samples
    real: Samples
    floors: tuple[Samples, ...]
    baselines: Mapping[str, Samples]


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
    return Draws(
        cut(samples, "samples"),
        cut(real, "heldout"),
        tuple(train[rows].double() for rows in floors),
        {name: cut(x, "baseline " + name) for name, x in baselines.items()},
    )


@dataclass(frozen=True)
class Head:
    """One number of a comparison: the name of its row, its interval, its unit."""

    name: str
    interval: IntervalOf
    better: Better
    unit: str = ""


@dataclass(frozen=True)
class Comparison:
    """An estimator between samples and real examples, and the rows that its numbers fill."""

    estimate: Callable[[Samples, Samples], tuple[float, ...]]
    heads: tuple[Head, ...]
    settings: Mapping[str, str | int | float]

    def rows(self, draws: Draws, seed: int) -> list[Row]:
        """A row for each head: value, interval, floor and baselines by the same estimator."""
        values = self.estimate(draws.samples, draws.real)
        floors = torch.tensor(
            [self.estimate(x, draws.real) for x in draws.floors], dtype=torch.float64
        )
        baselines = {name: self.estimate(x, draws.real) for name, x in draws.baselines.items()}
        protocol: dict[str, str | int | float] = {
            **self.settings,
            "compared with": f"{len(draws.real)} held-out examples",
            "floor": f"mean of {len(floors)} disjoint draws of as many training examples",
            "seed": seed,
        }
        rows = []
        for i, head in enumerate(self.heads):
            rng = stream(seed, "interval", head.name)
            interval = head.interval(values[i], draws.samples, draws.real, rng)
            spread = {"floor sd": float(floors[:, i].std())} if len(floors) > 1 else {}
            rows.append(
                Row(
                    name=head.name,
                    value=values[i],
                    interval=(interval.low, interval.high),
                    interval_method=interval.method,
                    floor=float(floors[:, i].mean()),
                    baselines={name: others[i] for name, others in baselines.items()},
                    n=len(draws.samples),
                    protocol={**protocol, **spread},
                    unit=head.unit,
                    better=head.better,
                    p_value=interval.p_value,
                )
            )
        return rows


def comparisons(d: int, seed: int) -> tuple[Comparison, ...]:
    """The first set, in reading order, for examples of d numbers."""
    squared = "data units²"

    def auc_and_accuracy(x: Samples, y: Samples) -> tuple[float, float]:
        test = classifier_test(x, y, seed)
        return test.auc, test.accuracy

    def sliced(x: Samples, y: Samples) -> float:
        return sliced_w2_squared(x, y, DIRECTIONS, seed)

    def four_shares(x: Samples, y: Samples) -> tuple[float, ...]:
        found = support(x, y)
        return found.coverage, found.density, found.precision, found.recall

    return (
        Comparison(
            _single(energy_distance),
            (Head("energy distance", _energy_interval, "lower", "data units"),),
            {"estimator": "U-statistic of 2E|X-Y|-E|X-X'|-E|Y-Y'|", "permutations": PERMUTATIONS},
        ),
        Comparison(
            auc_and_accuracy,
            (
                Head("C2ST AUC", _auc_interval, "lower"),
                Head("C2ST accuracy", _accuracy_interval, "lower"),
            ),
            {"estimator": "RBF-SVM (C = 10), cross-fitted in two halves"},
        ),
        Comparison(
            _single(exact_w2_squared),
            (Head("W2² exact", _jackknifed(exact_w2_squared), "near floor", squared),),
            {"estimator": "optimal assignment", "solver": choose_solver(d)},
        ),
        Comparison(
            _single(sliced),
            (Head("W2² sliced, times d", _jackknifed(sliced), "near floor", squared),),
            {"estimator": "d times the mean W2² of projections", "directions": DIRECTIONS},
        ),
        Comparison(
            _single(gaussian_w2_squared),
            (
                Head(
                    "W2² of Gaussian fits", _jackknifed(gaussian_w2_squared), "near floor", squared
                ),
            ),
            {"estimator": "means, and Bures distance of covariances"},
        ),
        Comparison(
            _single(variance_ratio),
            (Head("variance ratio", _jackknifed(variance_ratio), "near floor"),),
            {"estimator": "total variance of samples over that of real examples"},
        ),
        Comparison(
            four_shares,
            (
                Head("coverage", _share_interval, "higher"),
                Head("density", _jackknifed(lambda x, y: support(x, y).density), "near floor"),
                Head("precision", _share_interval, "higher"),
                Head("recall", _share_interval, "higher"),
            ),
            {
                "neighbours": DENSITY_NEIGHBOURS,
                "neighbours of precision and recall": PRECISION_NEIGHBOURS,
            },
        ),
    )


def _single(
    estimate: Callable[[Samples, Samples], float],
) -> Callable[[Samples, Samples], tuple[float, ...]]:
    return lambda x, y: (estimate(x, y),)


def _jackknifed(estimate: Callable[[Samples, Samples], float]) -> IntervalOf:
    def interval(value: float, x: Samples, y: Samples, rng: torch.Generator) -> Interval:
        return intervals.jackknife_interval(
            value, lambda kept: estimate(x[kept], y[kept]), len(x), rng
        )

    return interval


def _energy_interval(value: float, x: Samples, y: Samples, rng: torch.Generator) -> Interval:
    interval = _jackknifed(energy_distance)(value, x, y, rng)
    return replace(interval, p_value=energy_test(x, y, rng).p_value)


def _auc_interval(value: float, x: Samples, y: Samples, rng: torch.Generator) -> Interval:
    return intervals.auc_interval(value, len(x) // 2, len(y) // 2)


def _accuracy_interval(value: float, x: Samples, y: Samples, rng: torch.Generator) -> Interval:
    return intervals.wilson_at_half(value, len(x) + len(y))


def _share_interval(value: float, x: Samples, y: Samples, rng: torch.Generator) -> Interval:
    return intervals.wilson_at_half(value, len(x))
