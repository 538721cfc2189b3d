"""Sets of samples as matrices: checked on entry, cut to size, and the distances between them."""

from __future__ import annotations

from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from monge.errors import UserError

Samples: TypeAlias = Float[Tensor, "_n d"]
"""Examples of any shape, flattened, one each row."""

Values: TypeAlias = Float[Tensor, "_n"]
"""One number each."""

Rows: TypeAlias = Int[Tensor, "_n"]
"""Indices of rows of a matrix."""


def as_matrix(x: Tensor, name: str, minimum: int = 2) -> Samples:
    """Examples (n, ...) as a floating-point matrix (n, d) on the CPU.

    Raises:
        UserError: not a tensor of at least `minimum` examples with finite entries.
    """
    if not isinstance(x, Tensor) or x.ndim < 2 or x.dtype.is_complex:
        kind = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise UserError(f"{name}: expected a real tensor (n, ...) of examples, not {kind}")
    if len(x) < minimum:
        raise UserError(f"{name}: {len(x)} examples are too few, at least {minimum} are needed")
    if x[0].numel() == 0:
        raise UserError(f"{name}: examples of shape {tuple(x.shape[1:])} hold no numbers")
    x = x.detach().flatten(1).cpu()
    x = x if x.dtype in (torch.float32, torch.float64) else x.float()
    bad = ~x.isfinite().all(1)
    if bad.any():
        raise UserError(
            f"{name}: {int(bad.sum())} of {len(x)} examples hold NaN or infinite numbers "
            f"(first: example {int(bad.nonzero()[0])}); remove them or repair the generator"
        )
    return x


def as_pair(x: Tensor, y: Tensor, equal: bool = False) -> tuple[Samples, Samples]:
    """Two sets of examples in float64, checked against each other.

    Raises:
        UserError: different dimensions, or different sizes where `equal` is asked for.
    """
    a, b = as_matrix(x, "first set"), as_matrix(y, "second set")
    require_same_dimension(a, "first set", b, "second set")
    if equal and len(a) != len(b):
        raise UserError(
            f"this estimator takes two sets of equal size, not {len(a)} and {len(b)}: its bias "
            "depends on the size, so cut the larger one"
        )
    return a.double(), b.double()


def require_same_dimension(x: Samples, x_name: str, y: Samples, y_name: str) -> None:
    """Both sets have as many numbers per example.

    Raises:
        UserError: the examples of the two sets have different numbers of entries.
    """
    if x.shape[1] != y.shape[1]:
        raise UserError(
            f"{x_name}: {x.shape[1]} numbers per example, but {y_name}: {y.shape[1]}; "
            "only examples of one shape can be compared"
        )


def random_rows(n: int, size: int, rng: torch.Generator) -> Rows:
    """Indices of `size` of n rows, drawn without replacement, ascending; all if there are fewer."""
    return torch.randperm(n, generator=rng)[:size].sort().values


def distances(x: Samples, y: Samples) -> Float[Tensor, "_n _m"]:
    """Euclidean distances (n, m)."""
    centre = y.mean(0)
    return torch.cdist(x - centre, y - centre)


def own_distances(x: Samples) -> Float[Tensor, "n n"]:
    """Euclidean distances within one set (n, n), exactly zero on the diagonal."""
    return distances(x, x).fill_diagonal_(0)
