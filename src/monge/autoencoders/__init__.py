"""Autoencoders: data to latents and back, and the files they are kept in.

A folder holds ``autoencoder.safetensors`` (weights, and statistics where it is standardised) and
``autoencoder.json`` (format version, component text, shapes, and the architecture where the
settings alone do not tell it, with the curves of a table's columns). Nothing else is needed to
load it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes

from monge.autoencoders import marginals
from monge.autoencoders.base import AutoencoderModule, AutoencoderSpec, psnr, reconstruct
from monge.autoencoders.standardised import (
    N_REFERENCE,
    Standardised,
    standardise,
    statistics,
    statistics_shape,
)
from monge.components import build
from monge.errors import UserError
from monge.system.files import read_json, write_atomic, write_json

__all__ = [
    "N_REFERENCE",
    "AutoencoderModule",
    "AutoencoderSpec",
    "Standardised",
    "load",
    "psnr",
    "reconstruct",
    "save",
    "standardise",
    "statistics",
    "statistics_shape",
]

FORMAT_VERSION = 1
TENSORS, SETTINGS = "autoencoder.safetensors", "autoencoder.json"


def save(autoencoder: AutoencoderModule | Standardised, folder: Path | str) -> None:
    """Writes an autoencoder into a folder, which is made if need be.

    Each file is written atomically, the settings last: where they are, the weights are whole.

    Raises:
        UserError: the folder cannot be written to.
    """
    folder = Path(folder)
    wrapped = isinstance(autoencoder, Standardised)
    bare = autoencoder.autoencoder if wrapped else autoencoder
    settings = {
        "format_version": FORMAT_VERSION,
        "autoencoder": bare.spec.in_full,
        "data_shape": list(bare.data_shape),
        "latent_shape": list(bare.latent_shape),
        "standardised": wrapped,
        "reference_items": len(autoencoder.reference) if wrapped else 0,
        "dtype": str(next(iter(_floats(autoencoder)), torch.empty(0)).dtype).removeprefix("torch."),
    }
    if bare.architecture is not None:
        settings["architecture"] = bare.architecture
    tensors = {name: t.detach().cpu().contiguous() for name, t in autoencoder.state_dict().items()}
    write_atomic(folder / TENSORS, to_bytes(tensors))
    write_json(folder / SETTINGS, settings)


def load(folder: Path | str) -> AutoencoderModule | Standardised:
    """Reads an autoencoder that `save` has written, on CPU, in evaluation mode.

    Raises:
        UserError: missing or damaged files, a newer format, weights that do not fit, or, where it
            is standardised, an autoencoder that has changed (`Standardised.check`).
    """
    folder = Path(folder)
    settings = _read_settings(folder / SETTINGS)
    spec: AutoencoderSpec = build("autoencoder", settings["autoencoder"])
    data_shape, latent_shape = tuple(settings["data_shape"]), tuple(settings["latent_shape"])
    architecture = settings.get("architecture")
    curves = None
    if isinstance(architecture, dict) and marginals.KEY in architecture:
        curves, architecture = architecture[marginals.KEY], architecture["inner"]
    autoencoder = spec.rebuild(data_shape, latent_shape, architecture)
    if curves is not None:
        autoencoder = marginals.WithMarginals(autoencoder, curves)
    if settings["standardised"]:
        shape = statistics_shape(autoencoder.latent_shape)
        reference = torch.zeros(settings["reference_items"], *autoencoder.data_shape)
        autoencoder = Standardised(autoencoder, torch.zeros(shape), torch.ones(shape), reference)
    autoencoder = autoencoder.to(getattr(torch, settings["dtype"])).eval()
    try:
        autoencoder.load_state_dict(load_file(folder / TENSORS))
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot read {folder / TENSORS}: {error}") from error
    except RuntimeError as error:
        raise UserError(f"{folder / TENSORS} does not fit {SETTINGS} beside it: {error}") from error
    if isinstance(autoencoder, Standardised):
        autoencoder.check()
    return autoencoder


def _read_settings(file: Path) -> dict[str, Any]:
    settings = read_json(file)
    version = settings.get("format_version") if isinstance(settings, dict) else None
    if not isinstance(version, int):
        raise UserError(f"{file} is not an autoencoder's settings: it has no format_version")
    if version > FORMAT_VERSION:
        raise UserError(
            f"{file} has format {version}; this monge reads up to {FORMAT_VERSION}: upgrade monge"
        )
    known = ("autoencoder", "data_shape", "latent_shape", "standardised", "reference_items")
    missing = [key for key in (*known, "dtype") if key not in settings]
    if missing:
        raise UserError(f"{file} lacks {', '.join(missing)}: it is damaged")
    return settings


def _floats(module: torch.nn.Module) -> list[torch.Tensor]:
    return [t for t in module.state_dict().values() if t.is_floating_point()]


def __dir__() -> list[str]:
    return __all__
