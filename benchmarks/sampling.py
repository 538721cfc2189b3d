"""What an ODE solver costs beside the network: `Integrated` and torchdiffeq.

Overhead is the processor time of a walk per evaluation of a field that costs nothing; so no
difference of two large numbers is taken. Then whole walks with a small perceptron and with the
transformer of the digits. dopri5 is at equal tolerances, in float64 where the overhead is taken;
ours steps each example on its own, torchdiffeq the batch as a whole. Run with
`python -m benchmarks.sampling`; a minute on one core.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.measure import (
    Rows,
    installed,
    interleave,
    median,
    parser,
    ratio,
    show,
    skipped,
    timed,
)
from monge.fields import Counted, Predict
from monge.flows import Integrated
from monge.networks.mlp import MLPSpec
from monge.networks.transformer import TransformerSpec
from monge.paths import Linear
from monge.solvers import RK4, Dopri5, Euler, Heun, Solver
from monge.tensors import stream
from monge.times import Uniform
from monge.types import Cond, State, Time, VelocityField

EVALUATIONS = 200
TOLERANCE = 1e-5
AIM_US = 40

METHODS: dict[str, tuple[Solver, int]] = {
    "euler": (Euler(), 1),
    "heun": (Heun(), 2),
    "rk4": (RK4(), 4),
    "dopri5": (Dopri5(rtol=TOLERANCE, atol=TOLERANCE), 6),
}
"""Solver and evaluations per step."""

THEIRS = {"heun": "heun2"}
"""torchdiffeq's names where they differ."""


def free(x: State, t: Time, cond: Cond = None) -> State:
    """The field v(x, t) = x, which costs nothing to evaluate."""
    return x


@dataclass(frozen=True)
class Walk:
    """A walk from 0 to 1 by one method, by ours and by torchdiffeq's solver."""

    method: str
    field: VelocityField
    x: Tensor
    evaluations: int

    def ours(self) -> Tensor:
        solver, stages = METHODS[self.method]
        grid = Uniform(self.evaluations // stages)
        return Integrated(self.field, solver, grid)(self.x, 0.0, 1.0)

    def theirs(self) -> Tensor:
        from torchdiffeq import odeint

        _, stages = METHODS[self.method]
        # A fixed method steps from each of the times to the next.
        points = 2 if self.method == "dopri5" else self.evaluations // stages + 1
        times = torch.linspace(0, 1, points, dtype=self.x.dtype)
        how = {"method": THEIRS.get(self.method, self.method)}
        states = odeint(
            lambda t, y: self.field(y, t), self.x, times, rtol=TOLERANCE, atol=TOLERANCE, **how
        )
        assert isinstance(states, Tensor)
        return states[-1]

    def counted(self, of: Callable[[Walk], Tensor]) -> int:
        """Evaluations of one walk."""
        counted = Counted(self.field)
        of(Walk(self.method, counted, self.x, self.evaluations))
        return counted.counts["calls"]


def overhead(walk: Walk, of: Callable[[Walk], Tensor]) -> Callable[[], float]:
    """A contestant: microseconds of processor time per evaluation."""
    calls = walk.counted(of)

    def measured() -> float:
        start = time.process_time()
        of(walk)
        return 1e6 * (time.process_time() - start) / calls

    return measured


@torch.no_grad()
def run(rounds: int) -> Rows:
    rows: Rows = {}
    both = installed("torchdiffeq")
    x = torch.randn(64, 2, generator=stream(0, "x0"))
    for method in METHODS:
        field = Predict(free, Linear())
        walk = Walk(method, field, x.double() if method == "dopri5" else x, EVALUATIONS)
        contestants = {"monge": overhead(walk, Walk.ours)}
        if both:
            contestants["torchdiffeq"] = overhead(walk, Walk.theirs)
        for name, us in interleave(contestants, rounds).items():
            aim = f"<= {AIM_US}" if name == "monge" else ""
            rows[f"overhead per evaluation, {method}, {name}"] = median(us, "us", aim)
    if not both:
        return rows | {"torchdiffeq": skipped("torchdiffeq")}
    mlp = MLPSpec(width=32, depth=2).build((2,)).eval()
    transformer = TransformerSpec(width=128, depth=4, heads=4, patch=2).build((2, 4, 4)).eval()
    for network in (mlp, transformer):  # whose outputs are zero before training
        nn.init.normal_(network.out.weight, std=0.1, generator=stream(0, "out"))
    latents = torch.randn(64, 2, 4, 4, generator=stream(0, "x0"))
    for name, network, state, n in (
        ("MLP 2 x 32", mlp, x, EVALUATIONS),
        ("transformer of the digits", transformer, latents, 16),
    ):
        for method in METHODS:
            walk = Walk(method, Predict(network, Linear()), state, n)
            seconds = interleave({"ours": timed(walk.ours), "theirs": timed(walk.theirs)}, rounds)
            counts = f"{walk.counted(Walk.ours)} and {walk.counted(Walk.theirs)} evaluations"
            row = ratio(seconds["theirs"], seconds["ours"], note=counts)
            rows[f"torchdiffeq / monge, {name}, {method}"] = row
    return rows


if __name__ == "__main__":
    show("sampling beside torchdiffeq", run(parser(__doc__).parse_args().rounds))
