"""Minibatch optimal transport beside torchcfm, and what it adds to a training step.

Both pair n source samples of 64 numbers with n data samples of ten clusters, drawing the source
included. Ours is a permutation, so every sample is used once; torchcfm draws pairs from the plan
with replacement. Then the training loop with and without the coupling, its plans solved in turn and
ahead of the step in a thread, which needs a core of its own (OMP_NUM_THREADS=1 on two). Run with
`python -m benchmarks.coupling`; about four minutes on two cores.
"""

from __future__ import annotations

import torch
from torch import Tensor

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
from monge.couplings import Coupling, Independent, MinibatchOT
from monge.latents.batches import LatentBatches
from monge.networks.transformer import TransformerSpec
from monge.objectives.base import Batch
from monge.objectives.flow_matching import FlowMatching
from monge.tensors import stream
from monge.training.loop import LoopSpec, fit
from monge.types import Posterior

SIZES = (128, 256, 512, 1024)
DIM = 64
BATCH = 128
STEPS = 32
PLANS = (256, 1024)
SHAPE = (2, 4, 4)


def clusters(n: int, shape: tuple[int, ...] = (DIM,)) -> Tensor:
    """n points around ten centres."""
    rng = stream(0, "data")
    centres = 2 * torch.randn(10, *shape, generator=rng)
    return centres[torch.arange(n) % 10] + torch.randn(n, *shape, generator=rng)


class InTurn:
    """Batches that are drawn when their step comes, not ahead of it."""

    def __init__(self, batches: LatentBatches) -> None:
        self.batches, self.size = batches, batches.size

    def draw(self, step: int) -> Batch:
        return self.batches.draw(step)


def step_s(coupling: Coupling, ahead: bool = True) -> float:
    """Mean seconds of a step of the digits' size in the training loop; a whole run of `STEPS`."""
    objective = FlowMatching(coupling=coupling)
    plan = coupling.plan_batch
    span = max(1, (plan or 1) // BATCH)
    latents = Posterior(clusters(4096, SHAPE))
    drawn = LatentBatches(latents, {}, objective, BATCH, 0, span, plan is not None)
    batches = drawn if ahead else InTurn(drawn)
    network = TransformerSpec(width=128, depth=4, heads=4, patch=2).build(SHAPE)
    return fit(network, objective.loss, batches, LoopSpec(steps=STEPS), quiet=True).seconds / STEPS


def pairing(n: int, rounds: int) -> Rows:
    """Ours beside torchcfm's at one batch size."""
    x1, rng = clusters(n), stream(0, "x0")
    contestants = {"monge": timed(lambda: MinibatchOT(plan=n).pair(x1, None, rng), 3)}
    if installed("torchcfm", "ot"):
        from torchcfm.optimal_transport import OTPlanSampler  # pyright: ignore[reportMissingImports]

        sampler = OTPlanSampler("exact")
        contestants["torchcfm"] = timed(
            lambda: sampler.sample_plan(torch.randn(x1.shape, generator=rng), x1), 3
        )
    seconds = interleave(contestants, rounds)
    rows = {f"pairing of {n}": median([1e3 * s for s in seconds["monge"]], "ms")}
    if "torchcfm" in seconds:
        rows[f"torchcfm / monge, pairing of {n}"] = ratio(seconds["torchcfm"], seconds["monge"])
    else:
        rows["torchcfm / monge"] = skipped("torchcfm")
    return rows


def steps(rounds: int) -> Rows:
    """Training steps with plans, ahead and in turn, over those without, by the wall's clock."""
    contestants = {"independent": lambda: step_s(Independent())}
    for plan in PLANS:
        for how in ("ahead", "in turn"):
            contestants[f"ot of {plan}, {how}"] = lambda p=plan, h=how: step_s(
                MinibatchOT(p), h == "ahead"
            )
    seconds = interleave(contestants, rounds)
    under = seconds.pop("independent")
    found = {f"training step, {k} / independent": ratio(s, under) for k, s in seconds.items()}
    return {"training step, independent": median([1e3 * s for s in under], "ms"), **found}


def run(rounds: int) -> Rows:
    rows: Rows = {}
    for n in SIZES:
        rows |= pairing(n, rounds)
    return rows | steps(rounds)


if __name__ == "__main__":
    show("minibatch optimal transport", run(parser(__doc__).parse_args().rounds))
