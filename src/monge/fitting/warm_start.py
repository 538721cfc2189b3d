"""Initialises a network with another run's weights, also for other labels or image sizes.

Weights are matched by name. Rows of the label table are matched by the names of the labels;
positions of an image grid are interpolated. Tensors that do not fit keep their random values, and
are listed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from monge import autoencoders
from monge.errors import UserError
from monge.networks.transformer import resize_positions
from monge.runs.folder import read_config
from monge.runs.restore import build_network, read_facts
from monge.system.progress import Say

LABELS = "conditioning.label.weight"
POSITIONS = "positions"
ABSENT = " (not there)"


def initialise(
    network: nn.Module, run: Path, label_names: Sequence[str], say: Say, *, needed: bool = True
) -> list[str]:
    """Copy the averaged weights of a trained run to a new network; returns tensors not copied.

    Args:
        network: of the new run, with random weights.
        run: folder of the trained run.
        label_names: of the new run.
        say: receives notes on the copied tensors and on each one not copied.
        needed: refuse a run without any fitting tensor; else the network stays random.

    Raises:
        UserError: no trained run there, or a run without any fitting tensor.
    """
    file = run / "ema.safetensors"
    try:
        theirs = load_file(file)
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot start from {run}: {file.name} cannot be read: {error}") from None
    known = list(read_facts(run).label_names)
    grid = _grid_of(run)
    ours = network.state_dict()
    left, adapted = [], []
    for name, tensor in ours.items():
        found = theirs.get(name)
        if found is None:
            left.append(f"{name}{ABSENT}")
        elif name == LABELS:
            rows, missing = _label_rows(tensor, found, label_names, known)
            ours[name] = rows
            adapted.append(f"{name}: {len(label_names) - len(missing)} labels by name")
            left += [f"{name} of label {label!r}" for label in missing]
        elif found.shape == tensor.shape:
            ours[name] = found.to(tensor)
        elif name == POSITIONS and grid is not None and found.shape[1] == tensor.shape[1]:
            ours[name] = resize_positions(found, grid, network.grid).to(tensor)  # type: ignore
            adapted.append(f"{name}: interpolated from {grid} to {network.grid}")
        else:
            left.append(f"{name} ({tuple(found.shape)} there, {tuple(tensor.shape)} here)")
    taken = len(ours) - len({entry.partition(" ")[0] for entry in left})
    if taken == 0 and needed:
        raise UserError(
            f"the network of {run} ({read_config(run).network}) has nothing in common with this "
            "one: give the same --network, or leave out --init-from"
        )
    if taken == 0:
        say(f"network: new weights, as it has nothing in common with that of {run}")
        return left
    network.load_state_dict(ours)
    say(f"network: {taken} of {len(ours)} tensors from {run}")
    for line in adapted:
        say(f"  {line}")
    _say_left(left, sorted(theirs.keys() - ours.keys()), say)
    return left


def _say_left(left: Sequence[str], unused: Sequence[str], say: Say) -> None:
    """Print the tensors of the new network that stay random, and the unused ones of the old."""
    new = [name.removesuffix(ABSENT) for name in left if name.endswith(ABSENT)]
    for name in (name for name in left if not name.endswith(ABSENT)):
        say(f"  not loaded: {name}")
    for what, names in (("new here", new), ("not needed", unused)):
        if names:
            parts = dict.fromkeys(name.rpartition(".")[0] or name for name in names)
            say(f"  {what}: {', '.join(parts)}")


def _label_rows(
    ours: Tensor, theirs: Tensor, names: Sequence[str], known: Sequence[str]
) -> tuple[Tensor, list[str]]:
    """A label table with the rows of shared labels and the null row copied from another."""
    rows = ours.clone()
    if ours.shape[1] != theirs.shape[1]:
        return rows, list(names)
    missing = []
    for k, name in enumerate(names):
        if name in known:
            rows[k] = theirs[known.index(name)].to(rows)
        else:
            missing.append(name)
    rows[-1] = theirs[-1].to(rows)
    return rows, missing


def _grid_of(run: Path) -> tuple[int, ...] | None:
    """The grid of tokens of a run's network, if it has one."""
    shape = autoencoders.read_settings(run / "autoencoder" / "autoencoder.json")["latent_shape"]
    with torch.device("meta"):
        network = build_network(read_config(run), tuple(shape), read_facts(run))
    return getattr(network, "grid", None)
