"""The notebooks of the documentation: stored with outputs, and executed at reduced size."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[1] / "docs"
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))

pytestmark = pytest.mark.skipif(not NOTEBOOKS, reason="the documentation is not beside the tests")


def faults(notebook: dict[str, Any]) -> list[str]:
    """What a reader of a stored notebook would miss, in words; empty if nothing."""
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    outputs = [output for cell in code for output in cell["outputs"]]
    found = []
    if not any("small" in cell["metadata"] for cell in code):
        found.append("no cell says a reduced size")
    if not any(output["output_type"] != "error" for output in outputs):
        found.append("no output is stored")
    counts = [cell["execution_count"] for cell in code]
    if counts != list(range(1, len(code) + 1)):
        found.append("its cells were not executed in order")
    found += [f"raises {output['ename']}" for output in outputs if output["output_type"] == "error"]
    if any(folder in json.dumps(outputs) for folder in ("/tmp/", "/site-packages/")):
        found.append("an output holds a path of the machine that made it")
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_with_its_outputs(path: Path) -> None:
    assert faults(json.loads(path.read_text())) == []
    assert f"notebooks/{path.stem}\n" in (DOCS / "index.md").read_text()


def test_each_fault_of_a_stored_notebook_is_named() -> None:
    bad = {"output_type": "error", "ename": "ValueError", "text": "/tmp/x"}
    cell = {"cell_type": "code", "metadata": {}, "execution_count": 3, "outputs": [bad]}
    assert faults({"cells": [cell]}) == [
        "no cell says a reduced size",
        "no output is stored",
        "its cells were not executed in order",
        "raises ValueError",
        "an output holds a path of the machine that made it",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_at_reduced_size(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(path.parent))
    import execute  # docs/notebooks/execute.py

    notebook = execute.executed(path, small=True)
    text = execute.TEMPORARY.sub("runs/", json.dumps(notebook))
    assert faults(json.loads(text)) == []
    sys.modules.pop("execute")
