"""Product laws: independent blocks of coordinates, each with a law of its own.

Field, flow map and distances act on each block by itself. Blocks that share one law object are
evaluated in one call, so a product of hundreds of equal laws costs one call of the law.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    check_states,
    require,
)
from monge.targets.slices import per_example
from monge.types import Cond, FlowMap, PerExample, State, Time


class Product(Target):
    """The law of independent blocks (y_1, ..., y_n), y_i with the law factors[i].

    It has no labels of its own; those of its factors are dropped.

    Args:
        factors: the laws, in the order of their coordinates. Equal laws should be one object.

    Raises:
        UserError: no factors.
    """

    def __init__(self, factors: Sequence[Target]) -> None:
        require(len(factors) > 0, "product", "needs at least one factor")
        self.factors = tuple(factors)
        self._groups: dict[Target, Tensor] = {}  # law -> (n, m) coordinates of its blocks
        start, blocks = 0, {}
        for factor in self.factors:
            stop = start + factor.dim
            blocks.setdefault(factor, []).append(torch.arange(start, stop))
            start = stop
        self._dim = start
        self._groups = {factor: torch.stack(places) for factor, places in blocks.items()}

    def __repr__(self) -> str:
        laws = " x ".join(f"{f!r}^{len(places)}" for f, places in self._groups.items())
        return f"Product(dim={self.dim}: {laws})"

    @property
    def groups(self) -> Iterator[tuple[Target, Tensor]]:
        """Each different law with the coordinates (n, m) of its n blocks of dimension m."""
        return iter(self._groups.items())

    @property
    def dim(self) -> int:
        return self._dim

    @property
    def n_classes(self) -> None:
        return None

    @property
    def smooth(self) -> bool:
        return all(factor.smooth for factor in self._groups)

    @property
    def mean(self) -> Tensor:
        return torch.cat([factor.mean for factor in self.factors])

    @property
    def covariance(self) -> Tensor:
        return torch.block_diag(*(factor.covariance for factor in self.factors))

    def sample_labelled(self, n: int, rng: torch.Generator) -> tuple[Tensor, None]:
        x = torch.empty(n, self.dim, dtype=torch.float64, device=rng.device)
        for factor, places in self.groups:
            drawn = factor.sample(n * len(places), rng)
            x[:, places.flatten()] = drawn.reshape(n, -1)
        return x, None

    def at(self, path: Path) -> ProductMarginals:
        return ProductMarginals(self, path)

    def flow_map(self, path: Path) -> ProductMap:
        """The map of each factor on its own block."""
        for factor in self._groups:
            factor.flow_map(path)  # raises where one has none
        return ProductMap(self, path)

    def minimal_loss(self, path: Path, interval: tuple[float, float] = (0.0, 1.0)) -> float:
        return sum(len(places) * f.minimal_loss(path, interval) for f, places in self.groups)

    def quantile(self, z: Tensor) -> Tensor:
        return super().quantile(z) if self.dim != 1 else self.factors[0].quantile(z)

    def jacobian_range(self, path: Path, t: float) -> JacobianRange:
        ranges = [factor.jacobian_range(path, t) for factor in self._groups]
        return JacobianRange(
            min(r.lowest for r in ranges),
            max(r.highest for r in ranges),
            all(r.exact for r in ranges),
        )

    def take(self, x: State, places: Tensor) -> State:
        """The blocks at (n, m) coordinates of x (B, D), as states (B n, m)."""
        return x[:, places.to(x.device)].flatten(0, 1)

    def put(self, parts: Sequence[tuple[Tensor, State]]) -> State:
        """States (B, D) from blocks (B n, m) and their coordinates (n, m)."""
        order = torch.cat([places.flatten() for places, _ in parts]).argsort()
        columns = [y.reshape(-1, places.numel()) for places, y in parts]
        return torch.cat(columns, 1)[:, order.to(columns[0].device)]


def _repeat(t: Time, n: int) -> Time:
    """The time of each of n blocks of each example."""
    return t.repeat_interleave(n) if isinstance(t, Tensor) and per_example(t) else t


@dataclass(frozen=True)
class ProductMarginals(Marginals):
    """The laws of a product along a path: products of its factors' laws. Labels are ignored."""

    target: Product
    path: Path

    def log_density(self, x: State, t: Time, label: Label = None) -> PerExample:
        parts = [
            law.log_density(y, u).reshape(len(x), -1).sum(1) for law, y, u, _ in self._each(x, t)
        ]
        return torch.stack(parts).sum(0)

    def moments(self, x: State, t: Time, label: Label = None) -> tuple[State, State]:
        scores, means = [], []
        for law, y, u, places in self._each(x, t):
            score, mean = law.moments(y, u)
            scores.append((places, score))
            means.append((places, mean))
        return self.target.put(scores), self.target.put(means)

    def jacobian(self, x: State, t: Time, label: Label = None) -> Tensor:
        whole = x.new_zeros(len(x), self.target.dim, self.target.dim)
        for law, y, u, places in self._each(x, t):
            rows, columns = places[:, :, None], places[:, None, :]
            blocks = law.jacobian(y, u).unflatten(0, (len(x), -1))
            whole[:, rows.to(x.device), columns.to(x.device)] = blocks
        return whole

    def divergence(self, x: State, t: Time, label: Label = None) -> PerExample:
        parts = [
            law.divergence(y, u).reshape(len(x), -1).sum(1) for law, y, u, _ in self._each(x, t)
        ]
        return torch.stack(parts).sum(0)

    def log_tail(self, x: State, left: Tensor, t: Time, label: Label = None) -> Tensor:
        if self.target.dim != 1:
            return super().log_tail(x, left, t, label)
        return self.target.factors[0].at(self.path).log_tail(x, left, t)

    def bracket(self, z: Tensor, t: Time, label: Label = None) -> tuple[Tensor, Tensor]:
        if self.target.dim != 1:
            return super().bracket(z, t, label)
        return self.target.factors[0].at(self.path).bracket(z, t)

    def _each(self, x: State, t: Time) -> Iterator[tuple[Marginals, State, Time, Tensor]]:
        """For each different law: its marginals, its blocks, their times and coordinates."""
        check_states(x, self.target)
        for factor, places in self.target.groups:
            yield (
                factor.at(self.path),
                self.target.take(x, places),
                _repeat(t, len(places)),
                places,
            )


@dataclass(frozen=True)
class ProductMap:
    """The flow map of a product: that of each factor on its own block. Conditions are ignored."""

    target: Product
    path: Path

    @cached_property
    def domain(self) -> tuple[float, float]:
        return self.target.field(self.path).domain

    @property
    def tangent(self) -> ExactField:
        return self.target.field(self.path)

    @cached_property
    def _maps(self) -> list[tuple[FlowMap, Tensor]]:
        return [(factor.flow_map(self.path), places) for factor, places in self.target.groups]

    def __call__(self, x: State, s: Time, t: Time, cond: Cond = None) -> State:
        check_time(s, self.domain, self)
        check_time(t, self.domain, self)
        parts = []
        for flow, places in self._maps:
            n = len(places)
            parts.append((places, flow(self.target.take(x, places), _repeat(s, n), _repeat(t, n))))
        return self.target.put(parts)
