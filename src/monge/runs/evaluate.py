"""Evaluating a run: samples against held-out data, with floors and baselines beside."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from monge.data.arrays import Examples
from monge.data.base import Data
from monge.files import write_json
from monge.metrics.copies import Searched
from monge.metrics.evaluate import TRAINING_SET, Evaluation, evaluate
from monge.metrics.feature_rows import MAX_KNOWN, MAX_N, feature_rows
from monge.metrics.feature_sources import load_network
from monge.metrics.features import FeatureNetwork, FeatureSet, ImageSet
from monge.metrics.samples import Rows, random_rows
from monge.metrics.table import Row, Table
from monge.runs import images
from monge.runs.baselines import baselines, gaussian_latents
from monge.runs.card import write_card
from monge.runs.copies import Copies, where_copies_are
from monge.runs.density import heldout_density
from monge.runs.folder import add_costs
from monge.runs.known_target import target_rows
from monge.runs.latent_rows import latent_rows
from monge.runs.repeat import card, flags, network_word, of_run
from monge.runs.report import write_report
from monge.runs.run import Run
from monge.runs.samples import Samples
from monge.tensors import stream

SHOWN_PER_LABEL = 10
SHOWN_NEIGHBOURS = 12
MOST_BYTES = 2**30
"""Memory for training examples that samples are compared with; more data enter as a random part."""

FEWEST_KNOWN = 5000
"""Training examples that enter whatever their size."""


def evaluate_run(
    run: Run,
    n: int = 1000,
    *,
    seed: int = 0,
    features: str | None = None,
    data: Data | None = None,
    **sampling: Any,
) -> Evaluation:
    """Sample a run, measure it against held-out data, and renew its report and card.

    Labels are drawn by their frequency in the training data, so that the samples aim at the law
    of the data as a whole.

    Args:
        n: samples to evaluate.
        features: a feature network, ``lenet5:FILE.safetensors`` or as `feature_sources` lists,
            whose Frechet and kernel distances, label agreement and copies are measured too.
        sampling: steps, solver, grid, guidance, final; the run's own unless given.

    Raises:
        UserError: unknown settings, too few samples, or a feature network that cannot be read or
            does not take these examples.
    """
    given = data is not None
    data = data if data is not None else run.data()
    network = None if features is None else load_network(features)
    if network is not None:
        network.require(data.shape)
    start = time.monotonic()
    samples = run.sample(n, seed=seed, **sampling)
    sampled = time.monotonic()
    known, known_label = in_memory(data.train, data.train_label, MOST_BYTES, seed, "known")
    real, real_label = in_memory(data.heldout, data.heldout_label, MOST_BYTES // 4, seed, "real")
    scale = _scale(known, data.kind)
    latents = gaussian_latents(run, data, n, seed)
    others = baselines(run, data, latents, seed)
    copies = where_copies_are(run, samples, data, scale, seed)
    result = evaluate(
        samples.x / scale,
        known / scale,
        real / scale,
        sample_labels=samples.label,
        train_labels=known_label,
        heldout_labels=real_label,
        baselines={name: x / scale for name, x in others.items()},
        searched=copies.scaled(scale),
        seed=seed,
    )
    flow = {k: v for k, v in sampling.items() if k != "final"}
    rows = latent_rows(run, samples, data, latents, seed) + copies.latent_rows(latents)
    rows += target_rows(run, data, samples, seed, **flow)
    if network is not None:
        rows += _feature_rows(run, network, samples, data, others, copies, seed)
    result = replace(result, table=Table([*result.table, *rows]))
    density = None
    if data.kind == "table":
        density = heldout_density(run, data, seed, **flow)
    home = run.folder / "evaluation"
    write_json(
        home / "evaluation.json",
        {
            "format_version": 1,
            "card": _card(run, n, seed, features, network, data, given, sampling),
            "sampling": samples.info,
            **result.to_json(run.label_names),
            "density": density,
        },
    )
    if data.kind == "image":
        _pictures(run, samples.x, known[result.neighbours[:SHOWN_NEIGHBOURS]], seed, sampling)
    else:
        picture = images.rows_plot(run.codec, samples.x, real)
        images.save_png(picture, home / "samples.png", {"run": run.folder.name})
    add_costs(
        run.folder,
        sample_s=sampled - start,
        evaluate_s=time.monotonic() - sampled,
        evaluations_per_sample=samples.info["evaluations_per_sample"],
    )
    write_card(run.folder)
    write_report(run.folder)
    return result


def in_memory(
    x: Examples, label: Tensor | None, most_bytes: int, seed: int, what: str
) -> tuple[Tensor, Tensor | None]:
    """Examples in memory, a random part of them where all would be too many."""
    most = max(FEWEST_KNOWN, most_bytes // (4 * math.prod(x.shape[1:])))
    if len(x) <= most:
        return x[:], label
    rows = torch.randperm(len(x), generator=stream(seed, what))[:most].sort().values
    return x[rows], None if label is None else label[rows]


def _card(
    run: Run,
    n: int,
    seed: int,
    features: str | None,
    network: FeatureNetwork | None,
    data: Data,
    given: bool,
    sampling: Mapping[str, Any],
) -> dict[str, Any]:
    """How to repeat this evaluation."""
    named = features and network_word(features)
    settings = {"seed": seed, **sampling, "features": named, "device": str(run.device)}
    words = ["monge", "evaluate", str(run.folder.absolute()), "-n", str(n), *flags(settings)]
    read = {"source": data.text, "fingerprint": data.fingerprint}
    return card(
        None if given and data.text is None else words,
        seed=seed,
        run=of_run(run),
        data={**read, "training": len(data.train), "held out": len(data.heldout)},
        features=network and {"network": network.name, **network.settings},
    )


def _feature_rows(
    run: Run,
    network: FeatureNetwork,
    samples: Samples,
    data: Data,
    others: Mapping[str, Tensor],
    copies: Copies,
    seed: int,
) -> list[Row]:
    """What a feature network says of the samples."""

    def seen(x: ImageSet, label: Tensor | None = None, rows: Rows | None = None) -> FeatureSet:
        found = network.features(x, rows, device=run.device)
        chosen = label if label is None or rows is None else label[rows]
        return network.labelled(found, chosen, run.label_names)

    known = random_rows(len(data.train), MAX_KNOWN, stream(seed, "features", "train"))
    real = random_rows(len(data.heldout), MAX_N, stream(seed, "features", "heldout"))
    train = seen(data.train, data.train_label, known)
    drawn = seen(samples.x, samples.label)
    return feature_rows(
        network,
        drawn,
        train,
        seen(data.heldout, data.heldout_label, real),
        {**{name: seen(x) for name, x in others.items()}, TRAINING_SET: train},
        seed,
        searched=Searched(
            drawn.x,
            seen(copies.heldout).x,
            seen(copies.train).x if copies.decoded else train.x,
            tuple(seen(x).x for x in copies.planted),
            copies.examples if copies.decoded else len(train.x),
        ),
    )


def _scale(known: Tensor, kind: str) -> Tensor:
    """What distances are measured in: table columns by their deviation, images as they are."""
    if kind == "image":
        return torch.ones(())
    deviation = known.std(0)
    return torch.where(deviation > 0, deviation, 1.0)


def _pictures(run: Run, x: Tensor, nearest: Tensor, seed: int, sampling: dict[str, Any]) -> None:
    home, text = run.folder / "evaluation", {"run": run.folder.name, "seed": str(seed)}
    images.save_png(images.grid(x[:100], 10), home / "samples.png", text)
    if run.label_names:
        many = run.sample(SHOWN_PER_LABEL * len(run.label_names), "all", seed=seed, **sampling)
        images.save_png(images.grid(many.x, SHOWN_PER_LABEL), home / "by_label.png", text)
    picture = images.neighbour_grid(x[:SHOWN_NEIGHBOURS], nearest[:, None])
    images.save_png(picture, home / "neighbours.png", text)
