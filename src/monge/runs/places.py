"""Finds the files outside a run's folder after all of them were moved together.

``config.yaml`` and ``data.json`` hold absolute paths of the data, of the teacher and of the
autoencoder. ``places.json`` holds their paths relative to the run folder; these are used if the
absolute path no longer exists.
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
    """Write the paths relative to a run folder; paths that do not exist now keep their old entry.

    Args:
        data: the source of the data; None for arrays in memory.
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
    """A recorded path of a run, or its present place if it was moved.

    Args:
        name: a field of `OUTSIDE`, or data.
        text: the recorded path; returned unchanged if no other is known.
    """
    if os.path.exists(text) or (name != "data" and not os.path.isabs(text)):
        return text
    way = _read(folder).get(name)
    there = None if way is None else folder / way
    return str(there.resolve()) if there is not None and there.exists() else text


def moved(folder: Path, spec: TrainSpec) -> TrainSpec:
    """A run's specification with the present places of its paths."""
    return replace(spec, **{k: found(folder, k, v) for k, v in _named(spec).items()})


def resolved(folder: Path, spec: TrainSpec) -> TrainSpec:
    """The same with normalised paths, for comparison."""
    named = _named(moved(folder, spec))
    return replace(spec, **{k: os.path.realpath(v) for k, v in named.items() if os.path.exists(v)})


def as_kept(spec: TrainSpec, kept: TrainSpec) -> TrainSpec:
    """A specification with its paths spelt as the run records them."""
    return replace(spec, **_named(kept))


def _named(spec: TrainSpec) -> dict[str, str]:
    named = {name: getattr(spec, name) for name in (*OUTSIDE, "data")}
    return {name: text for name, text in named.items() if text is not None}


def _read(folder: Path) -> dict[str, str]:
    with suppress(UserError):  # damaged: only the absolute paths are known
        return schemas.read_if_there(folder, PLACES) or {}
    return {}
