"""Where a run finds what lies outside its folder, when all of it has been moved together.

``config.yaml`` and ``data.json`` hold absolute paths of the data, of the teacher and of the
autoencoder. ``places.json`` holds the way from the run folder to each of them; it is taken where
the absolute path leads to nothing.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from monge.errors import UserError
from monge.runs import schemas
from monge.runs.layout import PLACES
from monge.runs.spec import TrainSpec
from monge.system.files import write_json

OUTSIDE = ("teacher", "autoencoder", "init_from")
"""Fields of a specification that may name a folder outside the run's."""


def keep(folder: Path, spec: TrainSpec, data: str | None) -> None:
    """Write the ways from a run folder; those that lead nowhere now stay as they were.

    Args:
        data: the source of the data, None for arrays in memory.
    """
    named = {name: getattr(spec, name) for name in OUTSIDE} | {"data": data}
    ways = {
        name: os.path.relpath(text, folder)
        for name, text in named.items()
        if text is not None and os.path.isabs(text) and os.path.exists(text)
    }
    before = _read(folder)
    if ways and {**before, **ways} != before:
        write_json(folder / PLACES, {**before, **ways})


def found(folder: Path, name: str, text: str) -> str:
    """The path that a run has under a name, or where it leads now.

    Args:
        name: a field of `OUTSIDE`, or data.
        text: what the run has; returned as it is where nothing else is known.
    """
    if os.path.exists(text) or (name != "data" and not os.path.isabs(text)):
        return text
    way = _read(folder).get(name)
    there = None if way is None else folder / way
    return str(there.resolve()) if there is not None and there.exists() else text


def moved(folder: Path, spec: TrainSpec) -> TrainSpec:
    """A run's specification with its paths as they lead now."""
    return replace(spec, **{k: found(folder, k, v) for k, v in _named(spec).items()})


def resolved(folder: Path, spec: TrainSpec) -> TrainSpec:
    """The same in one spelling of each path, to be compared."""
    named = _named(moved(folder, spec))
    return replace(spec, **{k: os.path.realpath(v) for k, v in named.items() if os.path.exists(v)})


def as_kept(spec: TrainSpec, kept: TrainSpec) -> TrainSpec:
    """A specification with the spelling of the paths that the run has."""
    return replace(spec, **_named(kept))


def _named(spec: TrainSpec) -> dict[str, str]:
    named = {name: getattr(spec, name) for name in (*OUTSIDE, "data")}
    return {name: text for name, text in named.items() if text is not None}


def _read(folder: Path) -> dict[str, str]:
    with suppress(UserError):  # damaged: the absolute paths are all that is known
        return schemas.read_if_there(folder, PLACES) or {}
    return {}
