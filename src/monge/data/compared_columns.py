"""Tables of several sources as matrices with the same columns: matched by name, in any order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float64
from torch import Tensor

from monge.data import arrow
from monge.data.arrow import compute
from monge.data.choosing import names_in
from monge.data.reading import Reading
from monge.errors import UserError


def as_matrices(
    tables: Sequence[tuple[str, pa.Table]], reading: Reading
) -> tuple[list[Float64[Tensor, "n d"]], list[str]]:
    """Rows of tables as numbers in the columns' own units, one-hot for categories; their names.

    Nothing is dequantised: numbers are as they stand in the file.

    Args:
        tables: with a name for messages; columns as they were chosen when they were read.

    Raises:
        UserError: columns that not all tables have, or whose types do not go together.
    """
    blocks: list[list[np.ndarray]] = [[] for _ in tables]
    titles: list[str] = []
    for name, made, values in _common(tables, reading):
        titles += [f"{name}={v}" for v in values] or [name]
        for block, numbers in zip(blocks, made, strict=True):
            block.append(numbers)
    return [torch.from_numpy(np.concatenate(block, 1)) for block in blocks], titles


def as_columns(
    tables: Sequence[tuple[str, pa.Table]], reading: Reading
) -> tuple[list[Float64[Tensor, "n columns"]], list[str], list[bool]]:
    """The same columns with a code for each category: matrices, names, and which are codes."""
    blocks: list[list[np.ndarray]] = [[] for _ in tables]
    names: list[str] = []
    codes: list[bool] = []
    for name, made, values in _common(tables, reading):
        names.append(name)
        codes.append(bool(values))
        for block, numbers in zip(blocks, made, strict=True):
            block.append(numbers.argmax(1)[:, None].astype(np.float64) if values else numbers)
    return [torch.from_numpy(np.concatenate(block, 1)) for block in blocks], names, codes


def _common(
    tables: Sequence[tuple[str, pa.Table]], reading: Reading
) -> Iterator[tuple[str, list[np.ndarray], list[str]]]:
    """Each column that the tables share, as `_numbers` reads it."""
    columns = {name: table.column_names for name, table in tables}
    common = [c for c in columns[tables[0][0]] if all(c in own for own in columns.values())]
    if any(len(own) > len(common) for own in columns.values()):
        raise UserError(_differing(columns, common))
    for name in common:
        made, values = _numbers(
            name, [table[name] for _, table in tables], [t for t, _ in tables], reading
        )
        yield name, made, values


def _differing(columns: dict[str, list[str]], common: list[str]) -> str:
    lines = []
    every = list(dict.fromkeys(c for own in columns.values() for c in own))
    for name, own in columns.items():
        if missing := [c for c in every if c not in own]:
            lines.append(f"{name} lacks {', '.join(map(repr, missing))}")
    remedy = "they have no column in common"
    if common:
        listed = ",".join(f'"{c}"' if "," in c else c for c in common)
        remedy = f"compare the common columns by --columns '{listed}'"
    return f"the tables have different columns: {'; '.join(lines)}: {remedy}"


def _numbers(
    name: str, own: Sequence[pa.ChunkedArray], whose: Sequence[str], reading: Reading
) -> tuple[list[np.ndarray], list[str]]:
    """One column of every table: (n, 1) numbers; or (n, values) for categories, and the values."""
    types = [arrow.plain_type(column.type) for column in own]
    listed = name in names_in(reading.categorical)
    category = listed or any(
        arrow.is_categories(c.type) or arrow.is_text(t) for c, t in zip(own, types, strict=True)
    )
    plain = all(arrow.is_plain_number(t) for t in types)
    if not category and not plain and len(set(types)) > 1:
        told = ", ".join(f"{t} in {w}" for t, w in zip(types, whose, strict=True))
        raise UserError(f"column {name!r} is {told}: convert it to one type")
    if not category:
        return [arrow.numbers_of(c, name).astype(np.float64)[:, None] for c in own], []
    texts = [c.cast(t).cast(pa.string()) for c, t in zip(own, types, strict=True)]
    values = compute.unique(pa.chunked_array([k for text in texts for k in text.chunks]))
    place = np.eye(len(values))
    rows = [compute.index_in(text, value_set=values).to_numpy() for text in texts]
    return [place[index] for index in rows], values.to_pylist()
