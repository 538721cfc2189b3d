"""The cache of decoded images and encoded latents.

The cache lies under ``$MONGE_CACHE``, by default ``~/.cache/monge``. Each entry is a folder
``<kind>/<name>-<key>``. The key is a hash of everything that the content depends on, so an entry is
never out of date. ``entry.json`` is written last and marks the entry as complete. Entries can be
removed at any time; they are made again when needed.

The folder may hold other files, if ``$MONGE_CACHE`` names a folder in other use. An entry is
recognised by its name and its content: only regular files with names that monge writes. Anything
else is never listed or removed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monge.errors import UserError
from monge.system import files, lock
from monge.system.files import read_json, write_json
from monge.system.progress import Say

ENTRY = "entry.json"
KINDS = ("images", "latents")

KEYED = re.compile(r"[A-Za-z0-9_.-]{1,40}-[0-9a-f]{12}")
"""Names of entries, as `folder_for` makes them."""

WRITTEN = re.compile(
    r"entry\.json|plan\.json|lock|(pixels|latents)-\d{5,}\.safetensors"
    r"|\.tmp-(.+-[0-9a-f]{8}|\d+-.+)"
)
"""Names of an entry's files; the last alternatives are temporary files."""

CLEARED = ".cleared-"
"""Prefix of the name of a folder that is being removed."""


def root() -> Path:
    """The cache's folder."""
    named = os.environ.get("MONGE_CACHE")
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "monge"


def folder_for(kind: str, name: str, facts: Mapping[str, Any]) -> Path:
    """The folder of the entry whose content depends on these facts alone."""
    text = json.dumps(facts, sort_keys=True, ensure_ascii=True)
    key = hashlib.sha256(text.encode()).hexdigest()[:12]
    return root() / kind / f"{plain_name(name)}-{key}"


def plain_name(name: str) -> str:
    """A name that is safe as a file name on every system."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip("._")[:40] or "data"


@contextmanager
def building(folder: Path, say: Say, again: bool = False) -> Iterator[bool]:
    """Hold an entry's folder while the entry is made; yields whether it must still be made.

    A second process waits here for the first, and then finds a complete entry. While this process
    lives, `clear` does not remove the entry.

    Args:
        again: make the entry again even if it is complete.
    """
    if is_whole(folder) and not again:
        with suppress(OSError):  # somebody else's cache may be read-only
            os.utime(folder / ENTRY)  # the time of its last use
        yield False
    else:
        with lock.hold(folder, wait=say):
            for left in folder.glob(".tmp-*"):  # of a killed process
                if files.is_regular(left):
                    left.unlink(missing_ok=True)
            yield again or not is_whole(folder)
    _use(folder)


def is_whole(folder: Path) -> bool:
    """Whether the entry is complete."""
    return (folder / ENTRY).exists()


def write_entry(folder: Path, entry: Mapping[str, Any]) -> None:
    """Write ``entry.json``, which completes the entry.

    Args:
        entry: at least "n", the number of examples; "shards", the digest of each file; "source".
    """
    write_json(folder / ENTRY, {**entry, "digest": _digest(entry)})


def _digest(entry: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()


def read_entry(folder: Path) -> dict[str, Any]:
    """The content of ``entry.json``.

    Raises:
        UserError: the file is damaged.
    """
    try:
        entry = read_json(folder / ENTRY)
        if entry.pop("digest", None) != _digest(entry):
            raise UserError(f"{folder / ENTRY} is damaged: it has changed since it was written")
        if not all(map(files.is_plain_name, entry.get("shards", ()))):
            raise UserError(f"{folder / ENTRY} is damaged: it names files elsewhere")
    except (UserError, AttributeError, TypeError) as error:
        raise UserError(
            f"{error}; remove the folder {folder} (monge cache clear {folder.name}), and it is "
            "made anew"
        ) from None
    return entry


_USED: dict[Path, int] = {}
"""Descriptors of the entries that this process has opened, each with a shared lock."""


def _use(folder: Path) -> None:
    if folder.absolute() not in _USED:
        with suppress(OSError):  # some network drives have no locks
            descriptor = os.open(folder / ENTRY, os.O_RDONLY)
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            _USED[folder.absolute()] = descriptor


def _is_used(folder: Path) -> bool:
    """Whether another process has opened the entry."""
    if (own := _USED.pop(folder.absolute(), None)) is not None:
        os.close(own)
    try:
        descriptor = os.open(folder / ENTRY, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


@dataclass(frozen=True)
class Entry:
    """An entry of the cache, as listed by `monge cache list`."""

    kind: str
    name: str
    n: int | None
    bytes: int
    used: float
    source: str
    whole: bool


def entries() -> list[Entry]:
    """All entries, the most recently used first."""
    found = []
    for kind, folder in _folders():
        with suppress(FileNotFoundError):  # cleared by another process
            if not _foreign_to(folder):
                found.append(_describe(kind, folder))
    return sorted(found, key=lambda e: -e.used)


def foreign() -> list[str]:
    """Folders among the entries that monge did not make, with the reason; `clear` leaves them."""
    homes = [root() / kind for kind in KINDS]
    linked = [f"{home.name}: it is a link" for home in homes if home.is_symlink()]
    strange = [(f"{kind}/{folder.name}", _foreign_to(folder)) for kind, folder in _folders()]
    return linked + [f"{name}: {why}" for name, why in strange if why]


def _folders() -> list[tuple[str, Path]]:
    """All folders in the places of entries, as (kind, folder)."""
    found = []
    for kind in KINDS:
        home = root() / kind
        if home.is_dir() and not home.is_symlink():
            with files.telling(home):
                found += [(kind, p) for p in sorted(home.iterdir()) if p.name[0] != "."]
    return found


def _foreign_to(folder: Path, name: str | None = None) -> str:
    """Why a folder is not an entry of monge; empty if it is one.

    Args:
        name: the folder's name before `clear` renamed it.
    """
    if folder.is_symlink() or not folder.is_dir():
        return "it is a link" if folder.is_symlink() else "it is not a folder"
    if not KEYED.fullmatch(name or folder.name):
        return "its name is not that of an entry"
    for path in sorted(folder.iterdir()):
        if not WRITTEN.fullmatch(path.name) or not files.is_regular(path):
            return f"it holds {path.name}, which monge did not write"
    return ""


def _describe(kind: str, folder: Path) -> Entry:
    size = sum(p.stat().st_size for p in folder.iterdir() if p.is_file())
    whole, n, source = is_whole(folder), None, "unfinished"
    if whole:
        try:
            facts = read_entry(folder)
            n, source = facts["n"], str(facts.get("source", ""))
        except UserError:
            whole, source = False, "damaged"
    used = (folder / ENTRY if is_whole(folder) else folder).stat().st_mtime
    return Entry(kind, folder.name, n, size, used, source, whole)


def clear(names: list[str] | None = None) -> tuple[list[str], list[str]]:
    """Remove entries by name, or all; returns those removed and those in use by other processes.

    Raises:
        UserError: no entry of monge has a given name, or an entry cannot be removed.
    """
    _remove_left()
    known = {e.name: root() / e.kind / e.name for e in entries()}
    unknown = [n for n in names or [] if n not in known]
    if unknown:
        other = [f for f in foreign() if f.partition(":")[0].partition("/")[2] == unknown[0]]
        if other:
            raise UserError(f"not an entry of monge's, so it is left: {root()}/{other[0]}")
        listed = ", ".join(known) or "nothing"
        raise UserError(f"no cache entry {unknown[0]!r}; the cache holds: {listed}")
    removed, busy = [], []
    for name in names or known:
        folder = known[name]
        try:
            with lock.hold(folder):
                if _is_used(folder):
                    busy.append(name)
                    continue
                # Renamed first, so that a half-removed entry is never taken for a complete one.
                doomed = folder.with_name(f"{CLEARED}{os.getpid()}-{name}")
                _move(folder, doomed)
            _remove(doomed)
            removed.append(name)
        except lock.Held:
            busy.append(name)
    return removed, busy


def _remove_left() -> None:
    """Remove the folders that a killed `clear` had renamed."""
    for home in (root() / kind for kind in KINDS):
        if not home.is_symlink():
            for folder in home.glob(f"{CLEARED}*"):
                _, _, name = folder.name.removeprefix(CLEARED).partition("-")
                if not _foreign_to(folder, name):
                    _remove(folder)


def _remove(folder: Path) -> None:
    """Remove an entry's files, and its folder if it is then empty."""
    with suppress(OSError):
        for path in folder.iterdir():
            if WRITTEN.fullmatch(path.name):
                path.unlink(missing_ok=True)
        folder.rmdir()


def _move(folder: Path, to: Path) -> None:
    try:
        folder.rename(to)
    except OSError as error:
        raise UserError(f"cannot remove {folder}: {error.strerror}") from None
