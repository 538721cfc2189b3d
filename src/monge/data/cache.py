"""The cache: what was read and encoded once, kept in folders of its own.

It lies under ``$MONGE_CACHE``, by default ``~/.cache/monge``; each entry is a folder
``<kind>/<name>-<key>`` whose key is a hash of everything that its content depends on, so that an
entry is never out of date, and whose ``entry.json``, written last, says that it is whole.
Entries can be removed at any time; what is needed is made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monge import lock
from monge.errors import UserError
from monge.files import read_json
from monge.progress import Say

ENTRY = "entry.json"
KINDS = ("images", "latents")


def root() -> Path:
    """Where the cache lies."""
    named = os.environ.get("MONGE_CACHE")
    if named:
        return Path(named)
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
def building(folder: Path, say: Say) -> Iterator[bool]:
    """Hold an entry's folder while it is made; whether it still has to be.

    A second process waits here for the first, and then finds the entry made.
    """
    if is_whole(folder):
        os.utime(folder / ENTRY)  # when it was last of use
        yield False
        return
    with lock.hold(folder, wait=say):
        yield not is_whole(folder)


def is_whole(folder: Path) -> bool:
    """Whether the entry is there in full."""
    return (folder / ENTRY).exists()


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
            if folder.is_dir():
                found.append(_describe(kind, folder))
    return sorted(found, key=lambda e: -e.used)


def _describe(kind: str, folder: Path) -> Entry:
    size = sum(p.stat().st_size for p in folder.iterdir() if p.is_file())
    try:
        facts = read_json(folder / ENTRY) if is_whole(folder) else {}
    except UserError:
        facts = {}
    used = (folder / ENTRY if is_whole(folder) else folder).stat().st_mtime
    source = str(facts.get("source", "unfinished"))
    return Entry(kind, folder.name, facts.get("n"), size, used, source, bool(facts))


def clear(names: list[str] | None = None) -> tuple[list[str], list[str]]:
    """Remove entries, by name, or all; returns those removed and those in use.

    Raises:
        UserError: no entry of a given name.
    """
    known = {e.name: root() / e.kind / e.name for e in entries()}
    unknown = [n for n in names or [] if n not in known]
    if unknown:
        listed = ", ".join(known) or "nothing"
        raise UserError(f"no cache entry {unknown[0]!r}; the cache holds: {listed}")
    removed, busy = [], []
    for name in names or known:
        try:
            with lock.hold(known[name]):
                # The settings first, so that half an entry is never taken for a whole one.
                (known[name] / ENTRY).unlink(missing_ok=True)
                shutil.rmtree(known[name], ignore_errors=True)
            removed.append(name)
        except UserError:
            busy.append(name)
    return removed, busy
