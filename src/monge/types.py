"""The nouns and arrows of the system, and its one clock.

Time runs from the source at t = 0 to data at t = 1. A velocity field drives samples along it,
a flow map jumps between two times; `flows.Integrated` makes a map of a field and
`flows.tangent` a field of a map. Going backwards is ``s > t``, never a flag.

A field or map may declare ``domain = (lo, hi)``, where it can be called, and ``breakpoints``,
where it is not smooth; without them it is taken to be smooth on [0, 1]. A plain function
``v(x, t, cond)`` is therefore a velocity field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

from jaxtyping import Float
from torch import Tensor

State: TypeAlias = Float[Tensor, "batch *shape"]
"""A batch of states: images (B, C, H, W), tables (B, D), or latents of any one shape."""

Latent: TypeAlias = Float[Tensor, "batch *latent"]
"""A batch of latents where it stands beside the data it belongs to, of another shape."""

Time: TypeAlias = Float[Tensor, ""] | Float[Tensor, " batch"] | float
"""A time in [0, 1]: one for all examples, or one each."""

PerExample: TypeAlias = Float[Tensor, " batch"]
"""One number for each example."""

Cond: TypeAlias = Mapping[str, Tensor] | None
"""Conditions: ``label`` (B,) int64 with -1 for none, ``vector`` (B, K) float with NaN for none."""


@runtime_checkable
class VelocityField(Protocol):
    """``v(x, t, cond)``, shaped like x. Optional: ``domain``, ``breakpoints``, ``restrict``."""

    def __call__(self, x: State, t: Time, cond: Cond = None) -> State: ...


@runtime_checkable
class FlowMap(Protocol):
    """``X(x, s, t, cond)``: the state at time t of x at time s. Optional: ``domain``."""

    def __call__(self, x: State, s: Time, t: Time, cond: Cond = None) -> State: ...


@dataclass(frozen=True)
class Posterior:
    """What an encoder says of the latent of x: a Gaussian, or a point where `logvar` is None."""

    mean: Latent
    logvar: Latent | None = None

    def sample(self, noise: Latent) -> Latent:
        """The latent drawn with the given standard normal noise, shaped like `mean`."""
        if self.logvar is None:
            return self.mean
        return self.mean + (0.5 * self.logvar).exp() * noise

    def __len__(self) -> int:
        return len(self.mean)

    def rows(self, index: Tensor) -> Posterior:
        """The posteriors of some of the examples, by row numbers."""
        return Posterior(self.mean[index], None if self.logvar is None else self.logvar[index])


@runtime_checkable
class Autoencoder(Protocol):
    """Maps data to a latent space and back. Data: images in [-1, 1] or table rows."""

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of one latent, without the batch axis."""
        ...

    def encode(self, x: State) -> Posterior: ...

    def decode(self, z: Latent) -> State: ...

    @property
    def log_abs_det(self) -> float | None:
        """log |det dD/dz| where the decoder is an affine bijection, else None."""
        ...


def domain_of(flow: object) -> tuple[float, float]:
    """The times at which a field or map can be called; (0, 1) unless it declares otherwise."""
    return getattr(flow, "domain", (0.0, 1.0))


def breakpoints_of(flow: object) -> tuple[float, ...]:
    """The times at which a field or map is not smooth; none unless it declares them."""
    return tuple(getattr(flow, "breakpoints", ()))
