r"""Study: the error of a solver's steps, for the exact velocity.

The coupled error is the distance between the discrete map and the flow, from the same noise. Its
median over the noises shows the order; its root mean square, an upper bound of W2, is ruled by the
few noises that end in another mode. Total variation and KL are exact for the discrete map, by
change of variables: on the line by quadrature, above by Monte Carlo whose terms vanish with the
error, so that neither has a floor above rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from monge.components import build
from monge.studies.claims import Slope
from monge.studies.laws import (
    PUBLISHED_DIM,
    marginals,
    published_line,
    published_mixture,
    shared_mixture,
    start,
)
from monge.studies.study import Axis, Cell, Row, Study
from monge.studies.walks import (
    EXPONENTIAL,
    Reference,
    applies,
    divergences,
    nearest_mode,
    nodes_on_the_line,
    order,
    pushed,
    reference,
    uniform,
    walk,
)
from monge.targets.mixture import GaussianMixture
from monge.types import State

DENSITIES_UP_TO = 8
"""Dimensions with exact densities of the discrete map."""


def law_of(name: str, dim: int, seed: int) -> GaussianMixture | None:
    """The law of the axis `law`; None where it does not exist in the dimension."""
    if name == "shared":
        return shared_mixture(dim, seed)
    if dim == 1:
        return published_line()
    return published_mixture(dim, seed) if dim <= PUBLISHED_DIM else None


def cell(at: Cell) -> Iterator[Row]:
    """All solvers and numbers of steps from the same noise."""
    law = law_of(at["law"], at["dim"], at["seed"])
    if law is None:
        return
    path = build("path", at["path"])
    along = marginals(law, path)
    n = 400 if law.dim <= 32 else 128
    clean = law.sample(n, at.stream("data"))
    noise = torch.randn(n, law.dim, generator=at.stream("noise"), dtype=torch.float64)
    x = start(along, clean, noise)
    exact = reference(along, x, 2 * max(*at["steps"], 32), at.seed)
    if law.dim == 1:
        starts, weights = nodes_on_the_line(along, 1001)
    else:
        starts, weights = x[:128], None
    for solver in at["solver"]:
        if not applies(solver, path):
            continue
        for steps in at["steps"]:
            times = uniform(steps)
            row = {"solver": solver, "steps": steps, "h": 1 / steps}
            row |= coupled(law, walk(along, solver, times, x), exact, 1 / steps)
            if law.dim <= DENSITIES_UP_TO and solver not in EXPONENTIAL and steps <= 256:
                push = pushed(along, solver, times, starts)
                row["tv"], row["kl"] = divergences(push.log_ratio, weights)
                row |= {"folded": push.folded, "kl_floor": 1e-15}
            yield row


def coupled(law: GaussianMixture, end: State, exact: Reference, h: float) -> Row:
    """Errors of a discrete map's ends against the flow's from the same starts."""
    away = (end - exact.end).norm(dim=1)
    modes = nearest_mode(law, end) != nearest_mode(law, exact.end)
    centred, own = (y - y.mean(0) for y in (end, exact.end))
    covariance, truth = (y.T @ y / len(y) for y in (centred, own))
    return {
        "median": float(away.median()),
        "rms": float(away.square().mean().sqrt()),
        "switched": float(modes.double().mean()),
        "mean_error": float((end.mean(0) - exact.end.mean(0)).norm() / law.mean.norm()),
        "covariance_error": float((covariance - truth).norm() / truth.norm()),
        "floor": float(exact.error.median()) + 1e-14 * float(exact.end.norm(dim=1).median()),
        "h_lipschitz": h * exact.lipschitz,
        "h_steepest": h * exact.steepest,
        "n": len(end),
    }


def claimed_order(row: Mapping[str, Any]) -> float:
    """The order of the row's solver."""
    return float(order(row["solver"]))


def twice_the_order(row: Mapping[str, Any]) -> float:
    """KL is quadratic in the error of the density."""
    return 2.0 * order(row["solver"])


LINES = ("law", "path", "dim", "solver")
METHODS = ("euler", "heun", "rk3", "rk4")
FINEST = 4

STUDY = Study(
    name="discretisation",
    title="The error of the steps",
    question="Does a solver of order p err by h^p, in every dimension and on every path?",
    axes=(
        Axis("law", ("published", "shared"), ("published", "shared"), "the law of the data"),
        Axis(
            "path",
            ("linear", "trigonometric", "ou:horizon=8.0"),
            ("linear", "ou:horizon=8.0"),
            "path",
        ),
        Axis("dim", (1, 2, 8, 32, 128, 512, 1024), (1, 8), "dimension"),
        Axis("seed", (0, 1, 2), (0,), "of law and noise"),
        Axis(
            "solver",
            (*METHODS, "exp1", "exp2", "exp3"),
            ("euler", "heun", "rk4", "exp2"),
            "solver; exp1 is DDIM",
            together=True,
        ),
        Axis(
            "steps",
            (8, 16, 32, 64, 128, 256, 512),
            (32, 64, 128, 256),
            "equal steps from 0 to 1",
            together=True,
        ),
    ),
    cell=cell,
    claims=(
        Slope(
            "the coupled error of a Runge-Kutta method falls like h^p, in the median",
            "median", "h", claimed_order, "rate",
            "Hairer, Norsett & Wanner, Solving ODEs I, Thm II.3.4",
            "zero", LINES, where={"solver": METHODS}, floor="floor", stiffness="h_lipschitz",
            finest=FINEST, panel="path",
        ),
        Slope(
            "that of an exponential integrator is at most of order h^p",
            "median", "h", claimed_order, "bound",
            "arXiv 2506.13061, abstract; here the last step reaches the data, sigma = 0",
            "zero", LINES, where={"solver": tuple(EXPONENTIAL)}, floor="floor",
            stiffness="h_lipschitz", finest=FINEST, panel="path",
        ),
        Slope(
            "total variation is at most of order h^p",
            "tv", "h", claimed_order, "bound",
            "arXiv 2404.09730, abstract: d^{3/4} delta^{1/2} + d (d h)^p",
            "zero", LINES, stiffness="h_steepest", finest=FINEST, panel="path",
        ),
        Slope(
            "KL is of order h^{2p}",
            "kl", "h", twice_the_order, "rate",
            "derived: KL is quadratic in the relative error of the density",
            "zero", LINES, floor="kl_floor", stiffness="h_steepest", finest=FINEST,
            tolerance=0.2, resolution=0.5, panel="path",
        ),
    ),
    reading=(
        "The median shows the order. The root mean square does not, since few noises end in "
        "another mode, at a distance that does not shrink with h; their fraction is the column "
        "switched. Points with h L above one half are not asymptotic: L is the norm of the "
        "Jacobian at its largest over time, the median over the states for the median error and "
        "the 90 % quantile for the divergences. Uniform steps in t end in a step of size sqrt(h) "
        "in sigma / alpha: there exp1 errs by h log(1/h), and no exponential integrator by less "
        "than h^2. "
        "Total variation and KL are those of the discrete map's own density."
    ),
    sources=(
        "Huang, Huang & Lin, Convergence analysis of probability flow ODE, arXiv 2404.09730",
        "Huang, Huang & Lin, Fast convergence for high-order ODE solvers, arXiv 2506.13061",
    ),
    repeats="seed",
)  # fmt: skip
