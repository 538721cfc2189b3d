r"""Exact blocks of a chain that carries a law to N(0, I): JKO steps and Ornstein-Uhlenbeck steps.

A JKO step of size :math:`\gamma` carries p to the law that minimises

.. math:: \mathrm{KL}(\rho \,\|\, N(0, I)) + W_2^2(p, \rho) / (2 \gamma) .

It is closed for Gaussians of any covariance, and a convex problem on the line. A block of local
flow matching carries p to its Ornstein-Uhlenbeck law of time g; between Gaussians its map is affine
whatever the interpolant is.

References:
    | JKO-iFlow (Xu et al., 2023), Sec. 3 -- https://arxiv.org/abs/2212.14424
    | Convergence of JKO flows (Cheng et al., 2024), Sec. 4 -- https://arxiv.org/abs/2310.17582
    | Local flow matching (Xu et al., 2024), Sec. 3 -- https://arxiv.org/abs/2410.02548
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import solveh_banded
from torch import Tensor

from monge.errors import UserError
from monge.paths import Linear
from monge.targets.base import Target, require
from monge.targets.gaussian import Gaussian
from monge.targets.line import normal_score
from monge.targets.wasserstein import bures
from monge.types import State

LAMBDA = 1.0
"""Convexity of the potential |x|^2 / 2."""


# Gaussians


@dataclass(frozen=True)
class AffineStep:
    """An affine block between Gaussians, x -> mean + matrix (x - mean before).

    Attributes:
        before, after: the laws.
        matrix: (D, D), symmetric and positive definite: the block is an optimal transport map.
        size: gamma of a JKO step, or the time of an Ornstein-Uhlenbeck step.
    """

    before: Gaussian
    after: Gaussian
    matrix: Tensor
    size: float

    def __call__(self, x: State) -> State:
        """The image of x, (B, D)."""
        matrix = self.matrix.to(x)
        return self.after.mean.to(x) + (x - self.before.mean.to(x)) @ matrix.T

    @property
    def log_abs_det(self) -> float:
        """log |det| of the block, the same everywhere."""
        return float(torch.linalg.slogdet(self.matrix)[1])

    @property
    def moved(self) -> float:
        """W2 of the laws before and after."""
        return distance(self.before, self.after)


def jko_step(law: Gaussian, gamma: float) -> AffineStep:
    """The exact JKO step of a Gaussian.

    In each eigendirection the mean is divided by 1 + gamma, and the deviation s becomes the
    positive root of (1 + gamma) r^2 - s r - gamma = 0.

    Raises:
        UserError: gamma is not positive, or the covariance is singular.
    """
    _check(law, gamma)
    if math.isinf(gamma):
        return _scaled(law, lambda s: torch.ones_like(s), 0.0, gamma)

    def root(s: Tensor) -> Tensor:
        return (s + (s.square() + 4 * gamma * (1 + gamma)).sqrt()) / (2 * (1 + gamma))

    return _scaled(law, root, 1 / (1 + gamma), gamma)


def ou_step(law: Gaussian, time: float) -> AffineStep:
    """The exact block of local flow matching of a Gaussian: to its Ornstein-Uhlenbeck law.

    Raises:
        UserError: the time is not positive, or the covariance is singular.
    """
    _check(law, time)
    left = math.exp(-time)

    def root(s: Tensor) -> Tensor:
        return (left**2 * s.square() - math.expm1(-2 * time)).sqrt()

    return _scaled(law, root, left, time)


def steps_of(
    step: Callable[[Gaussian, float], AffineStep], law: Gaussian, sizes: Sequence[float]
) -> list[AffineStep]:
    """Blocks one after another, by `jko_step` or `ou_step`."""
    found = []
    for size in sizes:
        found.append(step(law, size))
        law = found[-1].after
    return found


def _scaled(law: Gaussian, of: Callable[[Tensor], Tensor], of_mean: float, size: float):
    variances, axes = torch.linalg.eigh(law.covariance)
    deviations = variances.sqrt()
    after = of(deviations)
    matrix = axes @ torch.diag(after / deviations) @ axes.T
    covariance = axes @ torch.diag(after.square()) @ axes.T
    return AffineStep(law, Gaussian(of_mean * law.mean, covariance), matrix, size)


def _check(law: Gaussian, size: float) -> None:
    require(law.smooth, law, "a block of a chain needs a covariance that is not singular")
    if not size > 0:
        raise UserError(f"the size of a block must be greater than 0, not {size:g}")


def divergence_to_normal(law: Gaussian) -> float:
    """KL(law || N(0, I)) in nats."""
    variances = torch.linalg.eigvalsh(law.covariance)
    return 0.5 * float((variances - 1 - variances.log()).sum() + law.mean.square().sum())


def distance(a: Gaussian, b: Gaussian) -> float:
    """W2 of two Gaussians."""
    return bures(a.mean, a.covariance, b.mean, b.covariance)


def distance_to_normal(law: Gaussian) -> float:
    """W2(law, N(0, I))."""
    return bures(law.mean, law.covariance, torch.zeros_like(law.mean), torch.eye(law.dim).double())


# Inequalities


def evolution_slack(
    before: float, after: float, moved: float, kl: float, gamma: float, error: float = 0.0
) -> float:
    r"""By how much a step satisfies the discrete evolution variational inequality.

    .. math:: (1 + \gamma) W_2^2(p_{n+1}, q) + 2 \gamma \mathrm{KL}(p_{n+1} \| q) +
        W_2^2(p_n, p_{n+1}) \le W_2^2(p_n, q)

    holds for an exact step. With an error of the first-order condition, gamma / 2 replaces gamma
    in front, the distance moved is left out, and 2 gamma error^2 is allowed.

    Args:
        before, after: W2 to the limit q.
        moved: W2 between the two laws.
        kl: KL(p_{n+1} || q), in nats.
        error: the L2 norm of the first-order residual.

    Returns:
        Right side minus left side; not negative where the inequality holds.
    """
    if error == 0:
        return before**2 - (1 + gamma) * after**2 - 2 * gamma * kl - moved**2
    allowed = before**2 + 2 * gamma * error**2 / LAMBDA
    return allowed - (1 + gamma * LAMBDA / 2) * after**2 - 2 * gamma * kl


def plateau(error: float) -> float:
    """The squared W2 to the limit that steps with a first-order error end below: 4 error^2."""
    return 4 * error**2 / LAMBDA**2


def steps_needed(distance: float, error: float, gamma: float) -> int:
    """Steps after which the squared W2 to the limit is below 5 error^2, whatever the law was."""
    if error >= LAMBDA * distance:
        return 0
    rate = math.log1p(gamma * LAMBDA / 2)
    return math.ceil(2 * math.log(LAMBDA * distance / error) / rate)


# The line

WIDTH = 60.0
"""Nodes lie where the log-density is at most this far below its maximum."""

NEWTON = 100
"""Newton steps, at most."""


@dataclass(frozen=True)
class LineLaw:
    """A law on the line as nodes that a chain has moved: exact up to the spacing of the nodes.

    Attributes:
        nodes: (N,), ascending.
        mass: (N,), of the nodes.
        between: (N - 1,), the mass between neighbours.
        log_density: (N - 1,), at the points between neighbours.
        normal: (N,), where N(0, 1) has the quantiles of the nodes.
    """

    nodes: Tensor
    mass: Tensor
    between: Tensor
    log_density: Tensor
    normal: Tensor

    @property
    def mean(self) -> float:
        return float(self.mass @ self.nodes)

    @property
    def variance(self) -> float:
        return float(self.mass @ (self.nodes - self.mean).square())

    @property
    def kl(self) -> float:
        """KL to N(0, 1) in nats."""
        energy = 0.5 * float(self.mass @ self.nodes.square()) + 0.5 * math.log(2 * math.pi)
        return float(self.between @ self.log_density) + energy

    @property
    def distance_to_normal(self) -> float:
        """W2 to N(0, 1)."""
        return math.sqrt(float(self.mass @ (self.nodes - self.normal).square()))


def line_law(target: Target, points: int = 20_001) -> LineLaw:
    """The nodes of a target on the line.

    Raises:
        UserError: the target is not one-dimensional, or has no density.
    """
    require(target.dim == 1 and target.smooth, target, "it must be a density on the line")
    law = target.at(Linear())
    centre, width = float(target.mean), 40 * math.sqrt(float(target.covariance))
    lo, hi = centre - width, centre + width
    for _ in range(2):
        grid = torch.linspace(lo, hi, points, dtype=torch.float64)
        level = law.log_density(grid[:, None], 1.0)
        inside = grid[level > level.max() - WIDTH]
        lo, hi = float(inside[0]), float(inside[-1])
    grid = torch.linspace(lo, hi, points, dtype=torch.float64)
    spacing, middle = (hi - lo) / (points - 1), (grid[1:] + grid[:-1]) / 2
    at_nodes, log_density = (law.log_density(x[:, None], 1.0) for x in (grid, middle))
    mass, between = (spacing * level.exp() for level in (at_nodes, log_density))
    left = grid < centre
    tail = law.log_tail(grid[:, None], left[:, None], 1.0)[:, 0]
    # The shorter tail keeps its digits; beyond the median both are near log(1/2).
    score = normal_score(tail.clamp_max(-math.log(2)))
    longer = tail > -math.log(2)
    other = law.log_tail(grid[:, None], ~left[:, None], 1.0)[:, 0]
    score = torch.where(longer, -normal_score(other.clamp_max(-math.log(2))), score)
    normal = torch.where(left, score, -score)
    return LineLaw(grid, mass / mass.sum(), between / between.sum(), log_density, normal)


def line_jko_step(law: LineLaw, gamma: float) -> LineLaw:
    """The exact JKO step of a law on the line, by Newton's method on the images of its nodes.

    The objective E[T^2/2 - log T' + (T - x)^2 / (2 gamma)] is convex in them; its Hessian is
    tridiagonal.

    Raises:
        UserError: gamma is not positive.
    """
    if not gamma > 0:
        raise UserError(f"the size of a step must be greater than 0, not {gamma:g}")
    x, w, m = (part.numpy() for part in (law.nodes, law.mass, law.between))
    y = x.copy()
    pull = 1 + 1 / gamma

    def objective(z: np.ndarray) -> float:
        return float(w @ (z**2 / 2 + (z - x) ** 2 / (2 * gamma)) - m @ np.log(np.diff(z)))

    for _ in range(NEWTON):
        gap = np.diff(y)
        rate = np.zeros(len(x))
        rate[:-1] += m / gap
        rate[1:] -= m / gap
        gradient = w * (pull * y - x / gamma) + rate
        stiff = m / gap**2
        bands = np.zeros((2, len(x)))
        bands[1] = w * pull
        bands[1, :-1] += stiff
        bands[1, 1:] += stiff
        bands[0, 1:] = -stiff
        # Masses span many orders of magnitude: scaled to a unit diagonal.
        scale = 1 / np.sqrt(bands[1])
        scaled = np.stack([bands[0] * scale * np.roll(scale, 1), np.ones(len(x))])
        step = -scale * solveh_banded(scaled, scale * gradient)
        decrease = -float(gradient @ step)
        shrinking = np.diff(step) / gap
        length = min(1.0, 0.9 / max(1e-12, -float(shrinking.min())))
        while length > 1e-8 and objective(y + length * step) > objective(y) + 1e-15:
            length /= 2
        y = y + length * step
        if decrease < 1e-24:
            break
    slope = np.log(np.diff(y)) - np.log(np.diff(x))
    return LineLaw(
        torch.from_numpy(y),
        law.mass,
        law.between,
        law.log_density - torch.from_numpy(slope),
        law.normal,
    )


def line_moved(before: LineLaw, after: LineLaw) -> float:
    """W2 between a law and one that a chain made of it."""
    return math.sqrt(float(before.mass @ (after.nodes - before.nodes).square()))
