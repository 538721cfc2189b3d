"""The loss of a batch as one module, which can be compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import torch
from torch import Tensor, nn

from monge.errors import UserError
from monge.objectives.base import Batch, Loss
from monge.training.spec import LoopSpec

LossFn: TypeAlias = Callable[[nn.Module, Batch], Loss]
"""The loss of each row of a batch: a function of the network and the rows alone."""

BACKEND = "inductor"
"""What torch compiles by."""


class Step(nn.Module):
    """A loss as a module, so that every evaluation happens inside one (distributed) forward."""

    def __init__(self, network: nn.Module, loss: LossFn, autocast: torch.autocast) -> None:
        super().__init__()
        self.network = network
        self.loss = loss
        self.autocast = autocast

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum of the loss over the rows, and the sums of its parts, detached."""
        with self.autocast:
            loss = self.loss(self.network, batch)
        rows = len(next(iter(batch.values())))
        if loss.per_example.shape != (rows,):
            raise ValueError(
                f"the loss of {rows} rows has shape {tuple(loss.per_example.shape)}; "
                "per_example takes one number for each row"
            )
        return loss.per_example.sum(), {k: v.detach().sum() for k, v in loss.parts.items()}

    @property
    def compiled(self) -> bool:
        """Whether it is evaluated as compiled; setting it to False makes it eager."""
        return self._compiled_call_impl is not None

    @compiled.setter
    def compiled(self, value: bool) -> None:
        if not value:
            self._compiled_call_impl = None
            return
        # One graph for each number of rows: what is computed for so many rows then depends on
        # nothing that was compiled before. Of former networks torch keeps at most eight.
        torch._dynamo.reset()
        self.compile(backend=BACKEND, dynamic=False)

    @contextmanager
    def eagerly(self) -> Iterator[None]:
        """Evaluated eagerly in between."""
        before, self._compiled_call_impl = self._compiled_call_impl, None
        try:
            yield
        finally:
            self._compiled_call_impl = before


def autocast_of(spec: LoopSpec, device: torch.device) -> torch.autocast:
    """bf16 where it is asked for and the device has it.

    Raises:
        UserError: the device does not have the precision.
    """
    bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
    if spec.precision == "bf16" and not bf16:
        raise UserError(f"precision bf16 is not supported on {device.type}: use float32")
    if spec.precision == "float64" and device.type == "mps":
        raise UserError("precision float64 is not supported on mps: use float32 or another device")
    used = bf16 and spec.precision in ("auto", "bf16")
    return torch.autocast(device.type, torch.bfloat16, enabled=used)
