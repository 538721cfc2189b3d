"""A dry run: measures the time and memory of training on untrained models, and saves nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from monge.autoencoders import standardise
from monge.components import build
from monge.data import sources
from monge.fitting.autoencoding import (
    autoencoder_batches,
    autoencoder_from,
    autoencoder_loop,
    is_folder,
    untrained,
)
from monge.fitting.objective import latent_batches, loop_spec, make_objective
from monge.fitting.resolve import check, resolve
from monge.latents.batches import encode
from monge.networks.exact import ExactNetwork
from monge.runs import folder as folders
from monge.runs.restore import build_network, set_threads
from monge.runs.spec import TrainSpec
from monge.sampling.facts import DataFacts
from monge.system.own_faults import blamed
from monge.system.progress import Say, quiet, size
from monge.training.loop import fit
from monge.training.plan import Plan

ROWS = 512
"""Training examples in a dry run."""


@blamed(anywhere=True)
def rehearse(spec: TrainSpec, say: Say = quiet) -> dict[str, dict[str, Any]]:
    """Time a few steps of autoencoder and network; returns the estimated cost of each.

    Raises:
        UserError: impossible settings, as in training.
    """
    set_threads(spec.threads)
    spec = folders.adopted(spec)
    data = sources.load(spec.data, spec, say)
    for line in data.summary:
        say(line)
    spec = resolve(spec, data)
    check(spec, data)
    plans: dict[str, dict[str, Any]] = {}
    if is_folder(spec.autoencoder):
        bare: Any = autoencoder_from(Path(spec.autoencoder), data)
    else:
        component = build("autoencoder", spec.autoencoder)
        bare = untrained(component, data)
        if component.trainable:
            say(f"autoencoder {component!r}:")
            batches = autoencoder_batches(spec, component, data)
            loop = autoencoder_loop(spec, component, data, dry_run=True)
            plans["autoencoder"] = _told(fit(bare, component.loss, batches, loop).plan, say)
    wrapped = standardise(bare.cpu().eval(), data.train[:ROWS])
    posterior = encode(wrapped, data.train[:ROWS])
    label = None if data.train_label is None else data.train_label[:ROWS]
    vector = None if data.train_vector is None else data.train_vector[:ROWS]
    few = dataclasses.replace(data, train=data.train[:ROWS], train_label=label, train_vector=vector)
    network = build_network(spec, wrapped.latent_shape, DataFacts.of(data))
    if isinstance(network, ExactNetwork):
        say("network exact: nothing to train")
        return plans
    say(f"network {spec.network}:")
    objective = make_objective(spec, data)
    batches = latent_batches(spec, objective, posterior, few)
    loop = loop_spec(spec, dry_run=True)
    plans["network"] = _told(fit(network, objective.loss, batches, loop).plan, say)
    return plans


def _told(plan: Plan | None, say: Say) -> dict[str, Any]:
    """A plan as numbers; prints the disk space it needs, since no folder was opened."""
    assert plan is not None  # a dry run always has one
    say(f"disk: {size(2 * plan.checkpoint_bytes)} while a checkpoint is written")
    return {**dataclasses.asdict(plan), "seconds": plan.seconds}
