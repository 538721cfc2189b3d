r"""What a target is: a law p_1 whose marginals, field and distances are known exactly.

Under an affine path :math:`x_t = \alpha_t x_1 + \sigma_t x_0`, :math:`x_0 \sim N(0, I)`, two
functions of (x, t) carry everything: the score :math:`s = \nabla \log p_t` and the posterior
mean :math:`D = E[x_1 | x_t]`. With them

.. math:: E[x_0 | x_t] = -\sigma_t s, \qquad
    v = \dot\alpha_t D + \dot\sigma_t E[x_0 | x_t] = \dot\alpha_t D - \sigma_t \dot\sigma_t s ,

where the last form is finite wherever D and s are: at t = 0, and at t = 1 under paths whose
:math:`\dot\sigma` is infinite there. A target writes score and posterior mean together.

References:
    | Stochastic Interpolants (Albergo et al., 2023), Sec. 2 -- https://arxiv.org/abs/2303.08797
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, final

import torch
from torch import Tensor

from monge.components import Component
from monge.errors import UserError
from monge.fields import check_time
from monge.paths import MARGIN, Path
from monge.tensors import as_time, expand, value_and_rate
from monge.types import Cond, FlowMap, PerExample, State, Time

Label = Tensor | None
"""(B,) int64: which part of the law, -1 for all of it; None for all of it everywhere."""


def scales(path: Path, t: Time, x: State) -> tuple[Tensor, Tensor]:
    r""":math:`\alpha_t, \sigma_t`, each () or (B,).

    Computed at the finer precision of t and x, returned at that of x.
    """
    alpha, sigma = path.scales(_finer(t, x))
    return alpha.to(x.dtype), sigma.to(x.dtype)


def rates(path: Path, t: Time, x: State) -> tuple[Tensor, Tensor]:
    r""":math:`\dot\alpha_t, \sigma_t\dot\sigma_t`, each () or (B,); finite under every path."""
    t = _finer(t, x)
    (_, sigma), (d_alpha, d_sigma) = value_and_rate(path.scales, t)
    # One derivative where both rates are finite; the path's own form where a product alone is.
    noise_rate = sigma * d_sigma if path.rates_are_finite else path.noise_rate(t)
    return d_alpha.to(x.dtype), noise_rate.to(x.dtype)


def _finer(t: Time, x: State) -> Tensor:
    t = as_time(t, x)
    return t.to(torch.promote_types(t.dtype, x.dtype))


def jacobian_parts(path: Path, t: Time, x: State) -> tuple[Tensor, Tensor]:
    r"""(a, c) of :math:`\nabla v = a I + c\,\mathrm{Cov}[x_1 | x_t]`, each () or (B,).

    :math:`a = \dot\sigma / \sigma` and :math:`c = \alpha (\sigma \dot\alpha - \alpha
    \dot\sigma) / \sigma^3 \ge 0`; infinite where no noise is left.
    """
    (alpha, sigma), (d_alpha, noise_rate) = scales(path, t, x), rates(path, t, x)
    variance = sigma.square()
    gain = alpha * (d_alpha - alpha * noise_rate / variance) / variance
    return noise_rate / variance, gain


def at_least_float32(x: State) -> State:
    """x in the precision that closed forms are computed in."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def precise(x: State) -> State:
    """x in float64, where differences of large numbers need it and the device has it."""
    return x.to(torch.float32 if x.device.type == "mps" else torch.float64)


def check_states(x: State, target: Target) -> None:
    """Refuse states that are not (B, D)."""
    if x.ndim != 2 or x.shape[1] != target.dim:
        raise UserError(f"{target!r} takes states of shape (B, {target.dim}), not {tuple(x.shape)}")


class JacobianRange(NamedTuple):
    """Between which numbers the eigenvalues of the velocity's Jacobian lie, for all states.

    The Jacobian is symmetric, so the greater magnitude is the Lipschitz constant of the velocity
    and the highest its one-sided one.
    """

    lowest: float
    highest: float
    exact: bool  # the infimum and supremum themselves, not bounds of them


class Marginals(abc.ABC):
    """The laws p_t of a target along a path. States are (B, D), times () or (B,).

    Times may be anything in `ExactField.domain`. Results have the dtype and device of x.
    """

    path: Path

    @abc.abstractmethod
    def log_density(self, x: State, t: Time, label: Label = None) -> PerExample:
        """log p_t(x) in nats, (B,); float32 at least."""

    @abc.abstractmethod
    def moments(self, x: State, t: Time, label: Label = None) -> tuple[State, State]:
        """The score grad log p_t(x) and the posterior mean E[x1 | x_t = x], each (B, D)."""

    @abc.abstractmethod
    def jacobian(self, x: State, t: Time, label: Label = None) -> Tensor:
        """The Jacobian of the velocity in x, (B, D, D); it is symmetric."""

    @abc.abstractmethod
    def divergence(self, x: State, t: Time, label: Label = None) -> PerExample:
        """The divergence of the velocity, the trace of its Jacobian, (B,)."""

    def log_tail(self, x: State, left: Tensor, t: Time, label: Label = None) -> Tensor:
        """On the line, log P(x_t <= x) where `left`, else log P(x_t > x), (B, 1).

        Args:
            left: bool, (B, 1). Either tail keeps its digits; the smaller one determines x.

        Raises:
            UserError: the law is not on the line.
        """
        raise UserError(f"{self!r} has no distribution function: it is not one-dimensional")

    def bracket(self, z: Tensor, t: Time, label: Label = None) -> tuple[Tensor, Tensor]:
        """On the line, two points around the quantile of Phi(z), each (B, 1)."""
        raise UserError(f"{self!r} has no quantiles: it is not one-dimensional")

    @final
    def score(self, x: State, t: Time, label: Label = None) -> State:
        """grad log p_t(x)."""
        return self.moments(x, t, label)[0]

    @final
    def posterior_mean(self, x: State, t: Time, label: Label = None) -> State:
        """E[x1 | x_t = x]: what a network that predicts data should output."""
        return self.moments(x, t, label)[1]

    @final
    def noise_mean(self, x: State, t: Time, label: Label = None) -> State:
        """E[x0 | x_t = x]: what a network that predicts noise should output."""
        fine = at_least_float32(x)
        _, sigma = scales(self.path, t, fine)
        return (-expand(sigma, x) * self.score(fine, t, label)).to(x.dtype)

    @final
    def velocity(self, x: State, t: Time, label: Label = None) -> State:
        """E[dx_t/dt | x_t = x]: the field whose flow carries p_0 along p_t."""
        fine = at_least_float32(x)
        score, mean = self.moments(fine, t, label)
        d_alpha, noise_rate = rates(self.path, t, fine)
        return (expand(d_alpha, x) * mean - expand(noise_rate, x) * score).to(x.dtype)


class Target(abc.ABC):
    """A law on R^D with exact ground truth. Its own numbers are float64 on the CPU."""

    @property
    @abc.abstractmethod
    def dim(self) -> int:
        """D."""

    @property
    @abc.abstractmethod
    def n_classes(self) -> int | None:
        """How many labels `sample_labelled` gives, or None."""

    @property
    @abc.abstractmethod
    def smooth(self) -> bool:
        """Whether score and velocity are finite at t = 1: no atoms, jumps or flat directions."""

    @property
    @abc.abstractmethod
    def mean(self) -> Tensor:
        """E[x1], (D,)."""

    @property
    @abc.abstractmethod
    def covariance(self) -> Tensor:
        """Cov[x1], (D, D)."""

    @abc.abstractmethod
    def sample_labelled(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """n samples (n, D), float64 on the generator's device, and the label of each, (n,)."""

    @abc.abstractmethod
    def at(self, path: Path) -> Marginals:
        """The laws of x_t along a path."""

    def flow_map(self, path: Path) -> FlowMap:
        """The exact flow map of the velocity.

        Raises:
            UserError: it has no closed form.
        """
        raise UserError(
            f"{self!r} has no closed flow map; integrate its field: Integrated(target.field(path))"
        )

    def minimal_loss(self, path: Path, interval: tuple[float, float] = (0.0, 1.0)) -> float:
        r"""The least flow-matching loss, :math:`\int E|\dot x_t - v(x_t, t)|^2 dt`.

        Summed over coordinates, integrated over the times of the interval; what remains of the
        loss when the field is exact. Infinite where the velocity's variance is.

        Raises:
            UserError: it has no closed form.
        """
        raise UserError(f"{self!r} has no closed minimal flow-matching loss")

    def quantile(self, z: Tensor) -> Tensor:
        """The increasing map of N(0, 1) to a law on the line, elementwise: F^-1(Phi(z)).

        Raises:
            UserError: the law is not one-dimensional, or its quantiles are not known.
        """
        raise UserError(f"{self!r} has no quantiles: they belong to one-dimensional laws")

    def jacobian_range(self, path: Path, t: float) -> JacobianRange:
        """Between which numbers the eigenvalues of the velocity's Jacobian at t lie.

        Raises:
            UserError: it has no closed form.
        """
        raise UserError(f"{self!r} has no closed Lipschitz constants of its velocity")

    @final
    def lipschitz(self, path: Path, t: float) -> float:
        """The Lipschitz constant of the velocity in x at t, or a bound of it: see
        `jacobian_range`, which says which and where none is known."""
        check_time(t, self.field(path).domain, self)
        lowest, highest, _ = self.jacobian_range(path, t)
        return max(-lowest, highest)

    @final
    def one_sided_lipschitz(self, path: Path, t: float) -> float:
        """The least L with (v(x) - v(y)) . (x - y) <= L |x - y|^2 at t, or a bound of it.

        Negative where the flow contracts everywhere.
        """
        check_time(t, self.field(path).domain, self)
        return self.jacobian_range(path, t).highest

    @final
    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one state, (D,)."""
        return (self.dim,)

    @final
    @property
    def second_moment(self) -> float:
        """E|x1|^2."""
        return float(self.mean.square().sum() + self.covariance.trace())

    @final
    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        """n samples (n, D), float64 on the generator's device."""
        return self.sample_labelled(n, rng)[0]

    @final
    def field(self, path: Path) -> ExactField:
        """The exact velocity field under a path."""
        return ExactField(self, path)


@dataclass(frozen=True)
class ExactField:
    """The exact velocity field of a target: what flow matching converges to.

    A condition ``label`` selects the part of the law with that label, -1 all of it.
    """

    target: Target
    path: Path

    @cached_property
    def domain(self) -> tuple[float, float]:
        """All of [0, 1], but short of t = 1 where the velocity is infinite there."""
        rate = self.path.noise_rate(torch.ones((), dtype=torch.float64))
        finite = self.target.smooth and math.isfinite(rate)
        return (0.0, 1.0) if finite else (0.0, 1.0 - MARGIN)

    @property
    def breakpoints(self) -> tuple[float, ...]:
        return ()

    def __call__(self, x: State, t: Time, cond: Cond = None) -> State:
        check_time(t, self.domain, self)
        return self.target.at(self.path).velocity(x, t, label_of(cond))

    def divergence(self, x: State, t: Time, cond: Cond = None) -> PerExample:
        """The divergence of the field, (B,), without derivatives of the field."""
        check_time(t, self.domain, self)
        return self.target.at(self.path).divergence(x, t, label_of(cond))


def label_of(cond: Cond) -> Label:
    """The label of a condition, None where there is none."""
    return None if cond is None else cond.get("label")


class TargetSpec(Component, abc.ABC):
    """The settings of a target, written ``name:key=value,...``."""

    @abc.abstractmethod
    def build(self) -> Target:
        """The target: equal settings give equal laws."""


def require(condition: bool, what: object, message: str) -> None:
    """Raise a `UserError` about a setting unless the condition holds."""
    if not condition:
        raise UserError(f"target {what}: {message}")
