"""The numbers of a run between two log lines, summed on the device."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class Tally:
    """Sums over the steps since the last log line, and counts of skipped steps.

    Nothing here makes the host wait for the device, except `take`, `state`, and the two counts.

    Attributes:
        parts: names of the loss's parts.
        dtype: in which sums are taken: float64 where the device has it.
    """

    def __init__(self, device: torch.device) -> None:
        self.parts: tuple[str, ...] = ()
        self.dtype = torch.float32 if device.type == "mps" else torch.float64
        self._one = torch.ones(1, dtype=self.dtype, device=device)
        self._window = self._one[:0]
        """Sums of loss, parts, gradient norm and one, over the steps that were not skipped."""
        self._counts = self._one.new_zeros(3)
        """Steps skipped in all; in a row until now; in the longest row."""

    def add(self, means: Tensor, norm: Tensor, bad: Tensor) -> None:
        """One step: (loss, *parts), the gradient's norm (), and whether it is skipped ()."""
        row = torch.cat((means, norm.to(self.dtype).reshape(1), self._one))
        row = torch.where(bad, torch.zeros_like(row), row)
        self._window = self._window + row if len(self._window) else row
        skipped, streak, longest = self._counts.unbind()
        skipped.add_(bad)
        streak.add_(bad).mul_(bad)
        torch.maximum(longest, streak, out=longest)

    def take(self) -> tuple[dict[str, float], dict[str, float]]:
        """The means of loss and gradient norm, and of the parts; then start again.

        They are not a number where every step was skipped.
        """
        *sums, count = self._window.tolist()
        loss, *parts, norm = (s / count if count else float("nan") for s in sums)
        self._window = torch.zeros_like(self._window)
        return {"loss": loss, "grad_norm": norm}, dict(zip(self.parts, parts, strict=True))

    @property
    def skipped(self) -> int:
        """Steps skipped in all."""
        return int(self._counts[0])

    @property
    def longest(self) -> int:
        """The most steps that were skipped in a row."""
        return int(self._counts[2])

    def state(self) -> dict[str, list[float]]:
        """What `restore` takes; JSON keeps it to the bit."""
        return {"window": self._window.tolist(), "counts": self._counts.tolist()}

    def restore(self, state: Mapping[str, list[float]]) -> None:
        """Go on from a `state`."""
        self._window = self._one.new_tensor(state["window"])
        self._counts = self._one.new_tensor(state["counts"])
