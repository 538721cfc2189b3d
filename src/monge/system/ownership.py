"""Replaces an output folder of monge only if a manifest proves that monge wrote all its files.

The samples of `monge sample`, a comparison and the report of a component fill a folder that the
user names. Such a folder is new, empty, or holds only files that the manifest `.monge.json` lists
with the same name and SHA-256. In the last case it is replaced as a whole, so the results of two
commands are never mixed. If a single file was added or changed, the folder is refused.

The manifest is written before the files and lists their future content, so the files of a command
that was stopped between them are recognised by the next one.
"""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from monge.errors import UserError
from monge.system import files

MANIFEST = ".monge.json"
FORMAT_VERSION = 1
MOST_NAMED = 3
"""How many foreign files a refusal names."""

MOST_PLACES = 100
"""How many names are tried for a folder that monge chooses."""


def refuse_foreign(folder: Path, apart: Sequence[str] = ()) -> None:
    """Refuse a folder with any file that its manifest does not list.

    Args:
        apart: names of subfolders with a manifest of their own.

    Raises:
        UserError: no folder, or one with other files, by name; nothing was changed.
    """
    _own(folder, apart)


def free_place(folder: Path) -> Path:
    """The first of FOLDER, FOLDER-2, FOLDER-3, ... that `write` accepts; else FOLDER itself.

    For a place that monge chooses: files of older versions have no manifest.
    """
    others = (folder.with_name(f"{folder.name}-{k}") for k in range(2, MOST_PLACES + 1))
    for place in (folder, *others):
        with suppress(UserError):
            refuse_foreign(place)
            return place
    return folder


def write(folder: Path, contents: Mapping[str, bytes], apart: Sequence[str] = ()) -> list[Path]:
    """Fill a folder with the files of one command; monge's earlier files there are removed.

    Args:
        contents: of each file, by its name without folders.
        apart: as for `refuse_foreign`.

    Raises:
        UserError: as `refuse_foreign`, or the folder is not writable.
    """
    assert all(map(files.is_plain_name, contents)) and MANIFEST not in contents
    for path in _own(folder, apart):
        with files.telling(path):
            path.unlink(missing_ok=True)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    files.write_json(folder / MANIFEST, {"format_version": FORMAT_VERSION, "files": hashes})
    return [files.write_atomic(folder / name, content) for name, content in contents.items()]


def _own(folder: Path, apart: Sequence[str]) -> list[Path]:
    """The files that monge wrote to a folder, without the manifest; other files are refused."""
    found = files.status(folder)
    if found is None:
        return []
    # The folder that the user names may be a link; its entries may not.
    if not folder.is_dir():
        link = stat.S_ISLNK(found.st_mode)
        what = "a link that leads to no folder" if link else "no folder"
        raise UserError(f"{folder} is {what}: choose another folder with --out")
    with files.telling(folder):
        paths = sorted(folder.iterdir())
    own, foreign = [], []
    known = _read(folder) if (folder / MANIFEST) in paths else {}
    for path in paths:
        if path.name == MANIFEST and known is not None:
            continue
        if path.name in apart and not path.is_symlink() and path.is_dir():
            continue
        proven = known is not None and _holds(path, known.get(path.name))
        (own if proven or files.is_temporary(path) else foreign).append(path)
    if foreign:
        names = ", ".join(path.name for path in foreign[:MOST_NAMED])
        more = f" and {len(foreign) - MOST_NAMED} more" if len(foreign) > MOST_NAMED else ""
        raise UserError(
            f"{folder} holds files that monge did not write there, or that were changed since "
            f"({names}{more}): nothing was written; choose a new or empty folder with --out"
        )
    return own


def _holds(path: Path, digest: str | None) -> bool:
    try:
        return digest is not None and hashlib.sha256(files.read_own(path)).hexdigest() == digest
    except OSError:
        return False


def _read(folder: Path) -> dict[str, str] | None:
    """The digests by name; None if this is no manifest of monge.

    Raises:
        UserError: a manifest of a newer version.
    """
    try:
        found = json.loads(files.read_own(folder / MANIFEST))
        version, listed = found["format_version"], dict(found["files"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    if not isinstance(version, int) or not all(map(files.is_plain_name, listed)):
        return None
    if version > FORMAT_VERSION:
        raise UserError(
            f"{folder} was written by a newer version of monge (format version {version}): choose "
            "another folder with --out, or pip install --upgrade monge"
        )
    return listed
