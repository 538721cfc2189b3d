r"""A law near a subspace: :math:`y = U z + s \xi`, whose best linear autoencoder is known.

U has orthonormal columns. In the coordinates (U^T y, the rest) the law is a product of the noised
law of z and of N(0, s^2 I), so field and distances are known in R^D wherever they are in R^d. The
best linear autoencoder with d latents is PCA's, :math:`y \mapsto U^T y \mapsto U U^T y`; it leaves
(D - d) s^2, its two maps have Lipschitz constant 1, and its latents have the law `encoded`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from monge.fields import check_time
from monge.paths import Path
from monge.targets.base import (
    ExactField,
    JacobianRange,
    Label,
    Marginals,
    Target,
    TargetSpec,
    at_least_float32,
    check_states,
    rates,
    require,
    scales,
)
from monge.targets.gaussian import Gaussian
from monge.targets.mixture import MixtureSpec
from monge.targets.noised import noised
from monge.tensors import expand, stream
from monge.types import Cond, FlowMap, PerExample, State, Time


class LinearLatent(Target):
    """The law of U z + noise xi in R^D, z with the law of `latent` in R^d, xi ~ N(0, I).

    Labels are those of z. Without noise it has no density at t = 1, only before.

    Args:
        latent: the law of z.
        basis: U, (D, d), with orthonormal columns, d <= D.
        noise: the standard deviation of the noise in each of the D coordinates.

    Raises:
        UserError: U is not such a basis, or the noise is negative.

    >>> plane = LinearLatent(Gaussian(torch.zeros(1), torch.tensor(9.0)), torch.eye(3)[:, :1], 0.5)
    >>> plane.covariance.diagonal(), plane.reconstruction_error
    (tensor([9.2500, 0.2500, 0.2500], dtype=torch.float64), 0.5)
    """

    def __init__(self, latent: Target, basis: Tensor, noise: float) -> None:
        basis = torch.as_tensor(basis, dtype=torch.float64)
        shaped = basis.ndim == 2 and basis.shape[1] == latent.dim <= basis.shape[0]
        require(shaped, "latent", f"basis must be (D, {latent.dim}), not {tuple(basis.shape)}")
        eye = torch.eye(latent.dim, dtype=torch.float64)
        straight = torch.allclose(basis.T @ basis, eye, atol=1e-10)
        require(straight, "latent", "the columns of the basis must be orthonormal")
        require(0 <= noise < math.inf, "latent", f"noise must not be negative, not {noise}")
        self.latent, self.basis, self.noise = latent, basis, noise
        self.encoded = noised(latent, 1.0, noise)
        """The law of U^T y in R^d: what a flow on the latents of the best encoder aims at."""

    def __repr__(self) -> str:
        return f"LinearLatent(dim={self.dim}, {self.latent!r}, noise={self.noise:g})"

    @property
    def dim(self) -> int:
        return self.basis.shape[0]

    @property
    def rest(self) -> int:
        """D - d, the number of directions that hold noise alone."""
        return self.basis.shape[0] - self.basis.shape[1]

    @property
    def n_classes(self) -> int | None:
        return self.latent.n_classes

    @property
    def smooth(self) -> bool:
        return self.encoded.smooth and (self.noise > 0 or self.rest == 0)

    @property
    def mean(self) -> Tensor:
        return self.basis @ self.latent.mean

    @property
    def covariance(self) -> Tensor:
        own = self.noise**2 * torch.eye(self.dim, dtype=torch.float64)
        return self.basis @ self.latent.covariance @ self.basis.T + own

    @property
    def reconstruction_error(self) -> float:
        """E|y - decode(encode(y))|^2, the least of all linear autoencoders with d latents."""
        return self.rest * self.noise**2

    def encode(self, y: State) -> State:
        """U^T y, (B, d)."""
        return y @ self.basis.to(y)

    def decode(self, z: State) -> State:
        """U z, (B, D): an isometry, so W2 between decoded laws is W2 between the laws."""
        return z @ self.basis.to(z).T

    def sample_labelled(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor | None]:
        z, label = self.latent.sample_labelled(n, rng)
        xi = torch.randn(n, self.dim, dtype=z.dtype, device=z.device, generator=rng)
        return self.decode(z) + self.noise * xi, label

    def at(self, path: Path) -> LatentMarginals:
        return LatentMarginals(self, path)

    def flow_map(self, path: Path) -> LatentMap:
        self.encoded.flow_map(path)  # raises where it has none
        return LatentMap(self, path)

    def minimal_loss(self, path: Path, interval: tuple[float, float] = (0.0, 1.0)) -> float:
        inside = self.encoded.minimal_loss(path, interval)
        return inside + self.rest * self._beside.minimal_loss(path, interval)

    def jacobian_range(self, path: Path, t: float) -> JacobianRange:
        inside = self.encoded.jacobian_range(path, t)
        if not self.rest:
            return inside
        beside = self._beside.jacobian_range(path, t)
        return JacobianRange(
            min(inside.lowest, beside.lowest), max(inside.highest, beside.highest), inside.exact
        )

    @property
    def _beside(self) -> Gaussian:
        """The law of one coordinate beside the subspace."""
        return Gaussian(torch.zeros(1), torch.tensor(self.noise**2, dtype=torch.float64))


@dataclass(frozen=True)
class LatentMarginals(Marginals):
    """The laws of a `LinearLatent` along a path; a label selects the part of z with it."""

    target: LinearLatent
    path: Path

    @property
    def _inside(self) -> Marginals:
        return self.target.encoded.at(self.path)

    def log_density(self, x: State, t: Time, label: Label = None) -> PerExample:
        z, beside = self._split(at_least_float32(x))
        variance = self._variance(x, t)
        log_scale = 0.5 * self.target.rest * (2 * math.pi * variance).log()
        around = 0.5 * beside.square().sum(1) / variance + log_scale
        inside = self._inside.log_density(z, t, label)
        return inside - around if self.target.rest else inside

    def moments(self, x: State, t: Time, label: Label = None) -> tuple[State, State]:
        y = at_least_float32(x)
        z, beside = self._split(y)
        score, mean = self._inside.moments(z, t, label)
        score, mean = self.target.decode(score), self.target.decode(mean)
        if self.target.rest:
            alpha, _ = scales(self.path, t, y)
            pull = beside / expand(self._variance(y, t), y)
            score, mean = score - pull, mean + expand(alpha, y) * self.target.noise**2 * pull
        return score.to(x.dtype), mean.to(x.dtype)

    def jacobian(self, x: State, t: Time, label: Label = None) -> Tensor:
        y = at_least_float32(x)
        basis = self.target.basis.to(y)
        inside = basis @ self._inside.jacobian(self._split(y)[0], t, label) @ basis.T
        beside = torch.eye(self.target.dim).to(y) - basis @ basis.T
        return (inside + self._rate(y, t).reshape(-1, 1, 1) * beside).to(x.dtype)

    def divergence(self, x: State, t: Time, label: Label = None) -> PerExample:
        y = at_least_float32(x)
        inside = self._inside.divergence(self._split(y)[0], t, label)
        if not self.target.rest:
            return inside.to(x.dtype)
        return (inside + self.target.rest * self._rate(y, t)).to(x.dtype)

    def _split(self, x: State) -> tuple[State, State]:
        """U^T x, and x without its part in the subspace."""
        check_states(x, self.target)
        z = self.target.encode(x)
        return z, x - self.target.decode(z)

    def _variance(self, x: State, t: Time) -> Tensor:
        """Of each direction beside the subspace."""
        alpha, sigma = scales(self.path, t, at_least_float32(x))
        return (alpha * self.target.noise).square() + sigma.square()

    def _rate(self, x: State, t: Time) -> Tensor:
        """What the velocity multiplies each direction beside the subspace by."""
        (alpha, _), (d_alpha, noise_rate) = scales(self.path, t, x), rates(self.path, t, x)
        rate = (alpha * d_alpha * self.target.noise**2 + noise_rate) / self._variance(x, t)
        return rate if self.target.rest else torch.zeros_like(rate)


@dataclass(frozen=True)
class LatentMap:
    """The flow map of a `LinearLatent`: that of the latents, and a scaling beside them."""

    target: LinearLatent
    path: Path

    @cached_property
    def domain(self) -> tuple[float, float]:
        return self.target.field(self.path).domain

    @property
    def tangent(self) -> ExactField:
        return self.target.field(self.path)

    @cached_property
    def _inside(self) -> FlowMap:
        return self.target.encoded.flow_map(self.path)

    def __call__(self, x: State, s: Time, t: Time, cond: Cond = None) -> State:
        check_time(s, self.domain, self)
        check_time(t, self.domain, self)
        y, law = at_least_float32(x), self.target.at(self.path)
        z, beside = law._split(y)
        moved = self.target.decode(self._inside(z, s, t, cond))
        if self.target.rest:
            ratio = (law._variance(y, t) / law._variance(y, s)).sqrt()
            moved = moved + expand(ratio, y) * beside
        return moved.to(x.dtype)


@dataclass(frozen=True, repr=False)
class LatentSpec(TargetSpec):
    """A random isotropic mixture in a random subspace, with noise in all directions.

    Attributes:
        dim: D, of the data.
        latent: d, of the mixture.
        noise: the standard deviation of the noise.
        modes: number of components.
        std: the standard deviation of a component.
        spread: the standard deviation of each coordinate of the means.
        seed: of means and subspace.
    """

    dim: int = 16
    latent: int = 2
    noise: float = 0.1
    modes: int = 5
    std: float = 0.5
    spread: float = 3.0
    seed: int = 0

    name = "latent"

    def __post_init__(self) -> None:
        require(1 <= self.latent <= self.dim, self, "latent must be between 1 and dim")
        require(self.noise >= 0, self, "noise must not be negative")

    def build(self) -> LinearLatent:
        mixture = MixtureSpec(self.latent, self.modes, self.std, self.spread, seed=self.seed)
        rng = stream(self.seed, "basis")
        drawn = torch.randn(self.dim, self.latent, dtype=torch.float64, generator=rng)
        return LinearLatent(mixture.build(), torch.linalg.qr(drawn)[0], self.noise)
