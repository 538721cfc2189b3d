"""Missing and infinite values of a table: refuses, drops or replaces them."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa

from monge.data.columns import arrow
from monge.data.columns.arrow import compute
from monge.data.columns.grids import grid_of_floats
from monge.data.naming import drop
from monge.data.reading import Reading
from monge.data.tables.choosing import Asked
from monge.errors import UserError


def nan_as_missing(table: pa.Table) -> pa.Table:
    """The table with NaN replaced by null, since files use both for missing values."""
    for j, field in enumerate(table.schema):
        if pa.types.is_floating(field.type):
            column = table.column(j)
            found = compute.fill_null(compute.is_nan(column), False)
            if compute.any(found).as_py():
                column = compute.if_else(found, pa.scalar(None, field.type), column)
                table = table.set_column(j, field, column)
    return table


UNLABELLED = ("", "?")
"""Words that stand for missing labels."""


def with_labels_missing(table: pa.Table, label: str | None) -> tuple[pa.Table, list[str]]:
    """The table with empty words and question marks in the label column as nulls, and notes."""
    if label is None or not arrow.is_text(table.schema.field(label).type):
        return table, []
    field, column = table.schema.field(label), table[label]
    found = compute.is_in(column, value_set=pa.array(UNLABELLED, field.type))
    if not (n := compute.sum(found).as_py()):
        return table, []
    column = compute.if_else(found, pa.scalar(None, field.type), column)
    table = table.set_column(table.column_names.index(label), field, column)
    return table, [f"column {label!r}: {n} cells that are empty or '?' are missing labels"]


def count_missing(table: pa.Table) -> dict[str, int]:
    return {n: c.null_count for n, c in zip(table.column_names, table.columns, strict=True)}


def without_missing(
    table: pa.Table, asked: Asked, reading: Reading, missing: dict[str, int]
) -> tuple[pa.Table, np.ndarray, list[str]]:
    """The table after the setting for missing values, its row numbers in the source, and notes.

    A mean is filled in later (`filled`), so that row hashes use the values of the source.
    """
    rows = np.arange(table.num_rows)
    lacking = {name: n for name, n in missing.items() if n}
    if not lacking:
        return table, rows, []
    holes = {n: np.asarray(compute.is_null(table[n])) for n in lacking}
    listed = ", ".join(
        f"{n!r} {k} (the first in row {int(np.flatnonzero(holes[n])[0])})"
        for n, k in lacking.items()
    )
    kept = ~np.logical_or.reduce(list(holes.values()))
    lost = int((~kept).sum())
    if reading.missing == "refuse":
        raise UserError(
            f"missing values or NaN: {listed}. --missing drop leaves out the {lost} of {len(rows)} "
            f"rows that have them; --missing mean takes the column's mean; --missing model learns "
            f"them, so that samples have gaps too; {drop(lacking)} leaves out the column"
            f"{'s' * (len(lacking) > 1)}"
        )
    if reading.missing == "model":
        return _without_inputs_missing(table, asked, lacking, holes)
    if reading.missing == "drop":
        note = f"left out {lost} of {len(rows)} rows with missing values: {listed}"
        return table.filter(pa.array(kept)), rows[kept], [note]
    words = [n for n in lacking if not _is_averaged(table.schema.field(n), asked)]
    if words:
        raise UserError(
            f"missing values in {', '.join(map(repr, words))} cannot be averaged, being "
            "categories or labels: use --missing drop"
        )
    return table, rows, [f"replaced missing values by the column's mean: {listed}"]


def _without_inputs_missing(
    table: pa.Table, asked: Asked, lacking: dict[str, int], holes: dict[str, np.ndarray]
) -> tuple[pa.Table, np.ndarray, list[str]]:
    """The table without the rows that lack a label or a condition, which are not learned."""
    rows, notes = np.arange(table.num_rows), []
    learned = {n: k for n, k in lacking.items() if n in asked.learned}
    if inputs := [n for n in lacking if n not in learned]:
        kept = ~np.logical_or.reduce([holes[n] for n in inputs])
        table, rows = table.filter(pa.array(kept)), rows[kept]
        notes.append(
            f"left out {int((~kept).sum())} of {len(kept)} rows without a label or condition: "
            + ", ".join(map(repr, inputs))
        )
    if learned:
        listed = ", ".join(f"{n!r} {k}" for n, k in learned.items())
        notes.append(f"missing values are learned: {listed} of {len(holes[min(holes)])} rows")
    return table, rows, notes


def _is_averaged(field: pa.Field, asked: Asked) -> bool:
    free = field.name not in asked.categorical and field.name != asked.label
    return free and arrow.is_number(field.type)


def filled(table: pa.Table) -> pa.Table:
    """The table with the column's mean in place of missing values, rounded to the grid if any."""
    for j, field in enumerate(table.schema):
        column = table.column(j)
        if not column.null_count:
            continue
        if column.null_count == len(column):
            raise UserError(f"column {field.name!r} is empty: {drop([field.name])} leaves it out")
        known = arrow.numbers_of(column.drop_null(), field.name)
        if known.dtype.kind == "i":
            mean = np.array([round(sum(known.tolist()) / len(known))])
        else:
            mean = np.array([math.fsum(known.tolist()) / len(known)])
            grid = grid_of_floats(known)
            mean = mean if grid is None else grid.values(grid.levels(mean), whole=False)
        value = arrow.column_of(mean, field.type)[0]
        table = table.set_column(j, field, compute.fill_null(column, value))
    return table


def refuse_infinite(table: pa.Table) -> None:
    for name, column in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_floating(column.type):
            bad = np.isinf(column.drop_null().to_numpy())
            if bad.any():
                first = int(np.flatnonzero(np.isinf(column.to_numpy()))[0])
                raise UserError(
                    f"column {name!r} has {int(bad.sum())} infinite values, the first in row "
                    f"{first}: remove them from the file; {drop([name])} leaves the column out"
                )
