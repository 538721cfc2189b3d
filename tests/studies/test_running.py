"""Cells: seeded by their coordinates, kept by content, computed anywhere."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from monge.errors import UserError
from monge.studies.code_version import code_version
from monge.studies.running import run
from monge.studies.study import Axis, Cell, Row, Study
from monge.studies.tables import csv, table_of

FILE = Path(__file__).parent / "my_study.py"


class Counted:
    """A cell function that counts its calls, and fails where it is told to."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.failing: set[str] = set()

    def __call__(self, at: Cell) -> Iterator[Row]:
        self.calls.append((at["law"], at["seed"], at["n"]))
        if at["law"] in self.failing:
            raise RuntimeError("no such law")
        draw = float(torch.rand((), generator=at.stream("draw")))
        return iter([{"n": n, "y": draw * n} for n in at["n"]])


@pytest.fixture
def counted() -> Counted:
    return Counted()


@pytest.fixture
def study(counted: Counted) -> Study:
    def cell(at: Cell) -> Iterator[Row]:
        return counted(at)

    axes = (
        Axis("law", ("a", "b"), ("a",), "law"),
        Axis("seed", (0, 1), (0,), "seed"),
        Axis("n", (1, 2), (1,), "n", together=True),
    )
    return Study("test", "t", "q", axes, cell, ())


def test_a_cell_depends_on_its_coordinates_alone(study: Study) -> None:
    every = run(study).rows
    assert len(every) == 8 and len({row["y"] for row in every if row["n"] == 1}) == 4
    some = run(study, {"law": ("b",), "n": (2, 1)}).rows
    assert {(r["seed"], r["n"], r["y"]) for r in some} == {
        (r["seed"], r["n"], r["y"]) for r in every if r["law"] == "b"
    }
    other = run(dataclasses.replace(study, name="other")).rows
    assert not {row["y"] for row in every} & {row["y"] for row in other}


def test_an_interrupted_study_goes_on(study: Study, counted: Counted, tmp_path: Path) -> None:
    whole = run(study).rows
    counted.calls.clear()
    counted.failing = {"b"}
    first = run(study, out=tmp_path)
    assert len(first.failures) == 2 and "no such law" in first.failures[0].error
    assert [row["law"] for row in first.rows] == ["a"] * 4
    counted.calls.clear()
    counted.failing = set()
    second = run(study, out=tmp_path)
    assert [law for law, _, _ in counted.calls] == ["b", "b"]
    assert second.rows == whole and second.reused == 2


def test_other_values_of_an_axis_reuse_the_cells_they_share(
    study: Study, counted: Counted, tmp_path: Path
) -> None:
    run(study, {"seed": (0,)}, out=tmp_path)
    counted.calls.clear()
    assert len(run(study, out=tmp_path).rows) == 8
    assert [seed for _, seed, _ in counted.calls] == [1, 1]
    counted.calls.clear()
    run(study, {"n": (2,)}, out=tmp_path)  # measured together, so other values are other cells
    assert len(counted.calls) == 4


@pytest.mark.parametrize("damage", ["", "{", '{"rows": 3, "seconds": 1}', '{"seconds": 1}', "[]"])
def test_a_damaged_cell_is_measured_again(
    study: Study, counted: Counted, tmp_path: Path, damage: str
) -> None:
    whole = run(study, out=tmp_path).rows
    victim = sorted((tmp_path / "cells").glob("*.json"))[0]
    victim.write_text(damage)
    counted.calls.clear()
    assert run(study, out=tmp_path).rows == whole
    assert len(counted.calls) == 1
    assert json.loads(victim.read_text())["rows"]


def test_cells_of_other_code_are_not_taken(tmp_path: Path) -> None:
    mine, out = tmp_path / "mine.py", tmp_path / "out"
    text = FILE.read_text()
    mine.write_text(text)
    before = code_version(mine)
    study = _study(mine)
    first = run(study, quick=True, out=out, reference=f"{mine}:STUDY")
    assert run(study, quick=True, out=out, reference=f"{mine}:STUDY").reused == 1
    mine.write_text(text.replace("n**-0.5", "n**-0.4"))
    assert code_version(mine) != before
    changed = run(_study(mine), quick=True, out=out, reference=f"{mine}:STUDY")
    assert changed.reused == 0 and changed.rows != first.rows


def _study(path: Path) -> Study:
    from monge.studies import catalogue

    return catalogue.find(str(path))


def test_the_version_of_the_code_reaches_what_the_study_imports(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from monge.studies import code_version as module

    before = code_version("monge.studies.early_stopping")
    source = module._source

    def edited(name: str) -> str:
        # The quadrature is imported by the targets, which the study imports.
        return source(name) + ("\n# edited" if name == "monge.targets.quadrature" else "")

    monkeypatch.setattr(module, "_source", edited)
    assert code_version("monge.studies.early_stopping") != before
    monkeypatch.setattr(module, "_source", lambda name: source(name))
    assert code_version("monge.studies.early_stopping") == before


def test_processes_measure_the_same(tmp_path: Path) -> None:
    study = _study(FILE)
    alone = run(study, out=tmp_path / "a", reference=f"{FILE}:STUDY")
    shared = run(study, out=tmp_path / "b", reference=f"{FILE}:STUDY", jobs=2)
    assert alone.rows == shared.rows and len(alone.rows) == 24


def test_a_cluster_of_dask_measures_the_same() -> None:
    distributed = pytest.importorskip("distributed")
    import joblib

    study = _study(FILE)
    alone = run(study)
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as two,
        distributed.Client(two),
        joblib.parallel_config("dask"),
    ):
        shared = run(study, reference=f"{FILE}:STUDY", jobs=-1)
    assert alone.rows == shared.rows


def test_more_than_one_job_needs_a_name(study: Study) -> None:
    with pytest.raises(UserError, match="needs the study's file and name"):
        run(study, jobs=2)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lav": (1,)}, "has no axis 'lav': did you mean 'law'"),
        ({"law": ()}, "axis law needs values"),
        ({"seed": (1, 1)}, "axis seed needs values, each once"),
    ],
)
def test_wrong_axes_are_refused(study: Study, given: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(study, given)


def test_progress_says_the_budget_first_and_the_time_left(tmp_path: Path) -> None:
    lines: list[str] = []
    run(_study(FILE), quick=True, out=tmp_path, say=lines.append)
    assert lines[0] == "mine: 1 cells; all 6 in full took 0.1 minutes of one core"
    assert lines[-1] == "mine: 1/1 cells, 0 s left"


def test_tables_keep_types_and_gaps() -> None:
    table = table_of([{"n": 1, "y": 1}, {"n": 2, "y": 0.5, "law": "a"}])
    assert table.to_pylist() == [
        {"n": 1, "y": 1.0, "law": None},
        {"n": 2, "y": 0.5, "law": "a"},
    ]
    assert csv([{"n": 1, "law": "a"}]).decode().splitlines() == ['"n","law"', '1,"a"']
    with pytest.raises(UserError, match="several types"):
        table_of([{"n": 1}, {"n": "a"}])
