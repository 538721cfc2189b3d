"""The exponential moving average of a network's weights, which is what one samples from."""

from __future__ import annotations

import copy

import torch
from torch import nn


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
        self._theirs = list(network.parameters())
        self._ours = list(self.module.parameters())

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the network's weights after step 0, 1, ..."""
        weight = 1 - decay_at(step, self.decay)
        torch._foreach_lerp_(self._ours, self._theirs, weight)  # type: ignore[attr-defined]

    @torch.no_grad()
    def look(self) -> nn.Module:
        """The averaged network, with the network's present buffers."""
        for ours, theirs in zip(self.module.buffers(), self._network.buffers(), strict=True):
            ours.copy_(theirs)
        return self.module
