"""The terms of the Wasserstein-2 budget: each a distance between two laws by an explicit coupling.

Between the law of the samples and the law of the data lie laws that differ in one thing each:

| from | to | term |
|---|---|---|
| samples: the sampler's steps, guided | the same field solved finely | discretisation |
| guided | unguided | guidance |
| started at N(0, I) | started at the path's own source, alpha_0 z + sigma_0 x0 | source |
| the learned field | the true field | velocity |
| stopped at T, final map | the latents themselves | early stopping |
| decoded latents | data | reconstruction |

By the triangle inequality the sum of the terms is at least W2(samples, data). Where both ends of a
row come from the same noise, or the same example, the root mean square of their displacement is an
upper bound of the W2 between the two laws.

References:
    | Latent flow matching with transformers (Jiao et al., 2024) -- https://arxiv.org/abs/2404.02538
    | Error bounds for flow matching (Benton et al., 2023) -- https://arxiv.org/abs/2305.16860
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float64
from torch import Tensor

from monge.report.term import Term

Points = Float64[Tensor, "n d"]


def root_mean_square(displacement: Points) -> tuple[float, float]:
    """The root mean square length of displacements (n, d), and its standard error.

    >>> root_mean_square(torch.tensor([[3.0, 4.0], [3.0, 4.0]]).double())
    (5.0, 0.0)
    """
    squares = displacement.square().sum(1)
    mean = float(squares.mean())
    if mean == 0:
        return 0.0, 0.0
    error = float(squares.std()) / math.sqrt(len(squares))
    return math.sqrt(mean), error / (2 * math.sqrt(mean))


def coupled(
    name: str,
    data: tuple[Points, Points],
    latents: tuple[Tensor, Tensor] | None,
    coupling: str,
    setting: str,
    **extra: float | str | None,
) -> Term:
    """The term of two laws whose samples are paired row by row."""
    value, stderr = root_mean_square(data[0] - data[1])
    latent = None
    if latents is not None:
        latent = root_mean_square((latents[0] - latents[1]).flatten(1).double())[0]
    return Term(name, value, stderr, "upper", coupling, setting, len(data[0]), latent, extra)


def zero(name: str, why: str, n: int) -> Term:
    """A term that vanishes exactly, and why."""
    return Term(name, 0.0, 0.0, "upper", why, "", n, 0.0)


def switched(displacement: Points, spread: float) -> float:
    """The share of samples that went elsewhere: displaced by more than half the data's spread."""
    return float((displacement.norm(dim=1) > 0.5 * spread).double().mean())


def median_length(displacement: Points) -> float:
    """The median length of displacements, which rare samples that change basin do not move."""
    return float(displacement.norm(dim=1).median())


def spread_of(x: Points) -> float:
    """The root mean square distance from the mean."""
    return float((x - x.mean(0)).square().sum(1).mean().sqrt())


def total(terms: list[Term]) -> tuple[float, float]:
    """The sum of the terms, and its standard error if they were independent; the errors are
    added, not their squares, since terms share their noise."""
    return sum(t.value for t in terms), sum(t.stderr for t in terms)


def as_points(x: Tensor) -> Points:
    """Examples of any shape as rows in float64."""
    return torch.as_tensor(x).flatten(1).double()
