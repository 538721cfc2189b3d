"""Lower bounds of W2 between two laws from samples: what the budget's sum must not fall below."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from monge.metrics.intervals import jackknife
from monge.metrics.wasserstein import (
    exact_w2_squared,
    gaussian_w2_squared,
    worst_direction,
)
from monge.tensors import stream
from monge.verification.terms import Points

MOST_AXES = 128
"""Examples with more numbers are projected to this many principal axes of the real ones, or to as
many as there are real ones; a projection brings laws nearer, so what bounds the projected distance
bounds the distance."""

Squared = Callable[[Tensor, Tensor], float]


def bounds(x: Points, y: Points, seed: int = 0) -> dict[str, tuple[float, float]]:
    """Lower bounds of W2 between the laws of x and y, by name: (value, standard error).

    Each is the distance of something that W2 dominates: Gaussians with the same first two
    moments (Gelbrich, 1990), and projections to a line, chosen on one half of the examples and
    measured on the other. In one dimension it is W2 itself.
    """
    m = min(len(x), len(y))
    x, y = _projected(x[:m], y[:m])
    rng = stream(seed, "verify", "lower")
    if x.shape[1] == 1:
        return {"W2 in one dimension": corrected(_on_the_line, x, y, rng)}
    half = m // 2
    direction = worst_direction(x[:half], y[:half], seed)[:, None]
    along = x[half : 2 * half] @ direction, y[half : 2 * half] @ direction
    return {
        "Gelbrich": corrected(gaussian_w2_squared, x, y, rng),
        "max-sliced": corrected(_on_the_line, *along, rng),
    }


def _on_the_line(a: Points, b: Points) -> float:
    m = min(len(a), len(b))
    return exact_w2_squared(a[:m], b[:m], "sort")


def corrected(squared: Squared, x: Points, y: Points, rng: torch.Generator) -> tuple[float, float]:
    """A distance whose square has lost most of its bias, and the standard error.

    A plug-in square is too large by a variance over n for each sample. Two halves of one sample
    show four times that sample's part, so a quarter of the squares between halves is taken off.
    """

    def value(rows: Tensor) -> tuple[float]:
        a, b = x[rows], y[rows]
        half = len(a) // 2
        own = squared(a[:half], a[half : 2 * half]) + squared(b[:half], b[half : 2 * half])
        return (squared(a, b) - own / 4,)

    everything = torch.randperm(len(x), generator=rng)
    found = value(everything)[0]
    error = float(jackknife(lambda kept: value(everything[kept]), len(x), rng)[0])
    root = math.sqrt(max(found, 0.0))
    # Where the square is within its error of zero the delta method would divide by it.
    return root, error / (2 * max(root, math.sqrt(error), 1e-300))


def error_of_square(value: float, stderr: float) -> float:
    """The standard error of the square that `corrected` took the root of.

    >>> error_of_square(0.0, 0.5), error_of_square(3.0, 0.5)
    (1.0, 3.0)
    """
    return 2 * stderr * max(value, 2 * stderr)


def _projected(x: Points, y: Points) -> tuple[Points, Points]:
    if x.shape[1] <= MOST_AXES:
        return x, y
    centre = y.mean(0)
    axes = torch.pca_lowrank(y - centre, min(MOST_AXES, len(y)), center=False, niter=2)[2]
    return (x - centre) @ axes, (y - centre) @ axes
