"""A known law in other units: the law of (x - shift) / scale."""

from __future__ import annotations

import torch
from torch import Tensor

from monge.targets.base import Target
from monge.targets.gaussian import Gaussian
from monge.targets.mixture import GaussianMixture


def rescaled(target: Target, shift: Tensor, scale: Tensor) -> Target | None:
    """The law of (x - shift) / scale, coordinatewise, with exact ground truth; None where the
    family of the target is not closed under it.

    Args:
        shift, scale: (D,), scale positive.

    >>> wide = Gaussian(torch.tensor([1.0, 2.0]), torch.tensor([4.0, 9.0]))
    >>> rescaled(wide, torch.tensor([1.0, 0.0]), torch.tensor([2.0, 3.0])).covariance.diag()
    tensor([1., 1.], dtype=torch.float64)
    """
    shift, scale = (v.to("cpu", torch.float64).reshape(-1) for v in (shift, scale))
    if bool((shift == 0).all()) and bool((scale == 1).all()):
        return target
    if isinstance(target, Gaussian):
        around = target.covariance / scale[:, None] / scale
        return Gaussian((target.mean - shift) / scale, around)
    if isinstance(target, GaussianMixture):
        covariances = target.covariances
        if covariances.ndim < 2:  # one variance for all, or for each component
            covariances = covariances.expand(target.n_classes)[:, None, None]
            covariances = covariances * torch.eye(target.dim, dtype=torch.float64)
        return GaussianMixture(
            (target.means - shift) / scale, covariances / scale[:, None] / scale, target.weights
        )
    return None
