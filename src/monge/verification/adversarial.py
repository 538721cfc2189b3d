"""Adversarial search for the states at which a map stretches most: lower bounds of its constant.

Gradient ascent over states, of the norm of the Jacobian's product with a direction, and over
pairs, of the ratio of distances. What is found is a lower bound of the Lipschitz constant; a
certificate must never lie below it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from monge.tensors import expand, forward_mode, jvp, sum_except_batch
from monge.types import PerExample

Map = Callable[[Tensor], Tensor]

Norm = Callable[[Tensor], PerExample]
"""A norm of each state (B, ...), (B,)."""


def euclidean(x: Tensor) -> PerExample:
    """The Euclidean norm of each state."""
    return sum_except_batch(x.square()).sqrt()


@dataclass(frozen=True)
class TokenMax:
    """The largest Euclidean norm of a token.

    Attributes:
        split: states (B, ...) to tokens (B, N, size).
    """

    split: Map

    def __call__(self, x: Tensor) -> PerExample:
        return self.split(x).square().sum(-1).amax(-1).sqrt()


def steepest(f: Map, x: Tensor, steps: int = 30, rate: float = 0.1, power: int = 2) -> PerExample:
    """The largest Jacobian norm of f that ascent from each of x finds, (B,), Euclidean.

    Each step turns the direction towards the top singular vector, by `power` iterations, and
    moves the state up the gradient of the norm, by a step of Adam.
    """
    at = x.detach().clone().requires_grad_()
    climber = torch.optim.Adam([at], lr=rate)
    u = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u = _unit(u.to(x))
    best = x.new_zeros(len(x))
    for _ in range(steps):
        u = _turned(f, at.detach(), u, power)
        with torch.enable_grad(), forward_mode():
            stretch = euclidean(jvp(f, at, u)[1])
            climber.zero_grad()
            (-stretch.sum()).backward()
        best = torch.maximum(best, stretch.detach())
        climber.step()
    return best


def _turned(f: Map, x: Tensor, u: Tensor, power: int) -> Tensor:
    """u after iterations of J^T J."""
    with torch.enable_grad(), forward_mode():
        for _ in range(power):
            state = x.detach().requires_grad_()
            value, along = jvp(f, state, u)
            u = _unit(torch.autograd.grad(value, state, along.detach())[0])
    return u


def _unit(x: Tensor) -> Tensor:
    return x / expand(euclidean(x), x).clamp_min(1e-30)


def farthest(
    f: Map, x: Tensor, norm: Norm = euclidean, steps: int = 60, rate: float = 0.05
) -> PerExample:
    """The largest ratio |f(x) - f(y)| / |x - y| that ascent over pairs finds, (B,), in a norm.

    Pairs start 0.1 apart and move freely, but never nearer than 1e-3, where the difference of
    outputs is still exact to 1e-12 of the ratio in float64.
    """
    rng = torch.Generator().manual_seed(1)
    at = x.detach().clone().requires_grad_()
    way = 0.1 * _unit(torch.randn(x.shape, generator=rng, dtype=torch.float64).to(x))
    way = way.requires_grad_()
    climber = torch.optim.Adam([at, way], lr=rate)
    best = x.new_zeros(len(x))
    for _ in range(steps):
        with torch.enable_grad():
            length = norm(way)
            apart = way * expand((1e-3 / length.detach()).clamp_min(1.0), way)
            ratio = norm(f(at + apart) - f(at)) / norm(apart)
            climber.zero_grad()
            (-ratio.clamp_min(1e-12).log().sum()).backward()
        best = torch.maximum(best, ratio.detach())
        climber.step()
    return best
