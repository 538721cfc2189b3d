"""A run for other programs: what is exported, what cannot be, and where it goes."""

from __future__ import annotations

import glob
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from monge.errors import UserError
from monge.networks.exact import ExactNetwork
from monge.runs.run import Run
from monge.system.files import LONGEST, TEMPORARY, refuse_existing, remove, temporary_for

Format = Literal["pt2", "diffusers"]

TOLERANCE = 1e-5
"""Largest difference between what is exported and the run, relative to the largest number or 1."""


def export_run(run: Run, form: Format = "pt2", out: Path | None = None) -> tuple[Path, Any]:
    """Write a run in another format, check it against the run, and only then let it appear.

    Args:
        run: on the CPU.
        out: file (pt2) or folder (diffusers); by default in the run folder.

    Returns:
        Where it is, and what is said of it.

    Raises:
        UserError: the run has no weights, the format cannot hold it, or `out` is there already.
        CheckFailed: what was written differs from the run.
    """
    if isinstance(run.network, ExactNetwork):
        raise UserError("this run has an exact law in the network's seat, no weights to export")
    if form == "pt2":
        from monge.export.pt2 import write

        default = run.learned.program().file
    elif form == "diffusers":
        from monge.export.diffusers import write

        default = "diffusers"
    else:
        raise UserError(f"unknown format {form!r}: known: diffusers, pt2")
    return _appearing(
        out or run.folder / "export" / default, lambda path: write(run, path, TOLERANCE)
    )


def _appearing(out: Path, write: Callable[[Path], Any]) -> tuple[Path, Any]:
    """What `write` makes of a path, under a temporary name until it is whole."""
    refuse_existing(out)
    for left in out.parent.glob(f".tmp-{glob.escape(out.name[:LONGEST])}-*"):
        if TEMPORARY.fullmatch(left.name):  # of an export that was killed
            remove(left)
    unfinished = temporary_for(out)
    try:
        unfinished.parent.mkdir(parents=True, exist_ok=True)
        found = write(unfinished)
        unfinished.rename(out)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        remove(unfinished)
    return out, found
