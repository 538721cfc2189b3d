r"""The least flow-matching loss of a law on the line, by quadrature.

The loss that remains is the posterior variance of :math:`\dot x_t`, and
:math:`\mathrm{Cov}[\dot x_t | x_t] = (W / \sigma)^2 \mathrm{Cov}[x_1 | x_t]`,
:math:`W = \alpha\dot\sigma - \sigma\dot\alpha`. The Jacobian of the velocity holds the same
variance (`jacobian_parts`), so

.. math:: E|\dot x_t - v|^2 = -\frac{W\sigma}{\alpha}
    \Big(E\,\nabla\cdot v - D\,\frac{\dot\sigma}{\sigma}\Big).
"""

from __future__ import annotations

import torch
from torch import Tensor

from monge.errors import UserError
from monge.paths import Path
from monge.targets.base import Target, require
from monge.targets.quadrature import integrate
from monge.tensors import value_and_rate

FARTHEST = 9.0
"""The law at t is integrated between the quantiles of this normal score; 2e-19 lies beyond."""


def minimal_loss_on_the_line(
    target: Target, path: Path, interval: tuple[float, float], rtol: float = 1e-7
) -> float:
    """What `Target.minimal_loss` says, for a target of dimension 1.

    Args:
        rtol: error allowed in a panel of time, relative to the whole.

    Raises:
        UserError: the interval reaches t = 1 under a path that has an infinite rate there.
    """
    lo, hi = interval
    require(0 <= lo < hi <= 1, target, f"an interval of times must lie in [0, 1], not {interval}")
    if hi == 1 and not path.rates_are_finite:
        raise UserError(
            f"the minimal loss of {target!r} under {path} has no closed form up to t = 1: "
            "give an interval that ends before"
        )
    law = target.at(path)

    def rate(t: float) -> float:
        time = torch.tensor(t, dtype=torch.float64)
        (alpha, sigma), (d_alpha, d_sigma) = value_and_rate(path.scales, time)
        wronskian = alpha * d_sigma - sigma * d_alpha

        def density_times_variance(x: Tensor) -> Tensor:
            x = x[:, None]
            spread = law.divergence(x, time) - d_sigma / sigma
            return law.log_density(x, time).exp() * spread

        z = torch.tensor([[-FARTHEST], [FARTHEST]], dtype=torch.float64)
        first, last = law.bracket(z, time)
        total = integrate(
            density_times_variance, float(first[0]), float(last[1]), rtol=0.1 * rtol, pieces=8
        )
        return float(-wronskian * sigma / alpha) * total

    def rates(times: Tensor) -> Tensor:
        return torch.tensor([rate(t) for t in times.tolist()], dtype=torch.float64)

    return integrate(rates, lo, hi, rtol=rtol, pieces=1)
