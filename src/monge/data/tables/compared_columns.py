"""Converts tables of several sources to matrices with the same columns, matched by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float64
from torch import Tensor

from monge.data.columns import arrow, gaps
from monge.data.columns.arrow import compute
from monge.data.naming import drop, flag, names_in
from monge.data.reading import Reading
from monge.errors import UserError


def as_matrices(
    tables: Sequence[tuple[str, pa.Table]], reading: Reading
) -> tuple[list[Float64[Tensor, "n d"]], list[str]]:
    """Rows of tables as matrices in the columns' units, one-hot for categories; column names.

    Numbers are those of the file, without dequantisation.

    Args:
        tables: (name for messages, table), with the columns that reading chose.

    Raises:
        UserError: columns that some tables lack, or incompatible types.
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
    """The same with a code for each category: matrices, names, and whether a column is a code."""
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
    """Each column that the tables share, converted by `_numbers`.

    A column with missing values is followed by whether they are missing; its values there are
    random known ones.
    """
    columns = {name: table.column_names for name, table in tables}
    common = [c for c in columns[tables[0][0]] if all(c in own for own in columns.values())]
    if any(len(own) > len(common) for own in columns.values()):
        raise UserError(differing(columns, common))
    whose = [t for t, _ in tables]
    for name in common:
        own = [table[name] for _, table in tables]
        missing = [np.asarray(compute.is_null(column)) for column in own]
        for column, holes, where in zip(own, missing, whose, strict=True):
            if len(column) and holes.all():
                raise UserError(f"column {name!r} of {where} is empty: {drop([name])}")
        made, values = _numbers(name, [gaps.refilled(c, name) for c in own], whose, reading)
        yield name, made, values
        if any(holes.any() for holes in missing):
            codes = [np.eye(2)[holes.astype(np.int64)] for holes in missing]
            yield gaps.named(name), codes, ["no", "yes"]


def differing(columns: dict[str, list[str]], common: list[str]) -> str:
    """The message for tables with different columns."""
    lines = []
    every = list(dict.fromkeys(c for own in columns.values() for c in own))
    for name, own in columns.items():
        if missing := [c for c in every if c not in own]:
            lines.append(f"{name} lacks {', '.join(map(repr, missing))}")
    remedy = "they have no column in common"
    if common:
        remedy = f"compare the common columns by {flag('--columns', common)}"
    return f"the tables have different columns: {'; '.join(lines)}: {remedy}"


def _of_one_type(columns: list[pa.ChunkedArray]) -> list[pa.ChunkedArray]:
    """Columns of categories in different notations, converted to one type if the values agree.

    Whole and fractional numbers are one type. Columns of 0 and 1 are truth values if other tables
    write them in words, and codes if other tables have codes of digits.
    """
    types = [column.type for column in columns]
    if all(map(arrow.is_plain_number, types)) and not any(map(pa.types.is_boolean, types)):
        return [column.cast(pa.float64()) for column in columns]
    if any(map(pa.types.is_boolean, types)):
        return [_as_truth(column) for column in columns]
    texts = [c for c in columns if arrow.is_text(c.type)]
    if texts and all(_are_digits(text) for text in texts):
        return [c.cast(pa.string()) if pa.types.is_integer(c.type) else c for c in columns]
    return [c.cast(pa.string()) if arrow.is_text(c.type) else c for c in columns]


def _as_truth(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        return column
    known = compute.unique(column).to_pylist()
    return column.cast(pa.bool_()) if set(known) <= {0, 1} else column


def _are_digits(column: pa.ChunkedArray) -> bool:
    return bool(compute.all(compute.match_substring_regex(column, r"^\d+$")).as_py())


def _numbers(
    name: str, own: Sequence[pa.ChunkedArray], whose: Sequence[str], reading: Reading
) -> tuple[list[np.ndarray], list[str]]:
    """One column of every table: (n, 1) numbers, or (n, values) one-hot, with the values."""
    types = [arrow.plain_type(column.type) for column in own]
    listed = name in names_in(reading.categorical)
    category = listed or any(
        arrow.is_categories(c.type) or arrow.is_text(t) for c, t in zip(own, types, strict=True)
    )
    plain = all(arrow.is_plain_number(t) for t in types)
    values_of = [c.cast(t) for c, t in zip(own, types, strict=True)]
    if category and len(set(types)) > 1:
        values_of = _of_one_type(values_of)
    if len({c.type for c in values_of}) > 1 and (category or not plain):
        told = ", ".join(f"{t} in {w}" for t, w in zip(types, whose, strict=True))
        raise UserError(f"column {name!r} is {told}: convert it to one type")
    if not category:
        return [arrow.numbers_of(c, name).astype(np.float64)[:, None] for c in own], []
    texts = [c.cast(pa.string()) for c in values_of]
    values = compute.unique(pa.chunked_array([k for text in texts for k in text.chunks]))
    place = np.eye(len(values))
    rows = [compute.index_in(text, value_set=values).to_numpy() for text in texts]
    return [place[index] for index in rows], values.to_pylist()
