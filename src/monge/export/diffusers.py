"""A run as a folder that diffusers loads: transformer, scheduler and autoencoder.

No class of diffusers is monge's transformer: DiT's blocks there norm no queries and keys per head,
and embed one time. So the folder names classes of `monge.export.diffusers_pipeline`, through three
files of one import each, which diffusers runs where `trust_remote_code=True` is given.
"""

from __future__ import annotations

import json
import logging
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from monge.autoencoders import Standardised
from monge.autoencoders.from_diffusers import DiffusersAutoencoder, model_class
from monge.errors import CheckFailed, UserError
from monge.fields import final_map
from monge.runs.run import Run
from monge.system.files import write_atomic, write_json
from monge.tensors import noise

MODULE = "monge_modules"
"""The file in a component's folder that names its class."""

STEPS = 4
"""Euler steps, or jumps, of the samples that are compared."""

SAMPLES = 5


def write(run: Run, folder: Path, tolerance: float) -> dict[str, Any]:
    """Write the pipeline of a run; returns what it is.

    Raises:
        UserError: diffusers is missing, or its scheduler does not walk as the run does.
        CheckFailed: the pipeline's samples differ from the run's.
    """
    refuse(run)
    kind = model_class("FlowMatchEulerDiscreteScheduler")  # refuses where diffusers is missing
    with _quiet():
        pipeline = assemble(run, kind())
        pipeline.save_pretrained(folder, safe_serialization=True)
        _name_modules(folder)
        error = difference(run, reloaded(folder))
    if error > tolerance:
        raise CheckFailed(
            f"the pipeline's samples differ from the run's by {error:.1e}, more than "
            f"{tolerance:g}: nothing was written"
        )
    return {
        "scheduler": "FlowMatchEulerDiscreteScheduler",
        "clock": "sigma = 1 - t, timestep = 1000 sigma",
        "vae": type(pipeline.vae).__name__,
        "largest_difference": error,
    }


def refuse(run: Run) -> None:
    """Refuse what the scheduler cannot walk.

    Raises:
        UserError: no images, or a walk that the scheduler's last step does not finish.
    """
    other = "; --format pt2 exports its field or map alone"
    if run.facts.kind != "image" or len(run.autoencoder.latent_shape) != 3:
        raise UserError(f"a pipeline of diffusers draws images from latents (C, H, W){other}")
    if reason := run.learned.without_scheduler():
        raise UserError(f"{reason}{other}")
    flow = run.flow(solver=run.learned.cheapest)
    end = flow.domain[1]
    if end < 1 and (run.final(flow) != "posterior_mean" or run.spec.path != "linear"):
        raise UserError(
            f"this run's flow ends at t = {end:g} with final map {run.final(flow)!r}, but "
            f"diffusers' scheduler goes straight on to t = 1{other}"
        )


def assemble(run: Run, scheduler: Any) -> Any:
    """The pipeline of a run, with its weights."""
    from monge.export.diffusers_pipeline import MongePipeline, MongeTransformer

    transformer = MongeTransformer(
        network=run.spec.network,
        shape=list(run.autoencoder.latent_shape),
        n_classes=len(run.label_names) or None,
        path=run.spec.path,
        output=run.spec.output,
        is_map=len(run.learned.program().times) == 2,
    )
    transformer.net.load_state_dict(run.network.state_dict())
    flow = run.flow(solver=run.learned.cheapest)
    autoencoder = run.autoencoder
    wrapped = isinstance(autoencoder, Standardised)
    channels = autoencoder.latent_shape[0]
    spec = run.spec
    return MongePipeline(
        transformer.eval(),
        _vae(autoencoder.autoencoder if wrapped else autoencoder),
        scheduler,
        grid=spec.grid,
        domain=list(flow.domain),
        channels=run.facts.shape[0],
        latents_mean=autoencoder.mean.flatten().tolist() if wrapped else [0.0] * channels,
        latents_std=autoencoder.std.flatten().tolist() if wrapped else [1.0] * channels,
        labels=list(run.label_names),
        guidance=run.learned.sampling(spec)[1],
        guidance_range=list(spec.guidance_range),
    )


def _vae(bare: Any) -> Any:
    """An autoencoder in diffusers' own format where it is diffusers' own."""
    if isinstance(bare, DiffusersAutoencoder):
        return bare.model
    from monge.export.diffusers_pipeline import MongeAutoencoder

    vae = MongeAutoencoder(
        autoencoder=bare.spec.in_full,
        data_shape=list(bare.data_shape),
        latent_shape=list(bare.latent_shape),
        architecture=bare.architecture,
    )
    vae.inner.load_state_dict(bare.state_dict())
    return vae.eval()


def _name_modules(folder: Path) -> None:
    """Say where the classes that are not diffusers' own come from."""
    path = folder / "model_index.json"
    index = json.loads(path.read_text(encoding="utf-8"))
    own = {"pipeline": folder / "pipeline.py"}
    index["_class_name"] = ["pipeline", "MongePipeline"]
    names = {"pipeline": "MongePipeline"}
    for part in ("transformer", "vae"):
        library, name = index[part]
        if library != "diffusers":
            index[part] = [MODULE, name]
            own[part], names[part] = folder / part / f"{MODULE}.py", name
    write_json(path, index)
    for part, file in own.items():
        text = (
            f'"""Needs monge: pip install monge."""\n\n'
            f"from monge.export.diffusers_pipeline import {names[part]}\n\n"
            f'__all__ = ["{names[part]}"]\n'
        )
        write_atomic(file, text)


def reloaded(folder: Path) -> Any:
    """The pipeline in a folder, from its files, without the modules there."""
    from monge.export.diffusers_pipeline import MongeAutoencoder, MongePipeline, MongeTransformer

    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    kind = index["vae"][1]
    vae_class = MongeAutoencoder if kind == "MongeAutoencoder" else model_class(kind)
    settings = {k: v for k, v in index.items() if not k.startswith("_")}
    scheduler = model_class("FlowMatchEulerDiscreteScheduler")
    return MongePipeline(
        **{
            **settings,
            "transformer": MongeTransformer.from_pretrained(folder / "transformer"),
            "vae": vae_class.from_pretrained(folder / "vae"),
            "scheduler": scheduler.from_pretrained(folder / "scheduler"),
        }
    )


@torch.no_grad()
def difference(run: Run, pipeline: Any, steps: int = STEPS) -> float:
    """The largest difference from the run's samples from the same noise, latents and images.

    The run walks by Euler steps, or by the jumps of its map, at its own guidance.
    """
    x0 = noise(0, 0, SAMPLES, tuple(run.autoencoder.latent_shape), "export")
    label = torch.arange(SAMPLES) % len(run.label_names) if run.label_names else None
    cond = None if label is None else {"label": label}
    flow = run.flow(steps=steps, solver=run.learned.cheapest)
    end = flow.domain[1]
    x1 = flow(x0, *flow.domain, cond)
    z = final_map(run.final(flow), flow.field, run.path, end)(x1, end, cond)
    images = (run.autoencoder.decode(z) / 2 + 0.5).clamp(0, 1)
    pipeline.set_progress_bar_config(disable=True)
    given = {"latents": x0, "class_labels": label, "num_inference_steps": steps}
    latents = pipeline(**given, output_type="latent").images
    shown = pipeline(**given, output_type="pt").images
    scale = float(z.abs().max().clamp_min(1.0))
    return max(float((latents - z).abs().max()) / scale, float((shown - images).abs().max()))


@contextmanager
def _quiet():
    """What diffusers says of unknown modules, unsaid."""
    logger = logging.getLogger("diffusers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
