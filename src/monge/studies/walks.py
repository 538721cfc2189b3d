r"""Discrete maps of the studies: Runge-Kutta walks in t, exponential ones, and their densities.

An exponential integrator is a Runge-Kutta method for :math:`y = x / \alpha` in
:math:`s = \sigma / \alpha`, where the probability flow reads
:math:`\mathrm{d}y/\mathrm{d}s = E[x_0 | x]`: the linear part is solved exactly, and the first order
is DDIM. A variance-preserving path has :math:`\alpha = (1 + s^2)^{-1/2}`, so s alone is the time.

A Runge-Kutta step of (x, J) with :math:`\dot J = \nabla v\, J` gives J as the derivative of the
step of x, so the density of a discrete map is exact: no kernel, no trace estimate.

References:
    | Denoising diffusion implicit models (Song et al., 2021) -- https://arxiv.org/abs/2010.02502
    | Fast convergence for high-order ODE solvers (2025) -- https://arxiv.org/abs/2506.13061
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from monge.components import build
from monge.errors import UserError
from monge.flows import Integrated
from monge.paths import Path, VariancePreserving
from monge.solvers import RK4, RungeKutta
from monge.studies.laws import LawField, SharedMarginals, marginals, velocity
from monge.targets.base import Marginals
from monge.targets.mixture import GaussianMixture, MixtureMarginals
from monge.tensors import jvp, stream
from monge.times import Uniform
from monge.types import PerExample, State

EXPONENTIAL = {"exp1": "euler", "exp2": "heun", "exp3": "rk3", "exp4": "rk4"}
"""Exponential integrators and the methods that they apply in s."""


def order(solver: str) -> int:
    """The order that a solver of the studies claims."""
    return build("solver", EXPONENTIAL.get(solver, solver)).order


def applies(solver: str, path: Path) -> bool:
    """Whether a solver can walk a path: the exponential ones need data at the source."""
    return solver not in EXPONENTIAL or isinstance(path, VariancePreserving)


def walk(law: Marginals, solver: str, times: list[float], x: State) -> State:
    """x carried along the times by one step between neighbours."""
    if solver in EXPONENTIAL:
        return _walk_in_s(law, build("solver", EXPONENTIAL[solver]), times, x)
    method = build("solver", solver)
    for s, t in itertools.pairwise(times):
        (x,) = method.advance(lambda y, u, _: (velocity(law, y[0], u),), (x,), s, t)
    return x


@dataclass(frozen=True, repr=False)
class BySignal(Path):
    """A variance-preserving path whose time is s = sigma / alpha."""

    name = "by_signal"

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha = (1 + t.square()).rsqrt()
        return alpha, t * alpha


def _walk_in_s(law: Marginals, method: RungeKutta, times: list[float], x: State) -> State:
    own = law.mixture if isinstance(law, SharedMarginals) else law
    if not isinstance(own, MixtureMarginals):
        raise UserError(f"an exponential integrator walks mixtures, not {law!r}")
    by_signal = marginals(own.target, BySignal())
    alpha, sigma = law.path.scales(torch.tensor(times, dtype=torch.float64))
    points = (sigma / alpha).tolist()
    y = x / float(alpha[0])

    def noise(state: tuple[Tensor, ...], s: Tensor | float, _: Tensor | None) -> tuple[Tensor]:
        shrink = (1 + s**2) ** -0.5
        return (by_signal.noise_mean(shrink * state[0], s),)

    for a, b in itertools.pairwise(points):
        (y,) = method.advance(noise, (y,), a, b)
    return float(alpha[-1]) * y


def uniform(steps: int) -> list[float]:
    """The times of equal steps from 0 to 1."""
    return list(Uniform(steps).points())


class Reference(NamedTuple):
    """The flow from given starts, as exactly as it is computed.

    Attributes:
        end: states at t = 1.
        error: estimate of each one's distance to the exact flow.
        lipschitz: the largest over 17 times of the median norm of the velocity's Jacobian.
        steepest: the same with the norm that nine tenths of the states do not exceed.
    """

    end: State
    error: PerExample
    lipschitz: float
    steepest: float


def reference(law: Marginals, x: State, steps: int, seed: int, looks: int = 16) -> Reference:
    """By the classical method of order 4, and Richardson's estimate of its error."""
    if steps % (2 * looks):
        raise UserError(f"a reference needs a multiple of {2 * looks} steps, not {steps}")
    fine = Integrated(LawField(law), RK4(), Uniform(steps))
    coarse = Integrated(LawField(law), RK4(), Uniform(steps // 2))
    rng = stream(seed, "power iteration")
    y, norms = x, [_norm_of_jacobian(law, x[:64], 0.0, rng)]
    for s, t in itertools.pairwise(uniform(looks)):
        y = fine(y, s, t)
        norms.append(_norm_of_jacobian(law, y[:64], t, rng))
    error = (y - coarse(x, 0.0, 1.0)).norm(dim=1) / 15
    lipschitz = max(float(n.median()) for n in norms)
    steepest = max(float(n.quantile(0.9)) for n in norms)
    return Reference(y, error, lipschitz, steepest)


def _norm_of_jacobian(law: Marginals, x: State, t: float, rng: torch.Generator) -> PerExample:
    """The spectral norm at each state, by power iteration: the Jacobian is symmetric."""
    u = torch.randn(x.shape, generator=rng, dtype=x.dtype)
    norm = u.new_zeros(len(u), 1)
    for _ in range(12):
        u = u / u.norm(dim=1, keepdim=True)
        _, u = jvp(lambda y: law.velocity(y, t), x, u)
        norm = u.norm(dim=1, keepdim=True)
        u = torch.where(norm > 0, u, torch.ones_like(u))
    return norm[:, 0]


class Pushed(NamedTuple):
    """Draws of a discrete map's law and log(q / p) there: q the data's density, p the map's."""

    end: State
    log_ratio: PerExample
    folded: float  # the fraction of starts where the map reverses orientation: p is not exact then


def pushed(law: Marginals, solver: str, times: list[float], x: State) -> Pushed:
    """The exact density of a Runge-Kutta walk of the exact law at the first time.

    Raises:
        UserError: an exponential integrator, whose density is not computed.
    """
    if solver in EXPONENTIAL:
        raise UserError(f"no density of {solver}: a Runge-Kutta method in t has one")
    method = build("solver", solver)

    def rates(y: tuple[Tensor, ...], t: Tensor | float, _: Tensor | None) -> tuple[Tensor, ...]:
        return velocity(law, y[0], t), law.jacobian(y[0], t) @ y[1]

    y = x, torch.eye(x.shape[1], dtype=x.dtype).expand(len(x), -1, -1)
    for s, t in itertools.pairwise(times):
        y = method.advance(rates, y, s, t)
    sign, log_det = torch.linalg.slogdet(y[1])
    log_p = law.log_density(x, times[0]) - log_det
    log_q = law.log_density(y[0], times[-1])
    return Pushed(y[0], log_q - log_p, float((sign < 0).double().mean()))


def divergences(log_ratio: PerExample, weights: Tensor | None = None) -> tuple[float, float]:
    r"""Total variation :math:`E_p (1 - q/p)_+` and :math:`KL(p|q) = E_p[q/p - 1 - \log(q/p)]`.

    The second form has terms that are not negative and as small as the divergence itself; it
    is the divergence because q/p has mean 1 under p.

    Args:
        weights: of the draws, summing to 1; equal ones where None.
    """
    ratio = log_ratio.expm1()
    if weights is None:
        weights = torch.full_like(log_ratio, 1 / len(log_ratio))
    tv = (weights * (-ratio).clamp_min(0)).sum()
    kl = (weights * (ratio - log_ratio).clamp_min(0)).sum()
    return float(tv), float(kl)


def nodes_on_the_line(
    law: Marginals, n: int = 4001, reach: float = 9.0, around: Tensor | None = None
) -> tuple[State, Tensor]:
    """Starts on the line and their weights under the exact law at t = 0, by the trapezoid rule.

    Args:
        around: (M,), points towards which the nodes get dense, down to 1e-6: where ends jump.
    """
    x = torch.linspace(-reach, reach, n, dtype=torch.float64)
    if around is not None:
        away = torch.logspace(-6, -0.3, 120, dtype=torch.float64)
        near = [p + sign * away for p in around for sign in (-1, 1)]
        x = torch.cat([x, *near]).unique()
    widths = torch.zeros_like(x)
    widths[:-1] += x.diff() / 2
    widths[1:] += x.diff() / 2
    weights = widths * law.log_density(x[:, None], 0.0).exp()
    return x[:, None], weights / weights.sum()


def nearest_mode(law: GaussianMixture, x: State) -> Tensor:
    """The component that most likely drew each state, (B,)."""
    given = law.spectrum_like(x)
    away = given.rotate(x) - given.centres
    size = given.variances.expand_as(given.centres)
    logits = given.log_weights - 0.5 * ((away.square() / size) + size.log()).sum(-1)
    return logits.argmax(1)
