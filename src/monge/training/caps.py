"""The spectral norms of capped linear maps, held at their caps after each step."""

from __future__ import annotations

import torch
from torch import nn

from monge.networks.capped import capped_weights, hold
from monge.training.sharding import own, part, whole


class Caps:
    """Holds the caps of a network's `CappedLinear` layers; other networks have none.

    All processes compute the same matrices. Those of a sharded network are put together for it,
    and each process keeps its part.
    """

    def __init__(self, network: nn.Module) -> None:
        self._weights = capped_weights(network)

    @torch.no_grad()
    def hold(self) -> None:
        """Move the weights to where every cap holds; all processes take part."""
        if not self._weights:
            return
        held = hold([whole(own(p), p) for p in self._weights])
        for p, tensor in zip(self._weights, held, strict=True):
            own(p).copy_(part(tensor, p))
