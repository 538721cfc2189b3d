"""The doors `monge.evaluate` and `monge.verify`: a run, or its folder."""

from __future__ import annotations

import monge
from monge.runs.run import Run


def test_a_run_or_its_folder_is_evaluated(table_run: Run) -> None:
    by_run = monge.evaluate(table_run, 40, steps=2, seed=1)
    by_folder = monge.evaluate(str(table_run.folder), 40, steps=2, seed=1, device="cpu")
    rows = [[(row.name, row.value) for row in found.table] for found in (by_run, by_folder)]
    assert rows[0] and rows[0] == rows[1]
    assert (table_run.folder / "evaluation" / "evaluation.json").exists()


def test_a_run_is_verified(table_run: Run) -> None:
    found = monge.verify(table_run, 60, quick=True, steps=2, verbose=False)
    assert found["sum"]["value"] > 0 and not found["violations"]
    assert callable(monge.verify)
