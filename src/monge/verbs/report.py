"""`monge report`: write the page of a run again, or one page for a folder of runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from monge.verbs.shown import tell


@dataclass(frozen=True)
class Report:
    """Write the page of a run again, or index.html for a folder of runs: the settings that
    differ, metrics with their intervals, pictures and links.
    """

    folder: Positional[Path]
    """A run folder, or a folder of runs."""
    json: bool = False
    """Print the result as JSON."""


def act(arguments: Report) -> dict[str, Any]:
    """Write a page."""
    from monge.report.index import write_index
    from monge.report.report import write_report
    from monge.runs.layout import CONFIG
    from monge.system import lock
    from monge.system.files import refuse_links

    folder = arguments.folder
    if (folder / CONFIG).is_file():
        refuse_links(folder)
        lock.tidy(folder)
        written = write_report(folder)
    else:
        written = write_index(folder)
    tell(arguments, f"report   {written}")
    return {"report": str(written)}
