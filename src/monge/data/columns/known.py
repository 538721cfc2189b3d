"""Known cells of a table as coordinates, for a model of all columns given some."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float32
from torch import Tensor

from monge.data.columns import arrow, gaps
from monge.data.columns.arrow import compute
from monge.data.columns.schema import TableCodec
from monge.errors import UserError, nearest


def learned_names(codec: TableCodec) -> list[str]:
    """The columns that may be known: those that are learned."""
    return [c.name for c in codec.columns if c.role in ("number", "category")]


def require_learned(codec: TableCodec, names: Sequence[str]) -> None:
    """Refuse names of columns that are not learned.

    Raises:
        UserError: such a name, with the nearest one.
    """
    known = learned_names(codec)
    for name in names:
        if name in known:
            continue
        if any(c.name == name for c in codec.columns):
            raise UserError(f"column {name!r} is the same in every row: leave it out")
        raise UserError(f"no column {name!r}: {nearest(str(name), known)}")


def known_coordinates(
    codec: TableCodec, table: pa.Table, *, present: bool = False, missing: Collection[str] = ()
) -> Float32[Tensor, "n d"]:
    """The coordinates of the known cells, NaN for all others.

    Args:
        table: rows with some of the learned columns; null is an unknown value.
        present: unknown values of columns with gaps are known to be there, not missing.
        missing: columns with gaps whose values are known to be missing.

    Raises:
        UserError: unknown names, values or types.
    """
    n, columns, holes = table.num_rows, {}, {}
    names = [c.name for c in codec.columns if c.size and c.name in table.column_names]
    for c in codec.columns:
        if c.size == 0:
            continue
        dtype = arrow.plain_type(codec.schema.field(c.name).type)
        if c.name in names:
            column = codec.cast(table.select([c.name]), c, holes=True)
        else:
            column = pa.chunked_array([pa.nulls(n, dtype)])
        holes[c.name] = np.asarray(compute.is_null(column))
        columns[c.name] = gaps.filled(column, c)
    x = codec.encode(pa.table(columns)).x
    at = 0
    for c in codec.columns:
        if c.size == 0:
            continue
        unknown = torch.from_numpy(holes[c.name])
        x[unknown, at : at + c.value_size] = math.nan
        if c.gaps:
            at_score = at + c.value_size
            if c.name in missing:
                empty = pa.chunked_array([pa.nulls(n, codec.schema.field(c.name).type)])
                x[:, at_score] = torch.from_numpy(gaps.scores(empty, c))
            elif not present:
                x[unknown, at_score] = math.nan
        at += c.size
    return x
