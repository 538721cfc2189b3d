"""Restores the parts of a run: device, facts of the data, network and weights."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from monge.components import build
from monge.data.columns import schema
from monge.data.columns.schema import TableCodec
from monge.errors import UserError
from monge.learned import Learned, kind_of
from monge.networks.exact import ExactNetwork
from monge.networks.known_columns import KnownColumns, vector_size
from monge.runs import schemas
from monge.runs.layout import CHAIN, DATA
from monge.runs.spec import TrainSpec
from monge.sampling.facts import DataFacts
from monge.system.files import read_json
from monge.tensors import stream


def set_threads(threads: int | None) -> None:
    """Use this many CPU threads; None leaves torch's choice.

    Raises:
        UserError: fewer than one.
    """
    if threads is None:
        return
    if threads < 1:
        raise UserError(f"threads must be at least 1, not {threads}")
    torch.set_num_threads(threads)


def pick_device(device: str) -> torch.device:
    """The device that a text names; "auto" takes the best available."""
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        where = torch.device(device)
        torch.empty(0, device=where)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"device {device!r} is not available: {reason}") from None
    return where


def read_facts(folder: Path) -> DataFacts:
    """The facts of a run's data.

    Raises:
        UserError: a damaged file.
    """
    chain = schemas.read_if_there(folder, CHAIN) or {}
    found = DataFacts.from_json({**schemas.read(folder, DATA), **chain})
    names, counts = len(found.label_names), len(found.label_counts)
    if names != counts or (names and not sum(found.label_counts)):
        raise UserError(
            f"{folder / DATA} is damaged: it has {names} label_names and {counts} label_counts, of "
            f"{sum(found.label_counts)} examples; {schemas.AGAIN}"
        )
    return found


def build_network(spec: TrainSpec, shape: tuple[int, ...], facts: DataFacts) -> nn.Module:
    """The untrained network of a run, or the exact network of a known target."""
    component = build("network", spec.network)
    if spec.network == "exact":
        _, _, target = facts.text.partition(":") if facts.text else ("", "", "")
        if not target:
            raise UserError("network exact needs a known target: monge train target:mixture:...")
        return ExactNetwork(build("target", target).build(), build("path", spec.path), spec.output)
    n_classes = len(facts.label_names) or None
    knows = spec.conditional == "any"
    n_vector = vector_size(shape) if knows else facts.n_vector

    def make() -> nn.Module:
        made = component.build(shape, n_classes, n_vector, stream(spec.seed, "weights"))
        return KnownColumns(made) if knows else made

    return kind_of(spec.objective).build(make, facts.learned)


def learned_of(
    spec: TrainSpec,
    network: nn.Module,
    facts: DataFacts,
    teacher: Callable[[], Learned] | None = None,
) -> Learned:
    """The learned model of a run, of the kind that its objective trains."""
    conditional = bool(facts.label_names or facts.n_vector)
    kind = kind_of(spec.objective)
    return kind.restored(network, spec, facts.learned, conditional, teacher)


def codec_of(folder: Path) -> TableCodec | None:
    """The codec of a run's table; None for other data."""
    path = folder / schema.FILE
    return TableCodec.from_json(read_json(path), str(path)) if path.exists() else None


def load_weights(network: nn.Module, file: Path) -> None:
    """Load weights strictly.

    Raises:
        UserError: missing, unexpected or misshapen tensors, by name.
    """
    from safetensors import SafetensorError

    try:
        found = load_file(file)
        if wrong := [name for name, t in found.items() if not bool(t.isfinite().all())]:
            raise UserError(
                f"{file} holds numbers that are not finite, in {', '.join(wrong[:3])}"
                f"{', ...' * (len(wrong) > 3)}: the run has diverged or the file is damaged; train "
                "it again, or put the file back"
            )
        network.load_state_dict(found)
    except (SafetensorError, OSError) as error:
        raise UserError(f"cannot read {file}: {error}") from None
    except RuntimeError as error:
        raise UserError(f"{file} does not fit the network: {error}") from None
