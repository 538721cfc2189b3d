"""The cache: what was read and encoded once, kept in folders of its own.

It lies under ``$MONGE_CACHE``, by default ``~/.cache/monge``; each entry is a folder
``<kind>/<name>-<key>`` whose key is a hash of everything that its content depends on, so that an
entry is never out of date, and whose ``entry.json``, written last, says that it is whole.
Entries can be removed at any time; what is needed is made again.

The folder may hold other things, as when ``$MONGE_CACHE`` names one that is in use otherwise. An
entry is told by its name and by its content: regular files alone, of the names that monge writes.
All else is never listed or removed.
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
"""Names of an entry's files; the last alternatives are files that were being written."""

CLEARED = ".cleared-"
"""How the name of a folder begins that is being removed."""


def root() -> Path:
    """Where the cache lies."""
    named = os.environ.get("MONGE_CACHE")
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "monge"


def folder_for(kind: str, name: str, facts: Mapping[str, Any]) -> Path:
    """The entry's folder for content that depends on these facts alone."""
    text = json.dumps(facts, sort_keys=True, ensure_ascii=True)
    key = hashlib.sha256(text.encode()).hexdigest()[:12]
    return root() / kind / f"{plain_name(name)}-{key}"


def plain_name(name: str) -> str:
    """A name that is safe in file names everywhere."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip("._")[:40] or "data"


@contextmanager
def building(folder: Path, say: Say, again: bool = False) -> Iterator[bool]:
    """Hold an entry's folder while it is made; whether it still has to be.

    A second process waits here for the first, and then finds the entry made. From here on, for as
    long as this process lives, `clear` leaves the entry.

    Args:
        again: it has to be made though it is whole.
    """
    if is_whole(folder) and not again:
        with suppress(OSError):  # a cache that others own may be read only
            os.utime(folder / ENTRY)  # when it was last of use
        yield False
    else:
        with lock.hold(folder, wait=say):
            for left in folder.glob(".tmp-*"):  # by a process that was killed
                if files.is_regular(left):
                    left.unlink(missing_ok=True)
            yield again or not is_whole(folder)
    _use(folder)


def is_whole(folder: Path) -> bool:
    """Whether the entry is there in full."""
    return (folder / ENTRY).exists()


def write_entry(folder: Path, entry: Mapping[str, Any]) -> None:
    """Write ``entry.json``, which makes the entry whole.

    Args:
        entry: at least "n", how many examples it has; "shards", the digest of each file; "source".
    """
    write_json(folder / ENTRY, {**entry, "digest": _digest(entry)})


def _digest(entry: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()


def read_entry(folder: Path) -> dict[str, Any]:
    """What ``entry.json`` says.

    Raises:
        UserError: it is damaged.
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
"""Descriptors of the entries that this process has opened; each holds a shared lock."""


def _use(folder: Path) -> None:
    if folder.absolute() not in _USED:
        with suppress(OSError):  # without locks, as on some network drives, all goes on
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
    """An entry of the cache as `monge cache list` shows it."""

    kind: str
    name: str
    n: int | None
    bytes: int
    used: float
    source: str
    whole: bool


def entries() -> list[Entry]:
    """All entries, those used last first."""
    found = []
    for kind, folder in _folders():
        with suppress(FileNotFoundError):  # cleared by another process meanwhile
            if not _foreign_to(folder):
                found.append(_describe(kind, folder))
    return sorted(found, key=lambda e: -e.used)


def foreign() -> list[str]:
    """What lies where entries do and is not monge's, each with the reason; `clear` leaves it."""
    homes = [root() / kind for kind in KINDS]
    linked = [f"{home.name}: it is a link" for home in homes if home.is_symlink()]
    strange = [(f"{kind}/{folder.name}", _foreign_to(folder)) for kind, folder in _folders()]
    return linked + [f"{name}: {why}" for name, why in strange if why]


def _folders() -> list[tuple[str, Path]]:
    """What lies where entries do, by kind."""
    found = []
    for kind in KINDS:
        home = root() / kind
        if home.is_dir() and not home.is_symlink():
            with files.telling(home):
                found += [(kind, p) for p in sorted(home.iterdir()) if p.name[0] != "."]
    return found


def _foreign_to(folder: Path, name: str | None = None) -> str:
    """Why a folder is not an entry that monge made; empty if it is one.

    Args:
        name: its name before it was put out of the way.
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
    """Remove entries, by name, or all; returns those removed and those in use by other processes.

    Raises:
        UserError: no entry of a given name, or not one that monge made; or one cannot be removed.
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
                # Out of the way at once, so that half an entry is never taken for a whole one.
                doomed = folder.with_name(f"{CLEARED}{os.getpid()}-{name}")
                _move(folder, doomed)
            _remove(doomed)
            removed.append(name)
        except lock.Held:
            busy.append(name)
    return removed, busy


def _remove_left() -> None:
    """Remove what a killed `clear` had put out of the way."""
    for home in (root() / kind for kind in KINDS):
        if not home.is_symlink():
            for folder in home.glob(f"{CLEARED}*"):
                _, _, name = folder.name.removeprefix(CLEARED).partition("-")
                if not _foreign_to(folder, name):
                    _remove(folder)


def _remove(folder: Path) -> None:
    """Remove an entry's own files, and the folder if nothing else is in it."""
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
