"""What is measured of one block of a chain, and the inequalities that must hold."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from monge.errors import UserError
from monge.evaluation.density import PROBES
from monge.flows.block_walk import BlockWalk, round_trip
from monge.flows.blocks import ODEBlock
from monge.flows.density import EXACT
from monge.learned.chain import LearnedChain
from monge.objectives.jko import JKOSpec
from monge.paths import Linear
from monge.runs.run import Run
from monge.targets.base import Target
from monge.targets.gaussian import Gaussian
from monge.targets.jko import (
    divergence_to_normal,
    jko_step,
    line_jko_step,
    line_law,
    ou_step,
    plateau,
    steps_needed,
    steps_of,
)
from monge.targets.mixture import GaussianMixture
from monge.types import Cond, State

RESIDUAL_N = 200
"""States at which the first-order residual is computed."""

RESIDUAL_DIM = 8
"""Dimensions up to which that is done."""

CHUNK = 500

SIGMAS = 3.0
"""Standard errors that an inequality on samples is granted."""

RARE = 6.6
"""e^-6.6 is the probability that a normal variable is `SIGMAS` deviations above its mean."""

ALLOWED = 1e-3
"""Nats per coordinate that training may leave a step short of standing still."""

SHOWN = 300
"""States of each stage that are kept for the picture."""


@dataclass(frozen=True)
class Estimate:
    """A mean over examples, and its standard error."""

    value: float
    stderr: float

    @classmethod
    def of(cls, values: Tensor) -> Estimate:
        """That of numbers (N,)."""
        values = values.double()
        return cls(float(values.mean()), float(values.std()) / math.sqrt(len(values)))

    def __str__(self) -> str:
        return f"{self.value:.4g} ± {self.stderr:.2g}"


@dataclass(frozen=True)
class Stage:
    """States before and after one block, and what is known of each of them.

    Attributes:
        x, y: (N, ...), before and after.
        change: (N,), log |det| of the block.
        total: (N,), the sum of those of the blocks up to this one.
    """

    x: State
    y: State
    change: Tensor
    total: Tensor

    @property
    def moved(self) -> Tensor:
        """|y - x|^2, (N,)."""
        return (self.y - self.x).double().square().flatten(1).sum(1)


@dataclass(frozen=True)
class Examples:
    """Latents of the data, with what is known of their law.

    Attributes:
        z: (N, ...).
        cond: their labels and conditions.
        log_density: (N,) of the latents under their law, None where that is not known.
    """

    z: State
    cond: Cond
    log_density: Tensor | None


def rows_of(cond: Cond, stop: int, start: int = 0) -> Cond:
    return None if cond is None else {k: c[start:stop] for k, c in cond.items()}


def identities(stage: Stage, gamma: float) -> dict[str, Any]:
    """The two exact identities: their defects, with errors, per coordinate."""
    x, y = (s.double().flatten(1) for s in (stage.x, stage.y))
    defect = y - x / (1 + gamma)
    size, n = x.shape[1], len(x)
    squared = float(defect.mean(0).square().mean())
    noise = float(defect.var(0).mean()) / n
    dilation = y.square().sum(1) + (y * (y - x)).sum(1) / gamma - size
    return {
        "mean": {"value": math.sqrt(squared), "stderr": math.sqrt(noise)},
        "dilation": asdict(Estimate.of(dilation / size)),
    }


@torch.no_grad()
def back_again(block: Any, stage: Stage, cond: Cond) -> float:
    """Root mean square of what a block and its inverse leave, per coordinate."""
    some = stage.x[:CHUNK]
    back = block(stage.y[:CHUNK], 0.0, 1.0, rows_of(cond, CHUNK))
    return float((back - some).double().square().mean().sqrt())


def distance_at_least(y: State) -> float:
    """A lower bound of W2 to the noise by first and second moments; Gelbrich's, by traces.

    What sampling noise explains is left out of both. The mean of n examples is within
    sqrt(tr S / n) + sqrt(2 x |S| / n) of the true one, but for a probability of e^-x, if it is
    normal (concentration of a Lipschitz function); the root of the trace has `SIGMAS` standard
    errors.
    """
    flat = y.double().flatten(1)
    n, size = flat.shape
    centre = flat.mean(0)
    about = flat - centre
    squares = about.square().sum(1)
    trace = float(squares.sum()) / (n - 1)
    gram = about.T @ about if size < n else about @ about.T
    widest = float(torch.linalg.eigvalsh(gram)[-1]) / (n - 1)
    error = math.sqrt(trace / n) + math.sqrt(2 * RARE * widest / n)
    mean = max(0.0, float(centre.norm()) - error)
    # That of normal noise at least: few examples by chance near each other look exact.
    root = max(float(squares.std()) / (2 * math.sqrt(trace)) if trace else 0.0, math.sqrt(0.5))
    spread = max(0.0, abs(math.sqrt(trace) - math.sqrt(size)) - SIGMAS * root / math.sqrt(n))
    return math.hypot(mean, spread)


def shown_points(states: State, stages: list[Stage]) -> list[list[float]]:
    """Points for the picture: on the two principal axes of the data."""
    first = stages[0].x.double().flatten(1)
    centre = first.mean(0)
    axes = torch.linalg.svd(first - centre, full_matrices=False)[2][:2]
    points = states[:SHOWN].double().flatten(1) @ axes.T
    return [[round(v, 4) for v in row] for row in points.cpu().tolist()]


def first_order_residual(
    run: Run,
    walk: BlockWalk,
    k: int,
    stage: Stage,
    given: Examples,
    target: Target | None,
    gamma: float,
) -> dict[str, float] | None:
    """The root mean square over states of |xi|, where the score is known; None elsewhere.

    grad log p_k at y is differentiated through the blocks back to the data.
    """
    size = stage.y[0].numel()
    blocks = list(reversed(walk.blocks))[: k + 1]
    smooth = all(isinstance(block, ODEBlock) for block in blocks)
    if given.log_density is None or target is None or size > RESIDUAL_DIM or not smooth:
        return None
    cond = rows_of(given.cond, RESIDUAL_N)
    label = None if cond is None else cond.get("label")
    y = stage.y[:RESIDUAL_N].clone().requires_grad_(True)
    with torch.enable_grad():
        state, total = y, torch.zeros(len(y), device=y.device)
        for block in reversed(blocks):
            state, change = block.transport(state, 0.0, 1.0, cond)
            total = total + change
        x = run.autoencoder.decode(state)
        law = target.at(Linear()).log_density(x, 1.0, label)
        (score,) = torch.autograd.grad((law + total).sum(), y)
    xi = y.detach() + score - (stage.x[:RESIDUAL_N] - y.detach()) / gamma
    squared = Estimate.of(xi.double().square().flatten(1).sum(1))
    value = math.sqrt(squared.value)
    return {"value": value, "stderr": squared.stderr / (2 * value) if value else 0.0}


def violations_of(blocks: list[dict[str, Any]], learned: LearnedChain, dimension: int) -> list[str]:
    """Inequalities that hold for every law and do not hold here."""
    found = []
    for k, block in enumerate(blocks, 1):
        kl, descent = block["kl"], block["descent"]
        if descent["value"] - SIGMAS * descent["stderr"] > ALLOWED * dimension:
            found.append(
                f"block {k} is worse than standing still by {descent['value']:.4g} ± "
                f"{descent['stderr']:.2g} nats"
            )
        if kl["value"] + SIGMAS * kl["stderr"] < 0:
            found.append(f"block {k} ends at a negative divergence, {kl['value']:.4g} nats")
        most = 2 * (kl["value"] + SIGMAS * kl["stderr"])
        if block["distance_at_least"] ** 2 > max(most, 0.0) + ALLOWED:
            found.append(
                f"block {k} ends at least {block['distance_at_least']:.4g} from the noise, and "
                f"its divergence {kl['value']:.4g} allows {math.sqrt(max(most, 0.0)):.4g}"
            )
        found += _against_theorem(blocks, learned, k - 1)
    return found


def _against_theorem(blocks: list[dict[str, Any]], learned: LearnedChain, k: int) -> list[str]:
    """The evolution variational inequality with the measured residual, where that is known."""
    block, gamma = blocks[k], learned.plans[k].size
    if k == 0 or gamma is None or block["residual"] is None:
        return []
    before, kl = blocks[k - 1]["kl"], block["kl"]
    residual = block["residual"]["value"] + SIGMAS * block["residual"]["stderr"]
    left = (1 + gamma / 2) * block["distance_at_least"] ** 2 + 2 * gamma * kl["value"]
    right = 2 * (before["value"] + SIGMAS * before["stderr"]) + 2 * gamma * residual**2
    if left - SIGMAS * 2 * gamma * kl["stderr"] > right + ALLOWED:
        return [f"block {k + 1} violates the evolution inequality: {left:.4g} > {right:.4g}"]
    return []


def exact_divergences(run: Run, learned: LearnedChain, target: Target | None) -> list[float] | None:
    """KL to the noise after exact blocks of the law of the latents; None where it is not closed.

    Closed for Gaussians, for mixtures of them given their labels (the mean over labels), and for
    JKO steps on the line.
    """
    bare = run.autoencoder.autoencoder
    if target is None or bare.spec.name != "identity" or learned.spec.diffusion:
        return None
    jko = isinstance(learned.spec, JKOSpec)
    sizes = [math.inf if p.size is None else p.size for p in learned.plans]
    mean, std = (run.autoencoder.state_dict()[name].double().cpu() for name in ("mean", "std"))
    mean, std = mean.expand(target.dim), std.expand(target.dim)
    step = jko_step if jko else ou_step

    def of_gaussian(centre: Tensor, covariance: Tensor) -> Tensor:
        law = Gaussian((centre - mean) / std, covariance / torch.outer(std, std))
        found = [divergence_to_normal(s.after) for s in steps_of(step, law, sizes)]
        return torch.tensor(found, dtype=torch.float64)

    if isinstance(target, Gaussian):
        return of_gaussian(target.mean, target.covariance).tolist()
    if isinstance(target, GaussianMixture) and run.label_names:
        parts = zip(target.weights, target.means, _covariances(target), strict=True)
        total = sum((w * of_gaussian(m, c) for w, m, c in parts), torch.zeros(len(sizes)).double())
        return total.tolist()
    if target.dim == 1 and jko and not run.label_names and not isinstance(target, GaussianMixture):
        return _on_the_line(target, float(mean), float(std), sizes)
    return None


def _covariances(target: GaussianMixture) -> Tensor:
    """The covariance of each component, (K, D, D)."""
    given, eye = target.covariances, torch.eye(target.dim, dtype=torch.float64)
    if given.shape == (len(target.means),):
        return given[:, None, None] * eye
    whole = given * eye if given.ndim == 0 else given
    return whole.expand(len(target.means), target.dim, target.dim)


def _on_the_line(
    target: Target, mean: float, std: float, sizes: Sequence[float]
) -> list[float] | None:
    """KL after exact JKO steps of a law on the line, in standardised units."""
    try:
        law = line_law(target)
    except UserError:
        return None
    moved = (law.nodes - mean) / std
    law = dataclasses.replace(law, nodes=moved, log_density=law.log_density + math.log(std))
    found = []
    for size in sizes:
        if math.isinf(size):
            found.append(0.0)
        else:
            law = line_jko_step(law, size)
            found.append(law.kl)
    return found


@torch.no_grad()
def by_solvers(learned: LearnedChain, given: Examples, run: Run) -> list[dict[str, Any]]:
    """The mean log-density by the chain's own discretisation, and by others beside it."""
    if learned.spec.block == "residual":
        return []
    n = len(learned.plans)
    ways = [(learned.spec.solver, s) for s in sorted({1, learned.spec.steps, 8})]
    ways.insert(0, ("dopri5", learned.spec.steps))
    z, cond = given.z[:RESIDUAL_N], rows_of(given.cond, RESIDUAL_N)
    finest: Tensor | None = None
    probes = None if z[0].numel() <= EXACT else PROBES
    found = []
    for solver, steps in ways:
        walk = learned.flow(steps * n, solver)
        value = walk.log_density(z, cond, probes=probes).value.double()
        finest = value if finest is None else finest
        found.append(
            {
                "solver": solver,
                "steps": None if solver == "dopri5" else steps,
                "own": (solver, steps) == (learned.spec.solver, learned.spec.steps),
                **asdict(Estimate.of(value - (run.autoencoder.log_abs_det or 0.0))),
                "above_adaptive": asdict(Estimate.of(value - finest)),
                "round_trip": float(round_trip(walk, z, cond)),
            }
        )
    return found


OVERSTATED = 0.05
"""Nats by which a chain's own discretisation may raise its mean log-density."""


def overstated(solvers: Sequence[Mapping[str, Any]]) -> list[str]:
    """That a density by the chain's own steps is none, if an adaptive solver finds much less."""
    found = []
    for way in solvers:
        gap = way["above_adaptive"]
        if way["own"] and gap["value"] - SIGMAS * gap["stderr"] > OVERSTATED:
            found.append(
                f"by its own {way['steps']} steps a block the log-density is {gap['value']:.3g} ± "
                f"{gap['stderr']:.2g} nats above that of an adaptive solver: fit the chain with "
                "more steps a block, --objective jko:steps=.."
            )
    return found


def steps_asked_for(blocks: list[dict[str, Any]], learned: LearnedChain) -> dict[str, float] | None:
    """Steps that theory asks for with the worst residual of the steps, and what they leave."""
    sized = [
        (b["residual"]["value"], p.size, b)
        for b, p in zip(blocks, learned.plans, strict=True)
        if b["residual"] is not None and p.size is not None
    ]
    if not sized:
        return None
    error, gamma = max(e for e, _, _ in sized), min(g for _, g, _ in sized)
    start = math.sqrt(2 * max(0.0, blocks[0]["kl"]["value"] - blocks[0]["descent"]["value"]))
    return {
        "residual": error,
        "steps": steps_needed(start, error, gamma),
        "squared_distance": plateau(error),
    }
