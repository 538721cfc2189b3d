"""Columns that identify rows, free text, and types that are guessed: refused or said."""

from __future__ import annotations

import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from monge.data.reading import Reading
from monge.data.sources import load
from monge.data.tables import tables
from monge.errors import UserError

N = 200
RNG = np.random.default_rng(0)
NUMBERS = RNG.permutation(10**6)[:N]
WORDS = np.array(["some", "words", "that", "tell", "of", "a", "thing", "in", "one", "sentence"])


@pytest.mark.parametrize("name", ["id", "ID", "customer_id", "customerId", "row id", "order-uuid"])
def test_whole_numbers_that_identify_rows_are_refused(name: str) -> None:
    table = pa.table({"x": RNG.normal(size=N), name: NUMBERS})
    with pytest.raises(UserError, match="identifies rows") as raised:
        tables.from_table(table, Reading())
    assert "--drop" in str(raised.value) and name in str(raised.value)
    assert tables.from_table(table, Reading(drop=name)).shape == (1,)
    assert tables.from_table(table, Reading(columns=f"x,{name}")).shape == (2,)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("price", NUMBERS),  # no such name
        ("humid", NUMBERS),  # ends in the letters alone
        ("id", NUMBERS // 1000),  # some of them equal
        ("id", NUMBERS / 7),  # no whole numbers
    ],
)
def test_measurements_are_not(name: str, values: np.ndarray) -> None:
    table = pa.table({"x": RNG.normal(size=N), name: values})
    assert tables.from_table(table, Reading()).shape == (2,)
    short = table.slice(0, 60)
    assert tables.from_table(short, Reading()).shape == (2,)


TEXTS = {
    "look like identifiers": [str(uuid.UUID(int=7919 * i + 10**30)) for i in range(N)],
    "look like identifiers, too": [f"AB-{10_000 + 37 * i}" for i in range(N)],
    "are free text": [" ".join(RNG.permutation(WORDS)) for _ in range(N)],
    "hardly repeats": [f"name{'abcdefgh'[i % 8]} {'xyz'[i % 3]}{i}x" for i in range(N)],
}


@pytest.mark.parametrize("what", TEXTS)
def test_text_that_hardly_repeats_is_called_by_its_name(tmp_path: Path, what: str) -> None:
    path = tmp_path / "t.csv"
    rows = (f"{i * 7 % 31},{text}\n" for i, text in enumerate(TEXTS[what]))
    path.write_text("n,t\n" + "".join(rows))
    with pytest.raises(UserError) as raised:
        load(str(path))
    assert what.removesuffix(", too") in str(raised.value) and "--drop t" in str(raised.value)


def test_guessed_types_are_said_and_many_alike_in_few_lines() -> None:
    columns = {f"grade{j}": RNG.integers(1, 6, N) for j in range(9)}
    data = tables.from_table(pa.table({"x": RNG.normal(size=N), **columns}), Reading())
    notes = data.report["notes"]
    said = "has 5 different whole numbers: learned as a number (--categorical grade0 learns"
    assert len(notes) == 9 and said in notes[0]
    assert len(data.summary) == 1 + 5 + 1
    assert data.summary[-1] == "and 4 notes like the last (data_report.json)"
