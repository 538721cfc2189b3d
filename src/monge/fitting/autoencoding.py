"""A run's autoencoder: trains or loads it, standardises it, measures its quality and saves it."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from monge import autoencoders
from monge.autoencoders import (
    AutoencoderModule,
    Standardised,
    reconstruct,
)
from monge.autoencoders.base import size_of
from monge.autoencoders.marginals import WithMarginals
from monge.autoencoders.pca import PCASpec
from monge.components import FAMILIES, build
from monge.data.arrays import Examples, mirrored
from monge.data.base import Data
from monge.errors import UserError
from monge.latents.batches import DataBatches, Latents
from monge.latents.cache import in_units_of, latents_of, standardised_by
from monge.runs import folder as folders
from monge.runs import schemas, sharing
from monge.runs.latents import latents_for
from monge.runs.layout import QUALITY
from monge.runs.spec import TrainSpec
from monge.sampling import images
from monge.sampling.class_rows import across_classes
from monge.system import own_code, processes
from monge.system.files import copy_new, refuse_links, remove, write_json
from monge.system.progress import Say, quiet, survived
from monge.system.schema import read_json
from monge.tensors import stream
from monge.training import checkpoint
from monge.training.loop import LoopSpec, fit

MOST_JUDGED = 10_000
"""Most examples on which an autoencoder's quality is measured."""

AUTOENCODER_PART = 1 / 3
"""Largest part of a run's minutes for training its autoencoder."""

MOST_LISTED = 64
"""Most latent statistics that are recorded."""


def is_folder(autoencoder: str) -> bool:
    """Whether a setting names a folder rather than a component."""
    known = autoencoder.partition(":")[0] in FAMILIES["autoencoder"]
    return not known and not own_code.is_own(autoencoder) and Path(autoencoder).is_dir()


def autoencoder_from(folder: Path, data: Data) -> AutoencoderModule:
    """The bare autoencoder in the folder of another run or of `monge autoencoder`.

    An autoencoder of images of another size is resized, if possible.

    Raises:
        UserError: no autoencoder there, or one for data of another shape.
    """
    inner = folder / "autoencoder"
    loaded = autoencoders.load(inner if inner.is_dir() else folder)
    bare = loaded.autoencoder if isinstance(loaded, Standardised) else loaded
    if tuple(bare.data_shape) == data.shape:
        return bare
    if bare.data_shape[0] == data.shape[0] and hasattr(bare, "resize"):
        return bare.resize(data.shape)  # type: ignore[operator]
    raise UserError(
        f"the autoencoder in {folder} takes data of shape {tuple(bare.data_shape)}; "
        f"{data.name} has {data.shape}"
    )


def keep_autoencoder_of(run: Path, folder: Path) -> None:
    """Copy another run's autoencoder and statistics to a new run, for the same latent space."""
    home = folder / "autoencoder"
    if (home / autoencoders.SETTINGS).exists():
        return
    refuse_links(run)
    temporary = folder / ".tmp-autoencoder"
    try:
        remove(temporary)
        temporary.mkdir()
        for source in sorted((run / "autoencoder").iterdir()):
            if not source.is_dir():
                copy_new(sharing.blob(run, source), temporary / source.name)
        remove(home)
        temporary.rename(home)
    except OSError as error:
        raise UserError(f"cannot copy the autoencoder to {home}: {error.strerror}") from error


def pretrained(text: str, data: Data) -> AutoencoderModule:
    """An autoencoder that needs no training, without statistics, from a folder or a component.

    Raises:
        UserError: the autoencoder needs training first, or does not fit the data.
    """
    if is_folder(text):
        return autoencoder_from(Path(text), data).eval()
    component = build("autoencoder", text)
    if component.trainable:
        raise UserError(
            f"the autoencoder {text} is not trained: train it by monge autoencoder, and name its "
            "folder"
        )
    return untrained(component, data).eval()


def untrained(component: Any, data: Data) -> AutoencoderModule:
    """The autoencoder of a component for data, fitted if fitting needs no training.

    For a table whose columns have curves, it works on the normal scores; an autoencoder that is
    trained takes the numbers themselves.
    """
    bare = component.build(data.shape)
    if data.codec is not None and not component.trainable and any(data.codec.curves):
        bare = WithMarginals(bare, data.codec.curves)
    if hasattr(bare, "fit"):
        bare.fit(data.train)
    return bare


def prepare_autoencoder(
    spec: TrainSpec, data: Data, folder: Path, device: torch.device, say: Say
) -> tuple[Standardised, Latents]:
    """The run's standardised autoencoder, loaded or made, and the training latents.

    A new autoencoder is measured on held-out data and saved before training on its latents.
    """
    home = folder / "autoencoder"
    if (home / autoencoders.SETTINGS).exists():
        if processes.is_main():
            _remove_training_files(home)
        loaded = autoencoders.load(home)
        assert isinstance(loaded, Standardised)
        wrapped = loaded.to(device).eval()
        return wrapped, latents_for(spec, wrapped, data, device, say, together=True)
    start = time.monotonic()
    bare = _bare_autoencoder(spec, data, home, device, say).to(device)
    processes.same(bare)
    seconds, start = time.monotonic() - start, time.monotonic()
    flip, known = spec.flip == "yes", (data.fingerprint, data.name)
    latents = latents_of(bare, data.train, *known, device, say, flip=flip, together=True)
    reference = data.train[: autoencoders.N_REFERENCE].to(device)
    if spec.network == "exact":
        shape = autoencoders.statistics_shape(bare.latent_shape)
        wrapped = Standardised(bare, torch.zeros(shape), torch.ones(shape), reference)
    else:
        wrapped = standardised_by(bare, latents, reference)
    if wrapped.constant:
        say(f"latent coordinates that never vary, left unscaled: {wrapped.constant}")
    wrapped = wrapped.to(device).eval()
    if processes.is_main():
        folders.add_costs(folder, encode_s=time.monotonic() - start)
        _keep(wrapped, spec, data, folder, device, seconds, say)
    processes.wait()
    return wrapped, in_units_of(wrapped, latents)


def _bare_autoencoder(
    spec: TrainSpec, data: Data, home: Path, device: torch.device, say: Say
) -> Any:
    """A trained autoencoder without statistics: loaded from a folder, fitted, or trained now."""
    if is_folder(spec.autoencoder):
        return autoencoder_from(Path(spec.autoencoder), data).eval()
    component = build("autoencoder", spec.autoencoder)
    bare = untrained(component, data)
    if component.trainable:
        if spec.init_from is not None:
            start_autoencoder_from(bare, Path(spec.init_from), data, say)
        say(f"training the autoencoder {component!r}")
        loop = autoencoder_loop(spec, component, data)
        batches = autoencoder_batches(spec, component, data)
        bare = fit(bare, component.loss, batches, loop, folder=home, quiet=say is quiet).ema
    return bare.eval()


def autoencoder_loop(
    spec: TrainSpec, component: Any, data: Data, dry_run: bool = False
) -> LoopSpec:
    """The loop settings of a new autoencoder: as long as training helps, within its time."""
    steps, minutes = spec.autoencoder_steps, None
    if steps is None:
        steps = component.default_steps(len(data.train), data.shape)
        minutes = None if spec.minutes is None else AUTOENCODER_PART * spec.minutes
    return LoopSpec(
        steps=steps,
        minutes=minutes,
        lr=component.lr,
        ema=0.99,
        seed=spec.seed,
        device=spec.device,
        log_every=spec.log_every,
        dry_run=dry_run,
    )


def autoencoder_batches(spec: TrainSpec, component: Any, data: Data) -> DataBatches:
    """The training batches of a new autoencoder, with mirror images if the run flips."""
    x = mirrored(data.train) if spec.flip == "yes" else data.train
    return DataBatches(x, component.draw, component.batch, spec.seed)


def start_autoencoder_from(bare: Any, run: Path, data: Data, say: Say) -> None:
    """Copy the weights of another run's autoencoder to a new one, if the two are alike."""
    theirs = autoencoder_from(run, data)
    if repr(theirs.spec) != repr(bare.spec):
        say(
            f"the autoencoder of {run} is {theirs.spec!r}, the new one {bare.spec!r}: "
            "trained from the beginning"
        )
        return
    bare.load_state_dict(theirs.state_dict())
    say(f"autoencoder: all weights from {run}")


def _keep(
    wrapped: Standardised,
    spec: TrainSpec,
    data: Data,
    folder: Path,
    device: torch.device,
    seconds: float,
    say: Say,
) -> None:
    """Save an autoencoder with its quality; the settings file, written last, completes it."""
    home = folder / "autoencoder"
    quality = reconstruction_quality(wrapped, data, device)
    quality["home"] = _quality_at_home(spec)
    write_json(home / "quality.json", quality)
    if data.kind == "image":
        shown = data.heldout[across_classes(data.heldout_label, 16)[: len(data.heldout)]]
        with survived("the reconstructions were not drawn", say):
            grid = images.reconstruction_grid(
                shown, reconstruct(wrapped, shown.to(device)).detach().cpu()
            )
            images.save_png(grid, home / "reconstructions.png", {"run": folder.name})
    autoencoders.save(wrapped, home)
    _remove_training_files(home)
    folders.add_costs(
        folder,
        autoencoder_s=seconds,
        autoencoder_parameters=sum(p.numel() for p in wrapped.parameters()),
    )
    for line in describe_quality(quality):
        say(line)


def _remove_training_files(home: Path) -> None:
    """Remove what training has left of a saved autoencoder; a crash may have kept a part of it."""
    shutil.rmtree(home / checkpoint.STATE, ignore_errors=True)
    for name in checkpoint.TOP_LEVEL:
        (home / f"{name}.safetensors").unlink(missing_ok=True)


def _quality_at_home(spec: TrainSpec) -> dict[str, Any] | None:
    """The recorded quality of an autoencoder from a folder, on the data of its own training."""
    if not is_folder(spec.autoencoder):
        return None
    file = Path(spec.autoencoder) / QUALITY
    if not file.exists():
        file = Path(spec.autoencoder) / "quality.json"
    if not file.exists():
        return None
    kept = read_json(file, schemas.QUALITY, schemas.MADE_BY[QUALITY])
    wanted = ("rmse", "psnr_db", "latent_mean", "latent_std", "n")
    return {key: kept.get(key) for key in wanted}


@torch.no_grad()
def reconstruction_quality(
    autoencoder: Standardised, data: Data, device: torch.device
) -> dict[str, Any]:
    """The reconstruction error on held-out data, compared with PCA of the same dimension.

    At most `MOST_JUDGED` held-out examples are used, and PCA is fitted to as many training
    examples. The latent statistics are those of the bare autoencoder on the training data.
    """
    numbers, image = size_of(autoencoder.latent_shape), data.kind == "image"
    mse = _errors(autoencoder, data.heldout, device)
    quality: dict[str, Any] = {
        "kind": repr(autoencoder.autoencoder.spec),
        "latent_shape": list(autoencoder.latent_shape),
        "numbers": numbers,
        "data_numbers": size_of(data.shape),
        "latent_mean": [float(v) for v in autoencoder.mean.flatten()[:MOST_LISTED]],
        "latent_std": [float(v) for v in autoencoder.std.flatten()[:MOST_LISTED]],
        "rmse": float(mse.mean().sqrt()),
        "psnr_db": _decibels(mse) if image else None,
        "pca_psnr_db": None,
        "n": len(mse),
    }
    if image and numbers < min(size_of(data.shape), len(data.train)):
        pca = PCASpec(dim=numbers).build(data.shape)
        pca.fit(data.train[_some(len(data.train))])
        quality["pca_psnr_db"] = _decibels(_errors(pca, data.heldout, torch.device("cpu")))
    return quality


def _some(n: int) -> Tensor:
    """A fixed choice of the row numbers of at most `MOST_JUDGED` examples."""
    return torch.randperm(n, generator=stream(0, "judged"))[:MOST_JUDGED].sort().values


def _errors(model: Any, x: Examples, device: torch.device) -> Tensor:
    """The mean squared reconstruction error of each example."""
    found = []
    for rows in _some(len(x)).split(256):
        part = x[rows].to(device)
        found.append((reconstruct(model, part) - part).flatten(1).square().mean(1).cpu())
    return torch.cat(found)


def _decibels(mse: Tensor) -> float:
    """The mean PSNR in dB of images in [-1, 1]."""
    return float((10 * torch.log10(4 / mse.clamp_min(1e-12))).mean())


def describe_quality(quality: dict[str, Any]) -> list[str]:
    """An autoencoder and its quality, in a few lines."""
    line = f"autoencoder {quality['kind']}: latent {tuple(quality['latent_shape'])}"
    line += f", held-out RMSE {quality['rmse']:.4f}"
    worse = False
    if quality["psnr_db"] is not None:
        line += f", {quality['psnr_db']:.2f} dB"
    if quality["pca_psnr_db"] is not None:
        line += f" (PCA of the same dimension {quality['pca_psnr_db']:.2f} dB)"
        worse = quality["pca_psnr_db"] > quality["psnr_db"]
    means, stds = quality["latent_mean"], quality["latent_std"]
    lines = [
        line,
        f"latent statistics: mean {min(means):.3g} to {max(means):.3g}, deviation "
        f"{min(stds):.3g} to {max(stds):.3g}; each run standardises its own",
    ]
    if worse:
        lines.append(
            f"warning: the autoencoder reconstructs worse ({quality['psnr_db']:.2f} dB) than PCA "
            f"of the same dimension ({quality['pca_psnr_db']:.2f} dB): train it longer "
            "(--autoencoder-steps), choose another, or use --autoencoder pca:dim=..."
        )
    if (home := quality.get("home")) is not None:
        lines.append(_shift_line(quality, home))
    return lines


def _shift_line(quality: dict[str, Any], home: dict[str, Any]) -> str:
    """A line on the domain shift: the autoencoder's error on its own data and on these data."""
    here, there = quality["rmse"], home["rmse"]
    line = f"domain shift: held-out RMSE {here:.4f} here, {there:.4f} on the autoencoder's own data"
    if quality["psnr_db"] is not None and home["psnr_db"] is not None:
        line += f" ({quality['psnr_db']:.2f} and {home['psnr_db']:.2f} dB)"
    if home["latent_std"] and len(home["latent_std"]) == len(quality["latent_std"]):
        moved = [
            abs(a - b) / s
            for a, b, s in zip(
                quality["latent_mean"], home["latent_mean"], home["latent_std"], strict=True
            )
        ]
        ratios = [
            a / b for a, b in zip(quality["latent_std"], home["latent_std"], strict=True) if b
        ]
        line += (
            f"; latent means moved by up to {max(moved):.2g} deviations, deviations "
            f"{min(ratios):.2g} to {max(ratios):.2g} times"
        )
    return line
