"""The density that a flow carries from its start to its end.

References:
    | Neural ODEs and their densities (Chen et al., 2018) -- https://arxiv.org/abs/1806.07366
    | FFJORD: Hutchinson's estimator (Grathwohl et al., 2019) -- https://arxiv.org/abs/1810.01367
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from monge.errors import UserError
from monge.fields import take
from monge.flows.integrated import Integrated
from monge.solvers import RightHandSide
from monge.tensors import noise, sum_except_batch, value_and_divergence
from monge.types import Cond, PerExample, State, Time, VelocityField

EXACT = 32
"""Dimensions up to which the trace of the flow's derivative is computed exactly in a run."""


@dataclass(frozen=True)
class Density:
    """log-density of each example and the standard error of its estimate, in nats.

    Attributes:
        value, stderr: (B,); stderr is 0 where the trace was exact, and NaN where all probes
            agree, so that no error is known.
        space: where the density lives: "data" or "latent".
        units: what its volume is measured in.
        probes: of which the stderr is one; 0 where the trace was exact.
    """

    value: PerExample
    stderr: PerExample
    space: str = "latent"
    units: str = "nats"
    probes: int = 0

    def __repr__(self) -> str:
        mean = float(self.value.double().mean())
        return f"Density({len(self.value)} examples, mean {mean:.4g} {self.units}, {self.space})"

    def interval(self, level: float = 0.95) -> tuple[PerExample, PerExample]:
        """Ends (B,) of the interval of the estimate, by Student's t; both the value if exact."""
        from scipy.stats import t

        reach = float(t.ppf((1 + level) / 2, self.probes - 1)) if self.probes else 0.0
        return self.value - reach * self.stderr, self.value + reach * self.stderr


def standard_normal_log_density(x: State) -> PerExample:
    """log N(x; 0, I), (B,)."""
    size = x[0].numel()
    return -0.5 * (sum_except_batch(x.square()) + size * math.log(2 * math.pi))


def log_density(
    flow: Integrated,
    x: State,
    cond: Cond = None,
    *,
    probes: int | None = None,
    seed: int = 0,
    first: int = 0,
    source: Callable[[State], PerExample] = standard_normal_log_density,
) -> Density:
    r"""log-density at x of the law that the flow carries the source to at the end of its domain.

    .. math:: \log p_T(x) = \log p_0(x_0) - \int_0^T \mathrm{div}\, v(x_t, t)\, dt

    Args:
        flow: solved backwards from x; its steps bound the error, which is not part of stderr.
        x: (B, ...).
        probes: None for the exact trace, else the number of random signs per example for
            Hutchinson's estimator, held fixed along the way and keyed by (seed, example). As
            many as there are dimensions cost what the exact trace costs, which is then taken.
        first: the number of the first example, where x is a chunk of a larger batch.
        source: the log-density at the start, standard normal unless given.
    """
    lo, hi = flow.domain
    signs = None
    if probes is not None and probes < 2:
        raise UserError(f"Hutchinson's standard error needs at least 2 probes, not {probes}")
    if probes is not None and probes >= x[0].numel():
        probes = None
    if probes is not None:
        signs = torch.stack(
            [
                noise(seed, first, first + len(x), tuple(x.shape[1:]), "probe", k, signs=True)
                for k in range(probes)
            ]
        ).to(x)

    def rates(v: VelocityField) -> RightHandSide:
        def f(y: tuple[Tensor, ...], u: Time, rows: Tensor | None) -> tuple[Tensor, ...]:
            own = take(cond, rows)
            mine = signs if signs is None or rows is None else signs[:, rows]
            velocity, divergence = value_and_divergence(lambda z: v(z, u, own), y[0], mine)
            return velocity, divergence

        return f

    shape = (len(x),) if probes is None else (len(x), probes)
    x0, integral = flow.solve(rates, (x, x.new_zeros(shape)), hi, lo)
    log_p = source(x0)
    if probes is None:
        value = log_p + integral
        return Density(value, torch.zeros_like(value))
    stderr = integral.std(dim=1) / math.sqrt(probes)
    stderr = torch.where(stderr > 0, stderr, torch.nan)
    return Density(log_p + integral.mean(dim=1), stderr, probes=probes)
