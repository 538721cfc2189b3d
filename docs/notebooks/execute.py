"""Execute the notebooks and store their outputs: ``python docs/notebooks/execute.py [NAME ...]``.

A cell with the entry ``small`` in its metadata is followed by that line where the notebook is
executed at reduced size, as the tests do.
"""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
TIMEOUT_S = 1200
TEMPORARY = re.compile(r"/tmp/tmp\w+/")
"""The folder of a notebook's runs, which is another each time; outputs show ``runs/``."""


def executed(path: Path, small: bool = False) -> Any:
    """The notebook with the outputs of its cells.

    Raises:
        CellExecutionError: a cell raises.
    """
    notebook = nbformat.read(path, as_version=4)
    if small:
        for cell in notebook.cells:
            if "small" in cell.metadata:
                cell.source += f"\n{cell.metadata['small']}"
    NotebookClient(notebook, timeout=TIMEOUT_S, kernel_name="python3").execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when it ran: no two runs would be equal
        if cell.cell_type == "code":  # warnings of libraries name folders of this machine
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
    return notebook


def main(names: list[str]) -> None:
    for path in sorted(HERE.glob("*.ipynb")):
        if names and path.stem not in names:
            continue
        start = time.perf_counter()
        notebook = executed(path)
        path.write_text(TEMPORARY.sub("runs/", nbformat.writes(notebook)) + "\n")
        print(f"{path.name}: {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
