"""Fits one network by one objective."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from monge import autoencoders
from monge.components import class_of
from monge.data.base import Data
from monge.fitting.job import Job
from monge.fitting.map_errors import BEST_N, keep_if_best
from monge.fitting.objective import (
    batches_along,
    latent_batches,
    loop_spec,
    make_matching,
    reflow_batches,
)
from monge.fitting.resolve import DEFAULT_STEPS
from monge.fitting.warm_start import initialise
from monge.latents.batches import LatentBatches
from monge.networks.exact import ExactNetwork
from monge.objectives.base import Objective
from monge.objectives.flow_matching import ReflowSpec
from monge.runs import folder as folders
from monge.runs import planned, schemas
from monge.runs.layout import COST
from monge.runs.restore import build_network, read_facts
from monge.runs.run import Run
from monge.runs.spec import TrainSpec
from monge.system import processes
from monge.system.files import write_atomic
from monge.system.progress import quiet, survived
from monge.tensors import stream
from monge.training import checkpoint
from monge.training.loop import fit

GRIDS = 8
"""Number of sample grids during a run, if no interval is given."""

FEWEST_BETWEEN = 100
"""Least number of steps between two sample grids: a grid takes as long as several steps."""

PREVIEW = 64
"""Samples in a grid during training."""


def fit_at_once(objective: Objective, job: Job) -> None:
    """Fit the network of a run, or continue; an exactly known network is not trained.

    Raises:
        Stopped, Diverged: see `training.loop.fit`; the run can be continued.
    """
    spec, folder, teacher, say = job.spec, job.folder, job.teacher, job.say
    network = build_network(spec, job.shape, job.facts)
    if isinstance(network, ExactNetwork):
        return
    taught = teacher is not None and not isinstance(teacher.network, ExactNetwork)
    start = spec.teacher if taught else spec.init_from
    if start is not None and checkpoint.newest_step(folder) is None:
        initialise(network, Path(start), job.data.label_names, say, needed=not taught)
    parameters = sum(p.numel() for p in network.parameters())
    batches = _batches(objective, job)
    size = f"{parameters / 1e6:.2f} M parameters"
    if spec.steps is not None and checkpoint.newest_step(folder) == spec.steps:
        say(
            f"{spec.network} ({size}) has done its {spec.steps} steps: nothing is left to train; "
            "give more --steps to continue"
        )
    else:
        say(f"training {spec.network} ({size}) on {len(job.latents)} latents")
    every = spec.sample_every or max(FEWEST_BETWEEN, (spec.steps or DEFAULT_STEPS) // GRIDS)

    def show(average: nn.Module, step: int) -> None:
        run = _preview(folder, spec, average)
        with survived(f"the samples of step {step} were not drawn", say):
            shown = run.sample(PREVIEW, _preview_labels(run)).grid_png()
            write_atomic(folder / "samples" / f"step-{step:08d}.png", shown)
        if run.learned.error_steps:
            keep_if_best(run, step, 0.0 if teacher else heldout_loss(run, job.data))

    fitted = fit(
        network,
        objective.loss,
        batches,
        loop_spec(spec, sample_every=every, minutes=_minutes_left(spec, folder)),
        folder=folder,
        on_sample=show,
        on_plan=lambda steps: planned.keep(folder, spec, steps),
        on_compiled=lambda: planned.keep_compiled(folder, spec),
        quiet=say is quiet,
    )
    if processes.is_main():
        costs = {"train_s": fitted.seconds, "steps": fitted.step, "parameters": parameters}
        if fitted.plan and fitted.plan.compiled:
            costs["compile_s"] = fitted.plan.compile_s
        folders.add_costs(folder, **costs)


def _batches(objective: Objective, job: Job) -> LatentBatches:
    """The training batches: latents, or a teacher's outputs from noise or from latents."""
    spec, data, teacher = job.spec, job.data, job.teacher
    if teacher is not None and class_of("objective", spec.objective) is ReflowSpec:
        return reflow_batches(spec, objective, data, teacher, job.say)
    if teacher is not None and not teacher.learned.on_path:
        return batches_along(spec, objective, job.latents, data, teacher, job.say)
    return latent_batches(spec, objective, job.latents, data)


def _minutes_left(spec: TrainSpec, folder: Path) -> float | None:
    """The minutes left for the network after the autoencoder, which takes at most a third."""
    if spec.minutes is None:
        return None
    costs = schemas.read_if_there(folder, COST) or {}
    spent = (costs.get("autoencoder_s") or 0.0) / 60
    return max(spec.minutes - spent, 0.5 * spec.minutes)


@torch.no_grad()
def heldout_loss(run: Run, data: Data) -> float:
    """The flow matching loss on held-out examples, with the same random draws each time."""
    rows = slice(0, BEST_N)
    given = data.conditions("heldout", rows)
    batch = {name: x.to(run.device) for name, x in given.items()}
    x = data.heldout[rows].to(run.device)
    batch["x1"] = run.autoencoder.encode(x).mean.to(next(run.network.parameters()))
    matching = make_matching(run.spec, data)
    drawn = matching.draw(batch, stream(run.spec.seed, "best"))
    return float(matching.loss(run.network, drawn).per_example.mean())


def _preview_labels(run: Run) -> str | None:
    return "all" if run.label_names else None


def _preview(folder: Path, spec: TrainSpec, average: nn.Module) -> Run:
    """The run in its present state, with the averaged weights in memory."""
    autoencoder: Any = autoencoders.load(folder / "autoencoder")
    device = next(average.parameters()).device
    facts = read_facts(folder)
    return Run.of(folder, spec, facts, autoencoder.to(device).eval(), average, device)
