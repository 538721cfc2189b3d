r"""Laws on the line that are given by their density: everything by Gauss-Legendre quadrature.

The posterior of :math:`x_1` given :math:`x_t = x` is proportional to
:math:`p_1(y)\, e^{-(x - \alpha y)^2 / 2\sigma^2}`. Its nodes y lie in panels between the edges at
which the density says it is smooth, and edges around where the second factor has its mass; at
fixed nodes density, score, posterior mean and their derivatives are those of a law of atoms, so
they agree with each other to rounding, and with the law's to about 1e-13.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

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
from monge.targets.quadrature import NODES, WEIGHTS
from monge.targets.slices import in_slices
from monge.types import FlowMap, PerExample, State, Time

OFFSETS = torch.tensor([-9.0, -6.0, -3.0, 0.0, 3.0, 6.0, 9.0], dtype=torch.float64)
"""Edges around the mass of the likelihood, in its standard deviations; e^-40 lies beyond."""


class Line(Target):
    """The law on the line with a given density. Its exact field ends short of t = 1.

    Args:
        name: for messages.
        log_density: float64 or float32 (N,) -> (N,), elementwise; it need not be normalised.
        edges: (E,), increasing: on the panels between them the density is smooth, nearly a
            polynomial of degree 15; outside the first and the last it is taken to be 0. The mass
            and the second moment cut off by that are the error of the law.

    >>> laplace = Line("laplace", lambda y: -y.abs(), torch.arange(-80.0, 81.0, 4.0))
    >>> round(float(laplace.covariance), 12)
    2.0
    """

    def __init__(self, name: str, log_density: Callable[[Tensor], Tensor], edges: Tensor) -> None:
        self.name, self._log_density = name, log_density
        self.edges = torch.as_tensor(edges, dtype=torch.float64)
        increasing = self.edges.ndim == 1 and bool((self.edges.diff() > 0).all())
        require(increasing and len(self.edges) > 1, name, "edges must be (E,) and increasing")
        y, log_mass = self._panels(self.edges[:-1], self.edges[1:])
        masses = log_mass.exp()
        total = float(masses.sum())
        require(0 < total < math.inf, name, "its density must have a finite, positive integral")
        self.log_total = math.log(total)
        zero = torch.zeros(1, dtype=torch.float64)
        inside = masses.sum(1) / total
        self._below = torch.cat([zero, inside.cumsum(0)])  # F at each edge
        self._above = torch.cat([inside.flip(0).cumsum(0).flip(0), zero])  # 1 - F
        self._mean = float((masses * y).sum()) / total
        self._variance = float((masses * (y - self._mean).square()).sum()) / total

    def __repr__(self) -> str:
        return f"Line({self.name})"

    @property
    def dim(self) -> int:
        return 1

    @property
    def n_classes(self) -> None:
        return None

    @property
    def smooth(self) -> bool:
        return False

    @property
    def mean(self) -> Tensor:
        return torch.tensor([self._mean], dtype=torch.float64)

    @property
    def covariance(self) -> Tensor:
        return torch.tensor([[self._variance]], dtype=torch.float64)

    def log_density(self, y: Tensor) -> Tensor:
        """log p_1(y), elementwise; -inf outside the edges."""
        inside = (y >= self.edges[0].to(y)) & (y <= self.edges[-1].to(y))
        held = y.clamp(float(self.edges[0]), float(self.edges[-1]))
        return torch.where(inside, self._log_density(held) - self.log_total, -math.inf)

    def sample_labelled(self, n: int, rng: torch.Generator) -> tuple[Tensor, None]:
        z = torch.randn(n, 1, dtype=torch.float64, device=rng.device, generator=rng)
        return self.quantile(z), None

    def quantile(self, z: Tensor) -> Tensor:
        """By Newton's method, kept inside the panel that holds it."""
        flat = precise(z).flatten()
        edges, below, above = (a.to(flat) for a in (self.edges, self._below, self._above))
        lower, upper = log_cdf(flat).exp(), log_cdf(-flat).exp()
        left = lower < upper  # from which end mass is counted, so that far tails keep digits
        from_left = torch.searchsorted(below, lower, right=True) - 1
        from_right = len(above) - 1 - torch.searchsorted(above.flip(0), upper, right=True)
        panel = torch.where(left, from_left, from_right).clamp(0, len(edges) - 2)
        lo, hi = edges[panel], edges[panel + 1]
        start, sign = torch.where(left, lo, hi), torch.where(left, 1.0, -1.0).to(flat)
        missing = torch.where(left, lower - below[panel], upper - above[panel + 1])
        y = (lo + hi) / 2
        for step in range(20):
            first, last = torch.minimum(start, y), torch.maximum(start, y)
            mass = (self._panels(first, last)[1].logsumexp(-1) - self.log_total).exp()
            short = (mass < missing) == left
            lo, hi = torch.where(short, y, lo), torch.where(short, hi, y)
            y = y + sign * (missing - mass) * (-self.log_density(y)).exp()
            # A root may be an end of its panel; but two ends could send y to each other for ever.
            halved = torch.where((y >= lo) & (y <= hi), y, (lo + hi) / 2)
            y = torch.minimum(torch.maximum(y, lo), hi) if step % 2 else halved
        return y.reshape(z.shape).to(z.dtype)

    def at(self, path: Path) -> LineMarginals:
        return LineMarginals(self, path)

    def flow_map(self, path: Path) -> FlowMap:
        """The map between equal quantiles."""
        return QuantileMap(self, path)

    def minimal_loss(self, path: Path, interval: tuple[float, float] = (0.0, 1.0)) -> float:
        return minimal_loss_on_the_line(self, path, interval)

    def _panels(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """Nodes in each panel and the log of weight times density, (..., 16); -inf if empty."""
        half = ((right - left) / 2)[..., None]
        y = ((left + right) / 2)[..., None] + half * NODES.to(left)
        # Twice where: an empty panel may lie where the density has no value.
        log_weight = torch.where(half > 0, (half * WEIGHTS.to(left)).log(), -math.inf)
        log_density = self._log_density(y)
        return y, torch.where(half > 0, log_weight + log_density, -math.inf)


class _Posterior(NamedTuple):
    """The law of x1 given x_t, and of x_t, at N nodes."""

    y: Tensor  # (B, N)
    probability: Tensor  # (B, N)
    log_density: Tensor  # (B,): of x_t


@dataclass(frozen=True)
class LineMarginals(Marginals):
    """The laws of a `Line` along a path, computed in float64. Labels are ignored."""

    target: Line
    path: Path

    def log_density(self, x: State, t: Time, label: Label = None) -> PerExample:
        def f(x: State, t: Time, _: Label) -> tuple[Tensor]:
            alpha, sigma = (c.reshape(-1) for c in scales(self.path, t, x))
            alpha = alpha.clamp_min(torch.finfo(x.dtype).tiny)
            no_noise = self.target.log_density(x[:, 0] / alpha) - alpha.log()
            return (torch.where(sigma > 0, self._posterior(x, t).log_density, no_noise),)

        return self._sliced(f, x, t, label)[0]

    def moments(self, x: State, t: Time, label: Label = None) -> tuple[State, State]:
        def f(x: State, t: Time, _: Label) -> tuple[Tensor, Tensor]:
            given = self._posterior(x, t)
            alpha, sigma = (c.reshape(-1, 1) for c in scales(self.path, t, x))
            noise = (x - alpha * given.y) / sigma
            score = -(given.probability * noise).sum(1, keepdim=True) / sigma
            return score, (given.probability * given.y).sum(1, keepdim=True)

        score, mean = self._sliced(f, x, t, label)
        return score.to(x.dtype), mean.to(x.dtype)

    def divergence(self, x: State, t: Time, label: Label = None) -> PerExample:
        def f(x: State, t: Time, _: Label) -> tuple[Tensor]:
            given = self._posterior(x, t)
            mean = (given.probability * given.y).sum(1, keepdim=True)
            variance = (given.probability * (given.y - mean).square()).sum(1)
            shrink, gain = jacobian_parts(self.path, t, x)
            return (shrink + gain * variance,)

        return self._sliced(f, x, t, label)[0].to(x.dtype)

    def jacobian(self, x: State, t: Time, label: Label = None) -> Tensor:
        return self.divergence(x, t, label)[:, None, None]

    def log_tail(self, x: State, left: Tensor, t: Time, label: Label = None) -> Tensor:
        def f(x: State, t: Time, left: Label) -> tuple[Tensor]:
            assert left is not None
            y, log_mass = self._nodes(x, t)
            alpha, sigma = (c.reshape(-1, 1) for c in scales(self.path, t, x))
            away = torch.where(left, x - alpha * y, alpha * y - x)
            z = away / sigma.clamp_min(torch.finfo(x.dtype).tiny)
            return ((log_mass + log_cdf(z)).logsumexp(1, keepdim=True) - self.target.log_total,)

        # Labels are ignored, so their place among what is sliced is free.
        return self._sliced(f, x, t, left)[0].to(x.dtype)

    def bracket(self, z: Tensor, t: Time, label: Label = None) -> tuple[Tensor, Tensor]:
        alpha, sigma = (c.reshape(-1, 1) for c in scales(self.path, t, z))
        edges = self.target.edges
        return alpha * float(edges[0]) + sigma * z, alpha * float(edges[-1]) + sigma * z

    def _nodes(self, x: State, t: Time) -> tuple[Tensor, Tensor]:
        """Nodes y (B, N) and the log of weight times density; both constants of x and t."""
        x = x.detach()
        alpha, sigma = (c.detach().reshape(-1, 1) for c in scales(self.path, t, x))
        edges, tiny = self.target.edges.to(x), torch.finfo(x.dtype).tiny
        lo, hi = edges[0], edges[-1]
        centre = (x / alpha.clamp_min(tiny)).clamp(lo, hi)
        # Beyond a wall the likelihood falls from it like exp(-d u - u^2/2): e^-40 at the reach.
        beyond = (x - alpha * centre).abs() / sigma.clamp_min(tiny)
        reach = 80 / (beyond + (beyond.square() + 80).sqrt())
        width = (sigma / alpha.clamp_min(tiny)) * (reach / 80**0.5)
        around = (centre + width * OFFSETS.to(x)).clamp(lo, hi)
        every = torch.cat([edges.expand(len(x), -1), around], 1).sort(1).values
        y, log_mass = self.target._panels(every[:, :-1], every[:, 1:])
        return y.flatten(1), log_mass.flatten(1)

    def _posterior(self, x: State, t: Time) -> _Posterior:
        y, log_mass = self._nodes(x, t)
        alpha, sigma = (c.reshape(-1, 1) for c in scales(self.path, t, x))
        sigma = sigma.clamp_min(torch.finfo(x.dtype).tiny)
        logits = log_mass - 0.5 * ((x - alpha * y) / sigma).square()
        log_scale = self.target.log_total + sigma[:, 0].log() + 0.5 * math.log(2 * math.pi)
        return _Posterior(y, logits.softmax(1), logits.logsumexp(1) - log_scale)

    def _sliced(
        self,
        f: Callable[[State, Time, Label], tuple[Tensor, ...]],
        x: State,
        t: Time,
        label: Label,
    ) -> tuple[Tensor, ...]:
        check_states(x, self.target)
        nodes = (len(self.target.edges) + len(OFFSETS)) * len(NODES)
        return in_slices(f, precise(x), t, label, nodes)


class Uniform(Line):
    """The uniform law on [lo, hi].

    Given x_t it is a truncated normal, whose variance is greatest in the middle.
    """

    def __init__(self, lo: float = -1.0, hi: float = 1.0) -> None:
        require(-math.inf < lo < hi < math.inf, "uniform", f"needs lo < hi, not {lo} and {hi}")
        super().__init__(
            f"uniform on [{lo:g}, {hi:g}]",
            torch.zeros_like,
            torch.tensor([lo, hi], dtype=torch.float64),
        )

    def quantile(self, z: Tensor) -> Tensor:
        lo, hi = self.edges.tolist()
        left, right = (hi - lo) * log_cdf(z).exp(), (hi - lo) * log_cdf(-z).exp()
        return torch.where(z < 0, lo + left, hi - right)

    def jacobian_range(self, path: Path, t: float) -> JacobianRange:
        """Exact: the highest in the middle, the lowest far away."""
        middle = path.scales(torch.tensor(t, dtype=torch.float64))[0] * self._mean
        x = middle.reshape(1, 1)
        shrink, _ = jacobian_parts(path, t, x)
        return JacobianRange(float(shrink), float(self.at(path).divergence(x, t)), exact=True)


def laplace(scale: float = 1.0) -> Line:
    """The density exp(-|y| / scale) / (2 scale)."""
    edges = scale * torch.arange(-80.0, 81.0, 4.0)
    return Line(f"laplace, scale {scale:g}", lambda y: -y.abs() / scale, edges)


def exponential(scale: float = 1.0) -> Line:
    """The density exp(-y / scale) / scale of y > 0."""
    edges = scale * torch.arange(0.0, 81.0, 4.0)
    return Line(f"exponential, scale {scale:g}", lambda y: -y / scale, edges)


def student(freedom: float = 5.0) -> Line:
    """Student's t; the freedom must be above 2 for a finite variance."""
    require(freedom > 2, "student", f"freedom must be above 2, not {freedom}")
    # E y^2 beyond 4^k falls like 4^(k (2 - freedom)).
    steps = math.ceil(min(28 / (freedom - 2), 100.0)) + 2
    wings = 4.0 ** torch.arange(0, steps, dtype=torch.float64)
    edges = torch.cat([-wings.flip(0), torch.zeros(1), wings])
    power = -(freedom + 1) / 2
    return Line(
        f"student, {freedom:g} degrees of freedom",
        lambda y: power * torch.log1p(y.square() / freedom),
        edges,
    )


def beta(a: float = 2.0, b: float = 5.0) -> Line:
    """The density of y in [0, 1] proportional to y^(a-1) (1-y)^(b-1); a, b at least 1."""
    require(a >= 1 and b >= 1, "beta", f"a and b must be at least 1, not {a} and {b}")
    towards_zero = 4.0 ** torch.arange(-16, 0, dtype=torch.float64)  # ends at 1/4
    edges = torch.cat([torch.zeros(1), towards_zero, 1 - towards_zero.flip(0), torch.ones(1)])
    return Line(
        f"beta, a {a:g}, b {b:g}",
        lambda y: (
            torch.xlogy(torch.tensor(a - 1).to(y), y)
            + torch.special.xlog1py(torch.tensor(b - 1).to(y), -y)
        ),
        edges,
    )
