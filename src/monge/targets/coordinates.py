"""Laws of independent coordinates, by name: the box, the hypercube's corners, products."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from monge.errors import nearest
from monge.targets.base import Target, TargetSpec, require
from monge.targets.densities import Uniform, beta, exponential, laplace, student
from monge.targets.gaussian import Gaussian
from monge.targets.mixture import GaussianMixture
from monge.targets.product import Product


def box(dim: int, half: float = 1.0) -> Product:
    """The uniform law on [-half, half]^dim."""
    return Product([Uniform(-half, half)] * dim)


def hypercube(dim: int, half: float = 1.0) -> Product:
    r"""The uniform law on the corners {-half, half}^dim.

    Its posterior mean is :math:`a \tanh(a \alpha x / \sigma^2)` in each coordinate.
    """
    ends = torch.tensor([[-half], [half]], dtype=torch.float64)
    return Product([GaussianMixture(ends, torch.tensor(0.0))] * dim)


LAWS = {
    "beta": beta,
    "exponential": exponential,
    "laplace": laplace,
    "normal": lambda: Gaussian(torch.zeros(1), torch.tensor(1.0)),
    "signs": lambda: GaussianMixture(torch.tensor([[-1.0], [1.0]]), torch.tensor(0.0)),
    "student": student,
    "uniform": Uniform,
}
"""The laws on the line that a product takes by name, with their default settings."""


@dataclass(frozen=True, repr=False)
class BoxSpec(TargetSpec):
    """The uniform law on [-half, half]^dim: bounded, with a density that jumps.

    Attributes:
        dim: dimension.
        half: half of its width.
    """

    dim: int = 2
    half: float = 1.0

    name = "box"

    def __post_init__(self) -> None:
        require(self.dim >= 1 and self.half > 0, self, "dim must be at least 1 and half positive")

    def build(self) -> Product:
        return box(self.dim, self.half)


@dataclass(frozen=True, repr=False)
class HypercubeSpec(TargetSpec):
    """The uniform law on the corners {-half, half}^dim: the steepest field of its support.

    Attributes:
        dim: dimension.
        half: half of its width.
    """

    dim: int = 2
    half: float = 1.0

    name = "hypercube"

    def __post_init__(self) -> None:
        require(self.dim >= 1 and self.half > 0, self, "dim must be at least 1 and half positive")

    def build(self) -> Product:
        return hypercube(self.dim, self.half)


@dataclass(frozen=True, repr=False)
class ProductSpec(TargetSpec):
    """Independent coordinates whose laws go through a list, again and again.

    Attributes:
        dim: dimension.
        laws: names with + between them: beta, exponential, laplace, normal, signs, student,
            uniform; as `LAWS` sets them.
    """

    dim: int = 2
    laws: str = "laplace+beta"

    name = "product"

    def __post_init__(self) -> None:
        require(self.dim >= 1, self, "dim must be at least 1")
        for law in self.laws.split("+"):
            require(law in LAWS, self, f"unknown law {law!r}: {nearest(law, LAWS)}")

    def build(self) -> Product:
        built: dict[str, Target] = {law: LAWS[law]() for law in self.laws.split("+")}
        cycle = [built[law] for law in self.laws.split("+")]
        return Product([cycle[i % len(cycle)] for i in range(self.dim)])
