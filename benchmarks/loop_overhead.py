"""What the training loop costs over a bare loop of the same steps, at size S.

Both draw the same batches and do forward, backward, clipping, fused AdamW and an average of the
weights; `fit` adds checkpoints, log, signals, skipping, progress and everything else. Run with
`python -m benchmarks.loop_overhead`; about five minutes on two cores.
"""

from __future__ import annotations

import copy
import itertools
import statistics
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.measure import Rows, clock, interleave, median, parser, ratio, show
from monge.latents.batches import LatentBatches
from monge.networks.transformer import TransformerSpec
from monge.objectives.base import Batch
from monge.objectives.flow_matching import FlowMatching
from monge.tensors import stream
from monge.training.loop import LoopSpec, fit
from monge.types import Posterior

SHAPE = (4, 8, 8)
ROWS = 16
STEPS = 6
EMA = 0.999


class Clocked:
    """Batches that note when each is asked for: the time between is a step."""

    def __init__(self) -> None:
        latents = Posterior(torch.randn(256, *SHAPE, generator=stream(0, "data")))
        label = torch.randint(0, 10, (256,), generator=stream(0, "label"))
        self.objective = FlowMatching()
        self.batches = LatentBatches(latents, {"label": label}, self.objective, ROWS, seed=0)
        self.size = ROWS
        self.asked: list[float] = []

    def draw(self, step: int) -> Batch:
        self.asked.append(clock())
        return self.batches.draw(step)

    def step_s(self, last: int) -> float:
        """The median of the last steps."""
        times = self.asked[-last:]
        return statistics.median(b - a for a, b in itertools.pairwise(times))


def ours() -> float:
    batches = Clocked()
    network = TransformerSpec(size="S", patch=1).build(SHAPE, 10)
    with tempfile.TemporaryDirectory() as folder:
        spec = LoopSpec(steps=STEPS, warmup=1, log_every=2, ema=EMA)
        fit(network, batches.objective.loss, batches, spec, folder=Path(folder), quiet=True)
    return batches.step_s(STEPS)


def bare() -> float:
    batches = Clocked()
    network = TransformerSpec(size="S", patch=1).build(SHAPE, 10).train()
    average = copy.deepcopy(network)
    weights, means = list(network.parameters()), list(average.parameters())
    optimizer = torch.optim.AdamW(weights, lr=1e-3, betas=(0.9, 0.99), weight_decay=0, fused=True)
    for step in range(STEPS + 3):
        bare_step(batches, step, network, weights, means, optimizer)
    return batches.step_s(STEPS)


def bare_step(
    batches: Clocked,
    step: int,
    network: nn.Module,
    weights: list[nn.Parameter],
    means: list[nn.Parameter],
    optimizer: torch.optim.Optimizer,
) -> Tensor:
    loss = batches.objective.loss(network, batches.draw(step)).per_example.mean()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(weights, 1.0)
    optimizer.step()
    optimizer.zero_grad()
    with torch.no_grad():
        torch._foreach_lerp_(means, weights, 1 - EMA)  # type: ignore[attr-defined]
    return loss


def run(rounds: int) -> Rows:
    seconds = interleave({"fit": ours, "bare": bare}, rounds)
    return {
        "fit / bare loop": ratio(seconds["fit"], seconds["bare"], aim="<= 1.03"),
        "step of fit": median(seconds["fit"], "s"),
        "step of the bare loop": median(seconds["bare"], "s"),
    }


if __name__ == "__main__":
    show("loop overhead at size S, 64 tokens, 16 rows", run(parser(__doc__).parse_args().rounds))
