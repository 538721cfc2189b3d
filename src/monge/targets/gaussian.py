r"""Gaussian laws: everything closed, under any path.

With :math:`x_1 \sim N(m, C)`, :math:`C = Q \mathrm{diag}(l) Q^T`, each eigendirection moves by
itself: its variance at t is :math:`s_t^2 = \alpha_t^2 l + \sigma_t^2`, the flow scales it by
:math:`s_t / s_s`, and the velocity of the path keeps the variance
:math:`W_t^2 l / s_t^2`, :math:`W = \alpha\dot\sigma - \sigma\dot\alpha`, given x_t.

References:
    | Flow map matching (Boffi et al., 2024) -- https://arxiv.org/abs/2406.07507
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from monge.fields import check_time
from monge.paths import Path
from monge.targets.base import (
    ExactField,
    JacobianRange,
    Target,
    TargetSpec,
    at_least_float32,
    require,
    scales,
)
from monge.targets.mixture import GaussianMixture, MixtureMarginals
from monge.targets.quadrature import integrate
from monge.tensors import stream, value_and_rate
from monge.types import Cond, State, Time


class Gaussian(Target):
    """The law N(mean, covariance).

    Args:
        mean: (D,).
        covariance: one variance (), a variance for each coordinate (D,), or any covariance
            (D, D), singular ones too.

    Raises:
        UserError: shapes disagree, or it is not a covariance.
    """

    def __init__(self, mean: Tensor, covariance: Tensor) -> None:
        covariance = torch.as_tensor(covariance, dtype=torch.float64)
        mean = torch.as_tensor(mean, dtype=torch.float64)
        require(mean.ndim == 1, "gaussian", f"mean must be (D,), not {tuple(mean.shape)}")
        if covariance.ndim == 1:
            covariance = covariance.diag()
        self.mixture = GaussianMixture(mean[None], covariance)

    def __repr__(self) -> str:
        return f"Gaussian(dim={self.dim})"

    @property
    def dim(self) -> int:
        return self.mixture.dim

    @property
    def n_classes(self) -> None:
        return None

    @property
    def smooth(self) -> bool:
        return self.mixture.smooth

    @property
    def mean(self) -> Tensor:
        return self.mixture.means[0]

    @property
    def covariance(self) -> Tensor:
        return self.mixture.covariance

    @property
    def eigenvalues(self) -> Tensor:
        """The eigenvalues of the covariance, (D,)."""
        return self.mixture.spectrum.variances[0].expand(self.dim)

    def sample_labelled(self, n: int, rng: torch.Generator) -> tuple[Tensor, None]:
        return self.mixture.sample_labelled(n, rng)[0], None

    def at(self, path: Path) -> MixtureMarginals:
        return self.mixture.at(path)

    def flow_map(self, path: Path) -> GaussianMap:
        return GaussianMap(self, path)

    def quantile(self, z: Tensor) -> Tensor:
        if self.dim != 1:
            return super().quantile(z)
        spectrum = self.mixture.spectrum_like(z)
        return spectrum.means[0, 0] + spectrum.variances[0, 0].sqrt() * z

    def jacobian_range(self, path: Path, t: float) -> JacobianRange:
        """Exact."""
        return self.mixture.jacobian_range(path, t)

    def minimal_loss(self, path: Path, interval: tuple[float, float] = (0.0, 1.0)) -> float:
        """The linear path gives (pi/2) tr C^(1/2)."""
        lo, hi = interval
        require(0 <= lo < hi <= 1, self, f"an interval of times must lie in [0, 1], not {interval}")

        def rate(t: Tensor) -> Tensor:
            (alpha, sigma), (d_alpha, d_sigma) = value_and_rate(path.scales, t)
            wronskian = alpha * d_sigma - sigma * d_alpha
            left = self.eigenvalues / (
                torch.outer(alpha**2, self.eigenvalues) + sigma[:, None] ** 2
            )
            return wronskian**2 * left.sum(1)

        if hi < 1 or path.rates_are_finite:
            return integrate(rate, lo, hi)
        if not path.velocity_variance_is_finite:
            return math.inf
        return _integrate_to_data(rate, lo)


def _integrate_to_data(rate: Callable[[Tensor], Tensor], lo: float) -> float:
    """The integral over [lo, 1] of a rate that grows like a power of 1 / (1 - t), below 1.

    In y = -log(1 - t) it decays exponentially; what lies beyond y = 18 is the tail of that,
    good to 1e-6 of the whole at the slowest decays, where the tail is a sixth of it.
    """

    def per_y(y: Tensor) -> Tensor:
        t = -torch.expm1(-y)
        return rate(t) * (1 - t)  # 1 - t as rounded, at which the rate was taken

    end = torch.tensor([17.0, 18.0], dtype=torch.float64)
    before, last = per_y(end).tolist()
    left = (torch.expm1(-end) + 1).log()
    decay = math.log(before / last) / float(left[0] - left[1])
    body = integrate(per_y, -math.log1p(-lo), 18.0, rtol=1e-9)
    return body + last / decay


@dataclass(frozen=True)
class GaussianMap:
    r"""The flow map of a Gaussian: :math:`x \mapsto m_t + Q\,\mathrm{diag}(s_t/s_s)\,Q^T(x - m_s)`.

    Conditions are ignored: a Gaussian has one part.
    """

    target: Gaussian
    path: Path

    @cached_property
    def domain(self) -> tuple[float, float]:
        return self.target.field(self.path).domain

    @property
    def tangent(self) -> ExactField:
        return self.target.field(self.path)

    def __call__(self, x: State, s: Time, t: Time, cond: Cond = None) -> State:
        check_time(s, self.domain, self)
        check_time(t, self.domain, self)
        y = at_least_float32(x)
        spectrum = self.target.mixture.spectrum_like(y)
        (alpha_s, std_s), (alpha_t, std_t) = self._scales(y, s), self._scales(y, t)
        rotated = spectrum.rotate(y)[:, 0]
        moved = (rotated - alpha_s * spectrum.centres) * (std_t / std_s)
        return ((moved + alpha_t * spectrum.centres) @ spectrum.basis[0]).to(x.dtype)

    def _scales(self, x: State, t: Time) -> tuple[Tensor, Tensor]:
        """alpha_t, and the standard deviation of each eigendirection, (B or 1, D or 1)."""
        alpha, sigma = (c.reshape(-1, 1) for c in scales(self.path, t, x))
        return alpha, (alpha**2 * self.target.mixture.spectrum_like(x).variances + sigma**2).sqrt()


@dataclass(frozen=True, repr=False)
class GaussianSpec(TargetSpec):
    """A random Gaussian: N(0, shift^2 I) draws its mean, a random rotation its axes.

    Attributes:
        dim: dimension.
        std: the geometric mean of its standard deviations.
        condition: the condition number of its covariance; variances are log-spaced.
        shift: the standard deviation of each coordinate of its mean.
        seed: of mean and axes.
    """

    dim: int = 2
    std: float = 1.0
    condition: float = 10.0
    shift: float = 1.0
    seed: int = 0

    name = "gaussian"

    def __post_init__(self) -> None:
        require(self.dim >= 1, self, "dim must be at least 1")
        require(self.std >= 0 and self.shift >= 0, self, "std and shift must not be negative")
        require(self.condition >= 1, self, "condition must be at least 1")

    def build(self) -> Gaussian:
        draws = torch.randn(
            self.dim + 1, self.dim, generator=stream(self.seed, "gaussian"), dtype=torch.float64
        )
        half = math.log(self.condition) / 2 if self.dim > 1 else 0.0
        variances = self.std**2 * torch.linspace(-half, half, self.dim, dtype=torch.float64).exp()
        axes, _ = torch.linalg.qr(draws[1:])
        return Gaussian(self.shift * draws[0], axes @ (variances[:, None] * axes.T))
