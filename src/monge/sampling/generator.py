"""`Generator`: a model in memory that samples, encodes, decodes and interpolates."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from monge.sampling import encoding
from monge.sampling.encoded import Encoded, Kind
from monge.sampling.model import GenerativeModel
from monge.sampling.samples import Samples


@dataclass(eq=False, repr=False)
class Generator(GenerativeModel):
    """An autoencoder and a model of its latents: samples, encodes, decodes and interpolates.

    >>> generator = monge.Generator(autoencoder, monge.LearnedVelocity(net))   # doctest: +SKIP
    >>> generator.sample(16).grid().save("samples.png")                     # doctest: +SKIP

    Attributes: see `model.GenerativeModel`.
    """

    def encode(self, source: str | Path | Tensor, to: Kind = "noise", **settings: Any) -> Encoded:
        """The noise or the latents of data; see `encoding.encode`."""
        return encoding.encode(self, source, to, **settings)

    def decode(self, encoded: Encoded | Tensor | str | Path, **settings: Any) -> Samples:
        """The data of noise or latents; see `encoding.decode`."""
        return encoding.decode(self, encoded, **settings)

    def interpolate(
        self, encoded: Encoded | Tensor | str | Path, frames: int = 8, **settings: Any
    ) -> list[Samples]:
        """Frames between each row of an encoding and the next; see `encoding.interpolate`."""
        return encoding.interpolate(self, encoded, frames, **settings)
