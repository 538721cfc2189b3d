"""Chooses held-out examples by content: equal examples stay together, order has no effect."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from monge.errors import UserError

SHARE = 0.2
"""Held-out fraction of a source without its own split."""

TRAIN = ("train", "training")
"""Names of a split, a folder or a file with training examples."""

HELD_OUT = (
    *("test", "testing", "validation", "valid", "val", "dev"),
    *("heldout", "held-out", "held_out"),
)
"""Names of a split, a folder or a file with held-out examples, in the order of preference."""


def split_by_content(hashes: np.ndarray, fraction: float = SHARE) -> tuple[Tensor, Tensor]:
    """Rows to train on and rows to hold out, by a hash of each example's content.

    Examples of one hash form a group. Groups are held out whole, in the order of their hashes,
    until the fraction is reached. So the choice depends on the set of examples alone. A group
    larger than the fraction is never held out, unless all groups are larger: then the smallest is.

    Args:
        hashes: (N,) uint64, or bytes of one length (dtype S or V); equal for equal examples.
        fraction: of the examples to hold out, in (0, 1).

    Returns:
        Row numbers for training and held out, each sorted int64, each at least one.

    Raises:
        UserError: all examples are equal, or there are fewer than two.

    >>> train, heldout = split_by_content(np.array([7, 3, 7, 9, 8], dtype=np.uint64))
    >>> train.tolist(), heldout.tolist()
    ([0, 2, 3, 4], [1])
    """
    n = len(hashes)
    _, group, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    if len(counts) < 2:
        what = f"all {n} examples are identical" if n > 1 else f"there are {n} examples"
        raise UserError(f"{what}: none can be held out; at least two different ones are needed")
    target = max(1, round(fraction * n))
    fits = np.flatnonzero(counts <= target)
    if len(fits) == 0:
        fits = np.array([np.argmin(counts)])
    enough = int(np.searchsorted(np.cumsum(counts[fits]), target)) + 1
    chosen = np.zeros(len(counts), dtype=bool)
    chosen[fits[: min(enough, len(counts) - 1)]] = True
    held = chosen[group.reshape(-1)]
    return torch.from_numpy(np.flatnonzero(~held)), torch.from_numpy(np.flatnonzero(held))
