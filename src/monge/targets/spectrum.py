"""Gaussian mixtures diagonalised: each covariance once, at construction, and never inverted."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from monge.errors import UserError
from monge.targets.base import require


class Spectrum(NamedTuple):
    """A mixture in the eigenbases of its covariances, C_k = basis_k^T diag(variances_k) basis_k.

    Components may share a basis, and the variances of each may all be equal.
    """

    log_weights: Tensor  # (K,)
    means: Tensor  # (K, D)
    centres: Tensor  # (K, D): basis_k m_k
    variances: Tensor  # (K or 1, D or 1)
    basis: Tensor  # (K or 1, D, D): rows are eigenvectors

    def rotate(self, x: Tensor) -> Tensor:
        """(B, D) -> (B, K or 1, D): x in each basis."""
        rotated = x @ self.basis.flatten(0, 1).T
        return rotated.unflatten(1, (len(self.basis), -1))

    def back(self, y: Tensor) -> Tensor:
        """(B, K, D) -> (B, D): each in its basis, rotated back and summed over K."""
        y = y.sum(1) if len(self.basis) == 1 else y.flatten(1)
        return y @ self.basis.flatten(0, 1)

    def back_each(self, y: Tensor) -> Tensor:
        """(B, K, D) -> (B, K, D): each in its basis, rotated back."""
        return torch.einsum("bkj,kji->bki", y, self.basis)

    def log_prior(self, label: Tensor | None) -> Tensor:
        """log w_k, (K,); or (B, K) where labels (B,) select components, -1 all of them.

        Raises:
            UserError: a label that no component has.
        """
        if label is None:
            return self.log_weights
        modes = len(self.log_weights)
        if label.numel() and int(label.max()) >= modes:
            raise UserError(f"label {int(label.max())} of a mixture with labels 0 to {modes - 1}")
        index = torch.arange(modes, device=label.device)
        alone = torch.where(label[:, None] == index, 0.0, -math.inf).to(self.log_weights)
        return torch.where(label[:, None] < 0, self.log_weights, alone)


def diagonalise(means: Tensor, covariances: Tensor, weights: Tensor, what: object) -> Spectrum:
    """The spectrum of a mixture; one basis where covariances are shared or all diagonal.

    Eigenvalues within rounding of zero become zero.

    Args:
        means: (K, D).
        covariances: (), (K,), (D, D) or (K, D, D).
        weights: (K,), summing to 1.
        what: named in errors.

    Raises:
        UserError: not symmetric, or with a negative eigenvalue.
    """
    dim, c = means.shape[1], covariances
    basis, rounding = torch.eye(dim, dtype=c.dtype)[None], torch.zeros(())
    if c.ndim < 2:
        variances = c.reshape(-1, 1)
    else:
        c = c.reshape(-1, dim, dim)
        scale = c.abs().amax((-2, -1))
        skew = (c - c.mT).abs().amax((-2, -1)) > 1e-8 * scale
        require(not bool(skew.any()), what, "covariances must be symmetric")
        variances = c.diagonal(dim1=-2, dim2=-1)
        if not torch.equal(torch.diag_embed(variances), c):
            variances, vectors = torch.linalg.eigh(c)
            basis = vectors.mT.contiguous()
            rounding = 1e-14 * dim * scale[:, None]
    require(
        bool((variances >= -rounding).all()),
        what,
        f"covariances must have no negative eigenvalue; the least is {float(variances.min()):.3g}",
    )
    variances = torch.where(variances <= rounding, 0.0, variances)
    centres = (basis @ means[:, :, None])[..., 0]
    return Spectrum(weights.log(), means, centres, variances, basis)
