"""Evaluating a run: samples against held-out data, with floors and baselines beside."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from monge.autoencoders import reconstruct
from monge.data import latents as latent_data
from monge.data.base import Data
from monge.files import write_json
from monge.metrics.evaluate import Evaluation, evaluate
from monge.runs import images
from monge.runs.card import write_card
from monge.runs.density import heldout_density
from monge.runs.folder import add_costs
from monge.runs.report import write_report
from monge.runs.run import Run
from monge.tensors import stream

SHOWN_PER_LABEL = 10
SHOWN_NEIGHBOURS = 12


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
    scale = _scale(data)
    result = evaluate(
        samples.x / scale,
        data.train / scale,
        data.heldout / scale,
        sample_labels=samples.label,
        train_labels=data.train_label,
        heldout_labels=data.heldout_label,
        baselines={name: x / scale for name, x in baselines(run, data, n, seed).items()},
        seed=seed,
    )
    density = None
    if data.kind == "table":
        flow = {k: v for k, v in sampling.items() if k != "final"}
        density = heldout_density(run, data, seed, **flow)
    home = run.folder / "evaluation"
    write_json(
        home / "evaluation.json",
        {
            "format_version": 1,
            "sampling": samples.info,
            **result.to_json(run.label_names),
            "density": density,
        },
    )
    if data.kind == "image":
        _pictures(run, samples.x, result, data, seed, sampling)
    else:
        assert isinstance(data.heldout, Tensor)
        picture = images.rows_plot(run.codec, samples.x, data.heldout)
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
    posterior = latent_data.encode(run.autoencoder, data.train, run.device)
    flat = posterior.mean.double().flatten(1)
    mean, covariance = flat.mean(0), flat.T.cov()
    if posterior.logvar is not None:
        covariance = covariance + torch.diag(posterior.logvar.double().exp().flatten(1).mean(0))
    values, vectors = torch.linalg.eigh(covariance)
    white = torch.randn(n, flat.shape[1], generator=stream(seed, "gaussian")).double()
    drawn = mean + (white * values.clamp_min(0).sqrt()) @ vectors.T
    latent = drawn.float().reshape(n, *posterior.mean.shape[1:])
    gaussian = latent_data.decode(run.autoencoder, latent, run.device)
    rows = torch.randperm(len(data.train), generator=stream(seed, "reconstructions"))[:n]
    with torch.no_grad():
        chosen = data.train[rows].split(256)
        parts = [reconstruct(run.autoencoder, x.to(run.device)).cpu() for x in chosen]
    rebuilt = torch.cat(parts)
    if data.kind == "image":
        gaussian, rebuilt = gaussian.clamp(-1, 1), rebuilt.clamp(-1, 1)
    elif run.codec is not None:
        gaussian, rebuilt = run.codec.harden(gaussian), run.codec.harden(rebuilt)
    return {"gaussian": gaussian, "reconstructions": rebuilt}


def _scale(data: Data) -> Tensor:
    """What distances are measured in: table columns by their deviation, images as they are."""
    if data.kind == "image":
        return torch.ones(())
    deviation = data.train.std(0)
    return torch.where(deviation > 0, deviation, 1.0)


def _pictures(
    run: Run, x: Tensor, result: Evaluation, data: Data, seed: int, sampling: dict[str, Any]
) -> None:
    home, text = run.folder / "evaluation", {"run": run.folder.name, "seed": str(seed)}
    images.save_png(images.grid(x[:100], 10), home / "samples.png", text)
    if run.label_names:
        many = run.sample(SHOWN_PER_LABEL * len(run.label_names), "all", seed=seed, **sampling)
        images.save_png(images.grid(many.x, SHOWN_PER_LABEL), home / "by_label.png", text)
    nearest = data.train[result.neighbours[:SHOWN_NEIGHBOURS]]
    picture = images.neighbour_grid(x[:SHOWN_NEIGHBOURS], nearest[:, None])
    images.save_png(picture, home / "neighbours.png", text)
