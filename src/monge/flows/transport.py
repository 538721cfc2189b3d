r"""A state and the logarithm of its change of volume, along a flow.

.. math:: \log |\det \partial x_t / \partial x_s| = \int_s^t \mathrm{div}\, v(x_u, u)\, du

References:
    | Neural ODEs and their densities (Chen et al., 2018) -- https://arxiv.org/abs/1806.07366
    | FFJORD: Hutchinson's estimator (Grathwohl et al., 2019) -- https://arxiv.org/abs/1810.01367
    | JKO-iFlow: by finite differences (Xu et al., 2023), App. B.2 -- https://arxiv.org/abs/2212.14424
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from monge.fields import take
from monge.flows.integrated import Integrated
from monge.solvers import RightHandSide
from monge.tensors import sum_except_batch, value_and_divergence
from monge.types import Cond, State, Time, VelocityField

Divergence: TypeAlias = Callable[
    [Callable[[State], State], State, Tensor | None], tuple[State, Tensor]
]
"""f(x) and the divergence of f at x: (B,), or an estimate for each of the signs (K, B, ...)."""

SPACING = 0.02
"""Of finite differences, over the root of the dimension, as in the reference code."""


def transported(
    flow: Integrated,
    x: State,
    s: Time,
    t: Time,
    cond: Cond = None,
    signs: Tensor | None = None,
    divergence: Divergence | None = None,
) -> tuple[State, Tensor]:
    """Where x at time s is at time t, and the log of the change of volume in nats.

    Both are differentiable: solver and steps are those of the flow.

    Args:
        signs: (K, B, ...) of Hutchinson's estimator, the same along the way; None for the exact
            trace.
        divergence: how the divergence is computed; None for the cheapest way that is exact to
            rounding: that of the field, if it has a method ``prepared(cond)``, which returns
            ``(x, t, signs) -> (velocity, divergence)``, else forward mode.

    Returns:
        The state, and (B,) if exact, else (B, K), an estimate for each of the signs.
    """

    def rates(v: VelocityField) -> RightHandSide:
        prepared = getattr(v, "prepared", None) if divergence is None else None
        fast = None if prepared is None else prepared(cond)
        how = divergence or value_and_divergence

        def f(y: tuple[Tensor, ...], u: Time, rows: Tensor | None) -> tuple[Tensor, ...]:
            mine = signs if signs is None or rows is None else signs[:, rows]
            if fast is not None and rows is None and not isinstance(u, Tensor):
                return fast(y[0], u, mine)
            own = take(cond, rows)
            return how(lambda z: v(z, u, own), y[0], mine)

        return f

    shape = (len(x),) if signs is None else (len(x), len(signs))
    end, integral = flow.solve(rates, (x, x.new_zeros(shape)), s, t)
    return end, integral


def by_differences(
    f: Callable[[State], State], x: State, signs: Tensor | None = None
) -> tuple[State, Tensor]:
    """Hutchinson's estimator by forward differences along the signs, (B, K).

    For symmetric signs the error in the mean is of the second order in the spacing.
    """
    if signs is None:
        raise ValueError("differences are along random signs: give them")
    value, h = f(x), SPACING / math.sqrt(x[0].numel())
    parts = [sum_except_batch((f(x + h * e) - value) * e) / h for e in signs]
    return value, torch.stack(parts, 1)
