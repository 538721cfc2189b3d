r"""Study: how the error of a trained flow falls with the number n of samples of the data.

Three estimators of the velocity from the same n samples: a perceptron, a transformer with a
Lipschitz cap, and the closed-form minimiser of the empirical loss, whose law at T = 1 - delta is
a Gaussian kernel density of bandwidth delta / T. Each is held against the exact field (the excess
loss) and the exact flow from the same noise, whose distance is W2 on the line, where both maps
increase, and an upper bound of it in more dimensions.

A network is taken where its loss on an eighth of the samples, kept apart, is least. A floor is what
the same network reaches on fresh samples in each step: what more samples cannot improve.

References:
    | Latent flow matching with transformers (Jiao et al., 2024) -- https://arxiv.org/abs/2404.02538
    | Convergence of continuous normalizing flows (Gao et al., 2024), abstract: n^{-1/(d+5)}
    |   -- https://arxiv.org/abs/2404.00551
    | Kernel density estimation and flow matching (Kunkel & Trabs, 2025)
    |   -- https://arxiv.org/abs/2504.13336
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from monge.components import build
from monge.fields import Predict
from monge.flows import Integrated
from monge.objectives.flow_matching import FlowMatching, evaluate_loss
from monge.paths import Linear
from monge.solvers import Heun
from monge.studies.claims import Slope
from monge.studies.learning import (
    Best,
    Examples,
    exact_ends,
    excess,
    nodes,
    root_mean_square,
    train,
    walk,
)
from monge.studies.study import Axis, Cell, Row, Study
from monge.targets.atoms import Atoms
from monge.targets.base import Target
from monge.targets.mixture import GaussianMixture
from monge.tensors import stream
from monge.times import Geometric, Uniform
from monge.types import State

NETWORKS = {
    "free": "mlp:width=64,depth=2,embed=32,time_scale=20",
    "capped": "lipschitz:cap=5,width=32,depth=2,time_scale=20",
}
"""The networks that are trained."""

DELTAS = (0.5, 0.35, 0.25, 0.18, 0.12, 0.08, 0.05, 0.03, 0.02)
"""Distances of the stop to the end, among which the best is taken."""

STEPS, ROWS, RATE, LOOKS = 800, 512, 1e-2, 8
"""Training steps, rows of a batch, peak learning rate, and looks at the samples kept apart."""

LARGEST = 4096
"""Samples of a network at most: above, its error is that of the training, see the floors."""

FARTHEST = 0.98
"""Times of the excess loss end here."""


def law_of(dim: int) -> GaussianMixture:
    """Two modes of deviation 1/2, three deviations apart, of weights 0.4 and 0.6."""
    mean = torch.full((dim,), 0.75 / dim**0.5, dtype=torch.float64)
    return GaussianMixture(torch.stack([-mean, mean]), torch.tensor(0.25), torch.tensor([0.4, 0.6]))


def rule(n: int, dim: int) -> float:
    """The distance to the end at which the estimator of the theory stops: n^{-1/(d+5)} / 8.

    The factor keeps it where what is lost by stopping is proportional to it.
    """
    return n ** (-1 / (dim + 5)) / 8


def minimax(dim: int) -> float:
    """The power of n of W2 for two derivatives, which a Gaussian kernel can use.

    n^{-(1+s)/(2s+d)}, s = 2, and never below -1/2.

    >>> minimax(1), minimax(8)
    (-0.5, -0.25)
    """
    return max(-3 / (4 + dim), -0.5)


def cell(at: Cell) -> Iterator[Row]:
    """All numbers of samples of one estimator: small sets are parts of large ones."""
    dim, seed = at["dim"], at["seed"]
    if at["network"] != "kernel" and dim > 4:
        return  # the kernel alone is cheap enough
    law = law_of(dim)
    rng = stream(seed, "sample-size", dim)
    samples = law.sample(max(at["n"]), rng)
    fresh = law.sample(4096, rng)
    z, weights = nodes(100 if dim == 1 else 512 if at["network"] != "kernel" else 128, dim, seed)
    truth = exact_ends(law, z)
    floor: Row = {}
    if at["network"] != "kernel":
        field = learned(at["network"], law, dim, seed)
        floor = _measured(field, law, fresh, z, weights, truth, rule(2**40, dim), seed)
    for n in at["n"]:
        if at["network"] != "kernel" and n > LARGEST:
            continue
        if at["network"] == "kernel":
            row = _of_kernel(samples[:n], law, z, weights, truth, rule(n, dim))
        else:
            field = learned(at["network"], samples[:n], dim, seed)
            row = _measured(field, law, fresh, z, weights, truth, rule(n, dim), seed)
            row |= {"excess_floor": floor["excess"], "tuned_floor": floor["tuned"]}
        yield {"n": n, "stopped": rule(n, dim), **row}


def learned(network: str, source: Tensor | Target, dim: int, seed: int) -> Predict:
    """A field trained on samples, or on fresh ones in each step."""
    made = build("network", NETWORKS[network]).build((dim,), rng=stream(seed, "weights"))
    objective = FlowMatching()
    path = objective.path
    if isinstance(source, Target):
        return Predict(train(made, Examples(source, objective, seed, ROWS), STEPS, lr=RATE), path)
    kept = max(len(source) // 8, 16)
    held = {"x1": source[torch.arange(2048) % kept].float()}

    def error(found: nn.Module) -> float:
        return float(evaluate_loss(objective, found, held, seed, repeats=2).mean())

    best = Best(error)
    examples = Examples(source[kept:], objective, seed, ROWS)
    train(made, examples, STEPS, lr=RATE, every=STEPS // LOOKS, look=best)
    assert best.network is not None
    return Predict(best.network, path)


def _measured(
    field: Predict, law: Target, fresh: Tensor, z: Tensor, weights: Tensor, truth: Tensor,
    stop: float, seed: int,
) -> Row:  # fmt: skip
    """The excess loss, and the distances to the exact ends at the stops."""
    times = sorted({1 - delta for delta in (*DELTAS, stop)})
    ends = walk(field, Uniform(40), z, times)
    found = excess(field, law, fresh, (0.0, FARTHEST), seed)
    return {"excess": found} | _distances(times, ends, truth, weights, stop)


def _of_kernel(
    samples: Tensor, law: Target, z: Tensor, weights: Tensor, truth: Tensor, stop: float
) -> Row:
    """The same of the closed-form minimiser; its field is steep near the end, so is the grid."""
    times = sorted({1 - delta for delta in (*DELTAS, stop)})
    flow = Integrated(Atoms(samples).field(Linear()), Heun(), Geometric(32, stop=1 - DELTAS[-1]))
    return _distances(times, list(flow.states(z, times)), truth, weights, stop)


def _distances(
    times: Sequence[float], ends: Sequence[State], truth: Tensor, weights: Tensor, stop: float
) -> Row:
    """By the rule, not divided by alpha = T; and the least over the stops, divided or not."""
    raw = {t: root_mean_square(x - truth, weights) for t, x in zip(times, ends, strict=True)}
    divided = {
        t: root_mean_square(x / t - truth, weights) for t, x in zip(times, ends, strict=True)
    }
    best = min(divided, key=lambda t: divided[t])
    return {"by_rule": raw[1 - stop], "tuned": divided[best], "delta": 1 - best}


def _lipschitz(row: Mapping[str, Any]) -> float:
    return -1 / (row["dim"] + 3)


STUDY = Study(
    name="sample-size",
    title="The number of samples",
    question="How fast does the error fall with the number of samples, with and without a cap?",
    axes=(
        Axis("network", ("free", "kernel", "capped"), ("free", "kernel"),
             "a perceptron, the closed-form minimiser, or a transformer of constant 5"),
        Axis("dim", (1, 2, 4, 8), (2,), "dimension; 8 for the kernel alone"),
        Axis("seed", (0, 1, 2), (0, 1, 2), "of samples, weights and noise"),
        Axis("n", (64, 256, 1024, 4096, 16384), (64, 256, 1024),
             "samples; 16384 for the kernel alone", together=True),
    ),
    cell=cell,
    claims=(
        Slope(
            "W2 at T = 1 - n^{-1/(d+5)} / 8 falls at least like n^{-1/(d+5)}", "by_rule", "n",
            lambda row: -1 / (row["dim"] + 5), "bound", "arXiv 2404.00551, abstract", "infinity",
            ("dim", "network"), tolerance=0.02, resolution=0.1, panel="network",
        ),
        Slope(
            "W2 at the best stop falls at least like n^{-1/(d+3)}", "tuned", "n", _lipschitz,
            "bound", "derived: the excess loss of a Lipschitz field, and a Lipschitz flow",
            "infinity", ("dim", "network"), where={"network": ("free", "capped")},
            floor="tuned_floor", tolerance=0.02, resolution=0.1, panel="network",
        ),
        Slope(
            "the excess loss falls at least like n^{-2/(d+3)}", "excess", "n",
            lambda row: 2 * _lipschitz(row), "bound",
            "derived: squared error of a Lipschitz field of d + 1 variables", "infinity",
            ("dim", "network"), floor="excess_floor", tolerance=0.04, resolution=0.2,
            panel="network",
        ),
        Slope(
            "the kernel's W2 at the best bandwidth falls at least like the minimax rate",
            "tuned", "n", lambda row: minimax(row["dim"]), "bound",
            "arXiv 2504.13336, abstract; a Gaussian kernel uses two derivatives", "infinity",
            ("dim",), where={"network": ("kernel",)}, tolerance=0.02, resolution=0.1,
        ),
    ),
    reading=(
        "by_rule and tuned are distances of the ends of two flows from the same noise: W2 on the "
        "line, at least W2 in more dimensions. A slope that is shallower than the minimax rate "
        "there may be that of the coupling. The best stop is chosen with knowledge of the truth. "
        "The exponent of the main theorem of 2404.02538 is not known here, and none is quoted. "
        "Points below three floors are not fitted: there the training, not the samples, decides."
    ),
    sources=(
        "https://arxiv.org/abs/2404.02538", "https://arxiv.org/abs/2404.00551",
        "https://arxiv.org/abs/2504.13336",
    ),
    repeats="seed",
    minutes=54,
)  # fmt: skip
