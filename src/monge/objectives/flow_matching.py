r"""Flow matching: regress a network on the velocity of random paths through the data.

The network may output velocity, data, noise or score, and the squared error may be measured in
any of the four; given x_t these are affine in each other, so the second choice is a weight
(`Path.error_ratio`). Both have sensible defaults, and a combination with an unbounded weight or
target is refused.

References:
    | Flow matching (Lipman et al., 2023), Eq. 9 -- https://arxiv.org/abs/2210.02747
    | Stochastic Interpolants (Albergo et al., 2023), Eq. 2.13 -- https://arxiv.org/abs/2303.08797
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import nn

from monge.components import Component
from monge.couplings import Coupling, Independent
from monge.errors import UserError
from monge.objectives.base import Batch, Learns, Loss, Objective
from monge.objectives.column_masks import HIDDEN, KNOWN, ColumnMasks
from monge.paths import Kind, Linear, Path
from monge.system.own_faults import shaped_like
from monge.tensors import expand, stream
from monge.times import TimeLaw, UniformTimes
from monge.types import Cond, VelocityField

LARGEST_RATIO = 100.0
"""Weights beyond the square of this are refused: their variance swamps the gradient."""


def conditions(batch: Batch) -> Cond:
    """The conditions in a batch, or None."""
    cond = {k: batch[k] for k in ("label", "vector", KNOWN) if k in batch}
    return cond or None


@dataclass(frozen=True, repr=False)
class FlowMatchingSpec(Component):
    """Flow matching, which has no settings of its own: those of path, output, coupling, ..."""

    name = "flow_matching"
    learns: ClassVar[Learns] = "velocity"
    teacher: ClassVar[bool] = False


@dataclass(frozen=True, repr=False)
class ReflowSpec(Component):
    """Flow matching on noise and the samples that a teacher makes of it: straighter paths.

    Source: Rectified flow (Liu et al., 2022), Sec. 2.2 -- https://arxiv.org/abs/2209.03003
    """

    name = "reflow"
    learns: ClassVar[Learns] = "velocity"
    teacher: ClassVar[bool] = True


@dataclass(frozen=True)
class FlowMatching(Objective):
    """E | output_hat - output |^2, weighted so that the error is that of `error`.

    Attributes:
        path: the interpolation.
        output: what the network outputs.
        error: where the error is measured; None for the default of path and output.
        coupling: which noise is joined to which data.
        times: the law of t on the domain of the output.
        label_drop: probability that a row's condition is dropped, for guidance.
        masks: which columns of a row are known in training; the error is that of the others.
    """

    path: Path = field(default_factory=Linear)
    output: Kind = "velocity"
    error: Kind | None = None
    coupling: Coupling = field(default_factory=Independent)
    times: TimeLaw = field(default_factory=UniformTimes)
    label_drop: float = 0.0
    masks: ColumnMasks | None = None

    learns = "velocity"

    def __post_init__(self) -> None:
        if not 0 <= self.label_drop < 1:
            raise UserError(f"label drop must lie in [0, 1), not {self.label_drop}")
        if self.output == "score" and not self.coupling.gaussian:
            raise UserError(
                f"output score needs a coupling that is Gaussian given the data, not "
                f"{self.coupling}: use --coupling independent"
            )
        if problem := self._unbounded(self.place):
            raise UserError(
                f"output {self.output} with the error in {self.place} under the path "
                f"{self.path}: {problem}; use --error {self._default_place()}"
            )

    @property
    def domain(self) -> tuple[float, float]:
        """The times that are trained."""
        return self.path.output_domain(self.output)

    @property
    def place(self) -> Kind:
        """Where the error is measured."""
        return self.error or self._default_place()

    def _default_place(self) -> Kind:
        """Velocity where that is bounded, else the output's own place, else noise."""
        wishes: tuple[Kind, ...] = ("velocity", self._regressed, "noise")
        return next(place for place in wishes if not self._unbounded(place))

    @property
    def _regressed(self) -> Kind:
        """What the error is taken of: a score is turned into noise, which stays finite."""
        return "noise" if self.output == "score" else self.output

    def _unbounded(self, place: Kind) -> str | None:
        """Why the loss of this place has no usable variance, or None."""
        if place == "velocity" and not self.path.velocity_variance_is_finite:
            return "the velocity target has infinite variance at t = 1"
        if place == "score":
            return "the score target has infinite variance at t = 1"
        t = torch.linspace(*self.domain, 201, dtype=torch.float64)
        ratio = self.path.error_ratio(place, self._regressed, t).abs().max()
        if not ratio <= LARGEST_RATIO:
            return f"the error is magnified up to {float(ratio):.3g} times"
        return None

    def draw(self, batch: Batch, rng: torch.Generator, step: int = 0) -> Batch:
        """Add x0 and t to a batch of x1 (and label, vector), paired and with dropped labels.

        A batch that brings its x0 is paired already.
        """
        x0, x1 = batch.get("x0"), batch["x1"]
        if x0 is None:
            x0, x1 = self.coupling.pair(x1, batch.get("label"), rng)
        drawn = {**batch, "x0": x0, "x1": x1}
        drawn["t"] = self.times.draw(len(x1), self.domain, rng).to(x1.device)
        if self.label_drop and conditions(batch):
            dropped = torch.rand(len(x1), generator=rng).to(x1.device) < self.label_drop
            if "label" in batch:
                drawn["label"] = torch.where(dropped, -1, batch["label"])
            if "vector" in batch:
                drawn["vector"] = torch.where(dropped[:, None], math.nan, batch["vector"])
        if self.masks is not None:
            drawn[KNOWN] = self.masks.draw(x1, rng, drawn.pop(HIDDEN, None))
        return drawn

    def loss(self, network: nn.Module | VelocityField, batch: Batch) -> Loss:
        x0, x1, t = batch["x0"], batch["x1"], batch["t"]
        xt, velocity = self.path.interpolate(x0, x1, t)
        prediction = shaped_like(network(xt, t, conditions(batch)), xt, network)
        if self.output == "score":
            prediction = -expand(self.path.scales(t)[1], xt) * prediction
        target = {"velocity": velocity, "data": x1, "noise": x0}[self._regressed]
        squared = (prediction - target).square().flatten(1)
        per_example = squared.mean(1)
        if KNOWN in batch:
            unknown = batch[KNOWN].isnan()
            per_example = (squared * unknown).sum(1) / unknown.sum(1).clamp_min(1)
        if self.place != self._regressed:
            ratio = self.path.error_ratio(self.place, self._regressed, t)
            per_example = per_example * ratio.square().to(per_example.dtype)
        return Loss(per_example)


def evaluate_loss(
    objective: FlowMatching, network: nn.Module, batch: Batch, seed: int, repeats: int = 1
) -> torch.Tensor:
    """The loss of each row, averaged over `repeats` fixed draws: comparable between networks."""
    with torch.no_grad():
        losses = [
            objective.loss(network, objective.draw(batch, stream(seed, "loss", k))).per_example
            for k in range(repeats)
        ]
    return torch.stack(losses).mean(0)
