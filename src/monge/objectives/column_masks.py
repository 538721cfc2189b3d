"""Random masks of columns: which of them are known in a step of training.

With probability `NONE` no column is known, so that samples without a condition stay good. Else the
number of known units is uniform on 1, ..., U - 1, and the units are random: every number of known
columns, and every set of so many, is trained.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

KNOWN = "known"
"""Name of the condition: the known coordinates, NaN elsewhere."""

HIDDEN = "hidden"
"""Name in a batch of the coordinates that are never known."""

NONE = 0.25
"""Share of rows in which nothing is known."""


@dataclass(frozen=True)
class ColumnMasks:
    """The law of the masks.

    Attributes:
        units: coordinates that are known or unknown together: a number, the one-hot coordinates of
            a category, or the score of a column's gaps.
        implied: pairs of units; if the first is known, so is the second: a known value is not
            missing.
    """

    units: tuple[tuple[int, ...], ...]
    implied: tuple[tuple[int, int], ...] = ()

    def draw(
        self,
        x1: Float[Tensor, "b d"],
        rng: torch.Generator,
        hidden: Bool[Tensor, "b d"] | None = None,
    ) -> Float[Tensor, "b d"]:
        """The known coordinates of each row, NaN for the unknown ones.

        Args:
            x1: latents, one coordinate for each of the table.
            hidden: coordinates that are never known: the values of missing cells.
        """
        n, u = len(x1), len(self.units)
        count = torch.randint(1, u, (n,), generator=rng) if u > 1 else torch.zeros(n).long()
        count[torch.rand(n, generator=rng) < NONE] = 0
        rank = torch.rand(n, u, generator=rng).argsort(1).argsort(1)
        known = rank < count[:, None]
        for value, score in self.implied:
            known[:, score] |= known[:, value]
        mask = torch.zeros(x1.shape, dtype=torch.bool)
        for k, unit in enumerate(self.units):
            mask[:, list(unit)] = known[:, k : k + 1]
        if hidden is not None:
            mask &= ~hidden.cpu()
        return torch.where(mask.to(x1.device), x1, math.nan)
