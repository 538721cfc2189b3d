"""The Wasserstein-2 distance between laws, where it is closed: ground truth for estimators.

References:
    | On the Bures-Wasserstein distance (Bhatia et al., 2019) -- https://arxiv.org/abs/1712.01504
    | Computational Optimal Transport (Peyre & Cuturi, 2019), Rem. 2.30 (the line), 2.31 (Gaussians)
"""

from __future__ import annotations

import math
from collections import Counter
from functools import cache

import torch
from torch import Tensor

from monge.errors import UserError
from monge.paths import Path
from monge.targets.base import Target
from monge.targets.gaussian import Gaussian
from monge.targets.latent import LinearLatent
from monge.targets.noised import noised
from monge.targets.product import Product
from monge.targets.quadrature import integrate

FARTHEST = 10.0
"""Quantiles are integrated to this standard normal score; beyond lies 1e-21 of E z^2."""


def wasserstein2(a: Target, b: Target) -> float:
    """W2(a, b), in the units of the state.

    Closed between Gaussians and between laws on the line; hence between products whose blocks
    have equal dimensions, and between laws of the same subspace, where squares add up.

    Raises:
        UserError: no closed form for this pair, or the dimensions differ.

    >>> near = Gaussian(torch.zeros(2), torch.tensor(1.0))
    >>> far = Gaussian(torch.tensor([3.0, 4.0]), torch.tensor(1.0))
    >>> round(wasserstein2(near, far), 12)
    5.0
    """
    if a.dim != b.dim:
        raise UserError(f"no distance between dimensions {a.dim} and {b.dim}: {a!r}, {b!r}")
    if _is_gaussian(a) and _is_gaussian(b):
        return bures(a.mean, a.covariance, b.mean, b.covariance)
    blocks_a, blocks_b = _blocks(a), _blocks(b)
    if len(blocks_a) > 1 and [f.dim for f in blocks_a] == [f.dim for f in blocks_b]:
        pairs = Counter(zip(blocks_a, blocks_b, strict=True))
        return math.sqrt(sum(n * wasserstein2(f, g) ** 2 for (f, g), n in pairs.items()))
    if isinstance(a, LinearLatent) and isinstance(b, LinearLatent):
        if a.basis.shape == b.basis.shape and torch.equal(a.basis, b.basis):
            inside = wasserstein2(a.encoded, b.encoded)
            return math.hypot(inside, math.sqrt(a.rest) * (a.noise - b.noise))
    elif a.dim == 1:
        return between_quantiles(a, b)
    raise UserError(
        f"W2 between {a!r} and {b!r} has no closed form: it has between Gaussians, in "
        "dimension 1, between products of such laws and between laws of the same subspace; "
        "estimate it from samples instead"
    )


def early_stopping(target: Target, path: Path, t: float, divided: bool = False) -> float:
    """W2(p_t, p_1): what a flow loses that follows the exact field and stops at t < 1.

    Args:
        divided: for the law of x_t / alpha_t instead, the sampler's final division by alpha.

    Raises:
        UserError: no closed form, or alpha vanishes at t.

    >>> from monge.paths import Linear
    >>> round(early_stopping(Gaussian(torch.zeros(4), torch.tensor(0.0)), Linear(), 0.9), 12)
    0.2
    """
    alpha, sigma = (float(c) for c in path.scales(torch.tensor(t, dtype=torch.float64)))
    if alpha == 0:
        raise UserError(f"no data is in x_t at t = {t:g} under {path}: stop later")
    scale, std = (1.0, sigma / alpha) if divided else (alpha, sigma)
    if isinstance(target, LinearLatent) and not _is_gaussian(target):
        inside = wasserstein2(noised(target.encoded, scale, std), target.encoded)
        beside = math.hypot(scale * target.noise, std) - target.noise
        return math.hypot(inside, math.sqrt(target.rest) * beside)
    if _is_gaussian(target):
        target = Gaussian(target.mean, target.covariance)
    return wasserstein2(noised(target, scale, std), target)


def between_quantiles(a: Target, b: Target) -> float:
    """W2 of two laws on the line: the L2 distance of their quantile functions."""

    def gap(z: Tensor) -> Tensor:
        density = (-0.5 * z.square()).exp() / math.sqrt(2 * math.pi)
        return (a.quantile(z) - b.quantile(z)).square() * density

    return math.sqrt(integrate(gap, -FARTHEST, FARTHEST, rtol=1e-10, pieces=8))


def bures(mean_a: Tensor, covariance_a: Tensor, mean_b: Tensor, covariance_b: Tensor) -> float:
    """W2 between Gaussians; between other laws with these moments, Gelbrich's lower bound.

    tr A + tr B - 2 tr (A^1/2 B A^1/2)^1/2 is the least |A^1/2 - B^1/2 U|^2 over orthogonal U,
    which keeps its digits when A and B are close.

    Args:
        mean_a, mean_b: (D,).
        covariance_a, covariance_b: (D, D), symmetric and positive semi-definite.
    """
    root_a, root_b = _root(covariance_a), _root(covariance_b)
    left, _, right = torch.linalg.svd(root_b @ root_a)
    apart = (root_a - root_b @ (left @ right)).square().sum()
    return math.sqrt(float((mean_a - mean_b).square().sum() + apart))


def _is_gaussian(target: Target) -> bool:
    """Whether mean and covariance are the whole law, as far as its type tells."""
    if isinstance(target, LinearLatent):
        return _is_gaussian(target.latent)
    if isinstance(target, Product):
        return all(_is_gaussian(factor) for factor, _ in target.groups)
    return isinstance(target, Gaussian)


def _blocks(target: Target) -> list[Target]:
    """Independent blocks of coordinates, in order: equal ones the same object where it can be."""
    if isinstance(target, Product):
        parts = {factor: _blocks(factor) for factor, _ in target.groups}
        return [part for factor in target.factors for part in parts[factor]]
    if isinstance(target, Gaussian) and bool(
        (target.covariance == target.covariance.diagonal().diag()).all()
    ):
        moments = zip(target.mean.tolist(), target.covariance.diagonal().tolist(), strict=True)
        alone = cache(
            lambda m, v: Gaussian(
                torch.tensor([m], dtype=torch.float64), torch.tensor(v, dtype=torch.float64)
            )
        )
        return [alone(m, v) for m, v in moments]
    return [target]


def _root(covariance: Tensor) -> Tensor:
    """The symmetric square root."""
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T
