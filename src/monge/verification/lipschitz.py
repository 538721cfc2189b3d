r"""How much maps stretch: Jacobian norms by power iteration, along the field's own trajectories.

For a velocity field the largest eigenvalue of the symmetric part of its Jacobian is the rate at
which trajectories part; its integral over time bounds the logarithm of the flow's Lipschitz
constant. What is found on finitely many points is a *lower* bound of the supremum over all of
them, and is called "observed"; a network that certifies its own constant says so in `certified`.

References:
    | Lipschitz constants of transformers' attention (Kim et al., 2021) -- https://arxiv.org/abs/2006.04710
    | The logarithmic norm: Hairer, Norsett & Wanner, Solving ODEs I, Sec. I.10
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from monge.flows import Integrated
from monge.targets.base import Target
from monge.tensors import expand, forward_mode, noise, sum_except_batch
from monge.types import Cond, Latent, PerExample, VelocityField
from monge.verification.pipeline import Pipeline

ITERATIONS = 20

Map = Callable[[Tensor], Tensor]


def jacobian_norm(f: Map, x: Tensor, iterations: int = ITERATIONS, seed: int = 0) -> PerExample:
    """The spectral norm of the Jacobian of f at each of x (B, ...), by power iteration, (B,).

    A lower bound that rises to the norm; f acts on each example independently.
    """
    return _norm(Linearised(f, x), iterations, seed)


def expansion_rate(
    f: Map, x: Tensor, shift: PerExample, iterations: int = 2 * ITERATIONS, seed: int = 0
) -> PerExample:
    """The largest eigenvalue of the symmetric part of the Jacobian of f at each of x, (B,).

    By power iteration on the symmetric part, shifted so that the largest eigenvalue, not the most
    negative, is the largest in modulus.

    Args:
        shift: (B,), at least the modulus of every eigenvalue: the norm of the Jacobian.
    """
    return _rate(Linearised(f, x), shift, iterations, seed)


class Linearised:
    """The Jacobian J of f at each of x: its products with vectors, from one graph.

    J^T w is linear in w, so that the derivative of <J^T w, u> in w is J u: both products are
    backward passes, and f itself is computed once.
    """

    def __init__(self, f: Map, x: Tensor) -> None:
        with torch.enable_grad(), forward_mode():  # kernels with second derivatives, too
            self.x = x.detach().requires_grad_()
            self.y = f(self.x)
            self._w = torch.zeros_like(self.y).requires_grad_()
            self._back = torch.autograd.grad(self.y, self.x, self._w, create_graph=True)[0]

    def along(self, u: Tensor) -> Tensor:
        """J u."""
        return torch.autograd.grad(self._back, self._w, u, retain_graph=True)[0]

    def against(self, v: Tensor) -> Tensor:
        """J^T v."""
        return torch.autograd.grad(self.y, self.x, v, retain_graph=True)[0]


def _norm(jacobian: Linearised, iterations: int, seed: int) -> PerExample:
    u = _start(jacobian.x, seed)
    norm = u.new_zeros(len(u))
    for _ in range(iterations):
        v = jacobian.along(u)
        norm = _length(v)
        u = _unit(jacobian.against(v))
    return norm


def _rate(jacobian: Linearised, shift: PerExample, iterations: int, seed: int) -> PerExample:
    u = _start(jacobian.x, seed)
    shift = 1.1 * shift + 1e-6  # of minus the identity nothing would be left by the norm itself
    rate = u.new_zeros(len(u))
    for _ in range(iterations):
        v = (jacobian.along(u) + jacobian.against(u)) / 2
        rate = sum_except_batch(u * v)
        u = _unit(v + expand(shift, u) * u)
    return rate


def _start(x: Tensor, seed: int) -> Tensor:
    return _unit(noise(seed, 0, len(x), tuple(x.shape[1:]), "power").to(x))


def _length(x: Tensor) -> PerExample:
    return sum_except_batch(x.square()).sqrt()


def _unit(x: Tensor) -> Tensor:
    return x / expand(_length(x), x).clamp_min(1e-30)


@dataclass(frozen=True)
class Stretching:
    """What was observed of a pipeline's maps.

    Attributes:
        times: (T,) of the curves.
        norm, rate: the largest Jacobian norm and expansion rate over the examples at each time.
        exact_rate: the largest exact rate over the same points, where the truth is known.
        amplification: the largest factor by which the flow from 0 to T parts neighbours.
        encoder, decoder: the largest Jacobian norms; None where they have no derivative.
        certified: a constant that the network guarantees; None for networks that do not.
    """

    times: list[float]
    norm: list[float]
    rate: list[float]
    exact_rate: list[float] | None
    amplification: float
    encoder: float | None
    decoder: float | None
    certified: float | None = None


def stretching(
    pipeline: Pipeline,
    x0: Latent,
    cond: Cond,
    x: Tensor,
    times: int = 11,
    iterations: int = ITERATIONS,
) -> Stretching:
    """Observe the maps of a pipeline on trajectories from the noises x0, and on data x.

    Args:
        iterations: of the power method for norms; for rates twice as many.
    """
    flow, domain = pipeline.unguided, (pipeline.begin, pipeline.end)
    grid, norm, rate, exact = [], [], [], []
    state = x0
    for point in along(flow, pipeline.field, x0, cond, domain, times, iterations):
        t, state = point.t, point.state
        grid.append(t)
        norm.append(point.norm)
        rate.append(point.rate)
        if pipeline.truth is not None and t <= pipeline.truth.field(pipeline.path).domain[1]:
            exact.append(_exact_rate(pipeline.truth, pipeline, state, t, cond))
    latents = pipeline.finished(flow, state, cond)
    return Stretching(
        grid,
        norm,
        rate,
        exact if len(exact) == len(grid) else None,
        amplification(pipeline, x0, cond),
        _norm_or_none(lambda y: pipeline.encode(y, 0), x),
        _norm_or_none(pipeline.decode, latents),
    )


@dataclass(frozen=True)
class Observed:
    """The greatest Jacobian norm and expansion rate of a field over states on a flow, at a time."""

    t: float
    state: Latent
    norm: float
    rate: float


def along(
    flow: Integrated,
    velocity: VelocityField,
    x0: Latent,
    cond: Cond,
    domain: tuple[float, float],
    times: int = 11,
    iterations: int = ITERATIONS,
) -> Iterator[Observed]:
    """Observe a velocity field at equal times of the domain on the trajectories of a flow."""
    now, end = domain
    state = x0
    for t in [now + (end - now) * k / (times - 1) for k in range(times)]:
        with torch.no_grad():
            state = flow(state, now, t, cond) if t > now else state
        now = t

        def at(y: Tensor, t: float = t) -> Tensor:
            return velocity(y, t, cond)

        jacobian = Linearised(at, state)
        norms = _norm(jacobian, iterations, seed=0)
        rates = _rate(jacobian, norms, 2 * iterations, seed=0)
        yield Observed(t, state, float(norms.max()), float(rates.max()))


def _exact_rate(truth: Target, pipeline: Pipeline, x: Tensor, t: float, cond: Cond) -> float:
    label = None if cond is None else cond.get("label")
    jacobian = truth.at(pipeline.path).jacobian(x.double(), t, label)
    return float(torch.linalg.eigvalsh((jacobian + jacobian.mT) / 2)[:, -1].max())


def amplification(
    pipeline: Pipeline, x0: Latent, cond: Cond, step: float = 1e-2, directions: int = 8
) -> float:
    """The largest |X(x0 + h u) - X(x0)| / h over noises and directions u, by finite differences
    of the sampler's map without guidance.

    A lower bound of the flow's Lipschitz constant: directions are random, points are samples.
    """
    flow = pipeline.sampler
    if isinstance(flow, Integrated):
        flow = dataclasses.replace(flow, field=pipeline.field)
    lo, end = pipeline.begin, pipeline.end
    most = 0.0
    with torch.no_grad():
        base = flow(x0, lo, end, cond)
        for k in range(directions):
            u = _unit(noise(0, 0, len(x0), tuple(x0.shape[1:]), "amplify", k).to(x0))
            there = flow(x0 + step * u, lo, end, cond)
            ratio = _length(there - base) / step
            most = max(most, float(ratio.max()))
    return most


def _norm_or_none(f: Map, x: Tensor) -> float | None:
    try:
        return float(jacobian_norm(f, x, ITERATIONS // 2).max())
    except (RuntimeError, NotImplementedError):
        return None
