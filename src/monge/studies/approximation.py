r"""Study: what transformers can represent, by their width, with and without a Lipschitz cap.

Regression on fresh inputs, so the error is that of the class and of its training, never that of
samples. Two functions: :math:`x \mapsto \sin(\pi x)` on four tokens of one coordinate in [-1, 1],
whose Lipschitz constant is pi; and the exact velocity of two modes in the plane, at states and
times of its own law, whose constant at each time is closed. A cap of 5 exceeds both.

For Lipschitz functions of k variables the error of P weights is at most of order
:math:`P^{-1/k}`, which smooth functions beat.

References:
    | Latent flow matching with transformers (Jiao et al., 2024), abstract: smooth functions are
    |   approximated by transformers that are Lipschitz -- https://arxiv.org/abs/2404.02538
    | Transformers approximate Hoelder functions (Jiao et al., 2025), abstract: weights of
    |   O(eps^{-d n / gamma}) -- https://arxiv.org/abs/2504.12175
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from monge.components import build
from monge.couplings import Coupling, Independent
from monge.networks.certificate import certificate
from monge.objectives.base import Batch, Loss, Objective
from monge.paths import Linear
from monge.studies.claims import Ceiling, Slope
from monge.studies.learning import BATCH, Examples, train
from monge.studies.study import Axis, Cell, Row, Study
from monge.targets.base import Target
from monge.targets.mixture import GaussianMixture
from monge.tensors import as_time, stream

CAP = 5.0

TOKENS = 4
"""Coordinates of the sine, each a token."""

NETWORKS = {
    "free": "transformer:width={width},depth=2,heads=2,time_scale=20",
    "capped": "lipschitz:cap=5,width={width},depth=2,heads=2,time_scale=20",
}
"""Networks of both functions; of the sine, a token has one coordinate."""

VARIABLES = {"sine": TOKENS, "velocity": 3}
"""Of each function: coordinates, and the time."""

STEPS, HELD_OUT = 500, 4096

RATES = {"free": 0.16, "capped": 0.3}
"""Peak learning rates times the width, 1e-2 at most."""


def two_modes() -> GaussianMixture:
    """Two modes of deviation 1/2 in the plane, three deviations apart."""
    mean = torch.tensor([0.75, 0.0], dtype=torch.float64)
    return GaussianMixture(torch.stack([-mean, mean]), torch.tensor(0.25))


@dataclass(frozen=True)
class Regression(Objective):
    """Regress a network on a function of (x, t), at fresh inputs.

    Attributes:
        function: "sine", at x uniform on the cube, or "velocity", at x_t of the law.
        law: of the data, or of x for the sine.
    """

    function: str
    law: Target
    coupling: Coupling = Independent()  # noqa: RUF009

    learns = "velocity"

    def draw(self, batch: Batch, rng: torch.Generator, step: int = 0) -> Batch:
        x1 = batch["x1"]
        if self.function == "sine":
            return {"x": x1, "t": torch.full((len(x1),), 0.5), "y": torch.sin(math.pi * x1)}
        t = torch.rand(len(x1), generator=rng, dtype=torch.float64)
        x0 = torch.randn(x1.shape, generator=rng, dtype=torch.float64)
        x = Linear().interpolate(x0, x1.double(), t)[0]
        y = self.law.field(Linear())(x, t)
        return {"x": x.float(), "t": t.float(), "y": y.float()}

    def loss(self, network: nn.Module, batch: Batch) -> Loss:
        gap = network(batch["x"], batch["t"]) - batch["y"]
        return Loss(gap.square().flatten(1).mean(1))


def regression(function: str) -> Regression:
    """The regression of a name of the axis."""
    if function == "velocity":
        return Regression(function, two_modes())
    from monge.targets.coordinates import box

    return Regression(function, box(TOKENS))


def cell(at: Cell) -> Iterator[Row]:
    """All widths of one network on one function."""
    objective = regression(at["function"])
    dim = objective.law.dim
    held = Examples(objective.law, objective, at["seed"] + 1000, HELD_OUT).draw(0)
    scale = float(held["y"].square().mean().sqrt())
    smallest: tuple[int, float] | None = None
    for width in at["width"]:
        text = NETWORKS[at["network"]].format(width=width)
        text += ",token=1" if at["function"] == "sine" else f",token={dim}"
        network = build("network", text).build((dim,), rng=stream(at["seed"], "weights"))
        examples = Examples(objective.law, objective, at["seed"], BATCH)
        found = train(network, examples, STEPS, lr=min(1e-2, RATES[at["network"]] / width))
        with torch.no_grad():
            error = float(objective.loss(found, held).per_example.mean().sqrt()) / scale
        weights = sum(p.numel() for p in found.parameters())
        row: Row = {"width": width, "weights": weights, "error": error}
        if at["network"] == "capped":
            row |= {"certified": certificate(found).euclidean, "cap": CAP}
            row["slope_found"] = steepest_slope(found, held)
        smallest = smallest or (width, error)
        if width == max(at["width"]) and width >= 8 * smallest[0]:
            row["quarter"] = smallest[1] / 4
        yield row


def steepest_slope(network: nn.Module, held: Batch) -> float:
    """The largest ratio |f(x) - f(y)| / |x - y| over inputs next to each other, in float64."""
    network = network.double()
    x, t = held["x"][:512].double(), held["t"][:512].double()
    along = torch.randn(x.shape, generator=stream(0, "along"), dtype=torch.float64)
    along = 1e-3 * along / along.norm(dim=1, keepdim=True)
    with torch.no_grad():
        gap: Tensor = network(x + along, as_time(t, x)) - network(x, as_time(t, x))
    return float((gap.flatten(1).norm(dim=1) / along.norm(dim=1)).max())


def _power(row: Mapping[str, Any]) -> float:
    return -1 / VARIABLES[row["function"]]


STUDY = Study(
    name="approximation",
    title="The size of a transformer",
    question="How fast does the error of a transformer fall with its size, with and without a cap?",
    axes=(
        Axis("function", ("sine", "velocity"), ("velocity",), "what is learned"),
        Axis("network", ("free", "capped"), ("free", "capped"),
             "a transformer, or one with a Lipschitz constant of 5"),
        Axis("seed", (0, 1, 2), (0,), "of weights and inputs"),
        Axis("width", (4, 8, 16, 32, 64), (4, 8, 16, 32), "of the tokens", together=True),
    ),
    cell=cell,
    claims=(
        Slope(
            "the error falls at least like weights^{-1/k}, k variables", "error", "weights",
            _power, "bound", "derived: boxes of side eps; worst case of Lipschitz functions",
            "infinity", ("function", "network"), tolerance=0.05, panel="function",
        ),
        Ceiling(
            "the certified constant is at most the cap", "certified", "cap",
            "capped layers, docs/lipschitz.md", ("function", "network"),
        ),
        Ceiling(
            "the slopes that are found are at most the certified constant", "slope_found",
            "certified", "the certificate holds for all inputs", ("function", "network"),
        ),
        Ceiling(
            "from the smallest width to the largest the error falls at least 4 times", "error",
            "quarter", "an aim, not a theorem; of widths 8 times apart or more",
            ("function", "network"),
        ),
    ),
    reading=(
        "error is the root mean square error on held-out inputs over that of zero. 500 steps for "
        "every width: where the error no longer falls, the training and not the class decides."
    ),
    sources=("https://arxiv.org/abs/2404.02538", "https://arxiv.org/abs/2504.12175"),
    repeats="seed",
)  # fmt: skip
