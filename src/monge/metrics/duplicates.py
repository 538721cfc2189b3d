"""Examples that occur in several sets, or several times in one: exact repetitions, and near ones.

Tests of two samples take them for independent. Shared examples break that: of sets with a common
part every distance is too small.

Whether a common part is more than chance is decided by *pairs*: two examples that equal each other
and no third one, or that are nearest to each other and nearer by far than to any third. Dealt
independently from one law, a pair falls on both sets as often as two random examples do, whatever
the law is: discrete columns may repeat themselves. Of different laws fewer pairs do.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch

from monge.metrics.samples import Rows, Samples, own_distances

CHUNK = 4096

TIGHT = 1 / 3
"""A pair's distance over that to any third example, at most."""

LEVEL = 0.01
"""Of the two tests of independence together."""


def identities(*sets: Samples) -> list[Rows]:
    """A number for each example of each set: equal numbers for equal examples."""
    marks = [
        hashlib.blake2b(row.tobytes(), digest_size=16).digest()
        for x in sets
        # -0.0 and 0.0 are one number.
        for part in x.split(CHUNK)
        for row in np.ascontiguousarray((part.double() + 0.0).numpy())
    ]
    _, index = np.unique(np.asarray(marks, "V16"), return_inverse=True)
    return list(torch.from_numpy(index.reshape(-1)).split([len(x) for x in sets]))


def repeated(own: Rows) -> int:
    """Examples of a set that an earlier one of it equals."""
    return len(own) - len(own.unique())


def shared(first: Rows, second: Rows) -> int:
    """Examples of the first set that occur in the second."""
    return int(torch.isin(first, second).sum())


def same(first: Rows, second: Rows) -> bool:
    """Whether two sets hold the same examples equally often, in any order."""
    return len(first) == len(second) and torch.equal(first.sort().values, second.sort().values)


def halves(own: Rows, rng: torch.Generator) -> tuple[Rows, Rows]:
    """Two halves of a set as row numbers; equal examples are on one side."""
    _, group, counts = own.unique(return_inverse=True, return_counts=True)
    order = torch.randperm(len(counts), generator=rng)
    first = torch.zeros(len(counts), dtype=torch.bool)
    first[order] = counts[order].cumsum(0) <= (len(own) + 1) // 2
    chosen = first[group]
    return chosen.nonzero()[:, 0], (~chosen).nonzero()[:, 0]


@dataclass(frozen=True)
class Pairs:
    """Pairs of equal or nearly equal examples in two sets together.

    Attributes:
        across: with one example in each set.
        within: with both in the same one.
        chance: the probability that a pair of independent examples of one law is across.
    """

    across: int
    within: int
    chance: float

    @property
    def p_value(self) -> float:
        """P(at least so many are across) for independent sets of one law; exact."""
        from scipy.stats import binom

        return float(binom.sf(self.across - 1, self.across + self.within, self.chance))


def equal_pairs(first: Rows, second: Rows) -> Pairs:
    """Pairs of examples that equal each other and no third one, from identities of two sets."""
    pooled = torch.cat([first, second])
    _, group, counts = pooled.unique(return_inverse=True, return_counts=True)
    sides = torch.zeros(len(counts), dtype=torch.int64)
    sides.index_add_(0, group, (torch.arange(len(pooled)) < len(first)).long())
    twice = counts == 2
    across = int((twice & (sides == 1)).sum())
    return Pairs(across, int(twice.sum()) - across, _chance(len(first), len(second)))


def near_pairs(x: Samples, y: Samples) -> Pairs:
    """Pairs that are nearest to each other, at most `TIGHT` as far as the next; (n, d), (m, d)."""
    gaps = own_distances(torch.cat([x, y]).double()).fill_diagonal_(torch.inf)
    two, index = gaps.topk(2, dim=1, largest=False)
    own, other = torch.arange(len(gaps)), index[:, 0]
    mutual = index[other, 0] == own
    tight = (two[:, 0] < TIGHT * two[:, 1]) & (two[other, 0] < TIGHT * two[other, 1])
    rows = (mutual & tight & (own < other)).nonzero()[:, 0]
    across = int(((rows < len(x)) != (other[rows] < len(x))).sum())
    return Pairs(across, len(rows) - across, _chance(len(x), len(y)))


def dependence(
    names: tuple[str, str], ids: tuple[Rows, Rows], sets: tuple[Samples, Samples]
) -> str | None:
    """Why two sets are not independent, as a sentence; None where they may be.

    Args:
        ids: identities of all examples.
        sets: the examples that are compared.
    """
    (a, b), equal, near = names, equal_pairs(*ids), near_pairs(*sets)
    if equal.p_value < LEVEL / 2:
        what = f"{shared(*ids):,} of the {len(ids[0]):,} examples of {a} occur in {b}"
    elif near.p_value < LEVEL / 2:
        what = (
            f"{near.across} examples of {a} have a near copy in {b} (n = {len(sets[0])}), where "
            f"{near.within} have one in their own set"
        )
    else:
        return None
    return (
        f"{a} and {b} are not independent: {what}. Distances between them are too small and "
        "p-values too large; remove the common examples and compare again."
    )


def _chance(n: int, m: int) -> float:
    return 2 * n * m / ((n + m) * (n + m - 1))
