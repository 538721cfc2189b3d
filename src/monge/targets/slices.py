"""Large batches in slices, so that no intermediate tensor outgrows the memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from monge.targets.base import Label
from monge.types import State, Time

CHUNK = 2**22
"""Numbers in one intermediate tensor; larger batches are taken in slices."""


def in_slices(
    f: Callable[[State, Time, Label], tuple[Tensor, ...]],
    x: State,
    t: Time,
    label: Label,
    per_row: int,
) -> tuple[Tensor, ...]:
    """f over slices of the rows of x, its results concatenated.

    Args:
        per_row: numbers that one row needs in the largest intermediate tensor.
    """
    rows = max(1, CHUNK // per_row)
    if len(x) <= rows:
        return f(x, t, label)
    slices = [slice(i, i + rows) for i in range(0, len(x), rows)]
    parts = [
        f(x[i], t[i] if per_example(t) else t, None if label is None else label[i])  # type: ignore[index]
        for i in slices
    ]
    return tuple(torch.cat(p) for p in zip(*parts, strict=True))


def per_example(t: Time) -> bool:
    """Whether a time is one for each example."""
    return isinstance(t, Tensor) and t.ndim > 0
