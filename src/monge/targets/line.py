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


def log_cdf(z: Tensor) -> Tensor:
    """log Phi(z), with all its digits in both tails."""
    far, near = z.clamp_max(-1) / math.sqrt(2), z.clamp_min(-1) / math.sqrt(2)
    outside = (0.5 * torch.special.erfcx(-far)).log() - far.square()
    return torch.where(z < -1, outside, torch.log1p(-0.5 * torch.special.erfc(near)))


def normal_score(log_tail: Tensor) -> Tensor:
    """The z <= 0 where log Phi(z) is `log_tail`, at most log(1/2).

    Newton's method from the left: log Phi is concave and at most log(1/2) - z^2/2 there, so no
    step goes too far.
    """
    z = -(-2 * (log_tail + math.log(2))).clamp_min(0).sqrt()
    for _ in range(6):
        reached = log_cdf(z)
        log_slope = -0.5 * z.square() - 0.5 * math.log(2 * math.pi) - reached
        z = (z + (log_tail - reached) * (-log_slope).exp()).clamp_max(0)
    return z


def solve_tail(
    log_tail: Callable[[Tensor], Tensor], left: Tensor, tail: Tensor, lo: Tensor, hi: Tensor
) -> Tensor:
    """The y in [lo, hi] where log_tail(y) is `tail`: log F(y) where `left`, else log(1 - F(y)).

    By bisection. The number of halvings is fixed, so that the solution runs under vmap and
    without synchronising.
    """
    for _ in range(60):
        middle = (lo + hi) / 2
        below = (log_tail(middle) < tail) == left
        lo, hi = torch.where(below, middle, lo), torch.where(below, hi, middle)
    return (lo + hi) / 2


def marginal_quantile(target: Target, path: Path, z: Tensor, t: Time, cond: Cond = None) -> Tensor:
    """The increasing map of N(0, 1) to the law at t: F_t^-1(Phi(z)), (B, 1).

    Raises:
        UserError: the law is not on the line.
    """
    law, label, left = target.at(path), label_of(cond), z < 0
    ends = law.bracket(z, t, label)
    return solve_tail(lambda y: law.log_tail(y, left, t, label), left, log_cdf(-z.abs()), *ends)


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
        everywhere = torch.ones_like(y, dtype=torch.bool)
        left = law.log_tail(y.detach(), everywhere, s, label).detach() < -math.log(2)
        tail = law.log_tail(y, left, s, label)  # the smaller one keeps its digits
        level = tail.detach()
        still = t.detach() if isinstance(t, Tensor) else t
        z = normal_score(level)
        ends = law.bracket(torch.where(left, z, -z), still, label)
        root = solve_tail(lambda y: law.log_tail(y, left, still, label), left, level, *ends)
        # A Newton step that moves nothing and carries the derivatives: d log F = p / F dx.
        reached = law.log_tail(root, left, t, label)
        log_density = law.log_density(root, still, label)[:, None].to(tail)
        slope = torch.where(left, 1.0, -1.0) * (level - log_density).exp()
        step = (reached - tail) * slope
        return (root - (step - step.detach())).to(x.dtype)
