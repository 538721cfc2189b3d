r"""Study: what a flow loses that follows the exact field and stops at 1 - delta.

On the line everything is closed or a quadrature: the law at T = 1 - delta, the same divided by T,
and its image under the posterior mean E[x_1 | x_T], which is one last Euler step. All three maps
of the noise increase, so W2 is the L2 distance of quantile functions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from monge.paths import Linear
from monge.studies.claims import Ceiling, Equal, Slope
from monge.studies.study import Axis, Cell, Row, Study
from monge.targets.base import Target
from monge.targets.densities import Uniform
from monge.targets.gaussian import Gaussian
from monge.targets.line import marginal_quantile
from monge.targets.mixture import GaussianMixture
from monge.targets.quadrature import integrate
from monge.targets.wasserstein import early_stopping

MEAN, STD = 0.7, 0.5

REACH = 9.5
"""Quantiles are integrated to this standard normal score."""

FLOOR = 1e-9
"""Of a W2 by quadrature, whose square has a relative error of 1e-12 of the largest terms."""

RESOLVED = 0.1
"""The least delta at which atoms are looked at after the last step: W2 is e^-20 there."""

POWERS = {
    "raw": {"gaussian": 1.0, "mixture": 1.0, "box": 1.0, "atoms": 1.0},
    "divided": {"gaussian": 2.0, "mixture": 2.0, "box": 1.5, "atoms": 1.0},
    "last": {"gaussian": 2.0, "mixture": 2.0, "box": 1.5},
}
"""By the end of the walk and the law: smooth, with a jump, or singular."""


def law_of(name: str) -> Target:
    """The law of the axis."""
    if name == "gaussian":
        return Gaussian(torch.tensor([MEAN]), torch.tensor(STD**2))
    if name == "box":
        return Uniform(-1.0, 1.0)
    if name == "atoms":
        return GaussianMixture(torch.tensor([[-1.0], [1.0]]), torch.tensor(0.0))
    return GaussianMixture(
        torch.tensor([[-1.0], [1.5]]), torch.tensor([0.2, 0.4]), torch.tensor([0.4, 0.6])
    )


def after_last_step(law: Target, t: float) -> float:
    """W2 between the law of E[x1 | x_t] and the law of the data."""
    along = law.at(Linear())

    def gap(z: Tensor) -> Tensor:
        x = marginal_quantile(law, Linear(), z[:, None], t)
        away = along.posterior_mean(x, t)[:, 0] - law.quantile(z)
        return away.square() * (-0.5 * z.square()).exp() / math.sqrt(2 * math.pi)

    return math.sqrt(integrate(gap, -REACH, REACH, 1e-11))


def atoms_after_last_step(delta: float) -> float:
    r"""The same for the atoms +-1, whose error no difference of numbers near 1 resolves.

    The posterior mean is :math:`\tanh u`, :math:`u = (1 - \delta) x / \delta^2`, and the increasing
    map sends x to its sign; :math:`1 - \tanh u = 2 / (1 + e^{2u})`.
    """
    stop = 1 - delta
    scale = delta**2 / stop

    def gap(u: Tensor) -> Tensor:
        both = [(-0.5 * ((scale * u + sign * stop) / delta).square()).exp() for sign in (-1, 1)]
        density = sum(both) / (2 * delta * math.sqrt(2 * math.pi))
        return 2 * scale * density * (2 / (1 + (2 * u).exp())).square()

    return math.sqrt(integrate(gap, 0.0, 40.0, 1e-10))


def exact_gaussian(delta: float, mode: str) -> float:
    r"""W2 of the Gaussian law in closed form: both ends are affine maps of the noise.

    Raw, the mean is (1 - delta) m and the variance s_T^2 = delta^2 + (1 - delta)^2 s^2; divided,
    both by 1 - delta; after the last step the mean is m and the deviation T s^2 / s_T.
    """
    stop = 1 - delta
    std = math.sqrt(delta**2 + stop**2 * STD**2)
    if mode == "raw":
        return math.hypot(delta * MEAN, std - STD)
    return abs(std / stop - STD) if mode == "divided" else abs(stop * STD**2 / std - STD)


def cell(at: Cell) -> Iterator[Row]:
    """All distances to the end."""
    law, mode = law_of(at["law"]), at["mode"]
    for delta in at["delta"]:
        t = 1 - delta
        if at["law"] == "atoms" and mode == "last" and delta < RESOLVED:
            continue  # below e^-20, of no interest
        if mode == "last":
            w2 = atoms_after_last_step(delta) if at["law"] == "atoms" else after_last_step(law, t)
        else:
            w2 = early_stopping(law, Linear(), t, divided=mode == "divided")
        row: Row = {"delta": delta, "w2": w2, "floor": FLOOR, "signal": (t / delta) ** 2}
        if mode == "raw":
            row["bound"] = delta * math.sqrt(law.second_moment + 1)
        if at["law"] == "gaussian":
            row["closed"] = exact_gaussian(delta, mode)
        if at["law"] == "atoms" and mode == "last":
            # Without its algebraic factor, delta^(1/2), what is left is exp(-signal / 4).
            row["w2_exponential"], row["floor"] = w2 / math.sqrt(delta), 0.0
        yield row


def power(row: Mapping[str, Any]) -> float:
    """The predicted power of delta."""
    return POWERS[row["mode"]].get(row["law"], math.inf)


STUDY = Study(
    name="early-stopping",
    title="Stopping before the data",
    question="What is lost by stopping at 1 - delta: raw, divided by alpha, with a last step?",
    axes=(
        Axis("law", ("gaussian", "mixture", "box", "atoms"), ("gaussian", "box", "atoms"), "law"),
        Axis("mode", ("raw", "divided", "last"), ("raw", "divided", "last"), "end of the walk"),
        Axis(
            "delta",
            (0.3, 0.24, 0.2, 0.17, 0.14, 0.12, 0.1, *(0.1 / 2**k for k in range(1, 8))),
            (0.24, 0.2, 0.17, 0.14, 0.12, *(0.1 / 2**k for k in range(1, 6))),
            "distance of the stop to the end",
            together=True,
        ),
    ),
    cell=cell,
    claims=(
        Slope(
            "W2 is a power of delta", "w2", "delta", power, "rate",
            "derived: W2(p_T, p_1) for a smooth density, a jump and atoms", "zero",
            ("law", "mode"), where={"mode": ("raw", "divided")}, floor="floor", finest=5,
            tolerance=0.05, panel="mode",
        ),
        Slope(
            "after the last step, of a law with a density", "w2", "delta", power, "rate",
            "derived: the posterior mean errs by O(delta^2), by O(delta) near a jump", "zero",
            ("law", "mode"), where={"mode": ("last",), "law": ("gaussian", "mixture", "box")},
            floor="floor", finest=5, tolerance=0.05,
        ),
        Slope(
            "after the last step, of atoms: exponential in (T / delta)^2", "w2_exponential",
            "signal", -0.25, "rate",
            "derived: mass of order delta e^{-(T/delta)^2/2} lies where tanh is not +-1",
            "infinity", ("law", "mode"), floor="floor", tolerance=0.01, semilog=True,
        ),
        Ceiling(
            "W2 is at most delta sqrt(E|x1|^2 + d)", "w2", "bound",
            "x1 - x_T = delta (x1 - x0), whose second moment is E|x1|^2 + d", ("law",),
        ),
        Equal(
            "a Gaussian's W2 in closed form", "w2", "closed", "derived: affine maps of the noise",
            ("law", "mode"), tolerance=1e-5,
        ),
    ),
    reading=(
        "No sampling, so the only error is that of quadrature. Dividing by alpha gains an order on "
        "a smooth density, half of one at a jump and nothing on atoms; there the last step is "
        "the one that helps, exponentially."
    ),
    minutes=4.6,
)  # fmt: skip
