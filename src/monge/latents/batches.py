"""Encodes data once and draws global batches of latents, one for each training step.

The rows, the encoder's noise and the objective's draws of step n depend on (seed, n) alone, not on
the number of processes, micro-batches or interruptions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from monge.couplings import source_like
from monge.data.arrays import Examples
from monge.objectives.base import Batch, Objective
from monge.tensors import stream
from monge.types import Autoencoder, Posterior


@runtime_checkable
class Latents(Protocol):
    """Posteriors read by rows, from memory or from files."""

    def __len__(self) -> int: ...

    def rows(self, index: Tensor) -> Posterior: ...


def encode(
    autoencoder: Autoencoder,
    x: Examples,
    device: torch.device | str = "cpu",
    chunk: int = 256,
    progress: Callable[[int], None] | None = None,
) -> Posterior:
    """The posterior of every example, on the CPU, encoded in chunks."""
    return encode_parts(autoencoder, x.split(chunk), device, progress)


@torch.no_grad()
def encode_parts(
    autoencoder: Autoencoder,
    parts: Iterable[Tensor],
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] | None = None,
) -> Posterior:
    """The joined posteriors of parts of examples, on the CPU."""
    means, logvars = [], []
    for part in parts:
        posterior = autoencoder.encode(part.to(device))
        means.append(posterior.mean.cpu())
        if posterior.logvar is not None:
            logvars.append(posterior.logvar.cpu())
        if progress is not None:
            progress(len(part))
    return Posterior(torch.cat(means), torch.cat(logvars) if logvars else None)


@dataclass
class Epochs:
    """Row indices of each step; every epoch visits all rows once, in a new random order."""

    n: int
    seed: int
    _order: dict[int, Tensor] = field(default_factory=dict)

    def rows(self, start: int, stop: int) -> Tensor:
        """The rows at positions start..stop-1 of the endless sequence of epochs."""
        pieces = []
        while start < stop:
            epoch, offset = divmod(start, self.n)
            take = min(stop - start, self.n - offset)
            pieces.append(self._permutation(epoch)[offset : offset + take])
            start += take
        return torch.cat(pieces)

    def _permutation(self, epoch: int) -> Tensor:
        if epoch not in self._order:
            if len(self._order) > 1:
                self._order.clear()
            rng = stream(self.seed, "epoch", epoch)
            self._order[epoch] = torch.randperm(self.n, generator=rng)
        return self._order[epoch]


@dataclass
class LatentBatches:
    """Global batches of latents with the objective's draws.

    If a coupling pairs more rows than a batch holds, several steps are drawn at once as one
    block; block k depends on (seed, k) alone.

    Attributes:
        latents: the posterior of every training example, perhaps followed by as many of their
            mirror images.
        cond: per-example conditions (label, vector), aligned with the examples.
        objective: adds its random draws.
        size: rows in a global batch.
        span: steps drawn at once.
        plans: whether drawing solves a costly problem, such as a coupling's plan, in a thread.
    """

    latents: Latents
    cond: dict[str, Tensor]
    objective: Objective
    size: int
    seed: int
    span: int = 1
    plans: bool = False

    def __post_init__(self) -> None:
        self._epochs = Epochs(len(self.latents), self.seed)
        self._block: tuple[int, Batch] | None = None

    def draw(self, step: int) -> Batch:
        block, offset = divmod(step, self.span)
        if self._block is None or self._block[0] != block:
            self._block = block, self._draw_block(block)
        start = offset * self.size
        return {k: v[start : start + self.size] for k, v in self._block[1].items()}

    def _draw_block(self, block: int) -> Batch:
        rng = stream(self.seed, "batch", block)
        n = self.size * self.span
        rows = self._epochs.rows(block * n, (block + 1) * n)
        posterior = self.latents.rows(rows)
        if posterior.logvar is None:
            x1 = posterior.mean
        else:
            x1 = posterior.sample(source_like(posterior.mean, rng))
        cond = {k: c[rows % len(c)] for k, c in self.cond.items()}
        return self.objective.draw({"x1": x1, **cond}, rng, block * self.span)


@dataclass
class DataBatches:
    """Global batches of data, with the noise for an autoencoder's latents."""

    x: Examples
    add_noise: Callable[[Batch, torch.Generator], Batch]
    size: int
    seed: int

    def __post_init__(self) -> None:
        self._epochs = Epochs(len(self.x), self.seed)

    def draw(self, step: int) -> Batch:
        rng = stream(self.seed, "batch", step)
        x = self.x[self._epochs.rows(step * self.size, (step + 1) * self.size)]
        return self.add_noise({"x": x}, rng)
