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
from monge.system import schema
from monge.system.files import read_json, write_atomic, write_json
from monge.system.weights import require_fit, shapes_of

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

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}
"""In which an autoencoder computes, by the names that its settings have."""

SIDES = schema.listed(schema.whole(1, 2**24), 1, 3)

SCHEMA = schema.fields(
    {
        "format_version": schema.whole(1),
        "autoencoder": schema.text,
        "data_shape": SIDES,
        "latent_shape": SIDES,
        "standardised": schema.truth,
        "reference_items": schema.whole(0, 1024),
        "dtype": schema.one_of(*DTYPES),
    },
    {"architecture": schema.maybe(schema.fields({}))},
)
"""What the settings hold."""


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
    settings = read_settings(folder / SETTINGS)
    spec: AutoencoderSpec = build("autoencoder", settings["autoencoder"])
    data_shape, latent_shape = tuple(settings["data_shape"]), tuple(settings["latent_shape"])
    items, architecture, curves = settings["reference_items"], settings.get("architecture"), None
    known = shapes_of(folder / TENSORS)
    if settings["standardised"] and known.get("reference") != (items, *data_shape):
        raise UserError(
            f"{folder / TENSORS} does not fit {SETTINGS} beside it: the reference has shape "
            f"{known.get('reference')}, not {(items, *data_shape)}; put the files back"
        )
    where = f"the autoencoder {settings['autoencoder']} of {folder / SETTINGS}"
    if isinstance(architecture, dict) and marginals.KEY in architecture:
        schema.check(architecture, BENT, where)
        curves, architecture = architecture[marginals.KEY], architecture["inner"]

    def rebuilt() -> AutoencoderModule:
        inner = spec.rebuild(data_shape, latent_shape, architecture)
        return inner if curves is None else marginals.WithMarginals(inner, curves)

    require_fit(rebuilt, folder / TENSORS, where)
    autoencoder = rebuilt()
    if settings["standardised"]:
        shape = statistics_shape(autoencoder.latent_shape)
        reference = torch.zeros(items, *autoencoder.data_shape)
        autoencoder = Standardised(autoencoder, torch.zeros(shape), torch.ones(shape), reference)
    autoencoder = autoencoder.to(DTYPES[settings["dtype"]]).eval()
    try:
        autoencoder.load_state_dict(load_file(folder / TENSORS))
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot read {folder / TENSORS}: {error}") from error
    except RuntimeError as error:
        raise UserError(f"{folder / TENSORS} does not fit {SETTINGS} beside it: {error}") from error
    if isinstance(autoencoder, Standardised):
        autoencoder.check()
    return autoencoder


BENT = schema.fields(
    {
        marginals.KEY: schema.listed(
            schema.maybe(
                schema.fields(
                    {
                        "u": schema.listed(schema.number(), 2),
                        "x": schema.listed(schema.number(), 2),
                        "low": schema.maybe(schema.number()),
                        "high": schema.maybe(schema.number()),
                    }
                )
            ),
            1,
        ),
        "inner": schema.anything,
    }
)
"""The architecture of an autoencoder behind bent columns."""


def read_settings(file: Path) -> dict[str, Any]:
    """The settings that `save` has written.

    Raises:
        UserError: missing, damaged, or of a newer format.
    """
    settings = read_json(file)
    version = settings.get("format_version") if isinstance(settings, dict) else None
    if type(version) is not int:
        raise UserError(f"{file} is not an autoencoder's settings: it has no format_version")
    if version > FORMAT_VERSION:
        raise UserError(
            f"{file} has format {version}; this monge reads up to {FORMAT_VERSION}: upgrade monge"
        )
    schema.check(settings, SCHEMA, str(file))
    return settings


def _floats(module: torch.nn.Module) -> list[torch.Tensor]:
    return [t for t in module.state_dict().values() if t.is_floating_point()]


def __dir__() -> list[str]:
    return __all__
