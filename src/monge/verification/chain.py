r"""Certificates of a chain, block by block: what each step has done, and what must hold of it.

Where the law of the data is known, the divergence to the noise after each block is a mean of known
numbers, and inequalities follow that hold for every law:

- a step is no worse than standing still:
  :math:`\mathrm{KL}_k + E|Tx - x|^2 / 2\gamma \le \mathrm{KL}_{k-1}`;
- Talagrand's inequality, :math:`W_2^2(p_k, q) \le 2\,\mathrm{KL}_k`, for a lower bound of the
  distance by moments;
- the discrete evolution variational inequality with the measured residual
  :math:`\xi(y) = y + \nabla \log p_k(y) - (x - y)/\gamma`.

Two identities hold for the exact step of any law: :math:`E[Tx] = E[x]/(1+\gamma)` and
:math:`E|Tx|^2 + E\langle Tx, Tx - x\rangle / \gamma = d`.

References:
    | Convergence of JKO flows (Cheng et al., 2024), Sec. 4 -- https://arxiv.org/abs/2310.17582
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from monge.data.base import Data
from monge.errors import UserError
from monge.evaluation.density import PROBES
from monge.flows.block_walk import BlockWalk, round_trip
from monge.flows.density import EXACT, signs_of, standard_normal_log_density
from monge.learned.chain import LearnedChain
from monge.objectives.chain import ChainSpec, ou_scales
from monge.objectives.jko import JKOSpec
from monge.paths import Linear
from monge.runs.run import Run
from monge.system.progress import Say
from monge.targets.base import Target
from monge.tensors import stream
from monge.verification.chain_measures import (
    CHUNK,
    Estimate,
    Examples,
    Stage,
    back_again,
    by_solvers,
    distance_at_least,
    exact_divergences,
    first_order_residual,
    identities,
    overstated,
    rows_of,
    shown_points,
    steps_asked_for,
    violations_of,
)

N = 2000
QUICK_N = 500


def verify_chain(
    learned: LearnedChain,
    run: Run,
    n: int | None = None,
    *,
    quick: bool,
    seed: int,
    data: Data,
    say: Say,
    **sampling: Any,
) -> dict[str, Any]:
    """The certificates of the chain of a run.

    Args:
        n: examples: held-out ones, or new ones of a known law.
        quick: fewer of them.
        sampling: none; a chain is verified as it was fitted.

    Raises:
        UserError: settings of sampling, or too few examples.
    """
    if unfit := [name for name, value in sampling.items() if value is not None]:
        raise UserError(
            "a chain is verified block by block, as it was fitted: leave out "
            + ", ".join(name.replace("_", "-") for name in unfit)
        )
    if n is not None and n < 20:
        raise UserError(f"certificates need at least 20 examples, not {n}")
    given = _examples(run, data, n or (QUICK_N if quick else N), seed)
    given, moved = _diffused(given, learned.spec, seed)
    walk = learned.flow()
    say(f"pushing {len(given.z)} examples through {len(learned.plans)} blocks")
    stages = list(_stages(walk, given, seed))
    blocks = [_block(run, learned, walk, stages, k, given, data.target) for k in range(len(stages))]
    say("measuring solvers and round trips")
    solvers = by_solvers(learned, given, run)
    known, size = given.log_density is not None, given.z[0].numel()
    violations = violations_of(blocks, learned, size) if known else []
    violations += overstated(solvers)
    return {
        "format_version": 1,
        "chain": learned.spec.name,
        "truth_known": known,
        "n": len(given.z),
        "seed": seed,
        "dim": size,
        "trace": "exact" if size <= EXACT else f"Hutchinson, {PROBES} probes",
        "start": shown_points(stages[0].x, stages),
        "blocks": blocks,
        "kl_before": _kl_before(given),
        "round_trip": _round_trip(walk, given),
        "solvers": solvers,
        "steps_needed": steps_asked_for(blocks, learned),
        "exact_kl": exact_divergences(run, learned, data.target),
        "diffusion": {"time": learned.spec.diffusion, "moved_at_most": moved},
        "violations": violations,
    }


def _examples(run: Run, data: Data, n: int, seed: int) -> Examples:
    """New examples of a known law, else held-out ones."""
    target, log_det = data.target, run.autoencoder.log_abs_det
    if target is not None and target.smooth and log_det is not None:
        rng = stream(seed, "certificates")
        x, label = target.sample_labelled(n, rng)
        own = label if run.label_names else None
        exact = target.at(Linear()).log_density(x, 1.0, own) + log_det
        cond = None if own is None else {"label": own.to(run.device)}
        z = run.autoencoder.encode(x.float().to(run.device)).mean
        return Examples(z.to(run.dtype), cond, exact.to(run.device))
    rows = torch.randperm(len(data.heldout), generator=stream(seed, "certificates"))[:n]
    z = run.autoencoder.encode(data.heldout[rows].to(run.device)).mean.to(run.dtype)
    label = None if data.heldout_label is None else data.heldout_label[rows]
    vector = None if data.heldout_vector is None else data.heldout_vector[rows]
    cond = run.condition(label, vector, standardised=True)
    moved = None if cond is None else {k: c.to(run.device) for k, c in cond.items()}
    return Examples(z, moved, None)


def _diffused(given: Examples, spec: ChainSpec, seed: int) -> tuple[Examples, float]:
    """Examples as the first block took them, and how far in W2 diffusion has moved their law.

    The bound is that of each example with its own diffused one: (1 - e^-g)^2 E|x|^2 +
    (1 - e^-2g) d. The density of a diffused law counts as unknown.
    """
    if not spec.diffusion:
        return given, 0.0
    z, (left, spread) = given.z, ou_scales(spec.diffusion)
    size = float(z.double().square().flatten(1).sum(1).mean())
    moved = math.sqrt((1 - left) ** 2 * size + spread**2 * z[0].numel())
    diffused = spec.diffused(z.cpu(), stream(seed, "certificates", "diffusion")).to(z)
    return Examples(diffused, given.cond, None), moved


@torch.no_grad()
def _stages(walk: BlockWalk, given: Examples, seed: int) -> Iterator[Stage]:
    """What each block does to the examples, in the order of fitting."""
    x = given.z
    probes = None if x[0].numel() <= EXACT else PROBES
    total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for k, block in enumerate(reversed(walk.blocks)):
        ends, changes = [], []
        for first in range(0, len(x), CHUNK):
            some = x[first : first + CHUNK]
            signs = signs_of(some, probes, seed, first, "block", k)
            cond = rows_of(given.cond, first + CHUNK, first)
            y, change = block.transport(some, 1.0, 0.0, cond, signs)
            ends.append(y)
            changes.append(change if change.ndim == 1 else change.mean(1))
        y, change = torch.cat(ends), torch.cat(changes).double()
        total = total + change
        yield Stage(x, y, change, total)
        x = y


@torch.no_grad()
def _round_trip(walk: BlockWalk, given: Examples) -> float:
    return float(round_trip(walk, given.z[:CHUNK], rows_of(given.cond, CHUNK)))


def _kl_before(given: Examples) -> dict[str, float] | None:
    if given.log_density is None:
        return None
    return asdict(Estimate.of(given.log_density - standard_normal_log_density(given.z).double()))


def _block(
    run: Run,
    learned: LearnedChain,
    walk: BlockWalk,
    stages: list[Stage],
    k: int,
    given: Examples,
    target: Target | None,
) -> dict[str, Any]:
    """All that is measured of one block."""
    stage, size = stages[k], learned.plans[k].size
    energy = 0.5 * stage.y.double().square().flatten(1).sum(1)
    before = 0.5 * stage.x.double().square().flatten(1).sum(1)
    gain = energy - before - stage.change
    jko = isinstance(learned.spec, JKOSpec)
    transport = stage.moved / (2 * size) if jko and size else torch.zeros_like(gain)
    log_q = standard_normal_log_density(stage.y).double()
    volume = run.autoencoder.log_abs_det or 0.0
    block = walk.blocks[len(walk.blocks) - 1 - k]
    found: dict[str, Any] = {
        "size": size,
        "energy": asdict(Estimate.of(energy)),
        "volume": asdict(Estimate.of(-stage.change)),
        "transport": asdict(Estimate.of(transport)) if jko and size else None,
        "moved": math.sqrt(float(stage.moved.mean())),
        "descent": asdict(Estimate.of(gain + transport)),
        "log_density": asdict(Estimate.of(log_q + stage.total - volume)),
        "kl": None,
        "above_last": asdict(Estimate.of(_above(stage, stages[-1]))),
        "mean": None,
        "dilation": None,
        "residual": None,
        "round_trip": back_again(block, stage, given.cond),
        "distance_at_least": distance_at_least(stage.y),
        "shown": shown_points(stage.y, stages),
    }
    if given.log_density is not None:
        found["kl"] = asdict(Estimate.of(given.log_density - stage.total - log_q))
    if jko and size:
        found |= identities(stage, size)
        found["residual"] = first_order_residual(run, walk, k, stage, given, target, size)
    return found


def _above(stage: Stage, last: Stage) -> Tensor:
    """The divergence to the noise above that after the last block, for each example."""
    logs = [standard_normal_log_density(s.y).double() + s.total for s in (stage, last)]
    return logs[1] - logs[0]
