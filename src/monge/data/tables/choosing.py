"""Chooses which columns of a table are learned, which are conditions, and which are left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from monge.data.columns import arrow
from monge.data.columns.arrow import compute
from monge.data.naming import drop, flag, found, names_in
from monge.data.reading import Reading
from monge.data.tables.csv_files import advice_of
from monge.errors import UserError, nearest


@dataclass(frozen=True)
class Asked:
    """Names of the columns that are learned, given or left out, in the table's order."""

    learned: tuple[str, ...]
    label: str | None
    conditions: tuple[str, ...]
    categorical: tuple[str, ...]
    left_out: tuple[str, ...]

    @property
    def used(self) -> set[str]:
        given = () if self.label is None else (self.label,)
        return {*self.learned, *given, *self.conditions}


def choose(known: Sequence[str], reading: Reading) -> Asked:
    """The columns that the settings choose.

    Raises:
        UserError: an unknown column, with the nearest name; a column with two roles.
    """
    given_lists = {
        "--columns": names_in(reading.columns),
        "--drop": names_in(reading.drop),
        "--label-column": [] if reading.label_column is None else [reading.label_column],
        "--condition-columns": names_in(reading.condition_columns),
        "--categorical": names_in(reading.categorical),
    }
    lists: dict[str, list[str]] = {}
    taken: dict[str, str] = {}
    problems = []
    for option, names in given_lists.items():
        lists[option] = []
        for name in names:
            meant = found(name, known)
            if meant is None:
                problems.append(f"{option}: no column {name!r}: {nearest(name, known)}")
                continue
            lists[option].append(meant)
            if option != "--categorical" and taken.setdefault(meant, option) != option:
                problems.append(f"column {meant!r} stands in both {taken[meant]} and {option}")
    chosen = lists["--columns"] or known
    learned = tuple(n for n in known if n in chosen and taken.get(n) in (None, "--columns"))
    label, conditions = next(iter(lists["--label-column"]), None), lists["--condition-columns"]
    categorical = lists["--categorical"]
    for name in categorical:
        if name not in learned:
            problems.append(f"--categorical: column {name!r} is not among those that are learned")
    refuse(problems)
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


def refuse(problems: Sequence[str]) -> None:
    """Refuse a table, with all its problems in one message.

    Raises:
        UserError: there are problems.
    """
    if len(problems) == 1:
        raise UserError(problems[0])
    if problems:
        raise UserError("\n".join([f"{len(problems)} problems:", *(f"- {p}" for p in problems)]))


MOST_WORDS = 100
"""Most distinct values of a text column that is learned as categories by default."""


def check_types(table: pa.Table, asked: Asked) -> tuple[Asked, list[str]]:
    """Add text columns with few values to the categories; returns the choice and notes.

    A text column is categorical if it has at most `MOST_WORDS` values, each twice on average.

    Raises:
        UserError: the names of all columns of types that cannot be learned.
    """
    problems, words, texts, notes = [], [], [], []
    advice = advice_of(table)
    for field, column in zip(table.schema, table.columns, strict=True):
        name, dtype = field.name, field.type
        if pa.types.is_null(dtype):
            problems.append(f"column {name!r} is empty: {drop([name])} leaves it out")
            continue
        if not arrow.may_be_categories(dtype):
            problems.append(
                f"column {name!r} has type {dtype}, which is no number, date, truth value or "
                f"text: convert it, or {drop([name])} leaves it out"
            )
            continue
        number = arrow.is_number(dtype) and not arrow.is_temporal(dtype)
        if name in asked.conditions and not number:
            problems.append(
                f"condition column {name!r} has type {dtype}: numbers are needed"
                + (f" ({advice[name]})" if name in advice else "")
            )
        free = name in asked.learned and name not in asked.categorical
        if not free or not arrow.is_text(dtype):
            continue
        values = compute.count_distinct(column).as_py()
        if name in advice:
            problems.append(f"{advice[name]}; or {drop([name])} leaves it out")
        elif 1 < values <= min(MOST_WORDS, max(2, table.num_rows // 2)):
            words.append(name)
            notes.append(
                f"column {name!r} is text of {values} different values: learned as categories "
                f"({drop([name])} leaves it out)"
            )
        elif values > 1:
            texts.append((name, values, _looks_like(column)))
    if texts:
        problems.append(_of_text(texts, words, table.num_rows))
    refuse(problems)
    return dataclasses.replace(asked, categorical=(*asked.categorical, *words)), notes


IDENTIFIER = (
    r"(?i)^(?:[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}|[0-9a-f]{16,}|[a-z]{0,5}[-_#]?\d{3,})$"
)
"""UUIDs, hexadecimal digests, and numbers after a few letters."""

FREE_WORDS = 4
"""Words of a cell, on average, from which text is called free text."""


def _looks_like(column: pa.ChunkedArray) -> str:
    """What text that hardly repeats is called: identifiers, free text, or nothing."""
    known = column.drop_null().slice(0, 10_000).cast(pa.string())
    if not len(known):
        return ""
    fits = compute.match_substring_regex(known, IDENTIFIER)
    if compute.mean(fits.cast(pa.float64())).as_py() > 0.9:
        return ", which look like identifiers"
    blanks = compute.mean(compute.count_substring(known, " ")).as_py()
    return ", which are free text" if blanks >= FREE_WORDS - 1 else ""


def _of_text(texts: list[tuple[str, int, str]], words: list[str], rows: int) -> str:
    """Advice on text columns with too many values."""
    told = ", ".join(f"{name!r} ({values} different values{what})" for name, values, what in texts)
    lines = (
        f"columns with text that hardly repeats: {told} in {rows} rows, too many to be learned as "
        f"categories unasked. Leave them out by {drop(name for name, _, _ in texts)}"
    )
    if few := [name for name, values, _ in texts if values <= rows // 2]:
        lines += f"; or learn them as categories by {flag('--categorical', [*words, *few])}"
    return lines
