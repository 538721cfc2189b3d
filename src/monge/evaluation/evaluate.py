"""Evaluating a run: samples against held-out data, with floors and baselines beside."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from monge.data.arrays import in_memory
from monge.data.base import Data, distance_scale
from monge.data.columns.plain_columns import plain_columns
from monge.evaluation.baselines import baselines, gaussian_latents
from monge.evaluation.copies import Copies, where_copies_are
from monge.evaluation.density import heldout_density
from monge.evaluation.known_target import target_rows
from monge.evaluation.latent_rows import latent_rows
from monge.evaluation.plane import is_plane, shown_plane
from monge.evaluation.shown_columns import rows_without_names, shown_columns
from monge.evaluation.tabular import judged, tabular_report
from monge.metrics.columns import Columns
from monge.metrics.evaluate import TRAINING_SET, Evaluation, TableOf, evaluate
from monge.metrics.feature_rows import MAX_KNOWN, MAX_N, feature_rows
from monge.metrics.feature_sources import load_network
from monge.metrics.features import FeatureNetwork, FeatureSet, ImageSet
from monge.metrics.samples import Rows, random_rows
from monge.metrics.table import Row, Table
from monge.report.card import write_card
from monge.report.next_steps import next_steps
from monge.report.report import write_report
from monge.runs.folder import add_costs
from monge.runs.layout import COLUMNS, PLANE
from monge.runs.provenance import card, flags, network_word, of_run
from monge.runs.run import Run
from monge.sampling import images
from monge.sampling.class_rows import MOST_CLASSES, across_classes
from monge.sampling.model import GenerativeModel
from monge.sampling.samples import Samples
from monge.system.files import write_json
from monge.system.progress import survived
from monge.tensors import stream

SHOWN_PER_LABEL = 10
SHOWN_NEIGHBOURS = 12
BESIDE = "baselines, and where copies are looked for"
MOST_PLAIN = 64
"""Numbers of a row without column names that are drawn one by one."""

MOST_BYTES = 2**30
"""Memory for training examples that samples are compared with; more data enter as a random part."""


def evaluate_run(
    run: Run,
    n: int = 1000,
    *,
    seed: int = 0,
    features: str | None = None,
    data: Data | None = None,
    target: str | None = None,
    **sampling: Any,
) -> Evaluation:
    """Sample a run, measure it against held-out data, and renew its report and card.

    Labels are drawn by their frequency in the training data, so that the samples aim at the law
    of the data as a whole.

    Args:
        n: samples to evaluate.
        features: a feature network, ``lenet5:FILE.safetensors`` or as `feature_sources` lists,
            whose Frechet and kernel distances, label agreement and copies are measured too.
        target: the column of a table that models learn to predict from samples (TSTR); None for
            its label, or else its last category or number.
        sampling: steps, solver, grid, guidance, final; the run's own unless given.

    Raises:
        UserError: unknown settings, too few samples, or a feature network that cannot be read or
            does not take these examples.
    """
    if features is not None:
        load_network(features)  # refuses what cannot be read before anything is computed
    given = data is not None
    data = data if data is not None else run.data()
    found = measure(run, data, n, seed, features, sampling, target)
    advice = tuple(next_steps(run, found.evaluation.table, n, found.columns))
    found = replace(found, evaluation=replace(found.evaluation, advice=advice))
    home = run.folder / "evaluation"
    asked = sampling if target is None else {**sampling, "target": target}
    card = _card(run, n, seed, features, found.network, data, given, asked)
    content = found.content(run.label_names)
    write_json(home / "evaluation.json", {"format_version": 1, "card": card, **content})
    with survived("the pictures of the evaluation were not drawn"):
        _pictures(run, data, found, seed, sampling, home)
    add_costs(
        run.folder,
        sample_s=found.sample_s,
        evaluate_s=found.evaluate_s,
        evaluations_per_sample=found.samples.info["evaluations_per_sample"],
    )
    with survived("the card and the report were not written"):
        write_card(run.folder)
        write_report(run.folder)
    return found.evaluation


def evaluate_generator(
    generator: GenerativeModel,
    data: Data,
    n: int = 1000,
    *,
    seed: int = 0,
    features: str | None = None,
    target: str | None = None,
    **sampling: Any,
) -> Evaluation:
    """The same of a generator without a folder, of which nothing is written."""
    return measure(generator, data, n, seed, features, sampling, target).evaluation


@dataclass(frozen=True)
class Measured:
    """An evaluation with what it was made of.

    Attributes:
        known: training examples in memory, `real`: held-out ones.
        columns: the sets as columns of their table, if they have one.
        sample_s, evaluate_s: seconds.
    """

    evaluation: Evaluation
    samples: Samples
    known: Tensor
    real: Tensor
    columns: TableOf | None
    density: dict[str, Any] | None
    network: FeatureNetwork | None
    sample_s: float
    evaluate_s: float

    def content(self, label_names: Sequence[str]) -> dict[str, Any]:
        """As ``evaluation.json`` has it."""
        return {
            "sampling": self.samples.info,
            **self.evaluation.to_json(label_names),
            "density": self.density,
        }


def measure(
    run: GenerativeModel,
    data: Data,
    n: int,
    seed: int,
    features: str | None,
    sampling: Mapping[str, Any],
    target: str | None = None,
) -> Measured:
    """Sample a model, and measure the samples against held-out data; see `evaluate_run`."""
    network = None if features is None else load_network(features)
    if network is not None:
        network.require(data.shape)
    seconds: dict[str, float] = {}
    with timed(seconds, "sampling"):
        samples = run.sample(n, seed=seed, **sampling)
    with timed(seconds, BESIDE):
        known, known_label = in_memory(data.train, data.train_label, MOST_BYTES, seed, "known")
        real, real_label = in_memory(
            data.heldout, data.heldout_label, MOST_BYTES // 4, seed, "real"
        )
        scale = distance_scale(data.kind, known)
        latents = gaussian_latents(run, data, n, seed)
        others = baselines(run, data, latents, seed)
        columns = table_of(data, samples.x, known, real, others)
        copies = where_copies_are(run, samples, data, scale, seed)
    result = evaluate(
        samples.x / scale,
        known / scale,
        real / scale,
        sample_labels=samples.label,
        train_labels=known_label,
        heldout_labels=real_label,
        baselines={name: x / scale for name, x in others.items()},
        table=columns,
        searched=copies.scaled(scale),
        seed=seed,
    )
    seconds |= result.timings
    flow = {k: v for k, v in sampling.items() if k != "final"}
    sets = Compared(run, data, samples, latents, others, copies)
    rows = _more_rows(sets, network, flow, seed, seconds)
    page = None
    if columns is not None:
        labels = samples.label, known_label, real_label
        with timed(seconds, "as papers on tables judge"):
            page = tabular_report(judged(data, columns, labels, target), seed)
    rows += [] if page is None else page.rows
    density = None
    if data.kind == "table":
        with timed(seconds, "log-density of held-out rows"):
            density = heldout_density(run, data, seed, **flow)
    result = replace(result, table=Table([*result.table, *rows]), timings=seconds, tabular=page)
    spent = sum(seconds.values()) - seconds["sampling"]
    return Measured(
        result, samples, known, real, columns, density, network, seconds["sampling"], spent
    )


@contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Keeps how long what is done within took, by name; nothing for what takes no time."""
    start = time.monotonic()
    yield
    seconds[name] = time.monotonic() - start


@dataclass(frozen=True)
class Compared:
    """Samples of a model, and what stands beside them.

    Args:
        latents: (n, *latent), of the Gaussian.
        others: baselines by name.
    """

    run: GenerativeModel
    data: Data
    samples: Samples
    latents: Tensor
    others: Mapping[str, Tensor]
    copies: Copies


def _more_rows(
    sets: Compared,
    network: FeatureNetwork | None,
    flow: Mapping[str, Any],
    seed: int,
    seconds: dict[str, float],
) -> list[Row]:
    """The rows of the latent space, of a known law, and of a feature network."""
    run, data, samples = sets.run, sets.data, sets.samples
    with timed(seconds, "latent space"):
        rows = latent_rows(run, samples, data, sets.latents, seed)
        rows += sets.copies.latent_rows(sets.latents)
    with timed(seconds, "known law"):
        rows += target_rows(run, data, samples, seed, **flow)
    if network is not None:
        with timed(seconds, f"features of {network.name}"):
            rows += _feature_rows(sets, network, seed)
    return rows


def table_of(
    data: Data, samples: Tensor, known: Tensor, real: Tensor, others: Mapping[str, Tensor]
) -> TableOf | None:
    """The sets with the columns of their table; None for images and rows without columns."""
    if data.codec is None:
        return None

    def values(x: Tensor) -> Tensor:
        return plain_columns(data.codec, x)[0]  # type: ignore[arg-type]

    first, names, codes = plain_columns(data.codec, samples)
    train = values(known)
    beside = {name: values(x) for name, x in others.items()}
    columns = Columns(tuple(names), tuple(codes))
    return TableOf(columns, first, train, values(real), {TRAINING_SET: train, **beside})


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


def _feature_rows(sets: Compared, network: FeatureNetwork, seed: int) -> list[Row]:
    """What a feature network says of the samples."""
    run, data, samples, copies = sets.run, sets.data, sets.samples, sets.copies

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
        {**{name: seen(x) for name, x in sets.others.items()}, TRAINING_SET: train},
        seed,
        searched=copies.in_view(lambda x: seen(x).x, drawn.x, train.x, seed),
    )


def _pictures(
    run: Run, data: Data, found: Measured, seed: int, sampling: Mapping[str, Any], home: Path
) -> None:
    """Samples, by label where there are labels, and beside their nearest training examples."""
    x = found.samples.x
    if data.kind != "image":
        picture = images.rows_plot(run.codec, x, found.real)
        images.save_png(picture, home / "samples.png", {"run": run.folder.name})
        _rows_shown(run, data, found, seed)
        return
    text = {"run": run.folder.name, "seed": str(seed)}
    images.save_png(images.grid(x[:100], 10), home / "samples.png", text)
    if run.label_names:
        # Of very many classes, some from the first to the last.
        every = max(1, math.ceil(len(run.label_names) / MOST_CLASSES))
        classes = list(range(0, len(run.label_names), every))
        many = _some_of_each(found.samples, classes)
        if many is None:
            many = run.sample(SHOWN_PER_LABEL * len(classes), classes, seed=seed, **sampling)
        images.save_png(many.grid(SHOWN_PER_LABEL), home / "by_label.png", text)
    rows = across_classes(found.samples.label, SHOWN_NEIGHBOURS)[: len(x)]
    nearest = found.known[found.evaluation.neighbours[rows]]
    picture = images.neighbour_grid(x[rows], nearest[:, None])
    images.save_png(picture, home / "neighbours.png", text)


def _some_of_each(samples: Samples, classes: Sequence[int]) -> Samples | None:
    """The first samples of each class, in their order; None where a class has too few."""
    if samples.label is None:
        return None
    rows = [(samples.label == k).nonzero()[:SHOWN_PER_LABEL, 0] for k in classes]
    if min(map(len, rows)) < SHOWN_PER_LABEL:
        return None
    chosen = torch.cat(rows)
    return replace(samples, x=samples.x[chosen], z=samples.z[chosen], label=samples.label[chosen])


def _rows_shown(run: Run, data: Data, found: Measured, seed: int) -> None:
    """What the report draws of rows: every column, and velocity and density of two numbers."""
    table = found.columns
    if table is None and found.samples.x.ndim == 2 and found.samples.x.shape[1] <= MOST_PLAIN:
        sets = {"samples": found.samples.x, "train": found.known, "heldout": found.real}
        table = rows_without_names(sets)
    if table is not None:
        write_json(run.folder / COLUMNS, shown_columns(table, run.codec))
        if is_plane(run, data):
            names = list(table.columns.names)
            write_json(run.folder / PLANE, shown_plane(run, data, names, seed))
