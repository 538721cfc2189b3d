"""Runs that are conditioned on any columns of their table: what they need, and their masks."""

from __future__ import annotations

import torch
from torch import Tensor

from monge.data.base import Data
from monge.data.columns import gaps
from monge.data.columns.schema import TableCodec
from monge.errors import UserError
from monge.objectives.column_masks import ColumnMasks
from monge.runs.spec import TrainSpec


def check_any_columns(spec: TrainSpec, data: Data) -> None:
    """Refuse a run conditioned on any columns that cannot be one.

    Raises:
        UserError: data without columns, or settings that do not fit; names them.
    """
    flag = "--conditional any"
    if data.codec is None:
        raise UserError(f"{flag} is for tables with named columns, not for {data.name}")
    if data.train_label is not None or data.train_vector is not None:
        raise UserError(
            f"with {flag} every column can be given when sampling: leave out --label-column and "
            "--condition-columns"
        )
    if spec.objective != "flow_matching":
        raise UserError(
            f"a run of {flag} is trained by objective flow_matching alone: no flow map, chain or "
            f"distilled run knows columns yet, and {spec.objective.partition(':')[0]} is one"
        )
    wanted = {"output": "velocity", "network": "mlp", "coupling": "independent",
              "autoencoder": "identity"}  # fmt: skip
    for name, value in wanted.items():
        if (given := getattr(spec, name)).partition(":")[0] != value:
            raise UserError(f"{flag} needs --{name} {value}, not {given}")
    if len(columns := masks_of(data.codec).units) < 2:
        raise UserError(f"{flag} needs at least two columns that vary, not {len(columns)}")


def masks_of(codec: TableCodec) -> ColumnMasks:
    """The masks of a table's learned columns."""
    units: list[tuple[int, ...]] = []
    implied: list[tuple[int, int]] = []
    at = 0
    for c in codec.columns:
        if c.size == 0:
            continue
        units.append(tuple(range(at, at + c.value_size)))
        if c.gaps:
            implied.append((len(units) - 1, len(units)))
            units.append((at + c.value_size,))
        at += c.size
    return ColumnMasks(tuple(units), tuple(implied))


def hidden_of(data: Data) -> Tensor | None:
    """Coordinates (N, D) of the training rows' missing values; None without gaps."""
    assert data.codec is not None
    if not any(c.gaps for c in data.codec.columns):
        return None
    hidden = torch.zeros(data.train.shape, dtype=torch.bool)
    at = 0
    for c in data.codec.columns:
        if c.gaps:
            score = data.train[:][:, at + c.value_size].double().numpy()
            missing = torch.from_numpy(gaps.are_missing(score))
            hidden[:, at : at + c.value_size] = missing[:, None]
        at += c.size
    return hidden
