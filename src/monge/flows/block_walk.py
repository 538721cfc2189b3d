"""A chain of blocks as a walk: what samples are drawn by, and its density."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from monge.errors import UserError
from monge.flows.blocks import Block
from monge.flows.chain import Chain
from monge.flows.density import Density, estimated, signs_of, standard_normal_log_density
from monge.flows.walk import Walk
from monge.solvers import Solver
from monge.times import Grid, Uniform
from monge.types import Cond, PerExample, State, Time, VelocityField


@dataclass(frozen=True)
class BlockWalk:
    """Blocks one after another from noise to data, each by equal steps of one solver.

    Attributes:
        blocks: the first begins at the noise; fitting went the other way.
        solver, steps: of each block that is solved; the words of this walk.
    """

    blocks: tuple[Block, ...]
    solver: Solver
    steps: int

    domain = (0.0, 1.0)
    unit = "steps"
    error = "discretisation"
    against = "sampler and fine solution from the same noise"

    @property
    def chain(self) -> Chain:
        return Chain(self.blocks)

    @property
    def grid(self) -> Grid:
        return Uniform(len(self.blocks) * self.steps)

    @property
    def knots(self) -> tuple[float, ...]:
        return self.chain.knots if self.solver.adaptive else self.grid.points()

    @property
    def field(self) -> VelocityField:
        if not all(hasattr(block, "tangent") for block in self.blocks):
            return _no_velocity
        return self.chain.field

    @property
    def order(self) -> int:
        return self.solver.order

    @property
    def name(self) -> str:
        return str(self.solver)

    @property
    def label(self) -> str:
        return f"{self.solver}, {len(self.blocks)} blocks"

    def __call__(self, x: State, s: Time, t: Time, cond: Cond = None) -> State:
        return self.chain(x, s, t, cond)

    def states(self, x: State, times: Sequence[float], cond: Cond = None) -> Iterator[State]:
        now = 0.0
        for t in times:
            if t > now:
                x, now = self(x, now, t, cond), t
            yield x

    def jumps(self, counts: Sequence[int]) -> list[Walk]:
        return []

    def pushed(
        self, x: State, cond: Cond = None, signs: Callable[[int], Tensor | None] | None = None
    ) -> Iterator[tuple[State, Tensor]]:
        """Data through the blocks, in the order they were fitted in.

        Args:
            signs: of Hutchinson's estimator, (K, B, ...), by the number of the block counted from
                the data; None for exact traces.

        Yields:
            The state after each block, and the log |det| of that block: (B,) or (B, K).
        """
        for k, block in enumerate(reversed(self.blocks)):
            x, change = block.transport(x, 1.0, 0.0, cond, None if signs is None else signs(k))
            yield x, change

    def log_density(
        self,
        x: State,
        cond: Cond = None,
        *,
        probes: int | None = None,
        seed: int = 0,
        first: int = 0,
        source: Callable[[State], PerExample] = standard_normal_log_density,
    ) -> Density:
        """log-density at x of the law that the blocks carry the source to; see `log_density`."""
        given = [signs_of(x, probes, seed, first, "block", k) for k in range(len(self.blocks))]
        pushed = list(self.pushed(x, cond, given.__getitem__))
        return estimated(source(pushed[-1][0]), torch.stack([c for _, c in pushed]).sum(0))


def round_trip(walk: Walk, x: State, cond: Cond = None) -> Tensor:
    """Root mean square over rows of |G(F x) - x|, per coordinate: data to noise and back, ()."""
    lo, hi = walk.domain
    back = walk(walk(x, hi, lo, cond), lo, hi, cond)
    return (back - x).double().square().mean().sqrt()


def _no_velocity(x: State, t: Time, cond: Cond = None) -> State:
    raise UserError("this chain has residual blocks, which have no velocity between their ends")
