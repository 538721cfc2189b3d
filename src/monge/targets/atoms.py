r"""Laws of finitely many points: the law of a data set, and its exact field, the memoriser.

The flow-matching loss over a data set is least at the field of its empirical law. Given x_t the
posterior over the points is a softmax of :math:`-|x - \alpha y_k|^2 / 2\sigma^2`; everything else
is its mean and covariance, since :math:`\nabla v = a I + c\,\mathrm{Cov}[x_1 | x_t]`. The law of
x_t is a Gaussian kernel density of bandwidth sigma. Distances to all points are one matrix
product, in float64 and about the mean, so that they keep their digits when sigma is small.

References:
    | On the closed form of flow matching (Bertrand et al., 2025) -- https://arxiv.org/abs/2506.03719
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import debug_unwrap

from monge.errors import UserError
from monge.paths import Path
from monge.targets.base import (
    JacobianRange,
    Label,
    Marginals,
    Target,
    check_states,
    jacobian_parts,
    precise,
    require,
    scales,
)
from monge.targets.line import QuantileMap, log_cdf
from monge.targets.minimal_loss import minimal_loss_on_the_line
from monge.targets.slices import in_slices
from monge.types import FlowMap, PerExample, State, Time


class Atoms(Target):
    """The law that gives point k the probability w_k; with equal weights, that of a data set.

    Args:
        points: (K, D); images flattened. Equal points may repeat.
        weights: (K,), normalised here; None for equal weights.
        labels: (K,) int64 from 0, each used; a label selects its points. None for none.

    Raises:
        UserError: shapes disagree, or something is not finite, no weight or no label.

    >>> from monge.paths import Linear
    >>> pair = Atoms(torch.tensor([[-1.0], [1.0]]))
    >>> x = torch.tensor([[0.5]], dtype=torch.float64)
    >>> mean = pair.at(Linear()).posterior_mean(x, 0.5)
    >>> abs(float(mean) - math.tanh(1.0)) < 1e-12  # tanh(t x / (1-t)^2)
    True
    """

    def __init__(
        self, points: Tensor, weights: Tensor | None = None, labels: Tensor | None = None
    ) -> None:
        self.points = torch.as_tensor(points, dtype=torch.float64)
        require(self.points.ndim == 2 and self.points.numel() > 0, "atoms", "points must be (K, D)")
        given = torch.ones(len(self.points)) if weights is None else weights
        given = torch.as_tensor(given, dtype=torch.float64)
        right = given.shape == (len(self.points),) and bool((given >= 0).all())
        require(right and bool(given.sum() > 0), "atoms", "needs a weight >= 0 for each point")
        finite = bool(self.points.isfinite().all()) and bool(given.isfinite().all())
        require(finite, "atoms", "points and weights must be finite")
        self.weights = given / given.sum()
        self.labels = labels
        if labels is not None:
            require(labels.shape == given.shape, "atoms", "needs a label for each point")
            mass = torch.zeros(int(labels.max()) + 1, dtype=torch.float64)
            used = int(labels.min()) >= 0
            mass = mass.scatter_add(0, labels, self.weights) if used else mass
            require(bool((mass > 0).all()), "atoms", "labels must count from 0 without gaps")
        self._casts: dict[tuple[torch.dtype, torch.device], tuple[Tensor, Tensor, Tensor]] = {}

    def __repr__(self) -> str:
        return f"Atoms(dim={self.dim}, points={len(self.points)})"

    @property
    def dim(self) -> int:
        return self.points.shape[1]

    @property
    def n_classes(self) -> int | None:
        return None if self.labels is None else int(self.labels.max()) + 1

    @property
    def smooth(self) -> bool:
        return False

    @property
    def mean(self) -> Tensor:
        return self.weights @ self.points

    @property
    def covariance(self) -> Tensor:
        centred = self.points - self.mean
        return centred.T @ (self.weights[:, None] * centred)

    def sample_labelled(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor | None]:
        # Not torch.multinomial, which takes at most 2^24 points.
        u = torch.rand(n, dtype=torch.float64, device=rng.device, generator=rng)
        total = self.weights.cumsum(0).to(rng.device)
        index = torch.searchsorted(total / total[-1], u, right=True).clamp_max(len(total) - 1)
        label = None if self.labels is None else self.labels.to(rng.device)[index]
        return self.points.to(rng.device)[index], label

    def at(self, path: Path) -> AtomMarginals:
        return AtomMarginals(self, path)

    def flow_map(self, path: Path) -> FlowMap:
        """In one dimension, the map between equal quantiles."""
        return QuantileMap(self, path) if self.dim == 1 else super().flow_map(path)

    def quantile(self, z: Tensor) -> Tensor:
        if self.dim != 1:
            return super().quantile(z)
        points, order = self.points[:, 0].sort()
        weights = self.weights[order]
        lower, upper = log_cdf(z.double()).exp(), log_cdf(-z.double()).exp()
        # The least point with F >= lower: counted from whichever end is nearer.
        below = weights.cumsum(0)
        above = weights.flip(0).cumsum(0).flip(0)
        left = torch.searchsorted(below.to(z.device), lower)
        right = len(above) - torch.searchsorted(above.flip(0).to(z.device), upper, right=True) - 1
        index = torch.where(lower < upper, left, right).clamp(0, len(points) - 1)
        return points.to(z)[index]

    def minimal_loss(self, path: Path, interval: tuple[float, float] = (0.0, 1.0)) -> float:
        """In one dimension, by quadrature."""
        if self.dim != 1:
            return super().minimal_loss(path, interval)
        return minimal_loss_on_the_line(self, path, interval)

    def jacobian_range(self, path: Path, t: float) -> JacobianRange:
        """Exact for two points; else the highest is a bound.

        No direction's variance is above a quarter of its range squared (Popoviciu), attained half
        way between two points, nor above the largest squared distance from a centre.
        """
        shrink, gain = jacobian_parts(path, t, torch.ones((), dtype=torch.float64))
        if len(self.points) == 1:
            return JacobianRange(float(shrink), float(shrink), exact=True)
        radius = (self.points - self.mean).norm(dim=1).max()
        farthest = max(
            float(torch.cdist(rows, self.points).max()) for rows in self.points.split(1024)
        )
        spread = min(farthest**2 / 4, float(radius) ** 2)
        exact = len(self.points) == 2 and bool((self.weights > 0).all())
        return JacobianRange(float(shrink), float(shrink + gain * spread), exact)

    def like(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, points about it and their squared norms, in the dtype and on the device of x."""
        key = (x.dtype, x.device)
        if key not in self._casts:
            # Plain tensors, whichever transform or mode the first call happens to run under.
            with torch.inference_mode(False):
                centred = self.points - self.mean
                parts = (self.mean, centred, centred.square().sum(1))
                self._casts[key] = tuple(debug_unwrap(a.to(x)) for a in parts)  # type: ignore[assignment]
        return self._casts[key]

    def log_prior(self, label: Label, like: Tensor) -> Tensor:
        """log w_k, (K,); or (B, K) where labels (B,) select points, -1 all of them.

        Raises:
            UserError: a label that no point has.
        """
        log_weights = self.weights.log().to(like)
        if label is None or self.labels is None:
            return log_weights
        if label.numel() and int(label.max()) >= (self.n_classes or 0):
            raise UserError(f"label {int(label.max())} of {self!r} with {self.n_classes} labels")
        own = label[:, None] == self.labels.to(label.device)
        alone = torch.where(own, log_weights, -math.inf).log_softmax(1)
        return torch.where(label[:, None] < 0, log_weights, alone)


@dataclass(frozen=True)
class AtomMarginals(Marginals):
    """The laws of atoms along a path, kernel densities; a label selects its own points."""

    target: Atoms
    path: Path

    def log_density(self, x: State, t: Time, label: Label = None) -> PerExample:
        def f(x: State, t: Time, label: Label) -> tuple[Tensor]:
            sigma = scales(self.path, t, x)[1]
            log_scale = self.target.dim * (sigma.log() + 0.5 * math.log(2 * math.pi))
            return (self._logits(x, t, label).logsumexp(1) - log_scale,)

        return self._sliced(f, x, t, label)[0]

    def moments(self, x: State, t: Time, label: Label = None) -> tuple[State, State]:
        def f(x: State, t: Time, label: Label) -> tuple[Tensor, Tensor]:
            mean, points, _ = self.target.like(x)
            alpha, sigma = (c.reshape(-1, 1) for c in scales(self.path, t, x))
            data = mean + self._logits(x, t, label).softmax(1) @ points
            return (alpha * data - x) / sigma.square(), data

        score, mean = self._sliced(f, x, t, label)
        return score.to(x.dtype), mean.to(x.dtype)

    def jacobian(self, x: State, t: Time, label: Label = None) -> Tensor:
        def f(x: State, t: Time, label: Label) -> tuple[Tensor]:
            _, points, _ = self.target.like(x)
            posterior = self._logits(x, t, label).softmax(1)
            centred = points - (posterior @ points)[:, None]
            covariance = (posterior[:, :, None] * centred).mT @ centred
            shrink, gain = (c.reshape(-1, 1, 1) for c in jacobian_parts(self.path, t, x))
            return (shrink * torch.eye(x.shape[1]).to(x) + gain * covariance,)

        return self._sliced(f, x, t, label, self.target.points.numel())[0].to(x.dtype)

    def divergence(self, x: State, t: Time, label: Label = None) -> PerExample:
        def f(x: State, t: Time, label: Label) -> tuple[Tensor]:
            _, points, norms = self.target.like(x)
            posterior = self._logits(x, t, label).softmax(1)
            mean = posterior @ points
            away = norms - 2 * mean @ points.T + mean.square().sum(1, keepdim=True)
            shrink, gain = jacobian_parts(self.path, t, x)
            return (self.target.dim * shrink + gain * (posterior * away.clamp_min(0)).sum(1),)

        return self._sliced(f, x, t, label)[0].to(x.dtype)

    def log_tail(self, x: State, left: Tensor, t: Time, label: Label = None) -> Tensor:
        if self.target.dim != 1:
            return super().log_tail(x, left, t, label)
        fine = precise(x)
        alpha, sigma = (c.reshape(-1, 1) for c in scales(self.path, t, fine))
        away = fine - alpha * self.target.points.to(fine)[:, 0]
        z = torch.where(left, away, -away) / sigma.clamp_min(torch.finfo(fine.dtype).tiny)
        log_weights = self.target.log_prior(label, fine)
        return (log_weights + log_cdf(z)).logsumexp(1, keepdim=True).to(x.dtype)

    def bracket(self, z: Tensor, t: Time, label: Label = None) -> tuple[Tensor, Tensor]:
        if self.target.dim != 1:
            return super().bracket(z, t, label)
        alpha, sigma = (c.reshape(-1, 1) for c in scales(self.path, t, z))
        lo, hi = float(self.target.points.min()), float(self.target.points.max())
        return alpha * lo + sigma * z, alpha * hi + sigma * z

    def _logits(self, x: State, t: Time, label: Label) -> Tensor:
        """log w_k - |x - alpha y_k|^2 / 2 sigma^2, (B, K)."""
        mean, points, norms = self.target.like(x)
        alpha, sigma = (c.reshape(-1, 1) for c in scales(self.path, t, x))
        x = x - alpha * mean
        distance = x.square().sum(1, keepdim=True) - 2 * alpha * (x @ points.T) + alpha**2 * norms
        return self.target.log_prior(label, x) - 0.5 * distance / sigma.square()

    def _sliced(
        self,
        f: Callable[[State, Time, Label], tuple[Tensor, ...]],
        x: State,
        t: Time,
        label: Label,
        per_row: int = 0,
    ) -> tuple[Tensor, ...]:
        check_states(x, self.target)
        return in_slices(f, precise(x), t, label, max(len(self.target.points), per_row))
