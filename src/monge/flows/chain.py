"""Maps one after another, each on its own part of time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from monge.fields import Piecewise
from monge.flows.integrated import check_span
from monge.flows.maps import tangent
from monge.tensors import as_time
from monge.types import Cond, FlowMap, State, Time, VelocityField, domain_of


@dataclass(frozen=True)
class Chain:
    """Maps one after another: block k of n carries time k/n to (k+1)/n, on its own clock.

    The knots follow from the number of blocks, so adding one moves knots, never weights.
    """

    blocks: tuple[FlowMap, ...]

    domain = (0.0, 1.0)

    @property
    def breakpoints(self) -> tuple[float, ...]:
        return self.knots[1:-1]

    @property
    def knots(self) -> tuple[float, ...]:
        n = len(self.blocks)
        return tuple(k / n for k in range(n + 1))

    def __call__(self, x: State, s: Time, t: Time, cond: Cond = None) -> State:
        check_span(s, t, self.domain, "this chain")
        order = range(len(self.blocks))
        for backwards in (False, True):
            for k in reversed(order) if backwards else order:
                a, b = self._own_times(k, s, t, backwards, x)
                if isinstance(a, Tensor) or isinstance(b, Tensor) or a != b:
                    x = self.blocks[k](x, a, b, cond)
        return x

    @property
    def field(self) -> Piecewise:
        """The velocity on the chain's clock."""
        return Piecewise(tuple(map(self._field, range(len(self.blocks)))), self.knots)

    def tangent(self, x: State, t: Time, cond: Cond = None) -> State:
        return self.field(x, t, cond)

    def _field(self, k: int) -> VelocityField:
        """The velocity of block k on the chain's clock."""
        lo, hi = domain_of(self.blocks[k])
        rate, velocity = len(self.blocks) * (hi - lo), tangent(self.blocks[k])

        def rescaled(x: State, t: Time, cond: Cond = None) -> State:
            return rate * velocity(x, self._clock(k, t), cond)

        return rescaled

    def _clock(self, k: int, t: Time) -> Time:
        """The chain's time t on the clock of block k, held within the block's domain."""
        lo, hi = domain_of(self.blocks[k])
        part = t * len(self.blocks) - k
        part = part.clamp(0.0, 1.0) if isinstance(part, Tensor) else min(max(part, 0.0), 1.0)
        return lo * (1 - part) + hi * part  # the ends are met exactly

    def _own_times(self, k: int, s: Time, t: Time, backwards: bool, x: State) -> tuple[Time, Time]:
        """The part of the walk from s to t that lies in block k, on the block's clock."""
        if not isinstance(s, Tensor) and not isinstance(t, Tensor):
            start = self._clock(k, s)
            return start, self._clock(k, t) if (s > t) == backwards else start
        s, t = as_time(s, x), as_time(t, x)
        start, end = as_time(self._clock(k, s), x), as_time(self._clock(k, t), x)
        return start, torch.where((s > t) == backwards, end, start)
