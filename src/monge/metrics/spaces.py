"""The sets of a comparison in each space where they are compared, drawn to one size.

A space makes vectors of examples: their own numbers, the features of a network, their labels. The
same rows are drawn for all spaces, and the same row numbers of A and of B.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from monge.metrics import intervals
from monge.metrics.catalogue import Comparison, Head
from monge.metrics.draws import FLOOR_DRAWS, Draws
from monge.metrics.intervals import Interval
from monge.metrics.labels import Labels
from monge.metrics.samples import Rows, Samples, random_rows
from monge.tensors import stream

GAUSSIAN = "gaussian"
MOST_FITTED = 5000
"""Examples that the Gaussian beside the sets is fitted to."""

PERMUTATIONS = 500
EQUAL_SHARES = "all labels equally often"


@dataclass(frozen=True)
class Given:
    """Examples (N, ...) as they were given, and their labels (N,) or None."""

    x: Tensor
    label: Labels | None
    columns: Samples | None = None
    """Of a table the columns in their own units, categories as codes (N, columns)."""

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: Rows) -> Given:
        return Given(
            self.x[rows],
            None if self.label is None else self.label[rows],
            None if self.columns is None else self.columns[rows],
        )


@dataclass(frozen=True)
class Chosen:
    """The examples that enter: n of each set, and up to three times n for floors.

    Without a reference `real` is B, A and B have up to n examples each, and A and B dealt anew
    stand for the floors.
    """

    a: Given
    b: Given
    real: Given
    rest: Given | None
    floors: Sequence[Given]
    seed: int

    @property
    def sides(self) -> tuple[Given, ...]:
        """The sets that stand in the samples' place: A and B, or A alone."""
        return (self.a,) if self.rest is None else (self.a, self.b)


def choose(a: Given, b: Given, real: Sequence[Given], n: int, seed: int) -> Chosen:
    """Draw n rows of each set without replacement; the same row numbers of A and of B.

    Args:
        real: the reference and its rest; or nothing.
    """

    def cut(x: Given, key: str) -> Given:
        return x[random_rows(len(x), n, stream(seed, "rows", key))]

    a, b = cut(a, "compared"), cut(b, "compared")
    if not real:
        return Chosen(a, b, b, None, (), seed)
    reference, rest = real
    order = torch.randperm(len(rest), generator=stream(seed, "rows", "floor"))
    floors = order[: n * min(FLOOR_DRAWS, len(rest) // n)].split(n)
    known = rest[order[:MOST_FITTED]]
    return Chosen(a, b, cut(reference, "reference"), known, [rest[r] for r in floors], seed)


def draws(
    chosen: Chosen,
    view: Callable[[Given], Samples],
    baselines: Callable[[Samples, int], dict[str, Samples]],
    numbers: int | None = None,
) -> tuple[Draws, ...]:
    """The sets in one space: draws of A and of B, or without a reference of A against B.

    Args:
        view: examples as vectors in float64.
        baselines: from vectors of real examples, and n.
        numbers: as in `Draws`.
    """
    real, seed = view(chosen.real), chosen.seed
    n = len(real)
    if chosen.rest is None:
        return (_dealt(view(chosen.a), real, baselines, seed, numbers),)
    floors = [(view(floor), real) for floor in chosen.floors]
    told = {
        "compared with": f"{n} examples of the reference",
        "floor": f"mean of {len(floors)} disjoint draws of n other real examples",
        "baselines": f"fitted to {len(chosen.rest)} other real examples",
    }
    others = baselines(view(chosen.rest), n)
    return tuple(
        Draws(view(s), real, tuple(floors), others, told, numbers=numbers) for s in chosen.sides
    )


def _dealt(
    x: Samples,
    real: Samples,
    baselines: Callable[[Samples, int], dict[str, Samples]],
    seed: int,
    numbers: int | None,
) -> Draws:
    """A against B at one size, with both entire beside where they differ in size."""

    def made(x: Samples, real: Samples, wide: Draws | None) -> Draws:
        pooled, floors = torch.cat([x, real]), []
        for k in range(FLOOR_DRAWS):
            order = torch.randperm(len(pooled), generator=stream(seed, "dealt", k))
            floors.append((pooled[order[: len(x)]], pooled[order[len(x) :]]))
        sizes = "n" if len(x) == len(real) else f"{len(x)} and {len(real)}"
        told = {
            "compared with": f"{len(real)} examples of B",
            "floor": f"mean of {FLOOR_DRAWS} deals of A and B, mixed, into two sets of {sizes}",
            "baselines": "fitted to the same examples of B",
        }
        others = baselines(real, len(x))
        return Draws(x, real, tuple(floors), others, told, wide, numbers)

    n = min(len(x), len(real))
    if len(x) == len(real):
        return made(x, real, None)
    first, second = (
        z[random_rows(len(z), n, stream(seed, "rows", "equal sizes"))] for z in (x, real)
    )
    return made(first, second, made(x, real, None))


def gaussian(real: Samples, n: int, seed: int) -> Samples:
    """n draws of the Gaussian with the mean and covariance of some examples; NaN as the mean."""
    real = torch.where(real.isnan(), real.nanmean(0), real).nan_to_num()
    centred = real - real.mean(0)
    weights = torch.randn(n, len(real), generator=stream(seed, "gaussian"), dtype=torch.float64)
    return real.mean(0) + weights @ centred / (len(real) - 1) ** 0.5


def one_hot(classes: int) -> Callable[[Given], Samples]:
    """The view of labels: 1 for the one that it is, none for -1."""

    def view(x: Given) -> Samples:
        assert x.label is not None
        return F.one_hot(x.label + 1, classes + 1)[:, 1:].double()

    return view


def equal_shares(real: Samples, n: int) -> dict[str, Samples]:
    """The baseline of labels: all of them equally often."""
    classes = real.shape[1]
    return {EQUAL_SHARES: F.one_hot(torch.arange(n) % classes, classes).double()}


def label_shares() -> Comparison:
    """How far the shares of the labels are apart, of sets of one-hot vectors."""

    def distance(x: Samples, y: Samples) -> tuple[float]:
        return (float((x.mean(0) - y.mean(0)).abs().sum() / 2),)

    def student(value: float, stderr: float, n: int) -> Interval:
        return intervals.student(value, stderr)

    def p_value(x: Samples, y: Samples, rng: torch.Generator) -> float:
        pooled, n = torch.cat([x, y]), len(x)
        observed, total = distance(x, y)[0], pooled.sum(0)
        order = torch.rand(PERMUTATIONS, len(pooled), generator=rng).argsort(dim=1)[:, :n]
        first = torch.stack([pooled[rows].sum(0) for rows in order])
        null = (first / n - (total - first) / len(y)).abs().sum(1) / 2
        return (1 + int((null >= observed - 1e-12).sum())) / (1 + PERMUTATIONS)

    head = Head("label shares", student, "near floor", p_value=p_value)
    settings: dict[str, str | int | float] = {
        "estimator": "total variation distance of the shares of labels",
        "permutations": PERMUTATIONS,
    }
    return Comparison(distance, (head,), settings)
