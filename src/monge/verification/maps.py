r"""What a learned map owes: defects of its laws, losses on slices of time, and what they bound.

With b the velocity that the map follows, L its one-sided Lipschitz constant, and the map X^ taken
in one jump from 0 to T,

.. math::
    W_2^2 \le E|\hat X_{0,T} - X_{0,T}|^2 &\le T \max(1, e^{2 L T})
        \int_0^T E|\partial_t \hat X_{0,t}(x_0) - b_t(\hat X_{0,t}(x_0))|^2 dt, \\
    W_2^2 &\le T \int_0^T E|\partial_s \hat X_{s,T}(x_s) + \nabla \hat X_{s,T} b_s|^2 ds ,

the Lagrangian row s = 0 and the Eulerian column t = T, whose x_s lies on the flow that is followed,
X_{0,s}(x_0): the path has another law where a teacher is guided or not exact. An average over both
times bounds nothing.

The first is the paper's without a factor of e, by Cauchy-Schwarz for Young's inequality.

References:
    | Flow map matching (Boffi et al., 2024), Props. 3.7, 3.8 -- https://arxiv.org/abs/2406.07507
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from monge.flows import Composed, Integrated
from monge.tensors import forward_mode, noise
from monge.types import Cond, Latent, VelocityField
from monge.verification.pipeline import chunk_size, in_chunks

SLICES = 16
"""Strata of the time integrals."""


@dataclass(frozen=True)
class MapFacts:
    """Of a map in latent units; squares are summed over coordinates.

    Attributes:
        semigroup: root mean square of |X_{u,T} X_{0,u} - X_{0,T}|, u in the middle.
        inverse: that of |X_{T,0} X_{0,T} - x|; None for a map that was not trained backwards.
        squared_error: E|X^_{0,T} - X_{0,T}|^2 against the flow that is followed.
        lagrangian: the row s = 0; eulerian: the column t = T.
        one_sided: the Lipschitz constant that was measured along trajectories.
        lagrangian_bound, eulerian_bound: of W2, by the row and by the column.
        coordinates: of a latent.
    """

    semigroup: float
    inverse: float | None
    squared_error: float
    lagrangian: float
    eulerian: float
    one_sided: float
    lagrangian_bound: float
    eulerian_bound: float
    coordinates: int


def lagrangian_slice(
    flow: Composed, velocity: VelocityField, x0: Latent, cond: Cond = None, seed: int = 0
) -> float:
    """The integral over t of E|d_t X_{0,t}(x_0) - b_t(X_{0,t}(x_0))|^2."""
    lo, _ = flow.domain

    def residual(x: Tensor, _: Tensor, t: Tensor, given: Cond) -> tuple[Tensor, Tensor]:
        start = torch.full_like(t, lo)

        def end_at(u: Tensor) -> Tensor:
            return flow.map(x, start, u, given)

        with forward_mode():
            end, rate = torch.func.jvp(end_at, (t,), (torch.ones_like(t),))  # type: ignore[misc]
        return x, rate - velocity(end, t, given)

    return _integrated(residual, x0, cond, flow.domain, seed)


def eulerian_slice(
    flow: Composed, reference: Integrated, x0: Latent, cond: Cond = None, seed: int = 0
) -> float:
    """The integral over s of E|d_s X_{s,T}(x_s) + grad X_{s,T} b_s(x_s)|^2.

    The x_s lie on the reference, the flow of b, solved finely.
    """
    _, hi = flow.domain

    def residual(x: Tensor, before: Tensor, s: Tensor, given: Cond) -> tuple[Tensor, Tensor]:
        x, end = reference(x, before, s, given), torch.full_like(s, hi)
        b = reference.field(x, s, given)

        def moved(y: Tensor, u: Tensor) -> Tensor:
            return flow.map(y, u, end, given)

        with forward_mode():
            return x, torch.func.jvp(moved, (x, s), (b, torch.ones_like(s)))[1]  # type: ignore

    return _integrated(residual, x0, cond, flow.domain, seed)


def map_facts(
    flow: Composed,
    reference: Integrated,
    x0: Latent,
    cond: Cond,
    one_sided: float,
    backwards: bool,
    seed: int = 0,
) -> MapFacts:
    """All of it.

    Args:
        reference: the flow of what is followed, solved finely.
        cond: of the noises x0.
        one_sided: the greatest expansion rate of what is followed.
        backwards: whether the map was trained from data to noise too.
    """
    lo, hi = flow.domain
    middle = (lo + hi) / 2
    velocity = reference.field
    with torch.no_grad():
        one = in_chunks(lambda x, c: flow.map(x, lo, hi, c), x0, cond)
        exact = in_chunks(lambda x, c: reference(x, lo, hi, c), x0, cond)

        def in_two(x: Tensor, c: Cond) -> Tensor:
            return flow.map(flow.map(x, lo, middle, c), middle, hi, c)

        two = in_chunks(in_two, x0, cond)
        inverse = None
        if backwards:
            back = in_chunks(lambda x, c: flow.map(x, hi, lo, c), one, cond)
            inverse = math.sqrt(_mean_square(back - x0))
    row = lagrangian_slice(flow, velocity, x0, cond, seed)
    column = eulerian_slice(flow, reference, x0, cond, seed)
    span = hi - lo
    growth = max(1.0, math.exp(min(2 * one_sided * span, 700.0)))
    return MapFacts(
        math.sqrt(_mean_square(two - one)),
        inverse,
        _mean_square(one - exact),
        row,
        column,
        one_sided,
        math.sqrt(growth * span * row),
        math.sqrt(span * column),
        x0[0].numel(),
    )


def _integrated(
    residual: Callable[[Tensor, Tensor, Tensor, Cond], tuple[Tensor, Tensor]],
    x0: Latent,
    cond: Cond,
    domain: tuple[float, float],
    seed: int,
) -> float:
    """The integral over the domain of E|r|^2, with a time in each stratum for each example.

    Args:
        residual: from states, their times, the next times and conditions, to the states there and
            their r.
    """
    lo, hi = domain
    drawn = torch.special.ndtr(noise(seed, 0, len(x0), (SLICES,), "slice")) + torch.arange(SLICES)
    times = (lo + (hi - lo) * drawn / SLICES).to(x0)
    total = 0.0
    with torch.no_grad():
        for rows in torch.arange(len(x0)).split(chunk_size(x0)):
            given = None if cond is None else {name: c[rows] for name, c in cond.items()}
            x, before = x0[rows], torch.full_like(times[rows, 0], lo)
            for t in times[rows].unbind(1):
                x, r = residual(x, before, t, given)
                total += float(r.double().square().sum()) / (len(x0) * SLICES)
                before = t
    return (hi - lo) * total


def _mean_square(x: Tensor) -> float:
    return float(x.double().square().flatten(1).sum(1).mean())
