"""Study: the error of every solver and grid against its evaluations of the velocity.

Laws on the line, where the exact map is the increasing one, so the root mean square distance of
ends from the same noise is W2. All walks of a law end at the end of its field's domain and take
the posterior mean there, so that laws without a smooth density are compared too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from monge.components import build
from monge.errors import UserError
from monge.fields import Counted
from monge.flows import Integrated
from monge.paths import Linear
from monge.studies.claims import Ceiling, Slope
from monge.studies.laws import published_line
from monge.studies.study import Axis, Cell, Row, Study
from monge.targets.base import Target
from monge.targets.densities import Uniform, laplace
from monge.targets.gaussian import Gaussian
from monge.targets.mixture import GaussianMixture

DEFAULT = ("heun", "uniform", 20)
"""The solver, grid and steps that sampling takes unless told otherwise."""

FLOOR = 1e-11
"""Errors below this are of rounding: atoms are reached exactly."""

TOLERANCES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


def law_of(name: str) -> Target:
    """The law of the axis."""
    return {
        "gaussian": lambda: Gaussian(torch.tensor([0.7]), torch.tensor(0.25)),
        "mixture": published_line,
        "box": Uniform,
        "atoms": lambda: GaussianMixture(torch.tensor([[-1.0], [1.0]]), torch.tensor(0.0)),
        "laplace": laplace,
    }[name]()


def nodes(n: int = 101, reach: float = 6.0) -> tuple[Tensor, Tensor]:
    """Noises and their weights; an even number of them, so that none lies between two atoms."""
    z = torch.linspace(-reach, reach, n + n % 2, dtype=torch.float64)[:, None]
    weights = (-0.5 * z[:, 0].square()).exp()
    return z, weights / weights.sum()


def cell(at: Cell) -> Iterator[Row]:
    """All solvers, grids and steps of one law."""
    law, found = law_of(at["law"]), []
    z, weights = nodes()
    truth = law.quantile(z)
    for solver in at["solver"]:
        for grid in at["grid"]:
            for steps in at["steps"]:
                found.append(_walk(law, solver, grid, steps, z, weights, truth))
    rows = [row for row in found if row is not None]
    for row in rows:
        affordable = [r["w2"] for r in rows if r["evaluations"] <= row["evaluations"]]
        least = max(FLOOR, min(affordable))
        row["of_best"] = max(FLOOR, row["w2"]) / least
        if (row["solver"], row["grid"], row["steps"]) == DEFAULT:
            row |= {"default": row["w2"], "twice_best": 2 * least}
        yield row


def _walk(
    law: Target, solver: str, grid: str, steps: int, z: Tensor, weights: Tensor, truth: Tensor
) -> Row | None:
    """One walk; None of an adaptive solver on a grid that is not the first."""
    method = build("solver", solver)
    if method.adaptive:
        index = int(math.log2(steps)) - 2
        if grid != "uniform" or index >= len(TOLERANCES):
            return None
        method = build("solver", f"{solver}:rtol={TOLERANCES[index]},atol={TOLERANCES[index]}")
    field = law.field(Linear())
    counted = Counted(field)
    stop = field.domain[1]
    if grid == "geometric":
        points = build("grid", f"geometric:n={steps},stop={min(stop, 0.999)}")
    else:
        points = build("grid", f"{grid}:n={steps},stop={stop}")
    flow = Integrated(counted, method, points)
    end = flow.domain[1]
    try:
        x = flow(z, 0.0, end)
    except UserError:
        return None  # an adaptive solver that does not arrive
    if end < 1:
        x = law.at(Linear()).posterior_mean(x, end)
    w2 = float((weights @ (x - truth).square().sum(1)).sqrt())
    evaluations = counted.counts["rows"] / len(z) + (end < 1)
    return {"solver": solver, "grid": grid, "steps": steps, "evaluations": evaluations, "w2": w2,
            "floor": FLOOR}  # fmt: skip


STUDY = Study(
    name="solver-cost",
    title="The cost of a solver",
    question="Which solver and grid err least for their evaluations; is it the default?",
    axes=(
        Axis(
            "law",
            ("gaussian", "mixture", "box", "atoms", "laplace"),
            ("gaussian", "mixture", "box"),
            "the law of the data",
        ),
        Axis(
            "solver",
            ("euler", "midpoint", "heun", "rk3", "rk4", "dopri5"),
            ("euler", "heun", "rk4"),
            "solver; the tolerance of dopri5 falls tenfold where steps double",
            together=True,
        ),
        Axis(
            "grid",
            ("uniform", "shifted", "geometric"),
            ("uniform", "geometric"),
            "times of the steps",
            together=True,
        ),
        Axis("steps", (4, 8, 16, 20, 32, 64, 128), (8, 16, 20, 32, 64), "steps", together=True),
    ),
    cell=cell,
    claims=(
        Ceiling(
            "the default errs at most twice as much as the best of equal cost", "default",
            "twice_best", "what a default should be", ("law",),
        ),
        Slope(
            "the error falls with the evaluations by the order of the solver", "w2",
            "evaluations", lambda row: -float(build("solver", row["solver"]).order), "rate",
            "Hairer, Norsett & Wanner, Solving ODEs I, Thm II.3.4", "infinity",
            ("law", "solver", "grid"),
            where={"law": ("gaussian",), "grid": ("uniform",),
                   "solver": ("euler", "midpoint", "heun", "rk3", "rk4")},
            finest=4, tolerance=0.15, panel="law", floor="floor",
        ),
    ),
    reading=(
        "The column of_best is the error over the least one of any solver and grid for as many "
        "evaluations or fewer. Where a law has jumps or atoms the field ends at 0.999 and the "
        "posterior mean follows, one more evaluation."
    ),
)  # fmt: skip
