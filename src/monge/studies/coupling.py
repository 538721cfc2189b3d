r"""Study: what a larger batch of minibatch optimal transport gains, by the dimension.

The cost E|x_1 - x_0|^2 of pairs that are optimal within batches of n lies above W2^2, which is
closed between Gaussians, and below that of independent pairs. The gap to W2^2 falls like
:math:`n^{-2/d}` for smooth laws in d > 4, so it hardly falls at all in many dimensions.

References:
    | Sharp convergence rates for empirical optimal transport (Manole & Niles-Weed, 2024) --
    | https://arxiv.org/abs/2106.13181
    | Minibatch OT couplings (Tong et al., 2023) -- https://arxiv.org/abs/2302.00482
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from monge.couplings import MinibatchOT
from monge.studies.claims import Ceiling, Slope
from monge.studies.study import Axis, Cell, Row, Study
from monge.targets.gaussian import Gaussian
from monge.targets.wasserstein import wasserstein2

PAIRS = 4096
"""Pairs whose cost is averaged."""


def law_of(dim: int) -> Gaussian:
    """A Gaussian away from the source, of variances 1/4 to 9/4, whose W2 is 2 or more."""
    mean = torch.full((dim,), 2 / dim**0.5, dtype=torch.float64)
    return Gaussian(mean, torch.linspace(0.5, 1.5, dim, dtype=torch.float64).square())


def cell(at: Cell) -> Iterator[Row]:
    """All batches in one dimension, from the same data."""
    law = law_of(at["dim"])
    source = Gaussian(torch.zeros(law.dim), torch.tensor(1.0))
    least = wasserstein2(source, law) ** 2
    most = law.second_moment + law.dim
    x1 = law.sample(PAIRS, at.stream("data"))
    for batch in at["batch"]:
        x0, paired = MinibatchOT(plan=batch).pair(x1, None, at.stream("noise"))
        # Centred by the moments that both couplings keep, which are known: less noise.
        extra = paired.square().sum(1).mean() + x0.square().sum(1).mean() - most
        cost = float((paired - x0).square().sum(1).mean() - extra)
        yield {
            "batch": batch, "cost": cost, "gap": cost - least, "of_independent": cost / most,
            "independent": most, "possible": least / most,
        }  # fmt: skip


STUDY = Study(
    name="coupling",
    title="The batch of the coupling",
    question="What does a larger batch of optimal transport gain, in which dimension?",
    axes=(
        Axis("dim", (2, 8, 32, 128, 256), (2, 8, 32), "dimension"),
        Axis("seed", (0, 1, 2, 3, 4), (0, 1, 2), "of data and noise"),
        Axis("batch", (16, 32, 64, 128, 256, 512), (16, 32, 64, 128, 256), "rows", together=True),
    ),
    cell=cell,
    claims=(
        Slope(
            "the cost above W2^2 falls at least like n^{-2/d}", "gap", "batch",
            lambda row: -2 / row["dim"], "bound",
            "arXiv 2106.13181, abstract: n^{-2/d} for smooth laws that are apart", "infinity",
            ("dim",), where={"dim": (8, 32, 128, 256)}, finest=5, tolerance=0.02,
        ),
        Ceiling(
            "minibatch pairs cost no more than independent ones", "cost", "independent",
            "a permutation of independent pairs", ("dim",), slack=0.01,
        ),
    ),
    reading=(
        "The column of_independent is the cost as a part of that of independent pairs, possible "
        "the same for W2^2. The cost is the straightness of the paths before training: what a "
        "trained field makes of it is not measured here."
    ),
    repeats="seed",
    minutes=1.6,
)  # fmt: skip
