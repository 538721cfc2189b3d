r"""Times: the law of training times, and the grids that samplers walk.

A grid is absolute: its points lie at fixed places of [0, 1], and the walk from s to t is s, the
points strictly between, t. Two walks that meet at a grid point therefore compose exactly, and
the way back visits the same points.

References:
    | Logit-normal times (Esser et al., 2024), Sec. 3.1 -- https://arxiv.org/abs/2403.03206
    | Shifted grids (Esser et al., 2024), Sec. 5.3.2 -- ibid.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from monge.components import Component
from monge.errors import UserError

__all__ = [
    "Geometric",
    "Grid",
    "LogitNormalTimes",
    "Shifted",
    "TimeLaw",
    "Uniform",
    "UniformTimes",
]


class TimeLaw(Component, abc.ABC):
    """The law of the training time, on the domain of what is trained."""

    @abc.abstractmethod
    def unit(self, n: int, rng: torch.Generator) -> Tensor:
        """n times in [0, 1], float32."""

    @final
    def draw(self, n: int, domain: tuple[float, float], rng: torch.Generator) -> Tensor:
        """n times in the domain, (n,) float32 on CPU."""
        lo, hi = domain
        return (lo + (hi - lo) * self.unit(n, rng)).clamp(lo, hi)


@dataclass(frozen=True, repr=False)
class UniformTimes(TimeLaw):
    """t uniform."""

    name = "uniform"

    def unit(self, n: int, rng: torch.Generator) -> Tensor:
        return torch.rand(n, generator=rng)


@dataclass(frozen=True, repr=False)
class LogitNormalTimes(TimeLaw):
    """logit t ~ N(mean, std^2): more weight on the middle, where the velocity is hardest."""

    mean: float = 0.0
    std: float = 1.0

    name = "logit_normal"

    def __post_init__(self) -> None:
        if not self.std > 0:
            raise UserError(f"times logit_normal: std must be positive, not {self.std}")

    def unit(self, n: int, rng: torch.Generator) -> Tensor:
        return torch.sigmoid(self.mean + self.std * torch.randn(n, generator=rng))


class Grid(Component, abc.ABC):
    """Fixed times in [0, stop]; `stop` < 1 stops early.

    A subclass maps the unit interval onto itself; equal parts of it become the steps.
    """

    n: int
    stop: float

    @abc.abstractmethod
    def warp(self, u: Tensor) -> Tensor:
        """An increasing map of [0, 1] onto itself, elementwise, float64."""

    @final
    def points(self) -> tuple[float, ...]:
        """The n + 1 grid points, from 0 to `stop`."""
        u = torch.linspace(0, 1, self.n + 1, dtype=torch.float64)
        return (0.0, *(self.stop * self.warp(u[1:-1])).tolist(), self.stop)

    def _validate(self) -> None:
        if self.n < 1:
            raise UserError(f"grid {self.name}: n must be at least 1 step, not {self.n}")
        if not 0 < self.stop <= 1:
            raise UserError(f"grid {self.name}: stop must lie in (0, 1], not {self.stop}")


@dataclass(frozen=True, repr=False)
class Uniform(Grid):
    """n equal steps."""

    n: int = 20
    stop: float = 1.0

    name = "uniform"

    def __post_init__(self) -> None:
        self._validate()

    def warp(self, u: Tensor) -> Tensor:
        return u


@dataclass(frozen=True, repr=False)
class Shifted(Grid):
    """Stable Diffusion 3's timestep shift: 1 - t becomes s (1-t) / (1 + (s-1)(1-t)).

    shift > 1 puts more steps near the source.
    """

    n: int = 20
    shift: float = 3.0
    stop: float = 1.0

    name = "shifted"

    def __post_init__(self) -> None:
        self._validate()
        if not self.shift > 0:
            raise UserError(f"grid shifted: shift must be positive, not {self.shift}")

    def warp(self, u: Tensor) -> Tensor:
        rest = 1 - u
        return 1 - self.shift * rest / (1 + (self.shift - 1) * rest)


@dataclass(frozen=True, repr=False)
class Geometric(Grid):
    """1 - t falls by a constant factor per step, from 1 to 1 - stop: dense near the data."""

    n: int = 20
    stop: float = 0.99

    name = "geometric"

    def __post_init__(self) -> None:
        self._validate()
        if self.stop >= 1:
            raise UserError("grid geometric: needs stop < 1 (its steps shrink towards t = 1)")

    def warp(self, u: Tensor) -> Tensor:
        return (1 - (1 - self.stop) ** u) / self.stop


def __dir__() -> list[str]:
    return __all__
