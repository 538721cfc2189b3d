"""A run's autoencoder: made or taken from a folder, standardised, judged and kept."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor

from monge import autoencoders
from monge.autoencoders import (
    AutoencoderModule,
    Standardised,
    psnr,
    reconstruct,
    standardise,
)
from monge.autoencoders.base import size_of
from monge.autoencoders.pca import PCASpec
from monge.components import FAMILIES, build
from monge.data import latents as latent_data
from monge.data.base import Data
from monge.errors import UserError
from monge.files import write_json
from monge.runs import folder as folders
from monge.runs import images
from monge.runs.spec import TrainSpec
from monge.training import checkpoint
from monge.training.loop import LoopSpec, fit

Say = Callable[[str], None]
"""Where progress notes go, a line each."""


def quiet(_: str) -> None:
    """Say nothing."""


def is_main() -> bool:
    """Whether this is the process that writes: the only one, or the first of several."""
    return int(os.environ.get("RANK", 0)) == 0


def is_folder(autoencoder: str) -> bool:
    """Whether a setting names a folder rather than a component."""
    return autoencoder.partition(":")[0] not in FAMILIES["autoencoder"] and (
        Path(autoencoder).is_dir()
    )


def autoencoder_from(folder: Path, data: Data) -> AutoencoderModule:
    """The bare autoencoder that another run, or `monge autoencoder`, has left in a folder.

    Raises:
        UserError: none there, or one for data of another shape.
    """
    inner = folder / "autoencoder"
    loaded = autoencoders.load(inner if inner.is_dir() else folder)
    bare = loaded.autoencoder if isinstance(loaded, Standardised) else loaded
    if tuple(bare.data_shape) != data.shape:
        raise UserError(
            f"the autoencoder in {folder} takes data of shape {tuple(bare.data_shape)}; "
            f"{data.name} has {data.shape}"
        )
    return bare


def prepare_autoencoder(
    spec: TrainSpec, data: Data, folder: Path, device: torch.device, say: Say
) -> Standardised:
    """The run's own standardised autoencoder: loaded, or made and saved with its quality."""
    home = folder / "autoencoder"
    if (home / autoencoders.SETTINGS).exists():
        loaded = autoencoders.load(home)
        assert isinstance(loaded, Standardised)
        return loaded.to(device).eval()
    start = time.monotonic()
    bare = _bare_autoencoder(spec, data, home, device, say)
    if spec.network == "exact":
        shape = autoencoders.statistics_shape(bare.latent_shape)
        wrapped = Standardised(bare, torch.zeros(shape), torch.ones(shape), data.train[:4])
    else:
        wrapped = standardise(bare.cpu(), data.train)
    if wrapped.constant:
        say(f"latent coordinates that never vary, left unscaled: {wrapped.constant}")
    wrapped = wrapped.to(device).eval()
    if is_main():
        _keep(wrapped, data, folder, device, time.monotonic() - start, say)
    PartialState().wait_for_everyone()
    return wrapped


def _bare_autoencoder(
    spec: TrainSpec, data: Data, home: Path, device: torch.device, say: Say
) -> Any:
    """A trained autoencoder without statistics: from a folder, fitted, or trained now."""
    if is_folder(spec.autoencoder):
        return autoencoder_from(Path(spec.autoencoder), data)
    component = build("autoencoder", spec.autoencoder)
    bare = component.build(data.shape)
    if hasattr(bare, "fit"):
        bare.fit(data.train)
    if component.trainable:
        say(f"training the autoencoder {component!r} for {spec.autoencoder_steps} steps")
        batches = latent_data.DataBatches(data.train, component.draw, component.batch, spec.seed)
        loop = LoopSpec(
            steps=spec.autoencoder_steps,
            lr=component.lr,
            ema=0.99,
            seed=spec.seed,
            device=spec.device,
            log_every=spec.log_every,
        )
        bare = fit(bare, component.loss, batches, loop, folder=home, quiet=say is quiet).ema
    return bare.eval()


def _keep(
    wrapped: Standardised,
    data: Data,
    folder: Path,
    device: torch.device,
    seconds: float,
    say: Say,
) -> None:
    """Save an autoencoder with its quality; the settings file, written last, says it is whole."""
    home = folder / "autoencoder"
    quality = reconstruction_quality(wrapped, data, device)
    write_json(home / "quality.json", quality)
    if data.kind == "image":
        shown = data.heldout[:16]
        images.save_png(
            images.reconstruction_grid(
                shown, reconstruct(wrapped, shown.to(device)).detach().cpu()
            ),
            home / "reconstructions.png",
            {"run": folder.name},
        )
    autoencoders.save(wrapped, home)
    # What its training left is of no more use: the autoencoder itself is kept above.
    shutil.rmtree(home / checkpoint.STATE, ignore_errors=True)
    for name in checkpoint.TOP_LEVEL:
        (home / f"{name}.safetensors").unlink(missing_ok=True)
    folders.add_costs(
        folder,
        autoencoder_s=seconds,
        autoencoder_parameters=sum(p.numel() for p in wrapped.parameters()),
    )
    say(describe_quality(quality))


@torch.no_grad()
def reconstruction_quality(
    autoencoder: Standardised, data: Data, device: torch.device
) -> dict[str, Any]:
    """How well held-out data is reconstructed, beside PCA with as many numbers."""

    def rebuilt(model: Any, where: torch.device | str) -> Tensor:
        chunks = data.heldout.split(256)
        return torch.cat([reconstruct(model, part.to(where)).cpu() for part in chunks])

    numbers = size_of(autoencoder.latent_shape)
    decoded = rebuilt(autoencoder, device)
    image = data.kind == "image"
    quality: dict[str, Any] = {
        "kind": repr(autoencoder.autoencoder.spec),
        "latent_shape": list(autoencoder.latent_shape),
        "numbers": numbers,
        "data_numbers": size_of(data.shape),
        "rmse": float((decoded - data.heldout).square().mean().sqrt()),
        "psnr_db": float(psnr(decoded, data.heldout).mean()) if image else None,
        "pca_psnr_db": None,
        "n": len(data.heldout),
    }
    if image and numbers < min(size_of(data.shape), len(data.train)):
        pca = PCASpec(dim=numbers).build(data.shape)
        pca.fit(data.train)
        quality["pca_psnr_db"] = float(psnr(rebuilt(pca, "cpu"), data.heldout).mean())
    return quality


def describe_quality(quality: dict[str, Any]) -> str:
    """One line on the autoencoder."""
    line = f"autoencoder {quality['kind']}: latent {tuple(quality['latent_shape'])}"
    line += f", held-out RMSE {quality['rmse']:.4f}"
    if quality["psnr_db"] is not None:
        line += f", {quality['psnr_db']:.2f} dB"
    if quality["pca_psnr_db"] is not None:
        line += f" (PCA with as many numbers {quality['pca_psnr_db']:.2f} dB)"
        if quality["pca_psnr_db"] > quality["psnr_db"]:
            line += " - WARNING: worse than PCA; train it longer (--autoencoder-steps)"
    return line
