r"""Interpolation paths: how a source sample becomes a data sample.

A path joins :math:`x_0 \sim N(0, I)` (source, t = 0) to :math:`x_1 \sim p_1` (data, t = 1) by

.. math:: x_t = \alpha_t x_1 + \sigma_t x_0, \qquad
    v_t = \dot\alpha_t x_1 + \dot\sigma_t x_0 .

Read as a 2 x 2 system, :math:`(x_t, v_t)` determines :math:`(x_0, x_1)`. That inversion is every
change of parametrization there is; `to_velocity` writes it out for each output, in forms that
stay finite where the velocity itself does.

References:
    | Stochastic Interpolants (Albergo et al., 2023), Sec. 2 -- https://arxiv.org/abs/2303.08797
    | Score-based SDEs (Song et al., 2021), App. C -- https://arxiv.org/abs/2011.13456
    | Minimax flow matching (Fukumizu et al., 2024), Sec. 3 -- https://arxiv.org/abs/2405.20879
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from monge.components import Component
from monge.errors import UserError
from monge.tensors import as_time, expand, value_and_rate
from monge.types import State, Time

__all__ = [
    "Linear",
    "LinearBeta",
    "OrnsteinUhlenbeck",
    "Path",
    "Power",
    "Trigonometric",
    "VariancePreserving",
]

Kind = Literal["velocity", "data", "noise", "score"]
"""What a network may output: v, E[x1 | x_t], E[x0 | x_t] or grad log p_t."""

MARGIN = 1e-3
"""How far a domain stays from an end of [0, 1] where something is infinite or undetermined."""


class Path(Component, abc.ABC):
    """An affine path. A subclass writes its two scales; everything else is derived.

    Where a rate is infinite at t = 1, the subclass also writes the product that stays finite,
    `noise_rate`, and says so in `rates_are_finite` and `velocity_variance_is_finite`.
    """

    rates_are_finite: bool = True
    """Whether both rates are finite on all of [0, 1]."""

    velocity_variance_is_finite: bool = True
    """Whether the velocity target has a finite second moment, averaged over t in [0, 1]."""

    @abc.abstractmethod
    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        r"""The data scale :math:`\alpha_t` and the source scale :math:`\sigma_t`, elementwise."""

    def noise_rate(self, t: Tensor) -> Tensor:
        r""":math:`\sigma_t \dot\sigma_t`, half the rate of the source variance."""
        (_, sigma), (_, d_sigma) = value_and_rate(self.scales, t)
        return sigma * d_sigma

    @final
    @property
    def domain(self) -> tuple[float, float]:
        """Times at which `interpolate` has a finite velocity."""
        return (0.0, 1.0) if self.rates_are_finite else (0.0, 1.0 - MARGIN)

    @final
    @property
    def source_gap(self) -> float:
        r""":math:`\alpha_0`: how much data is left at the source; 0 means p_0 = N(0, I)."""
        return float(self.scales(torch.zeros((), dtype=torch.float64))[0])

    @final
    def interpolate(self, x0: State, x1: State, t: Time) -> tuple[State, State]:
        """The state x_t and its velocity on the way from x0 to x1."""
        alpha, sigma, d_alpha, d_sigma = self.coefficients(t, x1)
        return alpha * x1 + sigma * x0, d_alpha * x1 + d_sigma * x0

    @final
    def endpoints(self, x: State, v: State, t: Time) -> tuple[State, State]:
        """The (x0, x1) whose path passes x with velocity v at t: inverts `interpolate`.

        Linear in (x, v), so a marginal velocity yields E[x0 | x_t] and E[x1 | x_t].
        """
        alpha, sigma, d_alpha, d_sigma = self.coefficients(t, x)
        wronskian = alpha * d_sigma - sigma * d_alpha  # linear: -1, trigonometric: -pi/2
        return (alpha * v - d_alpha * x) / wronskian, (d_sigma * x - sigma * v) / wronskian

    @final
    def coefficients(self, t: Time, x: State) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        r""":math:`\alpha_t, \sigma_t, \dot\alpha_t, \dot\sigma_t`, shaped to multiply x."""
        (alpha, sigma), (d_alpha, d_sigma) = value_and_rate(self.scales, as_time(t, x))
        return expand(alpha, x), expand(sigma, x), expand(d_alpha, x), expand(d_sigma, x)

    @final
    def output_domain(self, kind: Kind) -> tuple[float, float]:
        """Times at which a network's output of this kind determines the velocity.

        Data is 0/0 at t = 1. Noise and score say nothing of the data at t = 0 when alpha_0 = 0.
        Infinite rates exclude t = 1, except for the score where sigma sigma' is finite.
        """
        lo, hi = self.domain
        if kind in ("noise", "score") and self.source_gap == 0:
            lo = MARGIN
        if kind == "data":
            hi = min(hi, 1 - MARGIN)
        if kind == "score" and math.isfinite(self.noise_rate(torch.ones((), dtype=torch.float64))):
            hi = 1.0
        return lo, hi

    @final
    def to_velocity(self, kind: Kind, output: State, x: State, t: Time) -> State:
        """The velocity at (x, t) that a network's output of this kind stands for."""
        if kind == "velocity":
            return output
        alpha, sigma, d_alpha, d_sigma = self.coefficients(t, x)
        if kind == "data":
            return d_alpha * output + d_sigma / sigma * (x - alpha * output)
        if kind == "noise":
            return d_alpha / alpha * (x - sigma * output) + d_sigma * output
        if kind == "score":
            noise_rate = expand(self.noise_rate(as_time(t, x)), x)
            return d_alpha / alpha * (x + sigma**2 * output) - noise_rate * output
        raise UserError(f"unknown output {kind!r}: known: velocity, data, noise, score")

    @final
    def error_ratio(self, place: Kind, output: Kind, t: Tensor) -> Tensor:
        """How an error of the output is magnified when it is measured in another place.

        Given x_t all kinds are affine in each other, so the ratio depends on t alone:
        an error e of the noise is -e/sigma of the score, -e sigma/alpha of the data and
        e W/alpha of the velocity, W = alpha sigma' - sigma alpha'.
        """

        def per_noise(kind: Kind) -> Tensor:
            # All times alpha, which cancels: at t = 0 it may vanish.
            (alpha, sigma), (d_alpha, d_sigma) = value_and_rate(self.scales, t)
            return {
                "noise": alpha,
                "score": -alpha / sigma,
                "data": -sigma,
                "velocity": alpha * d_sigma - sigma * d_alpha,
            }[kind]

        return torch.ones_like(t) if place == output else per_noise(place) / per_noise(output)


@dataclass(frozen=True, repr=False)
class Linear(Path):
    """The straight path of rectified flows: alpha = t, sigma = 1 - t."""

    name = "linear"

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return t, 1 - t


@dataclass(frozen=True, repr=False)
class Trigonometric(Path):
    """The variance-preserving quarter circle (GVP): alpha = sin(pi t/2), sigma = cos(pi t/2)."""

    name = "trigonometric"

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        # cos(pi t/2) as a sine of the remaining time: exactly 0 at t = 1.
        return torch.sin(math.pi / 2 * t), torch.sin(math.pi / 2 * (1 - t))


class VariancePreserving(Path):
    r"""A diffusion run backwards: :math:`\sigma^2 = 1 - \alpha^2`. A subclass writes log alpha.

    The source scale has an infinite rate at t = 1, and alpha_0 > 0 leaves a source gap.
    """

    rates_are_finite = False
    velocity_variance_is_finite = False

    @abc.abstractmethod
    def log_alpha(self, t: Tensor) -> Tensor: ...

    @final
    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        log_alpha = self.log_alpha(t)
        return log_alpha.exp(), (-torch.expm1(2 * log_alpha)).sqrt()

    @final
    def noise_rate(self, t: Tensor) -> Tensor:
        (log_alpha,), (rate,) = value_and_rate(lambda u: (self.log_alpha(u),), t)
        return -rate * (2 * log_alpha).exp()


@dataclass(frozen=True, repr=False)
class OrnsteinUhlenbeck(VariancePreserving):
    """The OU process dX = -X dr + sqrt(2) dW over the horizon, backwards: alpha = e^{-S(1-t)}."""

    horizon: float = 8.0

    name = "ou"

    def __post_init__(self) -> None:
        if not self.horizon > 0:
            raise UserError(f"path ou: horizon must be positive, not {self.horizon}")

    def log_alpha(self, t: Tensor) -> Tensor:
        return -self.horizon * (1 - t)


@dataclass(frozen=True, repr=False)
class LinearBeta(VariancePreserving):
    """DDPM's schedule in continuous time: beta runs linearly from b0 (data) to b1 (source)."""

    b0: float = 0.1
    b1: float = 20.0

    name = "linear_beta"

    def __post_init__(self) -> None:
        if not (self.b0 > 0 and self.b1 > 0):
            raise UserError(f"path linear_beta: b0 and b1 must be positive, not {self}")

    def log_alpha(self, t: Tensor) -> Tensor:
        r = 1 - t
        return -0.5 * (self.b0 * r + (self.b1 - self.b0) * r**2 / 2)


@dataclass(frozen=True, repr=False)
class Power(Path):
    """Fukumizu et al.'s family: alpha = t, sigma = (1 - t)^kappa, kappa >= 1/2.

    kappa < 1 has an infinite rate at t = 1; kappa > 1 has a Wronskian that vanishes there.
    """

    kappa: float = 0.5

    name = "power"

    def __post_init__(self) -> None:
        if not self.kappa >= 0.5:
            raise UserError(
                f"path power: kappa must be at least 0.5 (the velocity's energy is infinite "
                f"below), not {self.kappa}"
            )

    @property
    def rates_are_finite(self) -> bool:  # type: ignore[override]
        return self.kappa >= 1

    @property
    def velocity_variance_is_finite(self) -> bool:  # type: ignore[override]
        return self.kappa > 0.5

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return t, (1 - t) ** self.kappa

    def noise_rate(self, t: Tensor) -> Tensor:
        return -self.kappa * (1 - t) ** (2 * self.kappa - 1)


def __dir__() -> list[str]:
    return __all__
