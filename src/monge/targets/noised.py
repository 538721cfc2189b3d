r"""A law with independent Gaussian noise: smoothed, or at the time where a flow stops early.

With :math:`y = c z + s \xi`, :math:`x_t = \alpha y + \sigma x_0` is :math:`\alpha c z` plus noise
of variance :math:`\sigma^2 + \alpha^2 s^2`: a marginal of z along another affine path. Density,
score and velocity are those of that path, and :math:`E[\xi | x_t] = -\alpha s \nabla \log p_t`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from monge.paths import Linear, Path
from monge.targets.base import JacobianRange, Label, Marginals, Target, require, scales
from monge.targets.gaussian import Gaussian
from monge.targets.line import QuantileMap, marginal_quantile
from monge.targets.minimal_loss import minimal_loss_on_the_line
from monge.targets.mixture import GaussianMixture
from monge.targets.product import Product
from monge.tensors import expand, value_and_rate
from monge.types import FlowMap, PerExample, State, Time


def noised(target: Target, scale: float, std: float) -> Target:
    r"""The law of scale z + std xi, z with the law of the target, xi ~ N(0, I).

    With the scales of a path at T it is the law at T: that of a flow stopped early, the kernel
    density of a data set. With (1, sigma/alpha) it is the same divided by alpha.

    Args:
        scale: above 0.
        std: at least 0.

    >>> noised(Gaussian(torch.ones(1), torch.tensor(9.0)), 1.0, 4.0).covariance
    tensor([[25.]], dtype=torch.float64)
    """
    require(scale > 0 and std >= 0, target, "noise needs a scale above 0 and a std of at least 0")
    if scale == 1 and std == 0:
        return target
    if isinstance(target, Gaussian):
        own = std**2 * torch.eye(target.dim, dtype=torch.float64)
        return Gaussian(scale * target.mean, scale**2 * target.covariance + own)
    if isinstance(target, GaussianMixture):
        own = torch.tensor(std**2, dtype=torch.float64)
        if target.covariances.ndim >= 2:
            own = own * torch.eye(target.dim, dtype=torch.float64)
        covariances = scale**2 * target.covariances + own
        return GaussianMixture(scale * target.means, covariances, target.weights)
    if isinstance(target, Product):
        each = {factor: noised(factor, scale, std) for factor, _ in target.groups}
        return Product([each[factor] for factor in target.factors])
    return Noised(target, scale, std)


@dataclass(frozen=True, repr=False)
class Blurred(Path):
    """The path of c z when scale c z + std xi, noise included, moves along a path."""

    path: Path
    scale: float
    std: float

    name = "blurred"

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = self.path.scales(t)
        return self.scale * alpha, (sigma.square() + (self.std * alpha).square()).sqrt()

    def noise_rate(self, t: Tensor) -> Tensor:
        (alpha, _), (d_alpha, _) = value_and_rate(self.path.scales, t)
        return self.path.noise_rate(t) + self.std**2 * alpha * d_alpha


class Noised(Target):
    """The law of scale z + std xi; `noised` gives a simpler target where there is one."""

    def __init__(self, base: Target, scale: float, std: float) -> None:
        self.base, self.scale, self.std = base, scale, std

    def __repr__(self) -> str:
        return f"Noised({self.base!r}, scale={self.scale:g}, std={self.std:g})"

    @property
    def dim(self) -> int:
        return self.base.dim

    @property
    def n_classes(self) -> int | None:
        return self.base.n_classes

    @property
    def smooth(self) -> bool:
        return self.std > 0 or self.base.smooth

    @property
    def mean(self) -> Tensor:
        return self.scale * self.base.mean

    @property
    def covariance(self) -> Tensor:
        own = self.std**2 * torch.eye(self.dim, dtype=torch.float64)
        return self.scale**2 * self.base.covariance + own

    def sample_labelled(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor | None]:
        z, label = self.base.sample_labelled(n, rng)
        noise = torch.randn(z.shape, dtype=z.dtype, device=z.device, generator=rng)
        return self.scale * z + self.std * noise, label

    def at(self, path: Path) -> NoisedMarginals:
        return NoisedMarginals(self, path)

    def flow_map(self, path: Path) -> FlowMap:
        """In one dimension, the map between equal quantiles."""
        return QuantileMap(self, path) if self.dim == 1 else super().flow_map(path)

    def quantile(self, z: Tensor) -> Tensor:
        if self.dim != 1:
            return super().quantile(z)
        return marginal_quantile(self, Linear(), z.reshape(-1, 1), 1.0).reshape(z.shape)

    def minimal_loss(self, path: Path, interval: tuple[float, float] = (0.0, 1.0)) -> float:
        """In one dimension, by quadrature."""
        if self.dim != 1:
            return super().minimal_loss(path, interval)
        return minimal_loss_on_the_line(self, path, interval)

    def jacobian_range(self, path: Path, t: float) -> JacobianRange:
        return self.base.jacobian_range(Blurred(path, self.scale, self.std), t)


@dataclass(frozen=True)
class NoisedMarginals(Marginals):
    """The laws of a noised target: those of its base along the blurred path."""

    target: Noised
    path: Path

    @property
    def _base(self) -> Marginals:
        return self.target.base.at(Blurred(self.path, self.target.scale, self.target.std))

    def log_density(self, x: State, t: Time, label: Label = None) -> PerExample:
        return self._base.log_density(x, t, label)

    def moments(self, x: State, t: Time, label: Label = None) -> tuple[State, State]:
        score, z = self._base.moments(x, t, label)
        alpha, _ = scales(self.path, t, x)
        noise = -self.target.std * expand(alpha, x) * score
        return score, self.target.scale * z + self.target.std * noise

    def jacobian(self, x: State, t: Time, label: Label = None) -> Tensor:
        return self._base.jacobian(x, t, label)

    def divergence(self, x: State, t: Time, label: Label = None) -> PerExample:
        return self._base.divergence(x, t, label)

    def log_tail(self, x: State, left: Tensor, t: Time, label: Label = None) -> Tensor:
        return self._base.log_tail(x, left, t, label)

    def bracket(self, z: Tensor, t: Time, label: Label = None) -> tuple[Tensor, Tensor]:
        return self._base.bracket(z, t, label)
