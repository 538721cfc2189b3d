r"""Divergences between two laws whose densities are both known, from samples of each.

.. math:: \mathrm{KL}(p|q) = E_p \log\frac pq, \qquad
    \mathrm{TV}(p, q) = E_p \Big(1 - \frac qp\Big)_+ = E_q \Big(1 - \frac pq\Big)_+ .

Means of independent numbers, so they are unbiased and their standard errors are plain. The terms of
TV lie in [0, 1]; those of a KL divergence have no bound, and where one law has mass that the other
one hardly has, its own samples show it and those of the other one do not: read both directions.

References:
    | Elements of Information Theory (Cover and Thomas, 2006), Sec. 2.3 and 11.6
"""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from monge.errors import UserError
from monge.metrics.intervals import Interval, normal
from monge.metrics.samples import Values

METHOD = "standard error of a mean, normal"


class Estimate(NamedTuple):
    """A number and its standard error."""

    value: float
    stderr: float

    @property
    def interval(self) -> Interval:
        return normal(self.value, self.stderr, METHOD)


class Divergences(NamedTuple):
    """How far q is from p, in nats, and in total variation."""

    forward_kl: Estimate
    reverse_kl: Estimate
    total_variation: Estimate


def divergences(at_p: Values, at_q: Values) -> Divergences:
    """KL(p|q), KL(q|p) and TV(p, q) from log(q / p) at samples.

    Args:
        at_p: (n,), log q(x) - log p(x) in nats at samples x of p.
        at_q: (m,), the same at samples of q.

    A log-ratio that is NaN makes the numbers NaN, for all to see.

    Raises:
        UserError: fewer than two samples of a law.
    """
    if min(len(at_p), len(at_q)) < 2:
        raise UserError(
            f"divergences need two samples of each law, not {len(at_p)} and {len(at_q)}"
        )
    forward, reverse = _mean(-at_p.double()), _mean(at_q.double())
    parts = [_mean(-r.double().clamp(max=0).expm1()) for r in (at_p, -at_q)]
    halves = Estimate(sum(e.value for e in parts) / 2, math.hypot(*(e.stderr for e in parts)) / 2)
    return Divergences(forward, reverse, halves)


def _mean(values: Tensor) -> Estimate:
    return Estimate(float(values.mean()), float(values.std()) / math.sqrt(len(values)))
