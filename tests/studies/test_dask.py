"""Cells on a local Dask cluster of two processes: the same rows as here, one after another.

Slow because each process imports torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import pytest

from monge.studies.running import CELLS, run
from monge.system.loading import load

distributed = pytest.importorskip("distributed", reason="distributed is not installed")

STUDY = """
import os
from monge.studies.study import Axis, Study


def cell(at):
    if at["size"] == 4 and BROKEN:
        raise ValueError("cell of size 4")
    draw = at.stream("x").initial_seed()
    yield {"square": at["size"] ** 2, "draw": draw, "process": os.getpid()}


BROKEN = False
STUDY = Study("clustered", "Clustered", "Do cells agree?",
              (Axis("size", (1, 2, 3, 4, 5, 6), (1,), "size"),), cell, ())
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two worker processes of one thread each, without a dashboard."""
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as local,
        distributed.Client(local) as client,
    ):
        yield client


def written(folder: Path, broken: bool = False) -> str:
    path = folder / "clustered.py"
    path.write_text(STUDY.replace("BROKEN = False", f"BROKEN = {broken}"))
    return f"{path}:STUDY"


def rows(results: Any) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "process"} for row in results.rows]


@pytest.mark.slow
def test_cells_on_two_workers_are_the_cells_of_one_process(cluster: Any, tmp_path: Path) -> None:
    reference = written(tmp_path)
    study = load(reference)
    alone = run(study, out=tmp_path / "alone", reference=reference)
    with joblib.parallel_config("dask", wait_for_workers_timeout=30):
        shared = run(study, out=tmp_path / "shared", jobs=-1, reference=reference)
        again = run(study, out=tmp_path / "shared", jobs=-1, reference=reference)
    assert rows(shared) == rows(alone) and len(rows(alone)) == 6
    workers = {info["pid"] for info in cluster.run(_process).values()}
    used = {row["process"] for row in shared.rows}
    assert used <= workers and len(workers) == 2
    assert used.isdisjoint({row["process"] for row in alone.rows})
    assert again.reused == 6 and rows(again) == rows(alone)
    names = {path.name for path in (tmp_path / "shared" / CELLS).glob("*.json")}
    assert names == {path.name for path in (tmp_path / "alone" / CELLS).glob("*.json")}


@pytest.mark.slow
def test_a_cell_that_fails_on_a_worker_is_told(cluster: Any, tmp_path: Path) -> None:
    reference = written(tmp_path, broken=True)
    with joblib.parallel_config("dask", wait_for_workers_timeout=30):
        found = run(load(reference), out=tmp_path / "o", jobs=-1, reference=reference)
    (failed,) = found.failures
    assert failed.cell["size"] == 4 and "cell of size 4" in failed.error
    assert len(found.rows) == 5
    kept = [json.loads(p.read_text()) for p in (tmp_path / "o" / CELLS).glob("*.json")]
    assert sorted(c["rows"][0]["square"] for c in kept) == [1, 4, 9, 25, 36]


def _process() -> dict[str, int]:
    import os

    return {"pid": os.getpid()}
