"""What is verified: noise, a velocity field, a solver, a final map and a decoder, taken apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float64
from torch import Tensor

from monge.fields import Final, Guided, final_map
from monge.flows import Integrated, Walk
from monge.paths import Path
from monge.solvers import RK4
from monge.targets.base import Target
from monge.tensors import CHUNK
from monge.time_pairs import PairLaw
from monge.times import Shifted, Uniform
from monge.types import Cond, Latent, State, VelocityField

CHUNK_NUMBERS = 2**17
"""Numbers in the states of small examples that pass at once."""


@dataclass(frozen=True)
class Pipeline:
    """From noise to data, and back to latents.

    Attributes:
        field: the velocity field without guidance, on latents.
        path: the path that it belongs to.
        sampler: what draws samples: its solver, grid and, maybe, guidance.
        final: the map from the end of the sampler's domain to latents.
        encode: data (B, ...) and the number of its first example to latents (B, ...): draws of
            the posterior, whose noise belongs to the example.
        decode: latents to data.
        truth: the law of the latents where it is known exactly.
        fine: RK4 steps of the reference solution at least; a sampler with more has its own
            number, or twice that where its solver is of order four itself.
    """

    field: VelocityField
    path: Path
    sampler: Walk
    final: Final
    encode: Callable[[State, int], Latent]
    decode: Callable[[Latent], State]
    truth: Target | None = None
    fine: int = 64
    map_law: PairLaw | None = None

    @property
    def end(self) -> float:
        """T, where the sampler stops."""
        return self.sampler.domain[1]

    @property
    def begin(self) -> float:
        """Where the sampler starts: 0, or a little later where the output says nothing there."""
        return self.sampler.domain[0]

    @property
    def guidance(self) -> float:
        guided = self.sampler.field
        return guided.scale if isinstance(guided, Guided) else 1.0

    @cached_property
    def reference(self) -> Integrated:
        """The sampler's field, guided or not, solved so finely that its error is negligible."""
        return self.solved(self.sampler.field)

    @cached_property
    def unguided(self) -> Integrated:
        """The field itself, solved as finely."""
        return self.reference if self.guidance == 1 else self.solved(self.field)

    def solved(self, velocity: VelocityField) -> Integrated:
        """The flow of a velocity field up to T, solved finely."""
        own = len(self.sampler.knots) - 1
        n = max(self.fine, 2 * own if self.sampler.order >= RK4.order else own)
        return Integrated(velocity, RK4(), Uniform(n, stop=self.end))

    @cached_property
    def exact(self) -> Integrated | None:
        """The flow of the true field, solved finely; None where the truth is not known.

        Its steps are not the reference's, and shorter near the end: equal ones would err as those
        do where a narrow law's field is stiff, and the velocity term would not see it.
        """
        if self.truth is None:
            return None
        return Integrated(self.truth.field(self.path), RK4(), Shifted(3 * self.fine, shift=0.3))

    def finish(self) -> VelocityField:
        """The final map of the true field where that is known, of the learned one elsewhere."""
        velocity = self.field if self.truth is None else self.truth.field(self.path)
        return final_map(self.final, velocity, self.path, self.end)

    def latents(self, flow: Walk, x0: Latent, cond: Cond = None) -> Latent:
        """Noise (n, ...) carried by a flow to T, and on by the final map of the flow's field.

        A true flow that is infinite at T goes as far as it can, and on by its posterior mean.
        """
        end = min(self.end, flow.domain[1])

        def both(x: Tensor, part: Cond) -> Tensor:
            return self.finished(flow, flow(x, self.begin, end, part), part)

        return in_chunks(both, x0, cond)

    @torch.no_grad()
    def finished(self, flow: Walk, x: Tensor, cond: Cond = None) -> Latent:
        """States at the end of a flow through the final map of its field."""
        end = min(self.end, flow.domain[1])
        choice = self.final if end == self.end else "posterior_mean"
        return final_map(choice, flow.field, self.path, end)(x, end, cond)

    @torch.no_grad()
    def encoded(self, x: State) -> Latent:
        """The latents of data of any number."""
        return torch.cat([self.encode(x[i : i + CHUNK], i) for i in range(0, len(x), CHUNK)])

    def data(self, z: Latent) -> Float64[Tensor, "n d"]:
        """Latents decoded and flattened."""
        return in_chunks(lambda part, _: self.decode(part), z).flatten(1).double()

    def with_sampler(self, **changes: object) -> Pipeline:
        """The same with another solver or grid."""
        return dataclasses.replace(self, sampler=dataclasses.replace(self.sampler, **changes))  # type: ignore[arg-type]


def chunk_size(x: Tensor) -> int:
    """Of such examples how many pass the networks at once."""
    return max(CHUNK, CHUNK_NUMBERS // x[0].numel())


@torch.no_grad()
def in_chunks(f: Callable[[Tensor, Cond], Tensor], x: Tensor, cond: Cond = None) -> Tensor:
    """f over slices of the rows, with the conditions of each."""
    parts, size = [], chunk_size(x)
    for start in range(0, len(x), size):
        rows = slice(start, start + size)
        part = None if cond is None else {k: c[rows] for k, c in cond.items()}
        parts.append(f(x[rows], part))
    return torch.cat(parts)
