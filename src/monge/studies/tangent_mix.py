r"""Study: along which velocity the MeanFlow target is differentiated: its noise, bias and effect.

MeanFlow regresses u on :math:`v_c + (t - s) D u`, where v_c is the velocity of the row's own path
and D the derivative along :math:`(w, 1, 0)`. Any w whose mean given x_s is the velocity v gives
the same mean, so here :math:`w = (1 - \beta) v_c + \beta v`: beta = 0 is MeanFlow, beta = 1 takes
the exact field. With e = v_c - v, the noise of the target at the exact map is

.. math:: \bigl(\beta + (1 - \beta) \nabla X_{s,t}\bigr) e ,

so its variance, which is that of the gradient in u, is a parabola in beta. A law N(0, l) has
:math:`\nabla X_{s,t} = \sigma_t / \sigma_s = r` and :math:`\mathrm{Var}\, e = l / \sigma_s^2`; the
least variance is at :math:`\beta^* = -E[r (1 - r) V] / E[(1 - r)^2 V]`. Where the map contracts,
r < 1, the path's own velocity has less noise than the exact one. A field that is off by delta
moves the mean of the target by :math:`\beta \delta (r - 1)`.

The mix, and that its best coefficient is inside (0, 1), is from the abstract of the first paper;
its formulas were not at hand, and those here are derived.

References:
    | On variance reduction in learning mean flows (Lu & Wang, 2026)
    |   -- https://arxiv.org/abs/2605.09235
    | MeanFlow (Geng et al., 2025), Eq. 6 -- https://arxiv.org/abs/2505.13447
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from monge.flows import LearnedMap, MeanVelocity
from monge.networks.mlp import MLPSpec
from monge.objectives.flow_map import FlowMapMatching
from monge.objectives.flow_matching import FlowMatching
from monge.objectives.rules.base import Rows, Rule
from monge.objectives.rules.eulerian import MeanFlow
from monge.paths import Linear
from monge.studies.claims import Equal, Slope
from monge.studies.flow_maps import exact_map, law_of
from monge.studies.learning import Examples, nodes, root_mean_square, train
from monge.studies.study import Axis, Cell, Row, Study
from monge.targets.base import Target
from monge.targets.gaussian import Gaussian
from monge.tensors import as_time, stream
from monge.time_pairs import Triangle
from monge.types import Cond, State, Time, VelocityField

PAIRS = 2**16
"""Pairs of times, and rows, over which noise is averaged."""

OFF = 0.1
"""The planted error of the field, in every coordinate."""

LAWS = {"narrow": 0.16, "even": 0.8, "wide": 4.0}
"""Variances of the laws on the line whose noise is closed; r is mostly below 1 where narrow."""

STEPS = 400
"""Of the trainings."""


@dataclass(frozen=True, repr=False)
class MixedMeanFlow(MeanFlow):
    """MeanFlow whose tangent is a share beta of a known field and the rest the path's velocity."""

    beta: float = 0.0
    field: VelocityField | None = None
    clip: float = 0.0

    name = "meanflow"

    def residuals(self, at: Rows) -> tuple[State, ...]:
        assert self.field is not None
        with torch.no_grad():
            known = self.field(at.x, at.s)
        along = (1 - self.beta) * at.rate + self.beta * known
        u, slope = self._along(at, at.x, ds=1.0, dt=0.0, dx=along, constant=True)
        return (at.towards(u, at.rate + at.gap * slope),)


def closed(variance: float, beta: float) -> tuple[float, float, float]:
    """Of N(0, variance): the target's variance, beta*, and E[(1 - r)^2]^{1/2}, by quadrature.

    (s, t) is uniform on 0 <= s <= t <= 1.

    >>> closed(1.0, 1.0)[0] > 1.0  # E[1 / sigma_s^2]
    True
    """
    s, t, weights = _triangle()

    def sigma(u: Tensor) -> Tensor:
        return ((1 - u).square() + u.square() * variance).sqrt()

    r, noise = sigma(t) / sigma(s), variance / sigma(s).square()
    mixed = float(weights @ ((beta + (1 - beta) * r).square() * noise))
    best = -float(weights @ (r * (1 - r) * noise)) / float(weights @ ((1 - r).square() * noise))
    return mixed, best, math.sqrt(float(weights @ (1 - r).square()))


def _triangle(n: int = 400) -> tuple[Tensor, Tensor, Tensor]:
    """Midpoints of s and of the part of [s, 1] where t is, and their weights."""
    places = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    s, part = torch.meshgrid(places, places, indexing="ij")
    t = s + (1 - s) * part
    weights = 2 * (1 - s) / n**2
    return s.flatten(), t.flatten(), weights.flatten()


def measured(variance: float, beta: float, rng: torch.Generator) -> tuple[float, float]:
    """The variance of the target at the exact map, and the root mean square of its bias.

    The bias is that of a field that is off by `OFF`, on rows that move with the exact velocity.
    """
    law = Gaussian(torch.zeros(1), torch.tensor(variance, dtype=torch.float64))
    field, exact = law.field(Linear()), exact_map(law)
    s, t = Triangle().draw(PAIRS, (0.0, 1.0), rng)
    apart = t - s > 1e-6  # of equal times the map has no mean velocity by its own formula
    s, t = s[apart].double(), t[apart].double()
    x0 = torch.randn(len(s), 1, generator=rng, dtype=torch.float64)
    x, rate = Linear().interpolate(x0, law.sample(len(s), rng), s)

    def mean(x: State, s: Tensor, t: Tensor) -> State:
        return (exact(x, s, t) - x) / (t - s)[:, None]

    rows = Rows(
        x, rate, s, t, torch.full_like(s, 0.5), (0.0, 1.0), mean, field, lambda _: x
    )  # fmt: skip
    noisy = MixedMeanFlow(beta=beta, field=field).residuals(rows)[0]
    off = MixedMeanFlow(beta=beta, field=lambda x, t, cond=None: field(x, t, cond) + OFF)
    biased = off.residuals(replace(rows, rate=field(x, s)))[0]
    return float(noisy.square().mean()), math.sqrt(float(biased.square().mean()))


def trained(law: Target, beta: float, seed: int) -> float:
    """The error of one jump of a map trained with the mixed tangent of the exact field."""
    exact, field = exact_map(law), law.field(Linear())

    def single(x: State, t: Time, cond: Cond = None) -> State:
        return field(x.double(), as_time(t, x).double()).to(x.dtype)

    rule: Rule = MixedMeanFlow(beta=beta, field=single, clip=10.0)
    spec = MLPSpec(64, 3, 32, two_times=True, anchor="end", time_scale=20.0)
    network = spec.build((law.dim,), rng=stream(seed, "weights"))
    examples = Examples(law, FlowMapMatching(rule, FlowMatching()), seed, 256)
    found = LearnedMap(MeanVelocity(train(network, examples, STEPS, lr=5e-3).double(), Linear()))
    z, weights = nodes(61 if law.dim == 1 else 512, law.dim, seed)
    zero, one = z.new_zeros(len(z)), z.new_ones(len(z))
    with torch.no_grad():
        return root_mean_square(found(z, zero, one) - exact(z, zero, one), weights)


def cell(at: Cell) -> Iterator[Row]:
    """All shares beta of the known field."""
    if at["law"] not in LAWS:
        law = law_of(at["law"])
        for beta in at["beta"]:
            yield {"beta": beta, "error": trained(law, beta, at["seed"])}
        return
    variance, three = LAWS[at["law"]], {}
    for beta in at["beta"]:
        noise, bias = measured(variance, beta, at.stream("noise"))
        three[beta] = noise
        exact, best, spread = closed(variance, beta)
        row: Row = {"beta": beta, "variance": noise, "closed": exact}
        if beta:
            row |= {"bias": bias, "closed_bias": beta * OFF * spread}
        if {0.0, 0.5, 1.0} <= three.keys() and "best" not in three:
            a = 2 * (three[1.0] - 2 * three[0.5] + three[0.0])
            b = three[1.0] - three[0.0] - a
            row |= {"best": -b / (2 * a), "closed_best": best}
        yield row


STUDY = Study(
    name="tangent-mix",
    title="The tangent of MeanFlow",
    question="Which velocity should MeanFlow be differentiated along: the path's or its mean?",
    axes=(
        Axis("law", (*LAWS, "gaussian", "mixture"), ("narrow", "even", "wide", "mixture"),
             "N(0, 0.16), N(0, 0.8), N(0, 4) on the line, closed; the others are trained"),
        Axis("seed", (0, 1, 2, 3, 4), (0, 1), "of the rows, weights and batches"),
        Axis("beta", (0.0, 0.25, 0.5, 0.75, 1.0), (0.0, 0.5, 1.0),
             "share of the exact field in the tangent", together=True),
    ),
    cell=cell,
    claims=(
        Equal(
            "the variance of the target is the closed parabola in beta", "variance", "closed",
            "derived: noise (beta + (1 - beta) r) e at the exact map", ("law",), tolerance=0.05,
        ),
        Equal(
            "the least variance is at the closed beta", "best", "closed_best",
            "derived: the vertex of the parabola", ("law",), tolerance=0.1,
        ),
        Slope(
            "the bias of a wrong field is proportional to beta", "bias", "beta", 1.0, "rate",
            "derived: beta delta (r - 1)", "zero", ("law",), tolerance=0.02,
        ),
        Equal(
            "the bias in closed form", "bias", "closed_bias", "derived: beta delta (r - 1)",
            ("law",), tolerance=0.02,
        ),
        Slope(
            "a share of the exact field in the tangent does not raise the error of the trained map",
            "error", "beta", 0.0, "bound", "2605.09235, abstract: sample quality in two dimensions",
            "infinity", ("law",), tolerance=0.05, semilog=True,
        ),
    ),
    reading=(
        "Trainings of 400 steps with the exact field at hand, which practice lacks: there the "
        "field is the network's own, and its error is the bias. error is the root mean square "
        "distance of one jump from the exact map, from the same noise. The last claim holds the "
        "logarithm of it against beta: a positive slope says that the exact field does harm."
    ),
    sources=("https://arxiv.org/abs/2605.09235", "https://arxiv.org/abs/2505.13447"),
    repeats="seed",
    minutes=10,
)  # fmt: skip
