"""A network of all columns given some: any columns of a row may be known.

The condition ``known`` (B, D) holds the known coordinates, and NaN elsewhere. The network sees the
known coordinates and which they are as its vector condition. Its output is zero for them, so that a
flow leaves them where they are and carries the others from noise to their law given the known ones.

References:
    | Arbitrary conditioning (Li, Akbar & Oliva, 2020), ACFlow -- https://arxiv.org/abs/1909.06319
    | VAE with arbitrary conditioning (Ivanov et al., 2019) -- https://arxiv.org/abs/1806.02382
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from monge.objectives.column_masks import KNOWN
from monge.types import Cond, State, Time


def vector_size(shape: tuple[int, ...]) -> int:
    """Numbers in the vector condition of the inner network, for states of a shape (D,)."""
    return 2 * math.prod(shape)


class KnownColumns(nn.Module):
    """A network (x, t, cond) with the condition ``known``; without it nothing is known.

    Args:
        net: a network for states (D,) with a vector condition of `vector_size` numbers.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: State, t: Time, cond: Cond = None) -> State:
        """The output at (x, t), zero where coordinates are known, (B, D)."""
        known = None if cond is None else cond.get(KNOWN)
        if known is None:
            known = torch.full_like(x, math.nan)
        unknown = known.isnan()
        given = torch.where(unknown, 0, known).to(x.dtype)
        vector = torch.cat([given, (~unknown).to(given)], 1)
        output: Tensor = self.net(torch.where(unknown, x, given), t, {"vector": vector})
        return torch.where(unknown, output, 0)
