"""Which examples enter a comparison: draws of one size, and all of them where sizes may differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor, randperm

from monge.metrics.samples import Samples, random_rows
from monge.tensors import stream

FLOOR_DRAWS = 3

Sees = Literal["numbers", "columns", "all"]
"""What an estimator is given of an example: its numbers in one scale, the columns of its table in
their own units, or both."""


@dataclass(frozen=True)
class Draws:
    """Sets of one size n in float64: samples, held-out examples, and what stands beside them.

    Args:
        floors: pairs of sets of one law, in the places of samples and real examples.
        protocol: what was drawn from where, for every row.
        wide: the same sets with all their examples, for estimators whose mean does not depend on
            the sizes; None where these are all.
        numbers: how many numbers of an example come before the columns of its table; None: all.
    """

    samples: Samples
    real: Samples
    floors: tuple[tuple[Samples, Samples], ...]
    baselines: Mapping[str, Samples]
    protocol: Mapping[str, str]
    wide: Draws | None = None
    numbers: int | None = None

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
            numbers=self.numbers,
        )

    def with_floors(self, most: int | None) -> Draws:
        """At most so many draws of the floor, the first ones; all if None."""
        if most is None or most >= len(self.floors):
            return self
        told = dict(self.protocol)
        if "floor" in told:
            told["floor"] = f"{told['floor']}, of which {most}"
        return replace(self, floors=self.floors[:most], protocol=told)

    def seen(self, sees: Sees, any_size: bool = False) -> Draws:
        """What an estimator is given: a part of each example, and all examples if it takes any
        sizes."""
        draws = self.wide if any_size and self.wide is not None else self
        d = self.numbers
        if sees == "all" or (d is None and sees == "numbers"):
            return draws
        part = slice(None, d) if sees == "numbers" else slice(d or 0, None)

        def cut(x: Samples) -> Samples:
            return x[:, part]

        return Draws(
            cut(draws.samples),
            cut(draws.real),
            tuple((cut(x), cut(y)) for x, y in draws.floors),
            {name: cut(x) for name, x in draws.baselines.items()},
            draws.protocol,
        )


def draw(
    samples: Samples,
    train: Samples,
    real: Samples,
    baselines: Mapping[str, Samples],
    n: int,
    seed: int,
    *,
    most: int | None = None,
    numbers: int | None = None,
) -> Draws:
    """Draws of n examples without replacement; the floors are disjoint draws of training ones.

    A baseline that is the training set itself (the same tensor) is the first draw of the floor.

    Args:
        most: examples of each set in the `wide` draws; none are made if None.
        numbers: as in `Draws`.
    """

    def cut(x: Samples, name: str, size: int) -> Samples:
        return x[random_rows(len(x), size, stream(seed, "rows", name))].double()

    order = randperm(len(train), generator=stream(seed, "rows", "floor"))

    def drawn(size: int, size_real: int, wide: Draws | None) -> Draws:
        in_floor = min(size, len(train))
        floors = order[: in_floor * min(FLOOR_DRAWS, len(train) // in_floor)].split(in_floor)
        compared = cut(real, "comparison", size_real)
        many = "as many" if in_floor == size else f"{in_floor}"
        of_training = tuple((_doubles(train, rows), compared) for rows in floors)
        first = of_training[0][0] if in_floor == size else None
        return Draws(
            cut(samples, "samples", size),
            compared,
            of_training,
            {
                name: first
                if x is train and first is not None
                else cut(x, "baseline " + name, size)
                for name, x in baselines.items()
            },
            {
                "compared with": f"{len(compared)} held-out examples",
                "floor": f"mean of {len(floors)} disjoint draws of {many} training examples",
            },
            wide,
            numbers,
        )

    sizes = (n, n)
    if most is not None:
        sizes = min(len(samples), most), min(len(real), most)
    return drawn(n, n, None if sizes == (n, n) else drawn(*sizes, None))


def _doubles(x: Samples, rows: Tensor) -> Samples:
    return x[rows].double()
