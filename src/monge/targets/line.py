"""Gaussian mixtures on the line: distribution functions and quantiles that keep their tails."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def normal_cdf(z: Tensor) -> Tensor:
    """Phi(z), with all its digits in the lower tail, where `torch.special.ndtr` has none."""
    return 0.5 * torch.special.erfc(-z / math.sqrt(2))


def normal_density(z: Tensor) -> Tensor:
    """The density of N(0, 1)."""
    return (-0.5 * z.square()).exp() / math.sqrt(2 * math.pi)


def solve_tails(
    lower: Tensor,
    upper: Tensor,
    weights: Tensor,
    means: Tensor,
    stds: Tensor,
    lo: Tensor,
    hi: Tensor,
) -> Tensor:
    """The y (B, 1) in [lo, hi] where sum_k w_k Phi((y - m_k) / c_k) is `lower`, 1 minus `upper`.

    Bisection on whichever tail is smaller, so that quantiles far out keep their digits. The
    number of halvings is fixed, so that the solution runs under vmap and without synchronising.
    """
    sign = torch.where(lower < upper, 1.0, -1.0).to(lower)
    tail = torch.minimum(lower, upper)
    stds = stds.clamp_min(torch.finfo(stds.dtype).tiny)  # an atom is a steep step
    for _ in range(60):
        middle = (lo + hi) / 2
        z = sign * (middle - means) / stds
        reached = (weights * normal_cdf(z)).sum(1, keepdim=True)
        below = (reached < tail) == (sign > 0)
        lo, hi = torch.where(below, middle, lo), torch.where(below, hi, middle)
    return (lo + hi) / 2
