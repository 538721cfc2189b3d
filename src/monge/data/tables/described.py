"""Describes the columns of a table in the data report, with notes for people."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from monge.data.columns import arrow
from monge.data.columns.arrow import compute
from monge.data.columns.coordinates import Column, range_of
from monge.data.columns.schema import TableCodec
from monge.data.naming import flag

ATOM = 0.05
"""Least share of rows with one value that is reported as an atom."""

TIED = 0.5
"""Share of distinct values below which a column without a grid is reported."""


def described(c: Column, column: pa.ChunkedArray, missing: int) -> dict[str, Any]:
    """The description of one column for the data report."""
    facts: dict[str, Any] = {"name": c.name, "kind": c.role, "dtype": str(column.type)}
    facts["missing"] = missing
    if c.gaps:
        facts["gaps"] = "learned"
    if c.grid is not None:
        facts["step"] = c.grid.width
        facts["dequantised"] = c.spread
    if c.marginal is not None:
        facts["marginal"] = c.marginal.rule
        facts["range"] = range_of(c)
    if c.role in ("category", "label"):
        facts["categories"] = len(c.values)
    if c.role == "constant":
        facts["constant"] = column[0].as_py() if not arrow.is_temporal(column.type) else c.values[0]
    return facts


FEW_CODES = 10
"""Most different whole numbers of a column that may be codes of categories."""

MOST_ALIKE = 5
"""Most notes of one kind that are printed."""


def shortened(notes: Sequence[str]) -> list[str]:
    """Notes as printed: of many that differ in names and numbers alone, the first few.

    >>> shortened([f"column 'c{j}' is text of {j} different values" for j in range(9)])[4:]
    ["column 'c4' is text of 4 different values", 'and 4 notes like the last (data_report.json)']
    """
    kinds = [re.sub(r"'[^']*'|--\w+ \S+|\d+", "", note) for note in notes]
    alike = Counter(kinds)
    seen: Counter[str] = Counter()
    made = []
    for note, kind in zip(notes, kinds, strict=True):
        seen[kind] += 1
        if seen[kind] <= MOST_ALIKE:
            made.append(note)
        if seen[kind] == MOST_ALIKE < alike[kind]:
            more = alike[kind] - MOST_ALIKE
            made.append(f"and {more} notes like the last (data_report.json)")
    return made


def notes_on(table: pa.Table, codec: TableCodec) -> list[str]:
    """Notes on the columns, for people."""
    notes = []
    constant = [c.name for c in codec.columns if c.role == "constant"]
    if constant:
        notes.append(f"constant, not learned, put back in samples: {', '.join(constant)}")
    for c in codec.columns:
        if c.role != "number":
            continue
        known = table[c.name].drop_null()
        counts = compute.value_counts(known).field("counts").to_numpy()
        if c.grid is not None:
            if pa.types.is_integer(known.type) and 2 < len(counts) <= FEW_CODES < len(known) / 10:
                notes.append(
                    f"column {c.name!r} has {len(counts)} different whole numbers: learned as a "
                    f"number ({flag('--categorical', [c.name])} learns categories)"
                )
            if not c.spread:
                notes.append(
                    f"column {c.name!r} has more steps than float32 tells apart: it is learned as "
                    "it is, and samples are rounded to its step"
                )
            continue
        most, distinct = counts.max() / len(known), len(counts) / len(known)
        if most >= ATOM:
            where = compute.mode(table[c.name])[0]["mode"].as_py()
            notes.append(
                f"column {c.name!r} is {where:g} in {most:.0%} of the rows and lies on no grid: "
                "a flow has no atoms, so samples come near that value but rarely meet it"
            )
        elif distinct < TIED:
            notes.append(
                f"column {c.name!r} has only {distinct:.1%} distinct values but lies on no decimal "
                "grid: it is learned as it is, and its density is that of a smooth law"
            )
    return notes
