"""Evaluating a run: samples against held-out data, with floors and baselines beside."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from monge.autoencoders import reconstruct
from monge.data import latents as latent_data
from monge.data.arrays import Examples
from monge.data.base import Data
from monge.data.latent_cache import chunks
from monge.files import write_json
from monge.metrics.evaluate import Evaluation, evaluate
from monge.progress import quiet
from monge.runs import images
from monge.runs.autoencoding import latents_for
from monge.runs.card import write_card
from monge.runs.folder import add_costs
from monge.runs.report import write_report
from monge.runs.run import Run
from monge.tensors import stream
from monge.types import Posterior

SHOWN_PER_LABEL = 10
SHOWN_NEIGHBOURS = 12
MOST_BYTES = 2**30
"""Memory for training examples that samples are compared with; more data enter as a random part."""

FEWEST_KNOWN = 5000
"""Training examples that enter whatever their size."""


def evaluate_run(
    run: Run, n: int = 1000, *, seed: int = 0, data: Data | None = None, **sampling: Any
) -> Evaluation:
    """Sample a run, measure it against held-out data, and renew its report and card.

    Labels are drawn by their frequency in the training data, so that the samples aim at the law
    of the data as a whole.

    Args:
        n: samples to evaluate.
        sampling: steps, solver, grid, guidance, final; the run's own unless given.
    """
    data = run.data() if data is None else data
    start = time.monotonic()
    samples = run.sample(n, seed=seed, **sampling)
    sampled = time.monotonic()
    known, known_label = _some(data.train, data.train_label, MOST_BYTES, seed, "known")
    real, real_label = _some(data.heldout, data.heldout_label, MOST_BYTES // 4, seed, "real")
    scale = _scale(known, data.kind)
    result = evaluate(
        samples.x / scale,
        known / scale,
        real / scale,
        sample_labels=samples.label,
        train_labels=known_label,
        heldout_labels=real_label,
        baselines={name: x / scale for name, x in baselines(run, data, n, seed).items()},
        seed=seed,
    )
    home = run.folder / "evaluation"
    write_json(
        home / "evaluation.json",
        {"format_version": 1, "sampling": samples.info, **result.to_json(run.label_names)},
    )
    if data.kind == "image":
        _pictures(run, samples.x, known[result.neighbours[:SHOWN_NEIGHBOURS]], seed, sampling)
    else:
        picture = images.table_plot(samples.x, real)
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


def baselines(run: Run, data: Data, n: int, seed: int) -> dict[str, Tensor]:
    """What any sampler should beat, and what bounds it, in data space.

    A Gaussian fitted to the training latents and decoded; the reconstructions of training
    examples, which no sampler through this autoencoder can be expected to beat.
    """
    latents = latents_for(run.spec, run.autoencoder, data, run.device, quiet)
    mean, covariance = _moments(chunks(latents, n=len(data.train)))
    values, vectors = torch.linalg.eigh(covariance)
    white = torch.randn(n, len(mean), generator=stream(seed, "gaussian")).double()
    drawn = mean + (white * values.clamp_min(0).sqrt()) @ vectors.T
    latent = drawn.float().reshape(n, *run.autoencoder.latent_shape)
    gaussian = latent_data.decode(run.autoencoder, latent, run.device)
    rows = torch.randperm(len(data.train), generator=stream(seed, "reconstructions"))[:n]
    with torch.no_grad():
        chosen = data.train[rows].split(256)
        parts = [reconstruct(run.autoencoder, x.to(run.device)).cpu() for x in chosen]
    rebuilt = torch.cat(parts)
    if data.kind == "image":
        gaussian, rebuilt = gaussian.clamp(-1, 1), rebuilt.clamp(-1, 1)
    return {"gaussian": gaussian, "reconstructions": rebuilt}


def _moments(posteriors: Iterable[Posterior]) -> tuple[Tensor, Tensor]:
    """Mean and covariance of sampled latents, flattened, in float64, from chunks."""
    n, total, products, noise = 0, torch.zeros(()), torch.zeros(()), torch.zeros(())
    for posterior in posteriors:
        flat = posterior.mean.double().flatten(1)
        n, total, products = n + len(flat), total + flat.sum(0), products + flat.T @ flat
        if posterior.logvar is not None:
            noise = noise + posterior.logvar.double().exp().flatten(1).sum(0)
    mean = total / n
    covariance = (products - n * mean.outer(mean)) / max(n - 1, 1)
    return mean, covariance + torch.diag((noise / n).expand(len(mean)))


def _some(
    x: Examples, label: Tensor | None, most_bytes: int, seed: int, what: str
) -> tuple[Tensor, Tensor | None]:
    """Examples in memory, a random part of them where all would be too many."""
    most = max(FEWEST_KNOWN, most_bytes // (4 * math.prod(x.shape[1:])))
    if len(x) <= most:
        return x[:], label
    rows = torch.randperm(len(x), generator=stream(seed, what))[:most].sort().values
    return x[rows], None if label is None else label[rows]


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
