r"""The laws of the studies: published mixtures, and one that is cheap in a thousand dimensions.

References:
    | Convergence analysis of probability flow ODE (Huang, Huang & Lin, 2024) --
    | https://arxiv.org/abs/2404.09730
    | Fast convergence for high-order ODE solvers (2025) -- https://arxiv.org/abs/2506.13061
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from monge.errors import UserError
from monge.paths import Path
from monge.targets.base import Label, Marginals, at_least_float32, rates, scales
from monge.targets.gaussian import Gaussian
from monge.targets.mixture import GaussianMixture, MixtureMarginals
from monge.tensors import expand, stream
from monge.types import Cond, PerExample, State, Time

PUBLISHED_DIM = 128
"""The dimension in which the published mixture is drawn; smaller ones are its leading blocks."""

LINES = {"2024": (0.1, 0.4, 0.5), "2025": (0.2, 0.3, 0.5)}
"""The weights of the published law on the line, by the year of the experiments."""


def published_line(version: str = "2025") -> GaussianMixture:
    """Three modes of variance 1/4 at -6, 4 and 6, as in the experiments of arXiv 2404.09730.

    >>> published_line("2024").weights.tolist()
    [0.1, 0.4, 0.5]
    """
    means = torch.tensor([[-6.0], [4.0], [6.0]], dtype=torch.float64)
    weights = torch.tensor(LINES[version], dtype=torch.float64)
    return GaussianMixture(means, torch.tensor(0.25), weights)


def published_mixture(dim: int, seed: int) -> GaussianMixture:
    """Five modes with full covariances, drawn as in the experiments of arXiv 2404.09730.

    Weights uniform and normalised, means 3 N(0, I), covariances (W^T W / 128 + I) / 8 with W of
    128 columns; the leading blocks of one draw in 128 dimensions.

    Raises:
        UserError: more than 128 dimensions.
    """
    if dim > PUBLISHED_DIM:
        raise UserError(f"the published mixture has at most {PUBLISHED_DIM} dimensions, not {dim}")
    rng, full = stream(seed, "published"), PUBLISHED_DIM
    weights = torch.rand(5, generator=rng, dtype=torch.float64)
    means = 3 * torch.randn(5, full, generator=rng, dtype=torch.float64)
    w = torch.randn(5, full, full, generator=rng, dtype=torch.float64)
    covariances = 0.25 * (w.mT @ w / full + torch.eye(full)) / 2
    return GaussianMixture(means[:, :dim], covariances[:, :dim, :dim], weights)


def shared_mixture(dim: int, seed: int, modes: int = 5) -> GaussianMixture:
    """Equally likely modes that share a covariance, in its eigenbasis: a diagonal one.

    Its variances are the eigenvalues of (W^T W / dim + I) / 8 with W square; means 3 N(0, I). With
    equal covariances the velocity has a bounded Jacobian, as the theorems assume.
    """
    rng = stream(seed, "shared")
    means = 3 * torch.randn(modes, dim, generator=rng, dtype=torch.float64)
    w = torch.randn(dim, dim, generator=rng, dtype=torch.float64)
    variances = 0.25 * (torch.linalg.svdvals(w).square() / dim + 1) / 2
    return GaussianMixture(means, variances.diag())


def marginals(law: GaussianMixture | Gaussian, path: Path) -> Marginals:
    """The laws along a path, by the cheapest form that the covariances allow."""
    if isinstance(law, GaussianMixture) and len(law.spectrum.basis) == 1:
        equal = bool((law.spectrum.variances == law.spectrum.variances[:1]).all())
        if equal and bool((law.spectrum.basis[0] == torch.eye(law.dim)).all()):
            return SharedMarginals(law.at(path), law.spectrum.variances[0], path)
    return law.at(path)


@dataclass(frozen=True)
class SharedMarginals(Marginals):
    r"""The laws of modes that share a diagonal covariance: O(n K D) for a velocity.

    With one S the quadratic part of the posterior cancels: its logits are
    :math:`\log w_k + \alpha m_k^T S^{-1} x - \alpha^2 m_k^T S^{-1} m_k / 2`.

    Attributes:
        mixture: the same laws by the general formulas, for what is not needed fast.
        variances: (D,), of the components; (1,) where all are equal.
    """

    mixture: MixtureMarginals
    variances: Tensor
    path: Path

    def moments(self, x: State, t: Time, label: Label = None) -> tuple[State, State]:
        if label is not None:
            return self.mixture.moments(x, t, label)
        y = at_least_float32(x)
        law = self.mixture.target
        means, own = law.means.to(y), self.variances.to(y)
        alpha, sigma = (c.reshape(-1, 1) for c in scales(self.path, t, y))
        precision = 1 / (alpha**2 * own + sigma**2)  # (T, D)
        scaled = y * precision
        square = (alpha**2 * precision) @ means.square().T.expand(precision.shape[1], -1) / 2
        if precision.shape[1] == 1:
            square = alpha**2 * precision * means.square().sum(1) / 2
        logits = law.weights.log().to(y) + alpha * (scaled @ means.T) - square
        centre = logits.softmax(1) @ means
        pull = precision * (y - alpha * centre)  # minus the score
        return (-pull).to(x.dtype), (centre + alpha * own * pull).to(x.dtype)

    def log_density(self, x: State, t: Time, label: Label = None) -> PerExample:
        return self.mixture.log_density(x, t, label)

    def jacobian(self, x: State, t: Time, label: Label = None) -> Tensor:
        return self.mixture.jacobian(x, t, label)

    def divergence(self, x: State, t: Time, label: Label = None) -> PerExample:
        return self.mixture.divergence(x, t, label)


@dataclass(frozen=True)
class LawField:
    """The exact velocity of laws along a path."""

    law: Marginals
    domain: tuple[float, float] = (0.0, 1.0)

    def __call__(self, x: State, t: Time, cond: Cond = None) -> State:
        return velocity(self.law, x, t)


def velocity(law: Marginals, x: State, t: Time) -> State:
    """The exact velocity, whose path is differentiated once for each time and not in each call."""
    if isinstance(t, Tensor):
        return law.velocity(x, t)
    d_alpha, noise_rate = rates_at(law.path, float(t))
    score, mean = law.moments(x, t)
    return d_alpha * mean - noise_rate * score


@lru_cache(maxsize=2**16)
def rates_at(path: Path, t: float) -> tuple[float, float]:
    r""":math:`\dot\alpha_t` and :math:`\sigma_t\dot\sigma_t`, remembered."""
    d_alpha, noise_rate = rates(path, t, torch.zeros((), dtype=torch.float64))
    return float(d_alpha), float(noise_rate)


def start(law: Marginals, clean: State, noise: State) -> State:
    """A draw of the exact law at t = 0, of which a variance-preserving path keeps some data."""
    alpha, sigma = scales(law.path, 0.0, clean)
    return expand(alpha, clean) * clean + expand(sigma, clean) * noise
