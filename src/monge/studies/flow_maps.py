r"""Study: the error of one jump of a flow map against its training, on maps that are known.

Maps of a Gaussian law in the plane and of a mixture on the line are trained without a teacher by
four rules. What is measured is :math:`(E|\hat X_{0,1} - X_{0,1}|^2)^{1/2}` from the same noise,
which is at least W2, and two residuals of the trained map against the exact velocity b, whose
theorems integrate along one edge of the triangle of times:

.. math::
    R_E &= \int_0^1 E\,|\partial_s \hat X_{s,1} + \nabla \hat X_{s,1} b_s|^2(x_s)\, ds, \\
    R_L &= \int_0^1 E\,|\partial_t \hat X_{0,t} - b_t(\hat X_{0,t})|^2(x_0)\, dt .

The derivative of :math:`\hat X_{s,1}(X_{0,s}(x))` in s is the Eulerian residual, so the squared
error is at most R_E by Cauchy and Schwarz, and equal to it for the planted map
:math:`(1 + \epsilon (t - s)) X_{s,t}`. Averages over the whole triangle bound nothing.

References:
    | Flow map matching (Boffi et al., 2024), Prop. 3.7 and 3.8 -- https://arxiv.org/abs/2406.07507
    | Self-distillation (Boffi et al., 2025), Prop. 2.4 -- https://arxiv.org/abs/2505.18825
    | MeanFlow (Geng et al., 2025) -- https://arxiv.org/abs/2505.13447
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TypeAlias

import torch
from torch import Tensor

from monge.components import build
from monge.flows import LearnedMap, MeanVelocity
from monge.networks.mlp import MLPSpec
from monge.objectives.flow_map import FlowMapMatching
from monge.objectives.flow_matching import FlowMatching
from monge.paths import Linear
from monge.studies.claims import Ceiling, Equal, Slope
from monge.studies.learning import Examples, nodes, root_mean_square, train
from monge.studies.study import Axis, Cell, Row, Study
from monge.targets.base import Target
from monge.targets.gaussian import Gaussian
from monge.targets.mixture import GaussianMixture
from monge.targets.quadrature import NODES, WEIGHTS
from monge.tensors import expand, forward_mode, jvp, stream
from monge.types import State

RULES = {
    "lagrangian": "self-lagrangian",
    "eulerian": "self-eulerian",
    "semigroup": "self-semigroup",
    "meanflow": "meanflow",
}
"""The rule of each name of the axis; `planted` is a known map with a known error."""

PLANTED = 10.0
"""The planted map of so many steps has the relative error PLANTED / steps."""

Map: TypeAlias = Callable[[State, Tensor, Tensor], State]
"""X(x, s, t), with times (B,)."""


def law_of(name: str) -> Target:
    """The law of the axis, of mean zero."""
    if name == "gaussian":
        zero = torch.zeros(2, dtype=torch.float64)
        return Gaussian(zero, torch.tensor([0.16, 1.44], dtype=torch.float64))
    means = torch.tensor([[-0.9], [0.6]], dtype=torch.float64)
    return GaussianMixture(means, torch.tensor(0.2), torch.tensor([0.4, 0.6]))


def exact_map(law: Target) -> Map:
    """The flow map of the law under the linear path, in closed form.

    Of a Gaussian with mean zero and variances l, x sigma_t / sigma_s in each coordinate with
    sigma_t^2 = (1 - t)^2 + t^2 l; on the line, between equal quantiles.
    """
    if not isinstance(law, Gaussian):
        return law.flow_map(Linear())
    variances = law.covariance.diagonal()

    def scale(t: Tensor) -> Tensor:
        return ((1 - t)[:, None].square() + t[:, None].square() * variances).sqrt()

    return lambda x, s, t: x * scale(t) / scale(s)


def planted(exact: Map, eps: float) -> Map:
    """The map times 1 + eps (t - s), whose Eulerian residual at t = 1 is constant in s."""
    return lambda x, s, t: exact(x, s, t) * (1 + eps * expand(t - s, x))


def trained(law: Target, rule: str, steps: int, seed: int) -> Map:
    """A map trained by a rule on fresh samples of the law."""
    chosen = build("objective", RULES[rule])
    spec = MLPSpec(64, 3, 32, two_times=True, anchor=chosen.anchor, time_scale=20.0)
    network = spec.build((law.dim,), rng=stream(seed, "weights"))
    objective = FlowMapMatching(chosen.planned(steps), FlowMatching())
    found = train(network, Examples(law, objective, seed, 256), steps, lr=5e-3).double()
    return LearnedMap(MeanVelocity(found, Linear()))


def along_the_edges(found: Map, law: Target, z: Tensor, weights: Tensor) -> tuple[float, float]:
    """R_E and R_L of a map, Gauss-Legendre in time, the states carried there by the exact map."""
    exact, field = exact_map(law), law.field(Linear())
    zero, one = z.new_zeros(len(z)), z.new_ones(len(z))
    totals = [0.0, 0.0]
    for place, weight in zip(NODES.tolist(), WEIGHTS.tolist(), strict=True):
        # Two panels: the residuals of trained maps change fast near their ends.
        for lo in (0.0, 0.5):
            time = lo + (place + 1) / 4
            t = torch.full_like(one, time)
            x = exact(z, zero, t)
            b = field(x, time)
            with forward_mode(), torch.no_grad():
                drift = torch.func.jvp(lambda y, s: found(y, s, one), (x, t), (b, one))[1]
                end, rate = jvp(lambda u: found(z, zero, u), t, one)
            totals[0] += weight / 4 * float(weights @ drift.square().sum(1))
            off = rate - field(end, time)
            totals[1] += weight / 4 * float(weights @ off.square().sum(1))
    return totals[0], totals[1]


def cell(at: Cell) -> Iterator[Row]:
    """All numbers of steps of one rule, each trained anew."""
    law = law_of(at["law"])
    exact = exact_map(law)
    z, weights = nodes(61 if law.dim == 1 else 512, law.dim, at["seed"])
    zero, one = z.new_zeros(len(z)), z.new_ones(len(z))
    times = torch.linspace(0, 1, 65).tolist()
    highest = max(law.one_sided_lipschitz(Linear(), t) for t in times)
    for steps in at["steps"]:
        if at["rule"] == "planted":
            found = planted(exact, PLANTED / steps)
        else:
            found = trained(law, at["rule"], steps, at["seed"])
        with torch.no_grad():
            error = root_mean_square(found(z, zero, one) - exact(z, zero, one), weights)
        eulerian, lagrangian = along_the_edges(found, law, z, weights)
        row = {
            "steps": steps, "error": error, "squared": error**2, "eulerian": eulerian,
            "lagrangian": max(1.0, math.exp(1 + 2 * highest)) * lagrangian,
        }  # fmt: skip
        if at["rule"] == "planted":
            row["attained"] = row["squared"]
        yield row


STUDY = Study(
    name="flow-maps",
    title="One jump of a flow map",
    question="How does the error of one jump fall with training, and do the residuals bound it?",
    axes=(
        Axis("law", ("gaussian", "mixture"), ("gaussian",), "of the data: in the plane, on a line"),
        Axis("rule", (*RULES, "planted"), ("lagrangian", "meanflow", "planted"),
             "what the map is trained to obey; planted: a known map with a known error"),
        Axis("seed", (0, 1, 2, 3, 4), (0, 1, 2), "of weights, batches and noise"),
        Axis("steps", (100, 200, 400, 800), (100, 200, 400), "of training", together=True),
    ),
    cell=cell,
    claims=(
        Slope(
            "the error of one jump falls at least like steps^{-1/2}", "error", "steps", -0.5,
            "bound", "stochastic approximation of a convex problem, which this is not; no theorem",
            "infinity", ("law", "rule"), where={"rule": tuple(RULES)}, tolerance=0.1,
            panel="law",
        ),
        Ceiling(
            "the squared error is at most the Eulerian residual along t = 1", "squared",
            "eulerian", "2406.07507, Prop. 3.8, with the constant 1 by Cauchy-Schwarz",
            ("law", "rule"), slack=0.01,
        ),
        Ceiling(
            "the squared error is at most max(1, e^{1+2L}) times the Lagrangian residual along "
            "s = 0", "squared", "lagrangian", "2406.07507, Prop. 3.7", ("law", "rule"), slack=0.01,
        ),
        Equal(
            "a planted error attains the Eulerian bound", "eulerian", "attained",
            "derived: its residual is constant in s", ("law",), tolerance=1e-6,
        ),
    ),
    reading=(
        "Each number of steps is a training of its own, with a cosine schedule, batches of 256 "
        "and a perceptron of width 64. There is no theorem for the fall with training: the power "
        "1/2 is a yardstick. Columns eulerian and lagrangian are the right-hand sides of the two "
        "bounds; L is the largest one-sided Lipschitz constant of the exact velocity."
    ),
    sources=(
        "https://arxiv.org/abs/2406.07507", "https://arxiv.org/abs/2505.18825",
        "https://arxiv.org/abs/2505.13447",
    ),
    repeats="seed",
)  # fmt: skip
