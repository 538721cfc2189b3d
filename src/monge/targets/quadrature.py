"""Integrals of one variable to near rounding, for closed forms that end in one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from monge.errors import UserError

NODES, WEIGHTS = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(16))


def integrate(
    f: Callable[[Tensor], Tensor], lo: float, hi: float, rtol: float = 1e-12, pieces: int = 16
) -> float:
    """The integral of f over [lo, hi] by adaptive Gauss-Legendre quadrature.

    Panels whose halves disagree with the whole are halved again, all of them in one call of f,
    so jumps and integrable singularities cost tens of calls. f is never called at lo or hi.

    Args:
        f: float64 (N,) -> (N,), elementwise.
        rtol: error allowed in a panel, relative to the integral of |f|.
        pieces: equal panels to start with.

    Raises:
        UserError: not converged, since f is infinite or noisy.
    """
    edges = torch.linspace(lo, hi, pieces + 1, dtype=torch.float64)
    left, right = edges[:-1], edges[1:]
    whole, size = _panels(f, left, right)
    total, scale = 0.0, float(size.sum())
    for _ in range(64):
        middle = (left + right) / 2
        left, right = torch.stack([left, middle]), torch.stack([middle, right])
        halves, _ = _panels(f, left.flatten(), right.flatten())
        halves = halves.reshape(2, -1)
        error = (halves.sum(0) - whole).abs()
        split = ~(error <= rtol * scale)
        total += float(halves[:, ~split].sum())
        if not split.any():
            return total
        left, right = left[:, split].flatten(), right[:, split].flatten()
        whole = halves[:, split].flatten()
        if len(whole) > 10_000:
            break
    raise UserError(f"an integral over [{lo:g}, {hi:g}] has not converged to {rtol:g}")


def _panels(f: Callable[[Tensor], Tensor], left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """The integrals of f and |f| over each panel."""
    half = (right - left)[:, None] / 2
    points = (left + right)[:, None] / 2 + half * NODES
    weighted = f(points.flatten()).reshape(points.shape) * (half * WEIGHTS)
    return weighted.sum(1), weighted.abs().sum(1)
