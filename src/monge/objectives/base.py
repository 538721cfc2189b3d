"""What every training objective is: random draws for a whole batch, and a loss of them.

The two are separate so that step n can draw everything random for the *global* batch at once;
processes and micro-batches then take slices of the same draws and compute the same loss.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from monge.couplings import Coupling

Batch: TypeAlias = Mapping[str, Tensor]
"""Named tensors with a common leading axis, one row for each example."""

Learns: TypeAlias = Literal["velocity", "flow map", "chain"] | type
"""What training results in: a velocity field, a map that jumps, a chain of blocks, or a class
derived from `learned.Learned`."""


@dataclass(frozen=True)
class Loss:
    """A loss for each example, and named parts of it (B,) for the log."""

    per_example: Float[Tensor, " batch"]
    parts: Mapping[str, Float[Tensor, " batch"]] = field(default_factory=dict)


class Objective(abc.ABC):
    """`draw` randomness for a batch, then the `loss` of a network on (a slice of) it."""

    learns: ClassVar[Learns]

    coupling: Coupling
    """How noise and data are joined."""

    @abc.abstractmethod
    def draw(self, batch: Batch, rng: torch.Generator, step: int = 0) -> Batch:
        """The batch with its random draws added: source samples, times, ...

        Args:
            step: of the training, for what changes in its course.
        """

    @abc.abstractmethod
    def loss(self, network: nn.Module, batch: Batch) -> Loss:
        """The loss of each row of a batch that `draw` has returned, or of a slice of it."""

    def first_trained(self) -> Objective:
        """The objective of the network that is trained first: this one, unless it has parts."""
        return self
