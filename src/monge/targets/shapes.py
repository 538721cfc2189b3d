r"""The laws in the plane that pictures of flows are made of, each with its exact field.

Moons, spirals and rings are curves with Gaussian noise, whose law is an integral of Gaussians
along the curve. Points at equal distances h on the curve, at most `SPACING` standard deviations
apart, replace the integral: away from the ends of a curve the density then differs from that of
the integral by a part of :math:`2 \exp(-2 \pi^2 / \mathrm{SPACING}^2)`, below 1e-13. The law with
these points is the target, so that its field is exact and not an approximation. The checkerboard
is a blend of uniform laws on its squares.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from monge.targets.base import Target, TargetSpec, require
from monge.targets.blend import Blend
from monge.targets.densities import Uniform
from monge.targets.mixture import GaussianMixture
from monge.targets.product import Product

SPACING = 0.8
"""Distance of the points on a curve, in standard deviations of its noise, at most."""

FINE = 60_000
"""Pieces by which the length of a curve is measured."""

Curve = Callable[[Tensor], Tensor]
"""Parameters (n,) in [0, 1] to points (n, 2), float64."""


def along(curve: Curve, noise: float) -> GaussianMixture:
    """Gaussian noise around a curve, uniform in its length.

    Args:
        noise: its standard deviation in each coordinate.
    """
    u = torch.linspace(0, 1, FINE + 1, dtype=torch.float64)
    length = (curve(u[1:]) - curve(u[:-1])).norm(dim=1).cumsum(0)
    total = float(length[-1])
    n = max(math.ceil(total / (SPACING * noise)), 1)
    middles = (torch.arange(n, dtype=torch.float64) + 0.5) * (total / n)
    piece = torch.searchsorted(length, middles).clamp_max(FINE - 1)
    before = torch.cat([length.new_zeros(1), length])[piece]
    share = (middles - before) / (length[piece] - before)
    return GaussianMixture(curve((piece + share) / FINE), _number(noise**2))


def _number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def arc(centre: tuple[float, float], radius: float, start: float, stop: float) -> Curve:
    """A piece of a circle, angles in radians."""

    def curve(u: Tensor) -> Tensor:
        angle = start + (stop - start) * u
        points = torch.stack([angle.cos(), angle.sin()], 1)
        return torch.tensor(centre, dtype=u.dtype) + radius * points

    return curve


@dataclass(frozen=True, repr=False)
class MoonsSpec(TargetSpec):
    """Two half circles that interlock, as scikit-learn's ``make_moons`` has them.

    Attributes:
        noise: standard deviation around the curves.
    """

    noise: float = 0.1

    name = "moons"

    def __post_init__(self) -> None:
        _require_noise(self.noise, self)

    def build(self) -> Target:
        upper = arc((0.0, 0.0), 1.0, 0.0, math.pi)
        lower = arc((1.0, 0.5), 1.0, math.pi, 2 * math.pi)
        return Blend([along(upper, self.noise), along(lower, self.noise)])


@dataclass(frozen=True, repr=False)
class SpiralsSpec(TargetSpec):
    """Arms of a spiral, whose radius grows with the angle.

    Attributes:
        arms: how many; a label is an arm.
        turns: of each arm.
        radius: of its end.
        noise: standard deviation around the curves.
    """

    arms: int = 2
    turns: float = 1.5
    radius: float = 3.0
    noise: float = 0.1

    name = "spirals"

    def __post_init__(self) -> None:
        require(1 <= self.arms <= 16, self, "arms must be 1 to 16")
        require(0 < self.turns <= 8, self, "turns must be above 0 and at most 8")
        require(0 < self.radius < math.inf, self, "radius must be positive")
        _require_noise(self.noise / self.radius, self)

    def build(self) -> Target:
        def curve(arm: int) -> Curve:
            def points(u: Tensor) -> Tensor:
                r = 0.1 + 0.9 * u
                angle = 2 * math.pi * (self.turns * u + arm / self.arms)
                return self.radius * r[:, None] * torch.stack([angle.cos(), angle.sin()], 1)

            return points

        return Blend([along(curve(k), self.noise) for k in range(self.arms)])


@dataclass(frozen=True, repr=False)
class RingsSpec(TargetSpec):
    """Circles around the origin, of equal mass.

    Attributes:
        rings: how many, of radii 1, 2, ...; a label is a ring.
        noise: standard deviation around the circles.
    """

    rings: int = 3
    noise: float = 0.1

    name = "rings"

    def __post_init__(self) -> None:
        require(1 <= self.rings <= 16, self, "rings must be 1 to 16")
        _require_noise(self.noise, self)

    def build(self) -> Target:
        circles = (arc((0.0, 0.0), k + 1.0, 0.0, 2 * math.pi) for k in range(self.rings))
        return Blend([along(circle, self.noise) for circle in circles])


@dataclass(frozen=True, repr=False)
class EightGaussiansSpec(TargetSpec):
    """Eight Gaussians on a circle; a label is a Gaussian.

    Attributes:
        radius: of the circle.
        std: standard deviation of a Gaussian.
    """

    radius: float = 4.0
    std: float = 0.3

    name = "8gaussians"

    def __post_init__(self) -> None:
        require(0 < self.radius < math.inf, self, "radius must be positive")
        require(0 < self.std < math.inf, self, "std must be positive")

    def build(self) -> GaussianMixture:
        angle = torch.arange(8, dtype=torch.float64) * (math.pi / 4)
        means = self.radius * torch.stack([angle.cos(), angle.sin()], 1)
        return GaussianMixture(means, _number(self.std**2))


@dataclass(frozen=True, repr=False)
class CheckerboardSpec(TargetSpec):
    """The uniform law on every other square of a board around the origin; it has no labels.

    Attributes:
        cells: squares along each side.
        half: half the width of the board.
    """

    cells: int = 4
    half: float = 4.0

    name = "checkerboard"

    def __post_init__(self) -> None:
        require(2 <= self.cells <= 16, self, "cells must be 2 to 16")
        require(0 < self.half < math.inf, self, "half must be positive")

    def build(self) -> Blend:
        width = 2 * self.half / self.cells
        sides = [
            Uniform(-self.half + k * width, -self.half + (k + 1) * width) for k in range(self.cells)
        ]
        squares = [
            Product([sides[i], sides[j]])
            for i in range(self.cells)
            for j in range(self.cells)
            if (i + j) % 2 == 0
        ]
        return Blend(squares, labelled=False)


def _require_noise(noise: float, what: object) -> None:
    require(0.01 <= noise < math.inf, what, "noise must be at least 0.01 of the shape's size")
