"""Examples that occur in several sets, or several times in one: exact repetitions, bit by bit.

Tests of two samples take them for independent. Shared examples break that: of sets with a common
part every distance is too small.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch

from monge.metrics.samples import Rows, Samples

CHUNK = 4096


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
