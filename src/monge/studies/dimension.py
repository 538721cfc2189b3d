r"""Study: how errors grow with the dimension, at fixed steps and at a fixed error of the score.

Distances: Euler's method on the linear path, against the exact flow from the same noise, up to a
stop at 0.99. Gaussians with variances i^{-2} have a trace that stays bounded; theirs are closed
forms, coordinate by coordinate. Total variation: laws of independent coordinates, where log(q / p)
is a sum of independent terms, each with the exact density of the map on the line.

References:
    | arXiv 2604.06065 (sqrt(d)/N), 2512.06702 (sqrt(d) under W2), 2404.09730 (total variation)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from monge.components import build
from monge.paths import Linear
from monge.studies.claims import Slope
from monge.studies.laws import marginals, shared_mixture, velocity
from monge.studies.study import Axis, Cell, Row, Study
from monge.studies.walks import divergences, nodes_on_the_line, pushed, uniform, walk
from monge.targets.mixture import GaussianMixture
from monge.times import Geometric, Uniform

STOP = 0.99
DELTA = 0.02
"""Size of the error of the score in all dimensions together."""

DRAWS = 20_000
"""Of sums of log-ratios over the coordinates."""


def spectrum(law: str, dim: int) -> Tensor:
    """Variances of the Gaussian laws: all 1/4, or i^-2 / 4."""
    i = torch.arange(1, dim + 1, dtype=torch.float64)
    return (torch.ones_like(i) if law == "flat" else i**-2) / 4


def gaussian_gap(variances: Tensor, times: list[float]) -> float:
    r"""W2 between Euler's law at the last time and the exact one, for N(0, diag(variances)).

    Both are N(0, diag) with the factor :math:`\prod_k (1 + h_k a(t_k))`,
    :math:`a = (t l - (1 - t)) / ((1 - t)^2 + t^2 l)`, and :math:`((1 - t)^2 + t^2 l)^{1/2}`.
    """
    factor = torch.ones_like(variances)
    for s, t in itertools.pairwise(times):
        factor = factor * (1 + (t - s) * (s * variances - (1 - s)) / _variance(variances, s))
    return float((factor.abs() - _variance(variances, times[-1]).sqrt()).norm())


def _variance(variances: Tensor, t: float) -> Tensor:
    return (1 - t) ** 2 + t**2 * variances


def grid_of(name: str, steps: int) -> list[float]:
    """The times of the grid, from 0 to `STOP`."""
    grid = Uniform(steps, STOP) if name == "uniform" else Geometric(steps, STOP)
    return list(grid.points())


def distances(at: Cell) -> Iterator[Row]:
    """W2, or the coupled upper bound of it, of Euler's method."""
    error = _coupled(at) if at["law"] == "mixture" else _closed(at)
    for steps in at["steps"]:
        w2 = error(grid_of(at["grid"], steps))
        yield {"steps": steps, "w2": w2, "w2_over_log": w2 / math.log(steps) ** 2}


def _closed(at: Cell) -> Callable[[list[float]], float]:
    variances = spectrum(at["law"], at["dim"])
    return lambda times: gaussian_gap(variances, times)


def _coupled(at: Cell) -> Callable[[list[float]], float]:
    along = marginals(shared_mixture(at["dim"], at["seed"]), Linear())
    x = torch.randn(64, at["dim"], generator=at.stream("noise"), dtype=torch.float64)
    exact = walk(along, "rk4", list(Uniform(256, STOP).points()), x)
    return lambda times: float(
        (walk(along, "euler", times, x) - exact).square().sum(1).mean().sqrt()
    )


def variations(at: Cell) -> Iterator[Row]:
    """Total variation of laws with independent coordinates, each two modes on the line."""
    law = GaussianMixture(torch.tensor([[-1.0], [1.0]]), torch.tensor(0.25))
    along = marginals(law, Linear())
    x, weights = nodes_on_the_line(along, 2001)
    rng = at.stream("coordinates")
    for steps in at["steps"]:
        ratio = pushed(along, "euler", uniform(steps), x).log_ratio
        row = {"steps": steps, "tv_steps": _sum_of_coordinates(ratio, weights, at["dim"], rng)}
        if steps == max(at["steps"]):
            # A shift of the score, delta / sqrt(d) in each coordinate: exact steps, or nearly.
            moved = _shifted_ratio(law, DELTA / math.sqrt(at["dim"]), x)
            row["tv_score"] = _sum_of_coordinates(moved, weights, at["dim"], rng)
        yield row


def _sum_of_coordinates(ratio: Tensor, weights: Tensor, dim: int, rng: torch.Generator) -> float:
    total = torch.zeros(DRAWS, dtype=torch.float64)
    for _ in range(dim):
        index = torch.multinomial(weights, DRAWS, replacement=True, generator=rng)
        total += ratio[index]
    return divergences(total)[0]


def _shifted_ratio(law: GaussianMixture, shift: float, x: Tensor) -> Tensor:
    """log(q / p) where the score is shifted, on the OU path with horizon 4, by small steps."""
    along = marginals(law, build("path", "ou:horizon=4.0"))
    gain = 4.0 * shift  # the velocity of that path is the horizon times (x + score)
    y = x, torch.zeros_like(x[:, 0])
    method = build("solver", "rk4")
    for s, t in itertools.pairwise(uniform(64)):
        y = method.advance(
            lambda z, u, _: (velocity(along, z[0], u) + gain, along.divergence(z[0], u)), y, s, t
        )
    log_p = along.log_density(x, 0.0) - y[1]
    return along.log_density(y[0], 1.0) - log_p


def cell(at: Cell) -> Iterator[Row]:
    """One law in one dimension."""
    if at["law"] != "product":
        yield from distances(at)
    elif at["grid"] == "uniform":
        yield from variations(at)


STUDY = Study(
    name="dimension",
    title="The dimension",
    question="Do errors grow like the square root of the dimension, or as the bounds allow?",
    axes=(
        Axis(
            "law",
            ("mixture", "flat", "decaying", "product"),
            ("mixture", "flat", "decaying", "product"),
            "shared covariance; Gaussian of variances 1/4 or i^-2/4; independent coordinates",
        ),
        Axis("dim", (2, 4, 8, 16, 32, 64, 128, 256, 512, 1024), (2, 8, 32, 128), "dimension"),
        Axis("grid", ("uniform", "geometric"), ("uniform", "geometric"), "times of the steps"),
        Axis("seed", (0, 1, 2, 3, 4), (0,), "of law and noise"),
        Axis(
            "steps",
            (4, 8, 16, 32, 64, 128, 256),
            (8, 16, 32, 64, 128, 256),
            "Euler steps",
            together=True,
        ),
    ),
    cell=cell,
    claims=(
        Slope(
            "W2 of Euler falls at least like log^2(N) / N", "w2_over_log", "steps", -1.0, "bound",
            "arXiv 2604.06065, abstract: sqrt(d)/N up to logarithms", "infinity",
            ("law", "grid", "dim"), finest=5, panel="grid",
        ),
        Slope(
            "W2 of Euler grows at most like sqrt(d)", "w2", "dim", 0.5, "bound",
            "arXiv 2604.06065 and 2512.06702, abstracts: sqrt(d)", "infinity",
            ("law", "grid", "steps"), finest=6, panel="law",
        ),
        Slope(
            "with a decaying spectrum W2 follows the trace, not d", "w2", "dim", 0.0, "rate",
            "derived: the sum over coordinates of at most a constant times the variance",
            "infinity", ("grid", "steps"), where={"law": ("decaying",)}, finest=5,
        ),
        Slope(
            "total variation by the steps grows at most like d^2", "tv_steps", "dim", 2.0,
            "bound", "arXiv 2404.09730, abstract: d (d h)^p with p = 1", "infinity", ("steps",),
            where={"law": ("product",)}, finest=5,
        ),
        Slope(
            "of independent coordinates it grows like sqrt(d)", "tv_steps", "dim", 0.5, "rate",
            "derived: log(q/p) is a sum of independent terms", "infinity", ("steps",),
            where={"law": ("product",), "steps": (128, 256)}, finest=5,
        ),
        Slope(
            "total variation by the score grows at most like d^{3/4}", "tv_score", "dim", 0.75,
            "bound", "arXiv 2404.09730, abstract: d^{3/4} delta^{1/2}", "infinity", ("steps",),
            where={"law": ("product",)}, finest=6,
        ),
    ),
    reading=(
        "Of independent coordinates total variation saturates at 1, so few steps in many "
        "dimensions say nothing of a power. The bound of the score is at a fixed size delta of all "
        "coordinates together: a coordinate then gets delta / sqrt(d), and nothing grows."
    ),
    repeats="seed",
)  # fmt: skip
