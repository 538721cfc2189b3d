r"""The density of what a learned map's jumps make of noise, by their own Jacobian.

A jump is a change of variables like any other: with x its start and y = X_{s,t}(x) its end,

.. math:: \log q_t(y) = \log q_s(x) - \log |\det \nabla X_{s,t}(x)| .

That is not the density of the flow that the map approximates: summing the divergence of its
velocity over a few coarse steps gives numbers that belong to no law at all. Here the start of each
jump is found by Newton's method and its Jacobian is exact, at D forward-mode derivatives each.

A network may fold space, so that a point has several starts or none. The start near the flow of
the map's own velocity is taken: q is then at least this, and exactly this where the map is
injective. Where none is found the value is NaN.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from monge.errors import UserError
from monge.flows.density import Density, standard_normal_log_density
from monge.flows.integrated import Integrated
from monge.flows.maps import Composed
from monge.solvers import RK4
from monge.tensors import expand, forward_mode
from monge.types import Cond, PerExample, State

MOST_COORDINATES = 512
"""Of a state: its Jacobian has their square, for each example."""

START_STEPS = 8
"""Of RK4 backwards along the velocity, for Newton's method to start from, per jump."""

ITERATIONS = 20

HALVINGS = 6
"""Of a step of Newton's method that brings an end no nearer."""

ROUNDING = 256
"""Units in the last place, relative to the state, within which an end is met."""


@torch.no_grad()
def jump_log_density(
    flow: Composed,
    x: State,
    cond: Cond = None,
    *,
    source: Callable[[State], PerExample] = standard_normal_log_density,
) -> Density:
    """log-density at x of what the jumps of a map, along its grid, make of the source.

    Args:
        x: (B, ...), at the end of the flow's domain.
        source: the log-density at its start, standard normal unless given.

    Raises:
        UserError: states of more coordinates than `MOST_COORDINATES`.
    """
    if x[0].numel() > MOST_COORDINATES:
        raise UserError(
            f"the Jacobian of jumps is taken for {MOST_COORDINATES} coordinates at most, not "
            f"{x[0].numel()}: name a solver for the density of the map's velocity"
        )
    log_det = x.new_zeros(len(x))
    for s, t in reversed(list(itertools.pairwise(flow.knots))):

        def jump(z: State, s: float = s, t: float = t) -> State:
            return flow.map(z, s, t, cond)

        start = Integrated(flow.tangent, RK4(), per_span=START_STEPS)(x, t, s, cond)
        x, found = _before(jump, x, start)
        size = torch.linalg.slogdet(_value_and_jacobian(jump, x)[1]).logabsdet
        log_det = torch.where(found, log_det + size, torch.nan)
    value = source(x) - log_det
    return Density(value, torch.zeros_like(value))


def _before(jump: Callable[[State], State], end: State, start: State) -> tuple[State, Tensor]:
    """The start of a jump that ends at `end`, near `start`; and whether it was found, (B,)."""

    def missed(x: State) -> Tensor:
        return (jump(x) - end).flatten(1).square().mean(1).sqrt()

    size = end.flatten(1).square().mean(1).sqrt().clamp(min=1.0)
    limit = ROUNDING * torch.finfo(end.dtype).eps * size
    x, error = start, missed(start)
    for _ in range(ITERATIONS):
        if bool((error <= limit).all()):
            break
        value, jacobian = _value_and_jacobian(jump, x)
        # A singular Jacobian gives no finite step, which is no nearer.
        step = torch.linalg.solve_ex(jacobian, (end - value).flatten(1))[0].view_as(x)
        best, least = x, error
        for k in range(HALVINGS):
            trial = x + step / 2**k
            reached = missed(trial)
            nearer = reached < least
            best = torch.where(expand(nearer, x), trial, best)
            least = torch.where(nearer, reached, least)
            if bool(((least < error) | (error <= limit)).all()):
                break
        if not bool((least < error).any()):
            break
        x, error = best, least
    return x, error <= limit


def _value_and_jacobian(f: Callable[[State], State], x: State) -> tuple[State, Tensor]:
    """f(x) and its Jacobian (B, D, D), f acting on each example independently."""
    size = x[0].numel()
    basis = torch.eye(size, dtype=x.dtype, device=x.device)
    tangents = basis[:, None].expand(-1, len(x), -1).reshape(size, *x.shape)

    def along(v: Tensor) -> tuple[Tensor, Tensor]:
        return torch.func.jvp(f, (x,), (v,))  # type: ignore[return-value]

    with forward_mode():
        values, columns = torch.func.vmap(along, chunk_size=64)(tangents)
    return values[0], columns.flatten(2).permute(1, 2, 0)
