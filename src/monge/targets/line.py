"""The line: distribution functions and quantiles that keep their tails, exact flow maps.

On the line a flow keeps quantiles: its map from s to t is F_t^-1(F_s(x)).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from monge.fields import check_time
from monge.paths import Path
from monge.targets.base import ExactField, Target, at_least_float32, label_of
from monge.types import Cond, State, Time


def normal_cdf(z: Tensor) -> Tensor:
    """Phi(z), with all its digits in the lower tail, where `torch.special.ndtr` has none."""
    return 0.5 * torch.special.erfc(-z / math.sqrt(2))


def normal_density(z: Tensor) -> Tensor:
    """The density of N(0, 1)."""
    return (-0.5 * z.square()).exp() / math.sqrt(2 * math.pi)


def normal_score(lower: Tensor, upper: Tensor) -> Tensor:
    """The z where Phi(z) is `lower` and 1 - Phi(z) is `upper`, from whichever is smaller."""
    small = torch.minimum(lower, upper).clamp_min(torch.finfo(lower.dtype).tiny)
    z = torch.special.ndtri(small)
    return torch.where(lower < upper, z, -z)


def solve_tails(
    tails: Callable[[Tensor], tuple[Tensor, Tensor]],
    lower: Tensor,
    upper: Tensor,
    lo: Tensor,
    hi: Tensor,
) -> Tensor:
    """The y in [lo, hi] where F(y) is `lower` and 1 - F(y) is `upper`; tails(y) gives both.

    Bisection on whichever tail is smaller, so that quantiles far out keep their digits. The
    number of halvings is fixed, so that the solution runs under vmap and without synchronising.
    """
    left = lower < upper
    for _ in range(60):
        middle = (lo + hi) / 2
        reached_lower, reached_upper = tails(middle)
        below = torch.where(left, reached_lower < lower, reached_upper >= upper)
        lo, hi = torch.where(below, middle, lo), torch.where(below, hi, middle)
    return (lo + hi) / 2


def marginal_quantile(target: Target, path: Path, z: Tensor, t: Time, cond: Cond = None) -> Tensor:
    """The increasing map of N(0, 1) to the law at t, elementwise: F_t^-1(Phi(z)), (B, 1).

    Raises:
        UserError: the law is not on the line.
    """
    law, label = target.at(path), label_of(cond)
    lower, upper = normal_cdf(z), normal_cdf(-z)
    return solve_tails(lambda y: law.tails(y, t, label), lower, upper, *law.bracket(z, t, label))


@dataclass(frozen=True)
class QuantileMap:
    r"""The flow map of a law on the line: equal quantiles, :math:`F_t^{-1}(F_s(x))`.

    First derivatives in x, s and t are exact, by the implicit function theorem; higher ones are
    not. Where F is flat to rounding, as between modes far apart, the map is as ill-conditioned
    as its inputs.
    """

    target: Target
    path: Path

    @cached_property
    def domain(self) -> tuple[float, float]:
        return self.target.field(self.path).domain

    @property
    def tangent(self) -> ExactField:
        return self.target.field(self.path)

    def __call__(self, x: State, s: Time, t: Time, cond: Cond = None) -> State:
        check_time(s, self.domain, self)
        check_time(t, self.domain, self)
        law, label, y = self.target.at(self.path), label_of(cond), at_least_float32(x)
        lower, upper = law.tails(y, s, label)
        level, above = lower.detach(), upper.detach()
        still = t.detach() if isinstance(t, Tensor) else t
        z = normal_score(level, above)
        root = solve_tails(
            lambda y: law.tails(y, still, label), level, above, *law.bracket(z, still, label)
        )
        # A Newton step that moves nothing and carries the derivatives.
        density = law.log_density(root, still, label).exp()[:, None]
        step = (law.tails(root, t, label)[0] - lower) / density.clamp_min(
            torch.finfo(density.dtype).tiny
        )
        return (root - (step - step.detach())).to(x.dtype)
