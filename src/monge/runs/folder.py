"""Opens a run folder for one specification, and continues it only with the same one."""

from __future__ import annotations

import dataclasses
import datetime
import os
import platform
import shlex
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from monge import autoencoders
from monge.components import Component, build
from monge.errors import UserError
from monge.runs import places, schemas
from monge.runs.layout import CHANGES, CONFIG, COST, ENVIRONMENT
from monge.runs.spec import MAY_CHANGE, TrainSpec, difference, from_yaml, to_yaml
from monge.system import own_code
from monge.system.files import (
    is_temporary,
    refuse_links,
    status,
    telling,
    write_atomic,
    write_json,
)

COMPONENTS = ("network", "path", "coupling", "times", "solver", "grid", "objective", "pairs")
"""Fields of the specification that are components' texts. The autoencoder is not among them: its
files describe it."""


def default_folder(spec: TrainSpec, data_name: str) -> Path:
    """``runs/<data>-<8 hex of the specification>``."""
    return Path("runs") / f"{data_name}-{spec.digest()}"


def require_free(folder: Path) -> None:
    """Refuse a folder for a run that holds other files, before anything is written there.

    The lock and temporary files of an interrupted monge are accepted.

    Raises:
        UserError: no folder, a folder of other files, or a run with a link as a subfolder.
    """
    if status(folder) is None:
        return
    if not folder.is_dir():
        what = "a link that leads to no folder" if folder.is_symlink() else "a file"
        raise UserError(f"{folder} is {what}: choose another folder with --out")
    if status(folder / CONFIG) is not None:
        refuse_links(folder)
        return
    with telling(folder):
        foreign = [p.name for p in folder.iterdir() if p.name != "lock" and not is_temporary(p)]
    if foreign:
        raise UserError(
            f"{folder} is not empty and holds no run ({', '.join(sorted(foreign)[:3])}, ...): "
            "choose another folder with --out"
        )


def open_folder(folder: Path, spec: TrainSpec, done: int = 0) -> dict[str, tuple[Any, Any]]:
    """Start a run in a folder, or continue its run.

    Args:
        done: steps finished there.

    Returns:
        The changed fields, all of which may change.

    Raises:
        UserError: the folder holds another run (the message shows both), or other files.
    """
    config = folder / CONFIG
    if not config.exists():
        require_free(folder)
        own_code.keep(folder, texts_of(spec))
        write_atomic(config, to_yaml(in_full(spec)))
        return {}
    before, now = read_config(folder), in_short(spec)
    # Paths that were moved together with the run are unchanged.
    changed = difference(places.resolved(folder, before), places.resolved(folder, now))
    free = MAY_CHANGE
    encoded = (folder / "autoencoder" / autoencoders.SETTINGS).exists()
    if not encoded:
        free |= {"autoencoder_steps"}  # the autoencoder is still in training
    if not done:  # nothing has been trained by code that was mended since
        free |= {
            name
            for name, pair in changed.items()
            if own_code.mended(*map(str, pair))
            and not (encoded and name in ("autoencoder", "data"))
        }
    refused = {k: pair for k, pair in changed.items() if k not in free}
    if refused:
        rows = [("field", "this folder", "this command")]
        rows += [(k, str(a), str(b)) for k, (a, b) in refused.items()]
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        table = "\n".join(
            "  " + "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
            for row in rows
        )
        raise UserError(
            f"{folder} holds a different run:\n{table}\n"
            "give the same settings to continue it, or another folder with --out"
        )
    if spec.steps is not None and done > spec.steps:
        raise UserError(
            f"{folder} has already done {done} steps: give --steps {done} or more, or "
            "another folder with --out"
        )
    if changed:
        own_code.keep(folder, texts_of(spec))
        write_atomic(config, to_yaml(in_full(places.as_kept(spec, before))))
    return changed


def in_full(spec: TrainSpec) -> TrainSpec:
    """The specification with every setting of its components, for files.

    So a run does not change when a default changes.
    """
    return dataclasses.replace(spec, **{k: x.in_full for k, x in _components(spec).items()})


def in_short(spec: TrainSpec) -> TrainSpec:
    """The same specification with default settings of its components left out."""
    return dataclasses.replace(spec, **{k: str(x) for k, x in _components(spec).items()})


def _components(spec: TrainSpec) -> dict[str, Component]:
    chosen = {name: text for name in COMPONENTS if (text := getattr(spec, name)) != "auto"}
    return {name: build(name, text) for name, text in chosen.items()}


def read_config(folder: Path) -> TrainSpec:
    """The specification of the run in a folder, with short texts of its components.

    Raises:
        UserError: no run there, or a run of a newer format.
    """
    if not folder.is_dir():
        raise UserError(f"no such run folder: {folder}")
    if not (folder / CONFIG).is_file():
        raise UserError(f"{folder} is not a run folder: it has no {CONFIG}")
    spec = from_yaml(folder / CONFIG, complete=True)
    own_code.require(folder, texts_of(spec))
    return in_short(spec)


def texts_of(spec: TrainSpec) -> list[str]:
    """The texts of a specification's components, including autoencoder and target."""
    target = spec.data.removeprefix("target:")
    return [*(getattr(spec, name) for name in COMPONENTS), spec.autoencoder, target]


def adopted(spec: TrainSpec) -> TrainSpec:
    """The specification with the user's own components under their names in a run.

    Raises:
        UserError: a file that is missing, fails, or lacks the component.
    """
    names = [*COMPONENTS, "autoencoder"]
    own = {name: text for name in names if own_code.is_own(text := getattr(spec, name))}
    changes = {name: own_code.adopt(text) for name, text in own.items()}
    head, _, target = spec.data.partition(":")
    if head == "target" and own_code.is_own(target):
        changes["data"] = f"target:{own_code.adopt(target)}"
    return dataclasses.replace(spec, **changes)


def journal_changes(folder: Path, changed: dict[str, tuple[Any, Any]]) -> None:
    """Append the changed settings of a continued run to the folder's list of changes."""
    if not changed:
        return
    path = folder / CHANGES
    entry = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "changed": {k: {"from": old, "to": new} for k, (old, new) in changed.items()},
    }
    try:
        before = schemas.read_if_there(folder, CHANGES) or []
    except UserError:  # damaged: begin the list anew
        before = []
    write_json(path, [*before, entry])


def add_costs(folder: Path, **costs: float | int) -> None:
    """Add costs to those recorded in the run's folder."""
    path = folder / COST
    try:
        before = schemas.read_if_there(folder, COST) or {}
    except UserError:  # damaged: begin the account anew
        before = {}
    write_json(path, {**before, **costs})


def write_environment(folder: Path, device: str) -> None:
    """Record the versions and the machine of the run."""
    import torch

    write_json(
        folder / ENVIRONMENT,
        {
            "command": shlex.join([os.path.basename(sys.argv[0]), *sys.argv[1:]]),
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "monge": monge_version(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "platform": platform.platform(),
            "cpu": _cpu_name(),
            "threads": torch.get_num_threads(),
            "device": device,
        },
    )


def monge_version() -> str:
    """The installed version of monge."""
    try:
        return version("monge")
    except PackageNotFoundError:
        return "unknown"


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
