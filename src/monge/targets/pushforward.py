r"""A law on a bent space: :math:`y = F(z)`, F invertible with Lipschitz constants known exactly.

F alternates the wave :math:`f(u) = u + a \sin u` of each coordinate with rotations that fix the
diagonal :math:`(1, ..., 1)`. The slope of f lies in [1 - a, 1 + a]; f and the rotations keep both
0 and :math:`\pi (1, ..., 1)`, so all waves are steepest together at the one point and flattest
together at the other: with n waves the constants of F and of its inverse are
:math:`(1 + a)^n` and :math:`(1 - a)^{-n}`, attained.

The law of y under a path has no closed field; that of z has, which is what a flow on latents is
compared with, F being its decoder and the inverse of F its encoder.
"""

from __future__ import annotations

import torch
from torch import Tensor

from monge.paths import Linear
from monge.targets.base import Label, Target, require
from monge.tensors import stream
from monge.types import PerExample, State


class Pushforward:
    """The law of F(z), z with the law of `latent`, in as many dimensions.

    Args:
        latent: the law of z.
        bend: a, in [0, 1): how far F is from a rotation.
        waves: n, how many times coordinates are bent.
        seed: of the rotations.

    Raises:
        UserError: a setting out of range.

    >>> from monge.targets.gaussian import GaussianSpec
    >>> law = Pushforward(GaussianSpec(dim=3).build(), bend=0.5, waves=2)
    >>> law.lipschitz, law.inverse_lipschitz
    (2.25, 4.0)
    """

    def __init__(self, latent: Target, bend: float = 0.3, waves: int = 2, seed: int = 0) -> None:
        require(0 <= bend < 1, "pushforward", f"bend must lie in [0, 1), not {bend}")
        require(waves >= 1, "pushforward", f"waves must be at least 1, not {waves}")
        self.latent, self.bend, self.waves = latent, bend, waves
        dim, rng = latent.dim, stream(seed, "rotations")
        self.rotations = torch.stack([_fixing_the_diagonal(dim, rng) for _ in range(waves)])

    def __repr__(self) -> str:
        return f"Pushforward({self.latent!r}, bend={self.bend:g}, waves={self.waves})"

    @property
    def dim(self) -> int:
        return self.latent.dim

    @property
    def n_classes(self) -> int | None:
        return self.latent.n_classes

    @property
    def lipschitz(self) -> float:
        """The Lipschitz constant of F, `decode`; attained at 0."""
        return (1 + self.bend) ** self.waves

    @property
    def inverse_lipschitz(self) -> float:
        """The Lipschitz constant of the inverse, `encode`; attained at F(pi (1, ..., 1))."""
        return (1 - self.bend) ** -self.waves

    def decode(self, z: State) -> State:
        """F(z), (B, D)."""
        for rotation in self.rotations.to(z):
            z = (z + self.bend * z.sin()) @ rotation.T
        return z

    def encode(self, y: State) -> State:
        """The z with F(z) = y, (B, D), to rounding in the precision of y."""
        for rotation in self.rotations.to(y).flip(0):
            y = self._unbend(y @ rotation)
        return y

    def log_abs_det(self, z: State) -> PerExample:
        """log |det dF/dz|, (B,)."""
        total = z.new_zeros(len(z))
        for rotation in self.rotations.to(z):
            total = total + torch.log1p(self.bend * z.cos()).sum(1)
            z = (z + self.bend * z.sin()) @ rotation.T
        return total

    def log_density(self, y: State, label: Label = None) -> PerExample:
        """log p(y) in nats, (B,), by change of variables."""
        z = self.encode(y)
        return self.latent.at(Linear()).log_density(z, 1.0, label) - self.log_abs_det(z)

    def sample_labelled(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """n samples (n, D), float64 on the generator's device, and the label of each."""
        z, label = self.latent.sample_labelled(n, rng)
        return self.decode(z), label

    def wasserstein2_range(self, latent_distance: float) -> tuple[float, float]:
        """Between which numbers W2(F#p, F#q) lies when W2(p, q) is the given distance."""
        return latent_distance / self.inverse_lipschitz, latent_distance * self.lipschitz

    def _unbend(self, y: Tensor) -> Tensor:
        """The u with u + a sin u = y: halvings of [y - a, y + a], then Newton's steps, the last
        of which carries the derivative in y."""
        still = y.detach()
        lo, hi = still - self.bend, still + self.bend
        for _ in range(20):
            middle = (lo + hi) / 2
            below = middle + self.bend * middle.sin() < still
            lo, hi = torch.where(below, middle, lo), torch.where(below, hi, middle)
        u = (lo + hi) / 2
        for goal in (still, still, y):
            u = u - (u + self.bend * u.sin() - goal) / (1 + self.bend * u.cos())
        return u


def _fixing_the_diagonal(dim: int, rng: torch.Generator) -> Tensor:
    """A random rotation or reflection (D, D) that maps (1, ..., 1) to itself."""
    drawn = torch.randn(dim, dim, dtype=torch.float64, generator=rng)
    drawn[:, 0] = 1
    axes = torch.linalg.qr(drawn)[0]  # the first column is the diagonal, up to its sign
    inner = torch.randn(dim - 1, dim - 1, dtype=torch.float64, generator=rng)
    turn = torch.block_diag(torch.ones(1, 1, dtype=torch.float64), torch.linalg.qr(inner)[0])
    return axes @ turn @ axes.T
