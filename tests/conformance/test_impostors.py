"""Broken components, and legal impostors: each is caught, by the law that is there for it."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from components_under_test import EXACT, LINE
from torch import Tensor, nn

from monge.autoencoders.base import AutoencoderModule, AutoencoderSpec
from monge.autoencoders.conv import ConvAutoencoder, ConvSpec
from monge.autoencoders.identity import Identity, IdentitySpec
from monge.components import Component
from monge.conformance import LAWS, check, family_of
from monge.couplings import Coupling, MinibatchOT, optimal_permutation, source_like
from monge.fields import Guided, Piecewise
from monge.flows import Integrated, LearnedMap
from monge.networks.mlp import MLP, MLPSpec
from monge.paths import Linear, Path, VariancePreserving
from monge.solvers import Dopri5, Euler, RungeKutta, Solver
from monge.targets.gaussian import GaussianSpec
from monge.targets.mixture import GaussianMixture, MixtureMarginals
from monge.tensors import expand
from monge.times import Grid, LogitNormalTimes, Shifted, TimeLaw
from monge.types import Posterior

CAUGHT: dict[str, tuple[Any, str]] = {}
"""What is wrong -> (component, the law that catches it)."""


def caught_by(law: str, wrong: str, **settings: Any):
    """Lists a broken class, instantiated, under what is wrong with it."""

    def add(cls: Any) -> Any:
        CAUGHT[wrong] = (cls(**settings), law)
        return cls

    return add


# Paths


@caught_by("golden_value", "a legal path in the place of the linear one")
@dataclass(frozen=True, repr=False)
class Squared(Path):
    name = "linear"

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return t, 1 - t**2


@caught_by("reaches_the_data", "alpha and sigma swapped")
@dataclass(frozen=True, repr=False)
class Swapped(Path):
    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return 1 - t, t


@caught_by("starts_at_noise", "twice the noise at the source")
@dataclass(frozen=True, repr=False)
class Loud(Path):
    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return t, 2 * (1 - t)


@caught_by("noise_gives_way_to_data", "a way that turns back")
@dataclass(frozen=True, repr=False)
class Wavy(Path):
    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return t + 0.3 * torch.sin(2 * math.pi * t), 1 - t - 0.2 * torch.sin(2 * math.pi * t)


@caught_by("rates_are_derivatives", "a rate that forward mode does not see")
@dataclass(frozen=True, repr=False)
class Detached(Path):
    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return t, 1 - t - (t * (1 - t)).detach() / 2


@caught_by("times_per_example", "scales that mix the times of a batch")
@dataclass(frozen=True, repr=False)
class Averaged(Path):
    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return t, (1 - t) * (1 + t * t.mean())


@caught_by("declared_finite_rates_are", "infinite rates declared finite")
@dataclass(frozen=True, repr=False)
class Optimist(Path):
    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return t, (1 - t).sqrt()


@caught_by("declared_velocity_variance_is_finite", "infinite variance declared finite")
@dataclass(frozen=True, repr=False)
class Tame(VariancePreserving):
    velocity_variance_is_finite = True

    def log_alpha(self, t: Tensor) -> Tensor:
        return -4 * (1 - t)


@caught_by("noise_rate", "half the rate of the noise")
@dataclass(frozen=True, repr=False)
class Halved(Path):
    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return t, 1 - t

    def noise_rate(self, t: Tensor) -> Tensor:
        return -(1 - t) / 2


# Couplings


@caught_by("each_noise_is_used_once", "noise drawn with replacement")
@dataclass(frozen=True, repr=False)
class Replaced(Coupling):
    def pair(self, x1: Tensor, label: Any, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        return source_like(x1, rng)[torch.randint(len(x1), (len(x1),), generator=rng)], x1


@caught_by("data_stay_in_place", "data reordered beside their labels")
@dataclass(frozen=True, repr=False)
class Shuffled(Coupling):
    def pair(self, x1: Tensor, label: Any, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        return source_like(x1, rng), x1[torch.randperm(len(x1), generator=rng)]


@caught_by("source_does_not_tell_the_class", "optimal transport across classes")
@dataclass(frozen=True, repr=False)
class Classless(Coupling):
    gaussian = False

    def pair(self, x1: Tensor, label: Any, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        return MinibatchOT(512).pair(x1, None, rng)


@caught_by("gaussian_means_independent", "optimal transport declared Gaussian")
@dataclass(frozen=True, repr=False)
class Pretender(Coupling):
    def pair(self, x1: Tensor, label: Any, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        return MinibatchOT(512).pair(x1, label, rng)


@caught_by("generator_decides", "draws from the global generator")
@dataclass(frozen=True, repr=False)
class Global(Coupling):
    def pair(self, x1: Tensor, label: Any, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        return torch.randn_like(x1), x1


@caught_by("source_is_standard_normal", "noise of variance 1.3")
@dataclass(frozen=True, repr=False)
class Wide(Coupling):
    def pair(self, x1: Tensor, label: Any, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        return 1.3**0.5 * source_like(x1, rng), x1


@caught_by("keeps_shape_and_precision", "noise always in float32")
@dataclass(frozen=True, repr=False)
class Single(Coupling):
    def pair(self, x1: Tensor, label: Any, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        return source_like(x1, rng).float(), x1


@caught_by("golden_value", "the permutation inverted")
@dataclass(frozen=True, repr=False)
class Inverted(Coupling):
    name = "ot"
    gaussian = False

    def pair(self, x1: Tensor, label: Any, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        x0 = source_like(x1, rng)
        return x0[optimal_permutation(x0, x1).argsort()], x1


# Times and grids


@caught_by("generator_decides", "times from the global generator")
@dataclass(frozen=True, repr=False)
class GlobalTimes(TimeLaw):
    def unit(self, n: int, rng: torch.Generator) -> Tensor:
        return torch.rand(n)


@caught_by("times_lie_in_the_domain", "times beyond 1")
@dataclass(frozen=True, repr=False)
class Beyond(TimeLaw):
    def unit(self, n: int, rng: torch.Generator) -> Tensor:
        return 1.1 * torch.rand(n, generator=rng)


@caught_by("quartiles", "twice the standard deviation")
@dataclass(frozen=True, repr=False)
class TooWide(LogitNormalTimes):
    def unit(self, n: int, rng: torch.Generator) -> Tensor:
        return torch.sigmoid(2 * torch.randn(n, generator=rng))


@caught_by("grid_increases", "a grid that does not increase")
@dataclass(frozen=True, repr=False)
class Falling(Grid):
    n: int = 8
    stop: float = 1.0

    def warp(self, u: Tensor) -> Tensor:
        return u + 0.4 * torch.sin(4 * math.pi * u)


@caught_by("warp_maps_the_unit_interval", "a warp that ends short of 1")
@dataclass(frozen=True, repr=False)
class Short(Grid):
    n: int = 8
    stop: float = 1.0

    def warp(self, u: Tensor) -> Tensor:
        return 0.9 * u


@caught_by("golden_point", "the shift the wrong way round")
@dataclass(frozen=True, repr=False)
class Unshifted(Shifted):
    def warp(self, u: Tensor) -> Tensor:
        return self.shift * u / (1 + (self.shift - 1) * u)


# Solvers


@caught_by("order", "Heun with a missing factor")
@dataclass(frozen=True, repr=False)
class Unweighted(RungeKutta):
    order = 2
    a = ((), (1.0,))
    b = (1.0, 1.0)


@caught_by("order", "Heun whose second stage is forgotten")
@dataclass(frozen=True, repr=False)
class Forgetful(RungeKutta):
    order = 2
    a = ((), (1.0,))
    b = (1.0, 0.0)


@caught_by("order", "weights right for quadrature alone")
@dataclass(frozen=True, repr=False)
class QuadratureOnly(RungeKutta):
    order = 3
    a = ((), (1 / 2,), (1.0, 0.0))
    b = (1 / 6, 2 / 3, 1 / 6)


@caught_by("exact_for_polynomials", "nodes in the wrong place")
@dataclass(frozen=True, repr=False)
class Misplaced(RungeKutta):
    order = 2
    a = ((), (1 / 3,))
    b = (0.0, 1.0)


@caught_by("golden_value", "the midpoint rule in the place of Heun's")
@dataclass(frozen=True, repr=False)
class NotHeun(RungeKutta):
    name = "heun"
    order = 2
    a = ((), (1 / 2,))
    b = (0.0, 1.0)


@caught_by("counts_its_evaluations", "an evaluation that is not counted")
@dataclass(frozen=True, repr=False)
class Wasteful(Solver):
    order = 1
    evaluations_per_step = 1

    def advance(self, f: Any, y: Any, s: Any, t: Any) -> Any:
        f(y, s, None)
        return Euler().advance(f, y, s, t)


@caught_by("batch_independence", "one step size for the whole batch")
@dataclass(frozen=True, repr=False)
class Together(Solver):
    order = 1

    def advance(self, f: Any, y: Any, s: Any, t: Any) -> Any:
        n = 4 if float(f(y, s, None)[0].abs().max()) < 5 else 32
        for k in range(n):
            y = Euler().advance(f, y, s + (t - s) * k / n, s + (t - s) * (k + 1) / n)
        return y


@caught_by("tolerance", "every step accepted")
@dataclass(frozen=True, repr=False)
class Careless(Dopri5):
    def _attempt(self, *args: Any) -> Any:
        y, slope, error = super()._attempt(*args)
        return y, slope, torch.full_like(error, 1e-6)


@caught_by("stays_between_the_ends", "an evaluation beyond the step")
@dataclass(frozen=True, repr=False)
class Ahead(Solver):
    order = 1

    def advance(self, f: Any, y: Any, s: Any, t: Any) -> Any:
        f(y, t + 0.1 * (t - s), None)
        return Euler().advance(f, y, s, t)


@caught_by("solves_tuples", "only the state is solved")
@dataclass(frozen=True, repr=False)
class StateOnly(Solver):
    order = 1

    def advance(self, f: Any, y: Any, s: Any, t: Any) -> Any:
        return Euler().advance(f, y, s, t)[:1] + tuple(y[1:])


@caught_by("times_per_example", "one time for all examples")
@dataclass(frozen=True, repr=False)
class OneTime(Solver):
    order = 1

    def advance(self, f: Any, y: Any, s: Any, t: Any) -> Any:
        first = [u[0].item() if isinstance(u, Tensor) else u for u in (s, t)]
        return Euler().advance(f, y, *first)


@caught_by("no_step_no_change", "a state that leaks")
@dataclass(frozen=True, repr=False)
class Leaky(Solver):
    order = 1

    def advance(self, f: Any, y: Any, s: Any, t: Any) -> Any:
        return tuple(0.999999 * part for part in Euler().advance(f, y, s, t))


# Fields


def field_caught(law: str, wrong: str, **attributes: Any):
    def add(f: Any) -> Any:
        for name, value in attributes.items():
            setattr(f, name, value)
        CAUGHT[wrong] = (f, law)
        return f

    return add


@field_caught("batch_independence", "a field that mixes the rows of a batch")
def mixing(x: Tensor, t: Any, cond: Any = None) -> Tensor:
    return x - x.mean(0)


@field_caught("batch_independence", "a field with a coin in it")
def random(x: Tensor, t: Any, cond: Any = None) -> Tensor:
    return x + torch.randn_like(x)


@field_caught("times_per_example", "a field that takes the first time for all")
def first_time(x: Tensor, t: Any, cond: Any = None) -> Tensor:
    return x * (t.flatten()[0] if isinstance(t, Tensor) else t)


@field_caught("velocity_is_like_the_state", "a field that is infinite at the end of its domain")
def infinite(x: Tensor, t: Any, cond: Any = None) -> Tensor:
    return x / expand(1 - torch.as_tensor(t, dtype=x.dtype), x)


@field_caught("velocity_is_like_the_state", "a field that changes the state it is given")
def in_place(x: Tensor, t: Any, cond: Any = None) -> Tensor:
    return x.mul_(0.5).clone()


@field_caught("differentiable", "a field without its derivative", shape=(2,))
def detached(x: Tensor, t: Any, cond: Any = None) -> Tensor:
    return x + 2 * x.detach()


@field_caught("declares_its_times", "breakpoints out of order", breakpoints=(0.6, 0.3))
def unordered(x: Tensor, t: Any, cond: Any = None) -> Tensor:
    return x


@dataclass(frozen=True)
class WrongPiece(Piecewise):
    def restrict(self, lo: float, hi: float) -> Any:
        return self.fields[0]


CAUGHT["a piece of another time"] = (
    WrongPiece((EXACT, lambda x, t, cond=None: -x), (0.0, 0.5, 1.0)),
    "pieces_are_the_field",
)


@dataclass(frozen=True)
class Sticky(Guided):
    """Guides on both sides of its interval's ends when asked for a piece."""

    def restrict(self, lo: float, hi: float) -> Any:
        return Guided(self.field, self.scale)


CAUGHT["guidance outside its interval"] = (Sticky(EXACT, 3.0, (0.2, 0.7)), "pieces_are_the_field")


# Flows


@field_caught("identity", "a map that moves from a time to itself")
def drifting(x: Tensor, s: Any, t: Any, cond: Any = None) -> Tensor:
    return x + 0.1


@field_caught("batch_independence", "a map that mixes the rows of a batch")
def whitening(x: Tensor, s: Any, t: Any, cond: Any = None) -> Tensor:
    span = expand(torch.as_tensor(t, dtype=x.dtype) - torch.as_tensor(s, dtype=x.dtype), x)
    return x + span * (x - x.mean(0))


@field_caught("refuses_times_outside", "a map that leaves its domain", domain=(0.0, 0.9))
def unguarded(x: Tensor, s: Any, t: Any, cond: Any = None) -> Tensor:
    return x


@field_caught("inverse", "knots of a map that forgets where it came from", knots=(0.0, 0.5, 1.0))
def forgetting(x: Tensor, s: Any, t: Any, cond: Any = None) -> Tensor:
    moves = expand(torch.as_tensor(s) != torch.as_tensor(t), x)
    return torch.where(moves, torch.zeros_like(x), x)


@field_caught("differentiable", "a map that cuts the gradient")
def cutting(x: Tensor, s: Any, t: Any, cond: Any = None) -> Tensor:
    return x.detach()


@field_caught("state_is_like_the_state", "a map that ends in infinity")
def exploding(x: Tensor, s: Any, t: Any, cond: Any = None) -> Tensor:
    s, t = (torch.as_tensor(u, dtype=x.dtype) for u in (s, t))
    return x + expand((t - s) / (1 - t) if s.ndim == t.ndim == 0 else 0 * s * t, x)


@dataclass(frozen=True)
class ByHalves(Integrated):
    """Steps that depend on the span, but knots that promise a grid."""

    @property
    def knots(self) -> tuple[float, ...]:
        return self.grid.points()


CAUGHT["knots where a map does not compose"] = (
    ByHalves(EXACT, per_span=3),
    "composes_at_its_knots",
)


@dataclass(frozen=True)
class Doubled(LearnedMap):
    def tangent(self, x: Tensor, t: Any, cond: Any = None) -> Tensor:
        return 2 * super().tangent(x, t, cond)


CAUGHT["a tangent of twice the speed"] = (
    Doubled(lambda x, s, t, cond: torch.sin(x) + expand(s * t, x)),
    "tangent",
)


@dataclass(frozen=True)
class Stepwise(Integrated):
    """Times per example, all walked as the first one's."""

    def __call__(self, x: Tensor, s: Any, t: Any, cond: Any = None) -> Tensor:
        first = [float(u.flatten()[0]) if isinstance(u, Tensor) else u for u in (s, t)]
        return super().__call__(x, *first, cond)


CAUGHT["the first walk for all"] = (Stepwise(EXACT), "times_per_example")


# Autoencoders


@dataclass(frozen=True, repr=False)
class OwnSpec(AutoencoderSpec):
    """Builds an identity with something wrong."""

    made: Any = None

    def build(self, data_shape: Any, latent_shape: Any = None) -> AutoencoderModule:
        return self.made(self, data_shape, latent_shape or data_shape)


def identity_caught(law: str, wrong: str):
    def add(cls: Any) -> Any:
        CAUGHT[wrong] = (OwnSpec(cls), law)
        return cls

    return add


@identity_caught("round_trip", "a decoder that is not the inverse")
class NotInverse(Identity):
    def decode(self, z: Tensor) -> Tensor:
        return z + 0.01


@identity_caught("log_abs_det", "the log-determinant with its sign changed")
class WrongSign(Identity):
    def encode(self, x: Tensor) -> Posterior:
        return Posterior(x / 2)

    def decode(self, z: Tensor) -> Tensor:
        return 2 * z

    @property
    def log_abs_det(self) -> float:
        return -math.log(2) * math.prod(self.data_shape)


@identity_caught("deterministic", "an encoder that draws")
class Drawing(Identity):
    def encode(self, x: Tensor) -> Posterior:
        return Posterior(x + torch.randn_like(x))


@identity_caught("batch_independence", "latents standardised by their batch")
class BatchNorm(Identity):
    def encode(self, x: Tensor) -> Posterior:
        return Posterior(x - x.mean(0))


@identity_caught("shapes", "flattened latents")
class Flattened(Identity):
    def encode(self, x: Tensor) -> Posterior:
        return Posterior(x.flatten(1).sum(1, keepdim=True))


class StdForVariance(Posterior):
    def sample(self, noise: Tensor) -> Tensor:
        assert self.logvar is not None
        return self.mean + self.logvar.exp() * noise


@identity_caught("posterior_is_sampled_by_its_moments", "variance for standard deviation")
class Spread(Identity):
    def encode(self, x: Tensor) -> Posterior:
        return StdForVariance(x, torch.full_like(x, -2.0))


class Stuck(ConvAutoencoder):
    def encode(self, x: Tensor) -> Posterior:
        posterior = super().encode(x)
        return Posterior(posterior.mean.detach(), posterior.logvar.detach())


@dataclass(frozen=True, repr=False)
class StuckSpec(ConvSpec):
    kl: float = 0.0

    def build(self, data_shape: Any, latent_shape: Any = None) -> ConvAutoencoder:
        return Stuck(self, data_shape)


CAUGHT["a loss that does not reach the encoder"] = (StuckSpec(width=8), "loss_trains")


@dataclass(frozen=True, repr=False)
class Coarser(IdentitySpec):
    """Keeps the first coordinate, under the name of the identity."""

    def build(self, data_shape: Any, latent_shape: Any = None) -> Any:
        return Identity(self, data_shape, (1,))


CAUGHT["another latent under a known name"] = (Coarser(), "golden_shape")


# Networks


@dataclass(frozen=True, repr=False)
class BuildsMLP(Component):
    """Builds an MLP of another class."""

    made: Any = MLP
    name = "own"

    def build(self, shape: Any, n_classes: Any = None, n_vector: int = 0, rng: Any = None) -> Any:
        network = self.made(MLPSpec(16, 2), shape, n_classes, n_vector)
        network.reset(rng or torch.Generator().manual_seed(0))
        return network


def network_caught(law: str, wrong: str):
    def add(cls: Any) -> Any:
        CAUGHT[wrong] = (BuildsMLP(cls), law)
        return cls

    return add


@network_caught("null_label", "no label taken for label 0")
class NoNull(MLP):
    def forward(self, x: Tensor, t: Any, cond: Any = None, s: Any = None) -> Tensor:
        if cond is not None and "label" in cond:
            cond = {**cond, "label": cond["label"].clamp_min(0)}
        return super().forward(x, t, cond, s)


@network_caught("times_per_example", "a network blind to time")
class Timeless(MLP):
    def forward(self, x: Tensor, t: Any, cond: Any = None, s: Any = None) -> Tensor:
        return super().forward(x, 0.5, cond, s)


@network_caught("output_is_like_the_state", "float32 whatever comes in")
class AlwaysSingle(MLP):
    def forward(self, x: Tensor, t: Any, cond: Any = None, s: Any = None) -> Tensor:
        return super().forward(x, t, cond, s).float()


@network_caught("batch_independence", "a network that mixes the rows of a batch")
class Mixer(MLP):
    def forward(self, x: Tensor, t: Any, cond: Any = None, s: Any = None) -> Tensor:
        return super().forward(x - x.mean(0), t, cond, s)


@network_caught("gradients_reach_all_weights", "weights that are never used")
class Idle(MLP):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.idle = nn.Linear(2, 2)


@network_caught("forward_derivatives", "a network that hides its derivative")
class Hidden(MLP):
    def forward(self, x: Tensor, t: Any, cond: Any = None, s: Any = None) -> Tensor:
        return super().forward(x.detach(), t, cond, s) + 0 * x


@network_caught("gradients_of_derivatives", "torch's layer norm, whose second derivative is wrong")
class Normed(MLP):
    def forward(self, x: Tensor, t: Any, cond: Any = None, s: Any = None) -> Tensor:
        out = super().forward(x, t, cond, s).flatten(1)
        return nn.functional.layer_norm(out, out.shape[1:]).reshape(x.shape)


CAUGHT["a divergence of a hidden derivative"] = (BuildsMLP(Hidden), "divergence")


@dataclass(frozen=True, repr=False)
class Larger(MLPSpec):
    """A deeper network under the default settings."""

    def build(self, shape: Any, *args: Any) -> MLP:
        return MLPSpec(depth=self.depth + 1).build(shape, *args)


CAUGHT["another network under a known name"] = (Larger(), "golden_size")


@network_caught("generator_decides_the_weights", "weights from the global generator")
class GlobalWeights(MLP):
    def reset(self, rng: torch.Generator) -> None:
        super().reset(rng)
        nn.init.normal_(self.out.weight)


# Targets


@dataclass(frozen=True)
class NegativeScore(MixtureMarginals):
    def moments(self, x: Tensor, t: Any, label: Any = None) -> tuple[Tensor, Tensor]:
        score, mean = super().moments(x, t, label)
        return -score, mean


@dataclass(frozen=True)
class HalfDivergence(MixtureMarginals):
    def divergence(self, x: Tensor, t: Any, label: Any = None) -> Tensor:
        return super().divergence(x, t, label) / 2


@dataclass(frozen=True)
class OtherMean(MixtureMarginals):
    def moments(self, x: Tensor, t: Any, label: Any = None) -> tuple[Tensor, Tensor]:
        score, mean = super().moments(x, t, label)
        return score, mean + 0.1


class Wrong(GaussianMixture):
    """A mixture with other marginals."""

    def __init__(self, marginals: Any) -> None:
        super().__init__(LINE.means, LINE.covariances, LINE.weights)
        self.marginals = marginals

    def at(self, path: Path) -> MixtureMarginals:
        return self.marginals(self, path)


@dataclass(frozen=True)
class EndsInNaN(MixtureMarginals):
    def moments(self, x: Tensor, t: Any, label: Any = None) -> tuple[Tensor, Tensor]:
        score, mean = super().moments(x, t, label)
        return score, torch.where(expand(torch.as_tensor(t), x) == 1, math.nan, mean)


class OtherMap(GaussianMixture):
    """The flow map of another path."""

    def flow_map(self, path: Path) -> Any:
        return super().flow_map(Linear())


class Miscounted(GaussianMixture):
    """Two labels, said to be one."""

    n_classes = 1  # type: ignore[assignment]


class WideSamples(GaussianMixture):
    """Variance for standard deviation in the sampler."""

    def sample_labelled(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        x, label = super().sample_labelled(n, rng)
        return 1.2 * x, label


@dataclass(frozen=True, repr=False)
class NotDefault(GaussianSpec):
    """Another Gaussian under the default settings."""

    def build(self) -> Any:
        return dataclasses.replace(GaussianSpec(), seed=1).build()


LAW = LINE.means, LINE.covariances, LINE.weights

CAUGHT["the sign of the score"] = (Wrong(NegativeScore), "score_is_the_gradient")
CAUGHT["half the divergence"] = (Wrong(HalfDivergence), "jacobian_and_divergence")
CAUGHT["half the divergence, in the continuity equation"] = (Wrong(HalfDivergence), "continuity")
CAUGHT["a shifted posterior mean"] = (Wrong(OtherMean), "noise_and_data_make_the_state")
CAUGHT["a field that ends in NaN"] = (Wrong(EndsInNaN), "finite_on_the_domain")
CAUGHT["a flow map of another path"] = (OtherMap(*LAW), "flow_map")
CAUGHT["a label too many"] = (Miscounted(*LAW), "labels")
CAUGHT["samples too wide"] = (WideSamples(*LAW), "samples_have_the_moments")
CAUGHT["another law under a known name"] = (NotDefault(), "golden_velocity")


@pytest.mark.parametrize("wrong", CAUGHT)
def test_caught(wrong: str) -> None:
    component, law = CAUGHT[wrong]
    report = check(component)
    assert law in [row.law for row in report.failed], report.text()
    assert not report.passed and report.n_failed == len(report.failed) >= 1
    assert f"BROKEN  {law}" in report.text()


def swapped_endpoints(self: Path, x: Tensor, v: Tensor, t: Any) -> tuple[Tensor, Tensor]:
    return ENDPOINTS(self, x, v, t)[::-1]


def backward_velocity(self: Path, x0: Tensor, x1: Tensor, t: Any) -> tuple[Tensor, Tensor]:
    x, v = INTERPOLATE(self, x0, x1, t)
    return x, -v


ENDPOINTS, INTERPOLATE = Path.endpoints, Path.interpolate
TO_VELOCITY, ERROR_RATIO, DRAW = Path.to_velocity, Path.error_ratio, TimeLaw.draw

MUTANTS: dict[str, tuple[type, str, Any, Any, str]] = {
    "x0 and x1 swapped": (Path, "endpoints", swapped_endpoints, Linear(), "endpoints_invert"),
    "the velocity reversed": (
        Path, "interpolate", backward_velocity, Linear(), "velocity_is_the_rate_of_the_state",
    ),
    "noise taken for the score": (
        Path, "to_velocity",
        lambda self, kind, *rest: TO_VELOCITY(self, "noise" if kind == "score" else kind, *rest),
        Linear(), "outputs_agree",
    ),
    "the ratio squared": (
        Path, "error_ratio", lambda self, *args: ERROR_RATIO(self, *args) ** 2,
        Linear(), "error_ratio",
    ),
    "all outputs at all times": (
        Path, "output_domain", lambda self, kind: (0.0, 1.0),
        Linear(), "outputs_are_finite_at_the_ends",
    ),
    "times of [0, 1] whatever the domain": (
        TimeLaw, "draw", lambda self, n, domain, rng: DRAW(self, n, (0.0, 1.0), rng).clamp(*domain),
        LogitNormalTimes(), "domain_scales_times",
    ),
}  # fmt: skip
"""What is wrong -> (class, method, mutation, component, law), in code that none may override."""


@pytest.mark.parametrize("wrong", MUTANTS)
def test_mutants_of_final_methods_are_caught(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cls, method, mutation, component, law = MUTANTS[wrong]
    assert check(component).passed
    monkeypatch.setattr(cls, method, mutation)
    assert law in [row.law for row in check(component).failed]


def test_laws_alone_let_legal_impostors_pass() -> None:
    """What the golden values are for."""
    impostors = {
        "a legal path in the place of the linear one": "golden_value",
        "the midpoint rule in the place of Heun's": "golden_value",
        "the shift the wrong way round": "golden_point",
        "another law under a known name": "golden_velocity",
        "another network under a known name": "golden_size",
    }
    for wrong, law in impostors.items():
        assert [row.law for row in check(CAUGHT[wrong][0]).failed] == [law]


def test_every_law_catches_something() -> None:
    """A law that nothing breaks may be no law."""
    broken = [*CAUGHT.values(), *(case[-2:] for case in MUTANTS.values())]
    known = {(family_of(component), law) for component, law in broken}
    laws = {
        (family, law.__name__.removeprefix("law_")) for family, laws in LAWS.items() for law in laws
    }
    assert laws == known
