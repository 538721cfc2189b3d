"""Builds the objective of a run, its batches, and the settings of its training loop."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import torch

from monge.components import build
from monge.data.base import Data
from monge.errors import UserError
from monge.fitting.any_columns import hidden_of, masks_of
from monge.latents.batches import LatentBatches, Latents
from monge.learned import kind_of
from monge.objectives.base import Objective
from monge.objectives.column_masks import HIDDEN
from monge.objectives.flow_matching import FlowMatching
from monge.runs.run import Run
from monge.runs.spec import TrainSpec
from monge.system.progress import Say
from monge.tensors import CHUNK, noise
from monge.training.loop import LoopSpec
from monge.types import Posterior


def make_matching(spec: TrainSpec, data: Data) -> FlowMatching:
    """The flow matching of a specification: its path, output, coupling and times."""
    given = data.train_label is not None or data.train_vector is not None
    return FlowMatching(
        path=build("path", spec.path),
        output=spec.output,
        error=spec.error,
        coupling=build("coupling", spec.coupling),
        times=build("times", spec.times),
        label_drop=spec.label_drop if given else 0.0,
        masks=masks_of(data.codec) if spec.conditional == "any" and data.codec else None,
    )


def make_objective(spec: TrainSpec, data: Data, teacher: Run | None = None) -> Objective:
    """The objective of a specification."""
    matching = make_matching(spec, data)
    if teacher is None and spec.guidance_range != (1.0, 1.0):
        raise UserError("teacher guidance is for distilling: monge distil RUN --guidance ..")
    learned = None if teacher is None else teacher.learned
    return kind_of(spec.objective).objective(spec, matching, learned)


def loop_spec(spec: TrainSpec, **changes: Any) -> LoopSpec:
    """The loop settings of a specification."""
    eager = kind_of(spec.objective).eager
    names = {f.name for f in dataclasses.fields(LoopSpec)}
    shared = {k: v for k, v in dataclasses.asdict(spec).items() if k in names}
    shared["micro_batch"] = None if spec.micro_batch == "auto" else spec.micro_batch
    return LoopSpec(**{**shared, "eager": eager, **changes})


def latent_batches(
    spec: TrainSpec, objective: Objective, latents: Latents, data: Data
) -> LatentBatches:
    cond = data.conditions()
    if spec.conditional == "any" and (hidden := hidden_of(data)) is not None:
        cond[HIDDEN] = hidden  # travels in the batch like a condition
    plan = objective.coupling.plan_batch
    span = max(1, -(-(plan or 1) // spec.batch))
    return LatentBatches(latents, cond, objective, spec.batch, spec.seed, span, plan is not None)


def batches_along(
    spec: TrainSpec,
    objective: Objective,
    latents: Latents,
    data: Data,
    teacher: Run,
    say: Say,
) -> LatentBatches:
    """Latents with their trajectories through the teacher's flow, to train a map of it.

    The law of a chain at a time is not that of the path, so the chain's states are used: those of
    the training latents, carried back to the noise once, at the ends of its steps.
    """
    flow = teacher.learned.flow()
    say(f"carrying {len(latents)} latents back through {teacher.folder}")
    cond = data.conditions()
    posterior, knots = latents.rows(torch.arange(len(latents))), flow.knots
    ways = []
    with torch.no_grad():
        for rows in torch.arange(len(latents)).split(CHUNK):
            given = {k: c[rows % len(c)].to(teacher.device) for k, c in cond.items()}
            x = posterior.mean[rows].to(teacher.device, teacher.dtype)
            states = [x]
            for t, s in itertools.pairwise(reversed(knots)):
                states.append(flow(states[-1], t, s, given or None))
            ways.append(torch.stack(states[::-1], 1).float().cpu())
    way = torch.cat(ways)
    known = {**cond, "x0": way[:, 0], "way": way}
    return LatentBatches(Posterior(way[:, -1]), known, objective, spec.batch, spec.seed)


def reflow_batches(
    spec: TrainSpec,
    objective: Objective,
    data: Data,
    teacher: Run,
    say: Say,
) -> LatentBatches:
    """Noise and the teacher's samples from it, as many as there are training examples."""
    n = len(data.train)
    say(f"drawing {n} pairs of noise and samples from {teacher.folder}")
    shape = tuple(teacher.autoencoder.latent_shape)
    guidance = spec.guidance_range[0]
    flow = teacher.learned.deterministic(guidance)
    x0 = noise(spec.seed, 0, n, shape, "reflow")
    cond = data.conditions()
    ends = []
    with torch.no_grad():
        for rows in torch.arange(n).split(CHUNK):
            given = {k: c[rows].to(teacher.device) for k, c in cond.items()}
            start = x0[rows].to(teacher.device)
            ends.append(flow(start, *flow.domain, given or None).cpu())
    posterior = Posterior(torch.cat(ends))
    # The noise x0 travels in the batch like a condition.
    return LatentBatches(posterior, {**cond, "x0": x0}, objective, spec.batch, spec.seed)
