"""Completes a specification for its data, and refuses impossible settings."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import torch

from monge import autoencoders
from monge.components import FAMILIES, build
from monge.data.base import FEW, Data
from monge.errors import UserError, nearest
from monge.fitting.any_columns import check_any_columns
from monge.fitting.autoencoding import (
    autoencoder_from,
    is_folder,
)
from monge.fitting.objective import loop_spec
from monge.fitting.trial import built_autoencoder, try_parts, try_training
from monge.learned import kind_of
from monge.runs import folder as folders
from monge.runs.folder import read_config
from monge.runs.restore import pick_device
from monge.runs.spec import TrainSpec, plain_source
from monge.sampling.facts import n_vector_of
from monge.system import own_code
from monge.training import journal

DEFAULT_STEPS = 5000
"""Training steps if neither steps nor minutes are given."""

FEW_DROPOUT = "dropout=0.2"
"""Network settings for few training examples. Colour images then also get mirror images."""


def resolve(spec: TrainSpec, data: Data, folder: Path | None = None) -> TrainSpec:
    """The specification with every "auto" decided for the data, its components in short texts.

    Args:
        folder: of the run, if known; see `check`.
    """
    try_parts(spec, data)
    image, few = data.kind == "image", len(data.train) < FEW
    changes: dict[str, Any] = {"data": plain_source(spec.data)}
    if spec.steps is None and spec.minutes is None:
        changes["steps"] = DEFAULT_STEPS
    if spec.network == "auto" and spec.init_from is not None:
        changes["network"] = read_config(Path(spec.init_from)).network
    if spec.autoencoder == "auto" and spec.init_from is not None:
        changes["autoencoder"] = spec.init_from
    elif spec.autoencoder == "auto":
        changes["autoencoder"] = _default_conv(data) if image else "identity"
    kind = kind_of(spec.objective)
    if spec.network == "auto" and spec.init_from is None:
        shape = _latent_shape(dataclasses.replace(spec, **changes), data, folder)
        changes["network"] = kind.default_network(_default_network(shape), FEW_DROPOUT * few)
    changes["network"] = for_kind(changes.get("network", spec.network), spec)
    if spec.grid == "auto":
        changes["grid"] = f"uniform:n={kind.default_steps}"
    if spec.flip == "auto":
        # Grey images are often digits and letters, whose mirror images have another meaning.
        changes["flip"] = "yes" if image and few and data.shape[0] == 3 else "no"
    if spec.flip == "yes" and not image:
        raise UserError("flip is for images: leave it out")
    if spec.network == "exact" and data.target is None:
        raise UserError("network exact needs a known target: monge train target:mixture:...")
    if spec.network == "exact" and changes.get("autoencoder", spec.autoencoder) != "identity":
        raise UserError("network exact works in data space: use --autoencoder identity")
    return folders.in_short(dataclasses.replace(spec, **changes))


def for_kind(network: str, spec: TrainSpec) -> str:
    """The network with the settings that the kind of model needs."""
    component = build("network", network)
    wanted = kind_of(spec.objective).network_of(component, spec)
    return network if wanted == component else repr(wanted)


def _default_network(latent_shape: tuple[int, ...]) -> str:
    """A transformer for grids; large grids get at most one token per four cells.

    On a CPU, in equal time, sixteen tokens learn far more than sixty-four (docs/log.md).
    """
    if len(latent_shape) != 3:
        return "mlp"
    sides = latent_shape[1:]
    halved = min(sides) >= 8 and all(side % 2 == 0 for side in sides)
    return "transformer:patch=2" if halved else "transformer"


def _default_conv(data: Data) -> str:
    """The default conv autoencoder: a latent grid of about 8 x 8 with even sides, by padding."""
    sides = data.shape[1:]
    grids = {down: -(-min(sides) // (2 * down)) * 2 for down in (1, 2, 4, 8)}
    down = max(d for d, grid in grids.items() if d == 1 or grid >= (4 if d == 2 else 8))
    padded = any(side % (2 * down) for side in sides)
    return f"conv:down={down},channels=4" + ",multiple=2" * padded


def check(spec: TrainSpec, data: Data, folder: Path | None = None) -> None:
    """Refuse settings that would fail later, before anything is written.

    A run with its autoencoder in its folder continues without the autoencoder's source.

    Raises:
        UserError: settings that contradict each other or the data.
    """
    kind_of(spec.objective).check(spec, spec.teacher is not None)
    if spec.conditional == "any":
        check_any_columns(spec, data)
    for name in ("batch", "autoencoder_steps"):
        if (value := getattr(spec, name)) is not None and value < 1:
            raise UserError(f"{name} must be greater than 0, not {getattr(spec, name)}")
    for name, value in dataclasses.asdict(spec).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{name} must be a finite number, not {value}")
    for name in ("seed", "weight_decay"):
        if getattr(spec, name) < 0:
            raise UserError(f"{name} must not be negative, not {getattr(spec, name)}")
    if spec.precision == "bf16" and pick_device(spec.device).type != "cuda":
        raise UserError("precision bf16 needs a CUDA device: use --precision auto or float32")
    loop_spec(spec).check()
    if spec.tensorboard:
        journal.board_class()
    build("solver", spec.solver)
    build("grid", spec.grid)
    shape = _latent_shape(spec, data, folder)
    try_training(spec, data, shape)
    # A network of the user's own may know no meta device; it was built above.
    if spec.network != "exact" and not own_code.is_own(spec.network):
        with torch.device("meta"):  # shapes only, without memory
            component = build("network", spec.network)
            component.build(shape, len(data.label_names) or None, n_vector_of(data))


def _latent_shape(spec: TrainSpec, data: Data, folder: Path | None) -> tuple[int, ...]:
    """The latent shape of the specification's autoencoder on the data."""
    try:
        return _built_shape(spec, data)
    except UserError:
        kept = folder / "autoencoder" / autoencoders.SETTINGS if folder else None
        if kept is None or not kept.exists():
            raise
        settings = autoencoders.read_settings(kept)
        if tuple(settings["data_shape"]) != data.shape:
            raise
        return tuple(settings["latent_shape"])


def _built_shape(spec: TrainSpec, data: Data) -> tuple[int, ...]:
    name = spec.autoencoder.partition(":")[0]
    if is_folder(spec.autoencoder):
        return autoencoder_from(Path(spec.autoencoder), data).latent_shape
    if name not in FAMILIES["autoencoder"] and not own_code.is_own(spec.autoencoder):
        hint = nearest(name, FAMILIES["autoencoder"])
        raise UserError(f"autoencoder {spec.autoencoder!r} is no folder and no component: {hint}")
    return built_autoencoder(build("autoencoder", spec.autoencoder), data.shape).latent_shape
