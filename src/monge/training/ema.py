"""The exponential moving average of a network's weights, which is what one samples from."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from monge.training.sharding import Piece, own, part


def decay_at(step: int, decay: float) -> float:
    """The decay of step 0, 1, ...: min(decay, (1 + n) / (10 + n)).

    The warm-up lets the average forget the initial weights; it is the rule of TensorFlow's
    `ExponentialMovingAverage`.

    >>> decay_at(0, 0.999), decay_at(90, 0.999), decay_at(10**6, 0.999)
    (0.1, 0.91, 0.999)
    """
    return min(decay, (1 + step) / (10 + step))


class Average:
    """A copy of a network that follows its weights; buffers are copied when it is looked at.

    Args:
        network: the bare network; it is deep-copied once and never held by the copy.
        decay: the final decay, in [0, 1]; 0 keeps the copy equal to the network.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.module = copy.deepcopy(network).requires_grad_(False).eval()
        self._network = network
        # Parameters, not their detached tensors: distribution may give them new storage.
        self._theirs: list[Tensor] = list(network.parameters())
        self._ours: list[Tensor] = list(self.module.parameters())

    def share_out(self) -> None:
        """Follow the network's parts, once it is sharded, with parts of the average."""
        like = list(self._network.parameters())
        self._theirs = [own(p) for p in like]
        self._ours = [
            part(whole, p).clone() for whole, p in zip(self.module.parameters(), like, strict=True)
        ]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the network's weights after step 0, 1, ..."""
        weight = 1 - decay_at(step, self.decay)
        torch._foreach_lerp_(self._ours, self._theirs, weight)  # type: ignore[attr-defined]

    @torch.no_grad()
    def look(self) -> nn.Module:
        """The whole averaged network, with the network's present buffers; all take part."""
        for into, piece in zip(self.module.parameters(), self.pieces().values(), strict=True):
            if piece.own is not into:
                into.copy_(piece.whole())
        for ours, theirs in zip(self.module.buffers(), self._network.buffers(), strict=True):
            ours.copy_(theirs)
        return self.module

    def pieces(self) -> dict[str, Piece]:
        """What this process has of the averaged parameters, by name."""
        named = self._network.named_parameters()
        return {
            name: Piece(ours, like) for (name, like), ours in zip(named, self._ours, strict=True)
        }
