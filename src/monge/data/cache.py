"""The cache: what was read and encoded once, kept in folders of its own.

It lies under ``$MONGE_CACHE``, by default ``~/.cache/monge``; each entry is a folder
``<kind>/<name>-<key>`` whose key is a hash of everything that its content depends on, so that an
entry is never out of date, and whose ``entry.json``, written last, says that it is whole.
Entries can be removed at any time; what is needed is made again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monge import lock
from monge.errors import UserError
from monge.files import read_json, write_json
from monge.progress import Say

ENTRY = "entry.json"
KINDS = ("images", "latents")


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
    for kind in KINDS:
        home = root() / kind
        for folder in sorted(home.iterdir()) if home.is_dir() else []:
            if folder.is_dir() and not folder.name.startswith("."):
                with suppress(FileNotFoundError):  # cleared by another process meanwhile
                    found.append(_describe(kind, folder))
    return sorted(found, key=lambda e: -e.used)


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
        UserError: no entry of a given name; or one cannot be removed.
    """
    known = {e.name: root() / e.kind / e.name for e in entries()}
    unknown = [n for n in names or [] if n not in known]
    if unknown:
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
                doomed = folder.with_name(f".cleared-{os.getpid()}-{name}")
                _move(folder, doomed)
            shutil.rmtree(doomed, ignore_errors=True)
            removed.append(name)
        except lock.Held:
            busy.append(name)
    return removed, busy


def _move(folder: Path, to: Path) -> None:
    try:
        folder.rename(to)
    except OSError as error:
        raise UserError(f"cannot remove {folder}: {error.strerror}") from None
