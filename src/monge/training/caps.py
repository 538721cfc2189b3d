"""The spectral norms of capped linear maps, held at their caps after each step."""

from __future__ import annotations

import torch
from torch import nn

from monge.networks.capped import capped_layers, hold
from monge.training.sharding import own, part, whole


class Caps:
    """Holds the caps of a network's `CappedLinear` layers; other networks have none.

    All processes compute the same matrices. Those of a sharded network are put together for it,
    and each process keeps its part.
    """

    def __init__(self, network: nn.Module) -> None:
        self._layers = capped_layers(network)

    @torch.no_grad()
    def hold(self) -> None:
        """Move the weights to where every cap holds; all processes take part."""
        if not self._layers:
            return
        wholes = [whole(own(layer.weight), layer.weight) for layer in self._layers]
        parts = zip(wholes, self._layers, strict=True)
        held = hold([tensor.unflatten(0, (layer.groups, -1)) for tensor, layer in parts])
        for layer, matrices in zip(self._layers, held, strict=True):
            own(layer.weight).copy_(part(matrices.flatten(0, 1), layer.weight))
