"""Reads the measured errors of a map from its run folder."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from monge.errors import UserError
from monge.runs import schemas
from monge.runs.layout import MAP_ERROR
from monge.system.progress import counted
from monge.times import Grid, Uniform

FORMAT_VERSION = 2


def read(folder: Path) -> dict[str, Any] | None:
    """The errors that `keep_map_errors` wrote; None without the file, or from another version.

    Raises:
        UserError: a damaged file.
    """
    kept = schemas.read_if_there(folder, MAP_ERROR) or {}
    if kept.get("format_version") != FORMAT_VERSION:
        return None
    if lacking := [key for key in ("reference", "errors") if key not in kept]:
        raise UserError(f"{folder / MAP_ERROR} is damaged: it lacks {', '.join(lacking)}")
    return {"velocity_loss": None, **kept}


def expected(folder: Path, grid: Grid, guidance: float = 1.0) -> dict[str, Any] | None:
    """The error for equal jumps at the nearest guidance, measured or interpolated.

    Between two measured numbers of jumps the error is interpolated as a power of the number. None
    outside their range, and for a grid that is not uniform or stops early.
    """
    kept, steps = read(folder), grid.n
    if kept is None or grid != Uniform(steps):
        return None
    scale = min((e["guidance"] for e in kept["errors"]), key=lambda w: abs(w - guidance))
    errors = [e for e in kept["errors"] if e["guidance"] == scale]
    below = [e for e in errors if e["steps"] <= steps]
    above = [e for e in errors if e["steps"] >= steps]
    if not below or not above:
        return None
    low, high = below[-1], above[0]
    found = {"steps": steps, "reference": kept["reference"], "guidance": scale}
    if low is high:
        return {**low, **found}
    part = math.log(steps / low["steps"]) / math.log(high["steps"] / low["steps"])
    for name in ("rms", "relative"):
        found[name] = low[name] ** (1 - part) * high[name] ** part
    return {**found, "between": [low["steps"], high["steps"]]}


def in_words(error: dict[str, Any]) -> str:
    """A line on an expected error."""
    between = error.get("between")
    note = f" (between the measured {between[0]} and {between[1]})" if between else ""
    return (
        f"expected error of {counted(error['steps'], 'jump')}{note} against {error['reference']}: "
        f"{error['rms']:.3g} per latent coordinate (rms), {100 * error['relative']:.3g} % of the "
        "squared displacement"
    )
