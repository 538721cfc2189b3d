"""Samples of all columns given some, with a model that was trained on any of them."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa
import torch
from torch import Tensor, nn

from monge.data.columns import arrow
from monge.data.columns.arrow import compute
from monge.data.columns.known import known_coordinates, learned_names, require_learned
from monge.data.columns.schema import TableCodec
from monge.data.tables.parsed_cells import parsed
from monge.errors import UserError
from monge.networks.known_columns import KnownColumns
from monge.objectives.column_masks import KNOWN

GIVEN = "given"
"""Name of the rows of known coordinates, in the columns' units, NaN for unknown ones."""


@runtime_checkable
class Model(Protocol):
    """A model in memory; see `model.GenerativeModel`."""

    autoencoder: Any
    codec: TableCodec | None
    device: torch.device

    @property
    def network(self) -> nn.Module: ...
    @property
    def dtype(self) -> torch.dtype: ...


@dataclass(frozen=True)
class Given:
    """The known cells of n samples.

    Attributes:
        coordinates: (n, D), NaN for unknown ones.
        table: the known columns with their exact values, null for unknown ones; None if only the
            coordinates are given.
    """

    coordinates: Tensor
    table: pa.Table | None = None

    @property
    def rows(self) -> dict[str, Tensor]:
        """The coordinates as named rows, of which `latents_of_known` makes the condition."""
        return {GIVEN: self.coordinates}

    def exact(self, drawn: pa.Table) -> pa.Table:
        """Samples with the known cells as they were given, which float32 may have rounded."""
        for name, column in () if self.table is None else _named(self.table):
            at, field = drawn.column_names.index(name), drawn.schema.field(name)
            known = column.cast(arrow.plain_type(field.type))
            if known.null_count == len(known) or pa.types.is_dictionary(field.type):
                continue
            column = compute.if_else(known.is_valid(), known, drawn[name])
            drawn = drawn.set_column(at, field, column)
        return drawn


def _named(table: pa.Table) -> Iterator[tuple[str, pa.ChunkedArray]]:
    return zip(table.column_names, table.columns, strict=True)


def given_cells(condition: Any, codec: TableCodec, n: int) -> Given:
    """The known cells of n samples.

    Args:
        condition: "age=40,sex=F" or a mapping from columns to values, for all samples; or a table
            with a row for each sample, null for an unknown value. The text "age=" and the value
            None mean a missing value. Known coordinates (n, D) are taken as they are.

    Raises:
        UserError: unknown columns, or values that the table does not have.
    """
    if isinstance(condition, Tensor) and tuple(condition.shape) == (n, codec.size):
        return Given(condition)
    if isinstance(condition, str):
        condition = _parts(condition)
    if isinstance(condition, Mapping):
        if not condition:
            raise UserError("the condition is empty: give column=value, or leave it out")
        return _of_mapping(condition, codec, n)
    if not hasattr(condition, "__arrow_c_stream__"):
        raise UserError(
            'the condition should be a text "column=value,..", a mapping or a table, not '
            f"{type(condition).__name__}"
        )
    table = pa.table(condition)
    require_learned(codec, table.column_names)
    if table.num_rows != n:
        raise UserError(f"the condition has {table.num_rows} rows for {n} samples")
    return Given(known_coordinates(codec, table), table)


def _of_mapping(condition: Mapping[str, Any], codec: TableCodec, n: int) -> Given:
    require_learned(codec, list(condition))
    with_gaps = {c.name for c in codec.columns if c.gaps}
    columns, missing = {}, []
    for name, value in condition.items():
        text = None if value is None or value == "" else str(value)
        array = parsed([text], codec.schema.field(name))
        if array.null_count:
            if name not in with_gaps:
                raise UserError(
                    f"column {name!r} has no missing values that were learned (--missing model): "
                    "give a value"
                )
            missing.append(name)
        columns[name] = array.take(pa.array([0] * n))
    table = pa.table(columns)
    return Given(known_coordinates(codec, table, missing=missing), table)


def _parts(text: str) -> dict[str, str]:
    """'age=40,"b,c"=x' as names and texts; quotes surround the whole part."""
    found: dict[str, str] = {}
    for part in next(csv.reader([text], skipinitialspace=True), []):
        name, equals, value = part.partition("=")
        if not equals:
            raise UserError(f"condition {part!r} should have the form column=value")
        if name.strip() in found:
            raise UserError(f"column {name.strip()!r} is given twice")
        found[name.strip()] = value.strip()
    return found


def refuse_columns(codec: TableCodec | None) -> UserError:
    """The refusal of a condition by a model that was not trained on any columns."""
    if codec is None or not learned_names(codec):
        return UserError("this run has no condition columns: leave out the condition")
    return UserError(
        "this run cannot be conditioned on its columns: train with --conditional any for a "
        "condition on any of them, or with --condition-columns for a condition on numbers that are "
        "always given"
    )


def given_to(model: Model, n: int, condition: Any) -> Given | None:
    """The known cells of n samples; None if there are none, or the model takes no columns."""
    if not knows_columns(model) or model.codec is None or condition is None:
        return None
    return given_cells(condition, model.codec, n)


def knows_columns(model: Model) -> bool:
    """Whether a model is conditioned on any columns of its table."""
    return isinstance(model.network, KnownColumns)


def latents_of_known(model: Model, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The condition ``known`` of the network, from the row ``given``, if there is one."""
    if (given := rows.get(GIVEN)) is None:
        return {}
    given = given.to(model.device)
    unknown = given.isnan()
    middle = model.autoencoder.decode(torch.zeros_like(given))
    latents = model.autoencoder.encode(torch.where(unknown, middle, given)).mean
    return {KNOWN: torch.where(unknown, torch.nan, latents.to(model.dtype))}


def put_back(x: Tensor, rows: Mapping[str, Tensor]) -> Tensor:
    """Decoded samples (n, D) with their given coordinates exactly as given."""
    given = rows.get(GIVEN)
    return x if given is None else torch.where(given.isnan(), x, given)
