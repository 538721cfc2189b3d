"""Which columns of a table are learned, which are given, and which are left out."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from monge.data import arrow
from monge.data.arrow import compute
from monge.data.reading import Reading
from monge.errors import UserError, nearest


@dataclass(frozen=True)
class Asked:
    """Which columns are learned, given or left out; names, in the table's order."""

    learned: tuple[str, ...]
    label: str | None
    conditions: tuple[str, ...]
    categorical: tuple[str, ...]
    left_out: tuple[str, ...]

    @property
    def used(self) -> set[str]:
        given = () if self.label is None else (self.label,)
        return {*self.learned, *given, *self.conditions}


def names_in(text: str | None) -> list[str]:
    """Names with commas between; one with a comma in it stands in double quotes.

    >>> names_in('a, b,"c,d"')
    ['a', 'b', 'c,d']
    """
    return (
        [] if text is None else [n.strip() for n in next(csv.reader([text], skipinitialspace=True))]
    )


def choose(known: Sequence[str], reading: Reading) -> Asked:
    """The columns that the settings ask for.

    Raises:
        UserError: an unknown column, with the nearest; one asked for twice.
    """
    lists = {
        "--columns": names_in(reading.columns),
        "--drop": names_in(reading.drop),
        "--label-column": [] if reading.label_column is None else [reading.label_column],
        "--condition-columns": names_in(reading.condition_columns),
    }
    categorical = names_in(reading.categorical)
    taken: dict[str, str] = {}
    for flag, names in [*lists.items(), ("--categorical", categorical)]:
        for name in names:
            if name not in known:
                raise UserError(f"{flag}: no column {name!r}: {nearest(name, known)}")
            if flag != "--categorical" and taken.setdefault(name, flag) != flag:
                raise UserError(f"column {name!r} stands in both {taken[name]} and {flag}")
    chosen = lists["--columns"] or known
    learned = tuple(n for n in known if n in chosen and taken.get(n) in (None, "--columns"))
    label, conditions = reading.label_column, lists["--condition-columns"]
    for name in categorical:
        if name not in learned:
            raise UserError(f"--categorical: column {name!r} is not among those that are learned")
    if not learned:
        raise UserError("no column is left to learn")
    given = {label, *conditions}
    return Asked(
        learned,
        label,
        tuple(n for n in known if n in conditions),
        tuple(categorical),
        tuple(n for n in known if n not in learned and n not in given),
    )


def check_types(table: pa.Table, asked: Asked) -> None:
    texts = []
    for field, column in zip(table.schema, table.columns, strict=True):
        name, dtype = field.name, field.type
        if pa.types.is_null(dtype):
            raise UserError(f"column {name!r} is empty: leave it out with --drop")
        if not arrow.may_be_categories(dtype):
            raise UserError(
                f"column {name!r} has type {dtype}, which is no number, date, truth value or "
                "text: convert it, or leave it out with --drop"
            )
        number = pa.types.is_integer(dtype) or pa.types.is_floating(dtype)
        if name in asked.conditions and not number:
            raise UserError(f"condition column {name!r} has type {dtype}: numbers are needed")
        free = name in asked.learned and name not in asked.categorical
        if free and arrow.is_text(dtype) and compute.count_distinct(column).as_py() > 1:
            texts.append(name)
    if texts:
        raise UserError(
            f"columns with text: {', '.join(map(repr, texts))}. Learn them as categories with "
            "--categorical, take one for the labels with --label-column, or leave them out with "
            f"--drop {','.join(texts)}"
        )
