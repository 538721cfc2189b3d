"""The codec of a table: converts its columns to rows of numbers and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float, Float32, Float64, Int64
from torch import Tensor

from monge.data.columns import arrow, gaps
from monge.data.columns.arrow import compute
from monge.data.columns.coordinates import Column, as_given, centred, finite, offset, uncentred
from monge.data.columns.grids import Grid
from monge.data.columns.marginals import Marginal
from monge.errors import UserError, nearest
from monge.system.schema import (
    check,
    either,
    fields,
    listed,
    maybe,
    number,
    one_of,
    text,
    truth,
    whole,
)

FORMAT_VERSION = 1

VALUE = either(text, whole(-(2**63), 2**64), number(), truth)

CONTENT = fields(
    {
        "format_version": whole(1),
        "columns": listed(
            fields(
                {
                    "name": text,
                    "role": one_of("number", "category", "label", "condition", "constant"),
                    "centre": number(),
                    "deviation": number(0),
                    "grid": maybe(
                        fields(
                            {
                                "origin": whole(-(2**63), 2**64),
                                "step": whole(1, 2**63),
                                "decimals": whole(0, 40),
                            },
                            others=None,
                        )
                    ),
                    "spread": truth,
                    "values": listed(maybe(VALUE)),
                },
            )
        ),
        "arrow_schema": text,
    }
)
"""The schema of the codec's file."""

FILE = "table.json"
"""The file's name in a run folder."""


class Encoded(NamedTuple):
    """Rows of a table as numbers: coordinates (N, D) float32 in the columns' units minus their
    centres, labels (N,) int64, and standardised conditions (N, K) float64."""

    x: Float32[Tensor, "n d"]
    label: Int64[Tensor, "n"] | None
    vector: Float64[Tensor, "n k"] | None


@dataclass(frozen=True)
class TableCodec:
    """The columns of a table, in its order, each with its Arrow type.

    A number has one coordinate, its value minus a centre, so units and densities are those of the
    table. A category has one coordinate for each of its values (one-hot). A column with gaps has
    one more, the score of its gaps; see `columns.gaps`.
    """

    columns: tuple[Column, ...] = ()
    schema: pa.Schema = field(default_factory=lambda: pa.schema([]))

    @cached_property
    def label(self) -> Column | None:
        """The column of labels."""
        return next((c for c in self.columns if c.role == "label"), None)

    @cached_property
    def conditions(self) -> tuple[Column, ...]:
        """The columns of conditions, in the order of the vector's entries."""
        return tuple(c for c in self.columns if c.role == "condition")

    @cached_property
    def categories(self) -> tuple[str, ...]:
        """Names of the learned columns that have no density: categories and columns with gaps."""
        return tuple(c.name for c in self.columns if c.role == "category" or c.gaps)

    @cached_property
    def words(self) -> tuple[str, ...]:
        """Names of the columns, except labels, that hold no plain numbers."""
        others = [f for f in self.schema if self.label is None or f.name != self.label.name]
        return tuple(f.name for f in others if not arrow.is_plain_number(f.type))

    @property
    def size(self) -> int:
        """D, the number of coordinates."""
        return sum(c.size for c in self.columns)

    @property
    def coordinate_names(self) -> list[str]:
        """A name for each coordinate: the column of a number, "column=value" of a category."""
        names = []
        for c in self.columns:
            names += [c.name] if c.role == "number" else []
            names += [f"{c.name}={v}" for v in c.values] if c.role == "category" else []
            names += [gaps.name_of(c)] if c.gaps else []
        return names

    @property
    def curves(self) -> list[dict[str, Any] | None]:
        """The curve of each coordinate from its normal score, or None."""
        found: list[dict[str, Any] | None] = []
        for c in self.columns:
            found += [c.marginal.curve if c.marginal else None] * c.value_size
            found += [None] * (c.size - c.value_size)
        return found

    # From a table to numbers

    def encode(self, table: pa.Table) -> Encoded:
        """Rows of a table with (at least) these columns as numbers.

        The noise of dequantisation depends on the row number, so equal tables give equal numbers.
        Numbers between the points of a grid are rounded to the nearest.

        Raises:
            UserError: a column is missing or of another type, or holds missing, infinite or
                unknown values.
        """
        x = np.empty((table.num_rows, self.size), np.float32)
        vectors, label, at = [], None, 0
        for c in self.columns:
            if c.role == "constant":
                continue
            column, values = self.cast(table, c), x[:, at : at + c.value_size]
            if c.role in ("category", "label"):
                index = self._index(column, c)
                if c.role == "label":
                    label = torch.from_numpy(index)
                else:
                    values[:] = index[:, None] == np.arange(c.value_size)
            else:
                numbers = finite(arrow.numbers_of(column, c.name), c.name)
                if c.role == "condition":
                    vectors.append((numbers.astype(np.float64) - c.centre) / c.deviation)
                else:
                    values[:, 0] = centred(numbers, c)
            if c.gaps:
                x[:, at + c.value_size] = gaps.scores(table[c.name], c)
            at += c.size
        vector = torch.from_numpy(np.stack(vectors, 1)) if vectors else None
        return Encoded(torch.from_numpy(x), label, vector)

    def cast(self, table: pa.Table, c: Column, holes: bool = False) -> pa.ChunkedArray:
        """A column of a table, cast to the type of the codec.

        Args:
            holes: keep missing values; else they are filled in columns with gaps, and refused in
                others.

        Raises:
            UserError: no such column, another type, or missing values.
        """
        if c.name not in table.column_names:
            raise UserError(f"no column {c.name!r}: {nearest(c.name, table.column_names)}")
        column, dtype = table[c.name], arrow.plain_type(self.schema.field(c.name).type)
        if column.null_count and not c.gaps and not holes:
            raise UserError(f"column {c.name!r} has {column.null_count} missing values")
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        try:
            column = column.cast(dtype)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise UserError(f"column {c.name!r} is {column.type}, not {dtype}: {error}") from None
        return gaps.filled(column, c) if column.null_count and not holes else column

    def _index(self, column: pa.ChunkedArray, c: Column) -> np.ndarray:
        """The number of each value among the column's categories, (N,) int64."""
        known = arrow.array_of(c.values, column.type)
        index = compute.index_in(column, value_set=known)
        if index.null_count:
            row = compute.index(compute.is_null(index), True).as_py()
            raise UserError(
                f"column {c.name!r}, row {row}: {column[row].as_py()!r} is none of its values: "
                + nearest(str(column[row].as_py()), map(str, known.to_pylist()))
            )
        return index.to_numpy().astype(np.int64)

    # From numbers to a table

    def decode(
        self,
        x: Float[Tensor, "n d"],
        label: Int64[Tensor, "n"] | None = None,
        condition: Float[Tensor, "n k"] | None = None,
        *,
        fill: bool = False,
    ) -> pa.Table:
        """Rows of numbers as a table: names, order, types, units, categories and constants.

        Args:
            x: coordinates; a category is the value of the largest one, numbers on a grid are
                rounded to it, within the type's range.
            label: indices, -1 for no label; None leaves the label column empty.
            condition: in the columns' units (see `condition_of`), float64; None likewise.
            fill: return the value in the place of a missing one, where samples have one too.

        Raises:
            UserError: coordinates that are not finite, or a wrong number of them.
        """
        if x.ndim != 2 or x.shape[1] != self.size:
            raise UserError(f"rows of this table have {self.size} numbers, not {tuple(x.shape)}")
        if not bool(x.isfinite().all()):
            bad = int((~x.isfinite().all(1)).sum())
            raise UserError(f"{bad} of {len(x)} rows hold NaN or infinite numbers")
        numbers = x.detach().cpu().double().numpy()
        at, k, made = 0, 0, []
        for c in self.columns:
            dtype = self.schema.field(c.name).type
            block, at = numbers[:, at : at + c.size], at + c.size
            nothing = pa.nulls(len(x), dtype)
            if c.role == "number":
                column = uncentred(block[:, 0], c, dtype)
            elif c.role == "condition":
                given = None if condition is None else condition[:, k].double().numpy()
                column, k = nothing if given is None else as_given(given, dtype), k + 1
            elif c.role == "label" and label is None:
                column = nothing
            else:
                if c.role == "label":
                    assert label is not None
                    index = label.numpy()
                else:
                    one_hot = block[:, : c.value_size]
                    index = one_hot.argmax(1) if c.role == "category" else np.zeros(len(x), int)
                values = arrow.array_of(c.values, arrow.plain_type(dtype))
                column = arrow.chosen(values, index, dtype)
            if c.gaps and not fill:
                column = gaps.emptied(column, gaps.are_missing(block[:, -1]))
            made.append(column)
        return pa.Table.from_arrays(made, schema=self.schema)

    def condition_of(self, vector: Float[Tensor, "n k"]) -> Float64[Tensor, "n k"]:
        """Standardised conditions converted to the columns' units; exact on a grid."""
        made = []
        for c, column in zip(self.conditions, vector.double().unbind(1), strict=True):
            numbers = column * c.deviation + c.centre
            if c.grid is not None:
                levels = c.grid.levels(numbers.numpy())
                numbers = torch.from_numpy(c.grid.values(levels, whole=False))
            made.append(numbers)
        return torch.stack(made, 1)

    def vector_of(self, condition: Float64[Tensor, "n k"]) -> Float64[Tensor, "n k"]:
        """Conditions in the columns' units, standardised."""
        centre = torch.tensor([c.centre for c in self.conditions], dtype=torch.float64)
        deviation = torch.tensor([c.deviation for c in self.conditions], dtype=torch.float64)
        return (condition - centre) / deviation

    def harden(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Coordinates with each category one-hot, as samples are decoded."""
        at, parts = 0, []
        for c in self.columns:
            part, at = x[:, at : at + c.size], at + c.size
            values, score = part[:, : c.value_size], part[:, c.value_size :]
            if c.role == "category":
                values = torch.nn.functional.one_hot(values.argmax(1), c.value_size).to(x)
            parts += [values, score]
        return torch.cat(parts, 1)

    def natural(self, x: Float[Tensor, "n d"]) -> Float64[Tensor, "n d"]:
        """Coordinates plus their centres, for pictures; not rounded."""
        offsets: list[float] = []
        for c in self.columns:
            offsets += [offset(c)] if c.role == "number" else [0.0] * c.value_size
            offsets += [0.0] * (c.size - c.value_size)
        return x.double() + torch.tensor(offsets, dtype=torch.float64)

    # To JSON and back

    def to_json(self) -> dict[str, Any]:
        """Plain values; types are written twice, for people and exactly."""
        columns = [
            {
                "dtype": str(self.schema.field(c.name).type),
                **dataclasses.asdict(c, dict_factory=_with_lists),
            }
            for c in self.columns
        ]
        schema = arrow.schema_text(self.schema)
        return {"format_version": FORMAT_VERSION, "columns": columns, "arrow_schema": schema}

    @classmethod
    def from_json(cls, content: Mapping[str, Any], where: str = FILE) -> TableCodec:
        """The codec that `to_json` wrote.

        Raises:
            UserError: the content is damaged, or of a newer format.
        """
        check(content, CONTENT, where, "train the run again")
        if (version := content["format_version"]) > FORMAT_VERSION:
            raise UserError(f"{where} has format version {version}: upgrade monge")
        try:
            names = [f.name for f in dataclasses.fields(Column)]
            columns = []
            for entry in content["columns"]:
                later = ("marginal", "gaps")  # earlier files lack them
                values = {name: entry[name] for name in names if name not in later}
                if values["grid"] is not None:
                    values["grid"] = Grid(**values["grid"])
                values["gaps"] = bool(entry.get("gaps", False))
                bent = entry.get("marginal")
                if bent is not None:
                    bent = Marginal(**{**bent, "u": tuple(bent["u"]), "x": tuple(bent["x"])})
                values["marginal"] = bent
                columns.append(Column(**{**values, "values": tuple(values["values"])}))
            types = arrow.schema_of(content["arrow_schema"])
            if types.names != [c.name for c in columns]:
                raise ValueError("columns and schema differ")
            return cls(tuple(columns), types)
        except UserError:
            raise
        except (KeyError, TypeError, ValueError, OSError, pa.ArrowException) as error:
            raise UserError(f"{where} is damaged ({error!r}): train the run again") from None


def _with_lists(items: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Fields for JSON: tuples become lists."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in items}
