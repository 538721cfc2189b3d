r"""Columns of a table bent to normal marginals, and back.

A coordinate x of the data is a smooth increasing function of its normal score u,

.. math:: x = Q(u), \qquad \log p_x(x) = \log p_u(u) - \log Q'(u),

given by knots :math:`(u_k, x_k)`. Between two knots it is the monotone rational quadratic of
Gregory and Delbourgo, whose inverse and derivative are closed forms. Beyond the last knot it goes
on with the slope there: straight, or towards a bound that it never reaches,

.. math:: Q(u) = h - (h - x_K) \exp\{-s (u - u_K) / (h - x_K)\}.

References:
    | Piecewise rational quadratic interpolation to monotonic data (Gregory & Delbourgo, 1982),
      Eq. 2.3 to 2.7
    | Neural spline flows (Durkan et al., 2019), App. A, for the inverse -- https://arxiv.org/abs/1906.04032
    | A method for constructing local monotone piecewise cubic interpolants (Fritsch & Butland,
      1984), Eq. 4, for the slopes at the knots
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from monge.autoencoders.base import AutoencoderModule, Rows
from monge.errors import UserError
from monge.types import Latent, Posterior, State

KEY = "marginals"
"""Of the curves in an autoencoder's architecture."""

NEAREST = 1e-12
"""How near a bound a number is taken at most, relative to the last knot's distance from it."""


class Curves:
    """Increasing curves x = Q(u), one for each of D coordinates, in float64.

    Args:
        curves: of each coordinate ``u`` and ``x``, knots in increasing order, and ``low`` and
            ``high``, the bounds of x or None.

    Raises:
        UserError: knots that do not increase, or lie beyond a bound.
    """

    def __init__(self, curves: Sequence[Mapping[str, Any]]) -> None:
        with torch.device("cpu"):  # also where a module is only sketched
            most = max(len(c["u"]) for c in curves)
            self.count = torch.tensor([len(c["u"]) for c in curves])
            self.u = torch.full((len(curves), most), torch.inf, dtype=torch.float64)
            self.x, self.slope = self.u.clone(), torch.ones_like(self.u)
            ends = [(c["low"], c["high"]) for c in curves]
            bounds = [
                [-math.inf if a is None else a, math.inf if b is None else b] for a, b in ends
            ]
            self.low, self.high = torch.tensor(bounds, dtype=torch.float64).unbind(1)
            for k, c in enumerate(curves):
                u, x = (torch.tensor(c[name], dtype=torch.float64) for name in ("u", "x"))
                inside = float(x[0]) > self.low[k] and float(x[-1]) < self.high[k]
                if len(u) != len(x) or len(u) < 2 or not bool((u.diff() > 0).all()) or not inside:
                    raise UserError("the knots of a marginal do not increase within its bounds")
                if not bool((x.diff() > 0).all()):
                    raise UserError("the knots of a marginal do not increase within its bounds")
                self.u[k, : len(u)], self.x[k, : len(x)] = u, x
                self.slope[k, : len(u)] = slopes(u, x)
                # At a bound no steeper than a law whose density is even there.
                room = torch.stack([x[0] - self.low[k], self.high[k] - x[-1]])
                steepest = room * hazard(torch.stack([u[0], -u[-1]]))
                ends = [0, len(u) - 1]
                self.slope[k, ends] = torch.minimum(self.slope[k, ends], steepest)

    def to(self, device: torch.device) -> Curves:
        """The same with its knots on a device."""
        for name, value in vars(self).items():
            setattr(self, name, value.to(device))
        return self

    def value(self, u: Float64[Tensor, "n d"]) -> Float64[Tensor, "n d"]:
        """x = Q(u)."""
        (u0, u1, x0, x1, d0, d1), below, above = self._around(u, self.u)
        delta = (x1 - x0) / (u1 - u0)
        part = ((u - u0) / (u1 - u0)).clamp(0, 1)
        bow = part * (1 - part)
        inner = (x1 - x0) * (delta * part**2 + d0 * bow) / (delta + (d0 + d1 - 2 * delta) * bow)
        low, high = _tail(u0 - u, d0, x0 - self.low), _tail(u - u1, d1, self.high - x1)
        return torch.where(below, x0 - low, torch.where(above, x1 + high, x0 + inner))

    def score(self, x: Float64[Tensor, "n d"]) -> Float64[Tensor, "n d"]:
        """The u with Q(u) = x; of a number at or beyond a bound, that of one just within."""
        (u0, u1, x0, x1, d0, d1), below, above = self._around(x, self.x)
        delta = (x1 - x0) / (u1 - u0)
        y = torch.minimum((x - x0).clamp_min(0), x1 - x0)
        a = (x1 - x0) * (delta - d0) + y * (d0 + d1 - 2 * delta)
        b = (x1 - x0) * d0 - y * (d0 + d1 - 2 * delta)
        c = -delta * y
        part = 2 * c / (-b - (b**2 - 4 * a * c).clamp_min(0).sqrt())
        low = _untail(x0 - x, d0, x0 - self.low)
        high = _untail(x - x1, d1, self.high - x1)
        inner = u0 + (u1 - u0) * part
        return torch.where(below, u0 - low, torch.where(above, u1 + high, inner))

    def log_slope(self, u: Float64[Tensor, "n d"]) -> Float64[Tensor, "n d"]:
        """log Q'(u)."""
        (u0, u1, x0, x1, d0, d1), below, above = self._around(u, self.u)
        delta = (x1 - x0) / (u1 - u0)
        part = ((u - u0) / (u1 - u0)).clamp(0, 1)
        bow = part * (1 - part)
        top = delta**2 * (d1 * part**2 + 2 * delta * bow + d0 * (1 - part) ** 2)
        inner = (top / (delta + (d0 + d1 - 2 * delta) * bow) ** 2).log()
        low = d0.log() - d0 * (u0 - u) / (x0 - self.low)
        high = d1.log() - d1 * (u - u1) / (self.high - x1)
        return torch.where(below, low, torch.where(above, high, inner))

    def beyond(self, x: Float64[Tensor, "n d"]) -> Bool[Tensor, "n d"]:
        """Which numbers lie at or beyond a bound, where there is no density."""
        return (x <= self.low) | (x >= self.high)

    def _around(
        self, at: Tensor, knots: Tensor
    ) -> tuple[list[Tensor], Bool[Tensor, "n d"], Bool[Tensor, "n d"]]:
        """The two knots around numbers (N, D), their values and slopes; which lie beyond all."""
        columns = at.T.contiguous()
        right = torch.searchsorted(knots, columns, right=True)
        right = torch.minimum(right.clamp_min(1), self.count[:, None] - 1)
        found = []
        for table in (self.u, self.x, self.slope):
            found += [table.gather(1, right - 1).T, table.gather(1, right).T]
        last = knots.gather(1, self.count[:, None] - 1)[:, 0]
        return found, at < knots[:, 0], at > last


def _tail(far: Tensor, slope: Tensor, room: Tensor) -> Tensor:
    """How far x has gone beyond a knot at a distance of u: straight where the room is infinite."""
    far = far.clamp_min(0)
    bent = -room * torch.expm1(-slope * far / room)
    return torch.where(room.isinf(), slope * far, bent)


def _untail(gone: Tensor, slope: Tensor, room: Tensor) -> Tensor:
    """The inverse of `_tail`."""
    gone = gone.clamp_min(0)
    left = (1 - gone / room).clamp_min(NEAREST)
    return torch.where(room.isinf(), gone / slope, -room / slope * left.log())


def hazard(u: Float64[Tensor, "k"]) -> Float64[Tensor, "k"]:
    """phi(u) / Phi(u), the derivative of log Phi.

    >>> round(float(hazard(torch.zeros(1).double())), 6)
    0.797885
    """
    log_density = -0.5 * u.square() - 0.5 * math.log(2 * math.pi)
    return (log_density - torch.special.log_ndtr(u)).exp()


def slopes(u: Float64[Tensor, "k"], x: Float64[Tensor, "k"]) -> Float64[Tensor, "k"]:
    """The slopes at knots: weighted harmonic means of the secants, at the ends the secants.

    >>> u = torch.tensor([0.0, 1.0, 2.0]).double()
    >>> slopes(u, torch.tensor([0.0, 1.0, 4.0]).double()).tolist()
    [1.0, 1.5, 3.0]
    """
    h = u.diff()
    secant = x.diff() / h
    first, second = 2 * h[1:] + h[:-1], h[1:] + 2 * h[:-1]
    inner = (first + second) / (first / secant[:-1] + second / secant[1:])
    return torch.cat([secant[:1], inner, secant[-1:]])


class WithMarginals(AutoencoderModule):
    """An autoencoder of normal scores in place of numbers.

    Args:
        inner: the autoencoder of the scores.
        curves: by coordinate, see `Curves`; None for one that is left as it is.
    """

    def __init__(
        self, inner: AutoencoderModule, curves: Sequence[Mapping[str, Any] | None]
    ) -> None:
        super().__init__(inner.spec, inner.data_shape, inner.latent_shape)
        bent = [k for k, c in enumerate(curves) if c is not None]
        if inner.data_shape != (len(curves),) or not bent:
            raise UserError(f"{len(curves)} marginals do not fit rows of shape {inner.data_shape}")
        self.inner = inner
        self.columns = bent
        self.curves = Curves([c for c in curves if c is not None])
        self._given = list(curves)

    @property
    def architecture(self) -> dict[str, Any] | None:
        return {KEY: self._given, "inner": self.inner.architecture}

    @torch.no_grad()
    def fit(self, x: Rows) -> WithMarginals:
        """Fits the inner autoencoder to the scores of data x (N, D), where it is fitted."""
        if hasattr(self.inner, "fit"):
            scores = torch.cat([self.scores(part) for part in x.split(4096)])
            self.inner.fit(scores)  # type: ignore[operator]
            self.latent_shape = self.inner.latent_shape
        return self

    def encode(self, x: State) -> Posterior:
        return self.inner.encode(self.scores(x))

    def decode(self, z: Latent) -> State:
        scores = self.inner.decode(z)
        x = scores.clone()
        x[:, self.columns] = self._on(x).value(self._wide(scores)).to(x)
        return x

    def scores(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Rows with normal scores in the place of the bent columns' numbers."""
        scores = x.clone()
        scores[:, self.columns] = self._on(x).score(self._wide(x)).to(x)
        return scores

    @property
    def bijective(self) -> bool:
        return self.inner.log_abs_det is not None

    def log_abs_det_at(self, x: State) -> Float64[Tensor, "n"] | None:
        if self.inner.log_abs_det is None:
            return None
        curves, wide = self._on(x), self._wide(x)
        logs = curves.log_slope(curves.score(wide)).sum(1) + self.inner.log_abs_det
        return torch.where(curves.beyond(wide).any(1), torch.inf, logs)

    def _wide(self, x: Tensor) -> Float64[Tensor, "n d"]:
        """The bent columns in float64, on a device that has it."""
        part = x[:, self.columns]
        return (part.cpu() if x.device.type == "mps" else part).double()

    def _on(self, x: Tensor) -> Curves:
        return self.curves.to(torch.device("cpu") if x.device.type == "mps" else x.device)
