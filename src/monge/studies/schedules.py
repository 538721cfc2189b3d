r"""Study: whether the noise scale sigma = (1 - t)^kappa decides the rate of flow matching.

The theorem's upper bound is :math:`n^{-(s + 1/(2\kappa))/(2s + d)}` for a density of smoothness s,
best for kappa = 1/2. Two paths with equal :math:`\sigma / \alpha` differ by their clock and a
factor alone: the exact field, and the closed-form minimiser of the empirical loss, end at the same
state for every kappa, divided by alpha, if they stop at the same sigma / alpha. Networks see the
clock. All walks here stop at such matched noises, and their ends are divided by alpha.

The law has independent Laplace coordinates: a kink, so its smoothness is 3/2 in L^2 and the score
is bounded; its support is not, as the theorem asks. The exact map is coordinatewise between
quantiles. The distance from the same noise is W2 on the line, at least W2 in the plane.

References:
    | Flow matching achieves almost minimax rates (Fukumizu et al., 2024), Thm. 7 and Sec. 4
    |   -- https://arxiv.org/abs/2405.20879
    | Kernel density estimation and flow matching (Kunkel & Trabs, 2025)
    |   -- https://arxiv.org/abs/2504.13336
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from monge.components import build
from monge.fields import Predict
from monge.flows import Integrated
from monge.objectives.flow_matching import FlowMatching, evaluate_loss
from monge.paths import Linear, Path, Power
from monge.solvers import RK4
from monge.studies.claims import Equal, Slope
from monge.studies.learning import Best, Examples, Until, nodes, root_mean_square, train, walk
from monge.studies.study import Axis, Cell, Row, Study
from monge.targets.atoms import Atoms
from monge.targets.base import Target
from monge.targets.densities import laplace
from monge.targets.product import Product
from monge.targets.wasserstein import early_stopping
from monge.tensors import stream
from monge.times import Geometric
from monge.types import State

SMOOTHNESS = 1.5
"""Of the Laplace density in L^2."""

NOISES = (0.4, 0.25, 0.15, 0.1, 0.06, 0.04)
"""sigma / alpha at the stops."""

CLOSED = (0.4, 0.15, 0.06)
"""Those at which the loss of the exact field is compared with a quadrature."""

NETWORKS = {
    "mlp": "mlp:width=64,depth=2,embed=32,time_scale=20",
    "piecewise": "piecewise:mlp:width=64+depth=2+embed=32+time_scale=20,pieces=3",
}

STEPS, ROWS, RATE, LOOKS = 500, 256, 1e-2, 5
"""Training steps, rows of a batch, peak learning rate, and looks at the samples kept apart."""


def stop_at(kappa: float, noise: float) -> float:
    """The time at which sigma / alpha = (1 - t)^kappa / t is `noise`, by bisection.

    >>> round(stop_at(1.0, 0.25), 12), round(stop_at(2.0, 0.5), 12)
    (0.8, 0.5)
    """
    lo, hi = 0.0, 1.0
    for _ in range(60):
        middle = (lo + hi) / 2
        lo, hi = (middle, hi) if (1 - middle) ** kappa > noise * middle else (lo, middle)
    return (lo + hi) / 2


@lru_cache
def lost(noise: float) -> float:
    """W2 between a Laplace law and the same law plus noise, on the linear path by quadrature."""
    return early_stopping(laplace(), Linear(), 1 / (1 + noise), divided=True)


def exponent(kappa: float, dim: int, smoothness: float = SMOOTHNESS) -> float:
    """The theorem's power of n, never below -1/2, the rate of a known shape.

    >>> exponent(0.5, 2), exponent(1.0, 2)
    (-0.5, -0.4)
    """
    return max(-(smoothness + 1 / (2 * kappa)) / (2 * smoothness + dim), -0.5)


def law_of(dim: int) -> Target:
    """Independent Laplace coordinates."""
    return laplace() if dim == 1 else Product([laplace()] * dim)


def cell(at: Cell) -> Iterator[Row]:
    """All numbers of samples of one estimator under one path."""
    kappa, dim, seed = at["kappa"], at["dim"], at["seed"]
    path, law = Power(kappa), law_of(dim)
    times = sorted(stop_at(kappa, noise) for noise in NOISES)
    z, weights = nodes(100 if dim == 1 else 512, dim, seed)
    truth = laplace().quantile(z.reshape(-1, 1)).reshape(z.shape)
    if at["network"] == "exact":
        if seed == 0:
            yield from _of_exact(law, path, times, z, weights, truth)
        return
    rng = stream(seed, "schedules", dim)
    samples = law.sample(max(at["n"]), rng)
    floor: Row = {}
    if at["network"] in NETWORKS:
        field = learned(at["network"], law, path, times[-1], dim, seed)
        floor = _best(times, walk(field, grid(times), z, times), path, truth, weights)
    for n in at["n"]:
        if at["network"] == "kernel":
            flow = Integrated(Atoms(samples[:n]).field(path), RK4(), grid(times))
            row = _best(times, list(flow.states(z, times)), path, truth, weights)
        else:
            field = learned(at["network"], samples[:n], path, times[-1], dim, seed)
            row = _best(times, walk(field, grid(times), z, times), path, truth, weights)
            row["floor"] = floor["w2"]
        yield {"n": n, **row}


def grid(times: Sequence[float]) -> Geometric:
    """Steps that are short near the data, up to the last time."""
    return Geometric(24, stop=times[-1])


def learned(
    network: str, source: Tensor | Target, path: Path, stop: float, dim: int, seed: int
) -> Predict:
    """A field trained up to a time, on samples or on fresh ones in each step."""
    made = build("network", NETWORKS[network]).build((dim,), rng=stream(seed, "weights"))
    objective = FlowMatching(path)
    objective = FlowMatching(path, times=Until(min(1.0, stop / objective.domain[1])))
    if isinstance(source, Target):
        examples = Examples(source, objective, seed, ROWS)
        return Predict(train(made, examples, STEPS, lr=RATE), path)
    kept = max(len(source) // 8, 16)
    held = {"x1": source[torch.arange(1024) % kept].float()}

    def error(found: nn.Module) -> float:
        return float(evaluate_loss(objective, found, held, seed, repeats=2).mean())

    best = Best(error)
    examples = Examples(source[kept:], objective, seed, ROWS)
    train(made, examples, STEPS, lr=RATE, every=STEPS // LOOKS, look=best)
    assert best.network is not None
    return Predict(best.network, path)


def _divided(t: float, x: State, path: Path) -> State:
    alpha, _ = path.scales(torch.tensor(t, dtype=torch.float64))
    return x / alpha


def _of_exact(
    law: Target, path: Path, times: Sequence[float], z: Tensor, weights: Tensor, truth: Tensor
) -> Iterator[Row]:
    """The walk along the exact field, and on the line what it loses by quadrature."""
    flow = Integrated(law.field(path), RK4(), Geometric(32, stop=times[-1]))
    ends = flow.states(z, times)
    for t, noise, x in zip(times, sorted(NOISES, reverse=True), ends, strict=True):
        error = root_mean_square(_divided(t, x, path) - truth, weights)
        row: Row = {"n": 0, "noise": noise, "exact": error}
        if law.dim == 1 and noise in CLOSED:
            row["closed"] = lost(noise)
        yield row


def _best(
    times: Sequence[float], ends: Sequence[State], path: Path, truth: Tensor, weights: Tensor
) -> Row:
    """The least distance over the stops, and the noise that is left there."""
    found = [
        root_mean_square(_divided(t, x, path) - truth, weights)
        for t, x in zip(times, ends, strict=True)
    ]
    k = min(range(len(found)), key=lambda i: found[i])
    return {"w2": found[k], "noise": sorted(NOISES, reverse=True)[k]}


def _power(row: Mapping[str, Any]) -> float:
    return exponent(row["kappa"], row["dim"])


STUDY = Study(
    name="schedules",
    title="The schedule of the noise",
    question="Does the power kappa of the noise decide the rate in the number of samples?",
    axes=(
        Axis("dim", (1, 2), (1,), "dimension"),
        Axis("network", ("exact", "kernel", *NETWORKS), ("exact", "kernel", "piecewise"),
             "the exact field, the closed-form minimiser, a perceptron, or one for each time"),
        Axis("kappa", (0.5, 0.75, 1.0, 2.0), (0.5, 1.0), "sigma = (1 - t)^kappa"),
        Axis("seed", (0, 1, 2), (0,), "of samples, weights and noise"),
        Axis("n", (64, 256, 1024, 4096), (64, 256, 1024), "samples", together=True),
    ),
    cell=cell,
    claims=(
        Equal(
            "the exact field: no difference between schedules at matched end noise", "exact",
            "closed", "derived: equal sigma / alpha is a change of the clock and a factor",
            ("dim", "kappa"), tolerance=0.01,
        ),
        Slope(
            "the closed-form minimiser: the bound of kappa = 1/2 for every kappa", "w2", "n",
            lambda row: exponent(0.5, row["dim"]), "bound",
            "2504.13336: kernel density estimation; the same estimator for every kappa",
            "infinity", ("dim", "kappa"), where={"network": ("kernel",)}, tolerance=0.03,
            resolution=0.15,
        ),
        Slope(
            "networks: n^{-(s + 1/(2 kappa))/(2s + d)}, s = 3/2", "w2", "n", _power, "bound",
            "arXiv 2405.20879, Thm. 7, up to delta", "infinity", ("dim", "network", "kappa"),
            where={"network": tuple(NETWORKS)}, floor="floor", tolerance=0.03, resolution=0.15,
            panel="network",
        ),
    ),
    reading=(
        "w2 is the least over the stops of the distance of the ends from the exact ones, from the "
        "same noise: W2 on the line, at least W2 in the plane. Points below three floors are not "
        "fitted; a floor is what the same training reaches on fresh samples. Networks see 500 "
        "batches of 256, and are taken where the loss of an eighth of the samples is least."
    ),
    sources=("https://arxiv.org/abs/2405.20879", "https://arxiv.org/abs/2504.13336"),
    repeats="seed",
)  # fmt: skip
