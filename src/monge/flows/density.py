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
from monge.flows.integrated import Integrated
from monge.flows.transport import transported
from monge.tensors import noise, sum_except_batch
from monge.types import Cond, PerExample, State

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
    signs = signs_of(x, probes, seed, first)
    x0, integral = transported(flow, x, hi, lo, cond, signs)
    return estimated(source(x0), integral)


def signs_of(
    x: State, probes: int | None, seed: int, first: int = 0, *key: int | str
) -> Tensor | None:
    """Random signs (K, B, ...) of Hutchinson's estimator; None where the exact trace is taken.

    Raises:
        UserError: one probe, of which no error is known.
    """
    if probes is not None and probes < 2:
        raise UserError(f"Hutchinson's standard error needs at least 2 probes, not {probes}")
    if probes is None or probes >= x[0].numel():
        return None
    shape = tuple(x.shape[1:])
    drawn = [
        noise(seed, first, first + len(x), shape, "probe", *key, k, signs=True)
        for k in range(probes)
    ]
    return torch.stack(drawn).to(x)


def estimated(log_p: PerExample, integral: Tensor) -> Density:
    """The density from log p at the start and the change of volume: (B,), or estimates (B, K)."""
    if integral.ndim == 1:
        value = log_p + integral
        return Density(value, torch.zeros_like(value))
    probes = integral.shape[1]
    stderr = integral.std(dim=1) / math.sqrt(probes)
    stderr = torch.where(stderr > 0, stderr, torch.nan)
    return Density(log_p + integral.mean(dim=1), stderr, probes=probes)
