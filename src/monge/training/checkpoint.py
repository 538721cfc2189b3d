"""Checkpoints: what a run needs to go on, complete or absent.

A checkpoint is a folder ``state/step-00000100`` with the tensors in safetensors and a
``manifest.json`` that is written last. It is written under a temporary name, every file is
fsynced, then the folder is renamed; only then is the older one removed. A process killed at any
moment leaves at least one complete checkpoint and perhaps a temporary folder, which the next
`load` removes. ``model.safetensors`` and ``ema.safetensors`` in the run folder itself are
hard links to the newest checkpoint's files (copies where links are not possible).
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from monge.errors import UserError
from monge.system import schema
from monge.system.files import is_plain_name, remove, temporary_for

FORMAT_VERSION = 1
STATE = "state"
MANIFEST = "manifest.json"
TOP_LEVEL = ("model", "ema")
TEMPORARY = ".tmp-"

SCHEMA = schema.fields(
    {
        "format_version": schema.whole(1),
        "written_by": schema.text,
        "step": schema.whole(),
        "files": schema.table(schema.whole(0)),
        "facts": schema.table(schema.anything),
    }
)
"""What a manifest holds."""

OF_A_LOOP = schema.fields(
    {
        "steps": schema.maybe(schema.whole(1)),
        "minutes": schema.maybe(schema.number(0)),
        "micro_batch": schema.whole(1),
        "seconds": schema.number(0),
        "tally": schema.fields(
            {
                "window": schema.listed(schema.portable),
                "counts": schema.listed(schema.number(0), 3, 3),
            }
        ),
    },
    {
        "asked": schema.maybe(schema.whole(1)),
        "settled": schema.truth,
        "compiled": schema.truth,
    },
)
"""What the manifest of a training loop says beside its weights."""

Groups = Mapping[str, Mapping[str, Tensor]]
"""Tensors by file name (without suffix) and tensor name."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as read: its step, its tensors by file, and the rest."""

    step: int
    groups: dict[str, dict[str, Tensor]]
    facts: dict[str, Any]


def save(folder: Path, step: int, groups: Groups, facts: Mapping[str, Any]) -> None:
    """Write the checkpoint of a step that has none, then remove the older ones.

    Args:
        folder: the run folder.
        groups: tensors by file name; those named "model" and "ema" appear in the run folder too.
        facts: everything else, as JSON.

    Raises:
        UserError: the disk is full or the folder is not writable; older checkpoints are intact.
    """
    state = folder / STATE
    final = state / f"step-{step:08d}"
    temporary = state / (TEMPORARY + final.name)
    try:
        state.mkdir(parents=True, exist_ok=True)
        _remove(temporary)
        temporary.mkdir()
        _write(temporary, step, groups, facts)
        temporary.rename(final)
        _fsync(state)
        _publish(folder, final)
        _clean(state, final)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise UserError(
            f"cannot write the checkpoint of step {step} to {state}: {_reason(error)}; earlier "
            "checkpoints are intact: make room or allow writing, then run the same command again"
        ) from error


def check_facts(facts: Mapping[str, Any], folder: Path) -> None:
    """Check what a training loop is to go on from.

    Raises:
        UserError: it lacks something, or holds what no loop has written.
    """
    schema.check(facts, OF_A_LOOP, f"the checkpoint in {folder}", f"remove {folder / STATE}")


def load(folder: Path, *, clean: bool = True) -> Checkpoint | None:
    """The newest complete checkpoint of a run folder, or None.

    Args:
        clean: also remove what a killed process left behind, and renew the run folder's files.

    Raises:
        UserError: it was written by a newer version of monge, or is damaged, or cannot be read.
    """
    state = folder / STATE
    try:
        found = _newest(state)
        if clean and state.is_dir():
            if found is not None:
                _publish(folder, found)
            _clean(state, found)
        if found is None:
            return None
        manifest = json.loads((found / MANIFEST).read_text(encoding="utf-8"))
        groups = {Path(name).stem: load_file(found / name) for name in manifest["files"]}
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot read the checkpoint in {state}: {_reason(error)}") from error
    return Checkpoint(manifest["step"], groups, manifest["facts"])


def newest_step(folder: Path) -> int | None:
    """The step of the newest complete checkpoint of a run folder, or None; raises as `load`."""
    found = _newest(folder / STATE)
    return None if found is None else _step_of(found)


def _write(target: Path, step: int, groups: Groups, facts: Mapping[str, Any]) -> None:
    sizes = {}
    for name, tensors in groups.items():
        path = target / f"{name}.safetensors"
        save_file({k: t.detach().contiguous() for k, t in tensors.items()}, path, {"format": "pt"})
        _fsync(path)
        sizes[path.name] = path.stat().st_size
    manifest = {
        "format_version": FORMAT_VERSION,
        "written_by": f"monge {version('monge')}",
        "step": step,
        "files": sizes,
        "facts": dict(facts),
    }
    path = target / MANIFEST
    path.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    _fsync(path)
    _fsync(target)


def _newest(state: Path) -> Path | None:
    folders = _folders(state)
    found = next((c for c in reversed(folders) if _complete(c)), None)
    if folders and found is None:
        raise UserError(
            f"the checkpoint {folders[-1]} is damaged, a file is missing or cut short: put it "
            f"back, or remove {state} to start the run again"
        )
    return found


def _complete(checkpoint: Path) -> bool:
    """Whether every file is there in full.

    Raises:
        UserError: the format is newer than this version of monge reads.
    """
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    schema.check(manifest, SCHEMA, str(checkpoint / MANIFEST), f"remove {checkpoint.parent}")
    if not all(map(is_plain_name, manifest["files"])):
        raise UserError(f"the checkpoint {checkpoint} is damaged: it names files elsewhere")
    if manifest["format_version"] > FORMAT_VERSION:
        raise UserError(
            f"{checkpoint} has format version {manifest['format_version']}, written by "
            f"{manifest['written_by']}; this is monge {version('monge')}, which reads up to "
            f"{FORMAT_VERSION}: pip install --upgrade monge"
        )
    files = ((checkpoint / name, size) for name, size in manifest["files"].items())
    return all(path.is_file() and path.stat().st_size == size for path, size in files)


def _publish(folder: Path, checkpoint: Path) -> None:
    for name in TOP_LEVEL:
        source = checkpoint / f"{name}.safetensors"
        target = folder / source.name
        if not source.exists() or (target.exists() and target.samefile(source)):
            continue
        temporary = temporary_for(target)
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
            _fsync(temporary)
        temporary.replace(target)


def _folders(state: Path) -> list[Path]:
    """Checkpoint folders, oldest first."""
    if not state.is_dir():
        return []
    return sorted((p for p in state.iterdir() if re.fullmatch(r"step-\d+", p.name)), key=_step_of)


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))


def _clean(state: Path, newest: Path | None) -> None:
    """Remove what is temporary, and checkpoints other than the newest."""
    for item in list(state.iterdir()):
        if item.name.startswith(TEMPORARY):
            _remove(item)
    for old in _folders(state):
        if old != newest:
            # Under a temporary name first, so that half a checkpoint is never taken for one.
            _remove(old.rename(state / f"{TEMPORARY}old-{old.name}"))


def _remove(folder: Path) -> None:
    remove(folder)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
