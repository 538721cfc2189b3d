"""Minibatch optimal transport beside torchcfm, and what it adds to a training step.

Both pair n source samples of 64 numbers with n data samples of ten clusters, drawing the source
included. Ours is a permutation, so every sample is used once; torchcfm draws pairs from the plan
with replacement. Then the training loop with and without the coupling. Run with
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
from monge.objectives.flow_matching import FlowMatching
from monge.tensors import stream
from monge.training.loop import LoopSpec, fit
from monge.types import Posterior

SIZES = (128, 256, 512, 1024)
DIM = 64
BATCH = 128
STEPS = 24
SHAPE = (2, 4, 4)


def clusters(n: int, shape: tuple[int, ...] = (DIM,)) -> Tensor:
    """n points around ten centres."""
    rng = stream(0, "data")
    centres = 2 * torch.randn(10, *shape, generator=rng)
    return centres[torch.arange(n) % 10] + torch.randn(n, *shape, generator=rng)


def step_s(coupling: Coupling) -> float:
    """Mean seconds of a step of the digits' size in the training loop; a whole run of `STEPS`."""
    objective = FlowMatching(coupling=coupling)
    span = max(1, (coupling.plan_batch or 1) // BATCH)
    batches = LatentBatches(Posterior(clusters(1024, SHAPE)), {}, objective, BATCH, 0, span)
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


def run(rounds: int) -> Rows:
    rows: Rows = {}
    for n in SIZES:
        rows |= pairing(n, rounds)
    couplings = {"independent": Independent()}
    couplings |= {f"ot of {plan}": MinibatchOT(plan) for plan in (128, 256, 1024)}
    seconds = interleave({k: lambda c=c: step_s(c) for k, c in couplings.items()}, rounds)
    for name in list(couplings)[1:]:
        rows[f"training step, {name} / independent"] = ratio(seconds[name], seconds["independent"])
    return rows


if __name__ == "__main__":
    show("minibatch optimal transport", run(parser(__doc__).parse_args().rounds))
