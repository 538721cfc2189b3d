"""Atomic writes of files; writing never follows a link.

Everything that writes or deletes keeps these rules:

- a file is written under an unpredictable temporary name, created exclusively and without
  following a link, and then renamed; a link under the final name is replaced, its target is not
  touched;
- inside a folder that monge wrote, linked folders, pipes and devices are refused by name, since
  the folder may come from somebody else. The folder that the user names himself may be a link;
- only regular files are copied.

`monge.system.ownership` decides which files of a folder monge may replace.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from monge.errors import UserError

TEMPORARY = re.compile(r"\.tmp-.+-[0-9a-f]{8}", re.DOTALL)
"""Names of files that are being written, as `temporary_for` makes them."""

LONGEST = 100
"""Characters of a file's name that its temporary name repeats; systems allow 255 bytes."""

ATTEMPTS = 3
"""How often a write is tried when another process removes its temporary file."""


def temporary_for(path: Path) -> Path:
    """An unpredictable temporary name in the folder of a path."""
    return path.with_name(f".tmp-{path.name[:LONGEST]}-{secrets.token_hex(4)}")


def is_temporary(path: Path) -> bool:
    """Whether this is a temporary file of monge: a regular file with such a name."""
    return TEMPORARY.fullmatch(path.name) is not None and is_regular(path)


def remove_temporaries(folder: Path) -> None:
    """Remove the temporary files of interrupted writes from a folder and its subfolders."""
    for path in _within(folder):
        if is_temporary(path):
            with suppress(OSError):
                path.unlink()


def status(path: Path) -> os.stat_result | None:
    """The status of a path, of a link itself and not of its target; None if nothing is there.

    Raises:
        UserError: the name is impossible, or its status may not be read.
    """
    try:
        return path.lstat()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot use {shown(path)}: {_reason(error)}; choose another") from None


def identity(folder: Path) -> tuple[int, int] | None:
    """The device and inode of a folder, which survive a move; None without a folder."""
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def is_regular(path: Path) -> bool:
    """Whether this is a regular file, not a link to one."""
    found = status(path)
    return found is not None and stat.S_ISREG(found.st_mode)


def refuse_links(folder: Path) -> None:
    """Refuse a folder that contains links to elsewhere, or special files.

    Links to regular files are accepted for reading, because the hub's cache consists of them;
    writing replaces them. The folder itself may be a link.

    Raises:
        UserError: a linked subfolder, a broken link, a pipe, a socket or a device.
    """
    for path in _within(folder):
        found = status(path)
        if found is None or stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode):
            continue
        what = "neither a file nor a folder"
        if stat.S_ISLNK(found.st_mode):
            if path.is_file():
                continue
            what = f"a link to {os.readlink(path)}"
        raise UserError(
            f"{path} is {what}: monge follows no links inside a folder that it writes to; remove "
            "it, or put a folder or file in its place"
        )


def _within(folder: Path) -> Iterator[Path]:
    """All entries of a folder and its subfolders; links are not followed."""
    for at, folders, names in os.walk(folder):
        for name in sorted(folders + names):
            yield Path(at, name)


def replace_with(path: Path, data: bytes) -> None:
    """Write a file under a temporary name, flush it to disk, then rename it.

    Raises:
        OSError: the folder is not writable or the disk is full; the earlier file is intact.
    """
    for attempt in range(ATTEMPTS):
        temporary = temporary_for(path)
        try:
            _create(temporary, data)
            temporary.replace(path)
            return
        except FileNotFoundError:  # removed by the next process that holds the folder
            if attempt == ATTEMPTS - 1:
                raise
        except OSError:
            with suppress(OSError):
                temporary.unlink()
            raise


def _create(path: Path, data: bytes) -> None:
    """Write a new file."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with open(os.open(path, flags, 0o666), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_atomic(path: Path, content: bytes | str) -> Path:
    """Write a file under a temporary name, flush it to disk, then rename it.

    Raises:
        UserError: the folder is not writable or the disk is full; the earlier file is intact.
    """
    # File names that are no UTF-8 hold lone surrogates, which are escaped as in JSON: "\udcff".
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_with(path, data)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "make room" if full else "choose another folder"
        raise UserError(f"cannot write {shown(path)}: {error.strerror}; {remedy}") from error
    return path


def write_json(path: Path, value: Any) -> Path:
    """Write a value as JSON, atomically."""
    return write_atomic(path, json_of(value))


def json_of(value: Any) -> str:
    """The content of a JSON file."""
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def strict(value: Any, *, infinities: bool = False) -> Any:
    """A value for strict JSON: numbers that are not finite become null.

    Args:
        value: numbers, text, mappings and lists, nested to any depth.
        infinities: write infinities as the texts "inf" and "-inf"; `float` reads them back.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return str(value) if infinities and not math.isnan(value) else None
    if isinstance(value, Mapping):
        return {key: strict(item, infinities=infinities) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict(item, infinities=infinities) for item in value]
    return value


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        UserError: a missing or damaged file, or a pipe or device in its place.
    """
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"cannot read {path}: it is not a file")
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {shown(path)}: {error.strerror}") from None
    except RecursionError:
        raise UserError(f"{path} is damaged: it is nested too deep") from None
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is damaged: {error}") from None


def read_own(path: Path) -> bytes:
    """The content of a regular file; a link is not followed.

    Raises:
        OSError: a link, no regular file, or not readable.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        return file.read()


def copy_new(source: Path, target: Path) -> None:
    """Copy a regular file to a new name.

    Raises:
        UserError: the source is no regular file, or the target exists or is not writable.
    """
    try:
        content = read_own(source)
    except OSError as error:
        what = "it is a link" if error.errno == errno.ELOOP else error.strerror
        raise UserError(
            f"cannot copy {source}: {what}; put the file itself in its place, or remove it"
        ) from None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _create(target, content)
    except OSError as error:
        raise UserError(f"cannot write {shown(target)}: {error.strerror}") from error


def refuse_existing(out: Path) -> None:
    """Refuse an output path that is taken.

    Raises:
        UserError: a file, a link without a folder as its target, or a folder that is not empty.
    """
    if os.path.isdir(out) and not any(out.iterdir()):
        return
    if status(out) is not None:
        raise UserError(f"{out} is there already: choose another place with --out, or remove it")


def remove(path: Path) -> None:
    """Remove a file, a link (not its target) or a folder with its content, if it exists."""
    found = status(path)
    if found is not None and stat.S_ISDIR(found.st_mode):
        shutil.rmtree(path)
    elif found is not None:
        path.unlink(missing_ok=True)


def is_plain_name(name: object) -> bool:
    """Whether a text is the name of a file without any folder."""
    return (
        isinstance(name, str)
        and name not in ("", ".", "..")
        and not any(sign in name for sign in "/\\\0")
    )


@contextmanager
def telling(path: Path) -> Iterator[None]:
    """Turn an `OSError` about a path into a message for the user.

    Raises:
        UserError: the path, with the system's reason.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot use {shown(path)}: {_reason(error)}; choose another place"
        ) from error


def shown(path: Path) -> str:
    """A path for a message; names longer than any system allows are cut."""
    cut = (p if len(p) <= 255 else f"{p[:40]}... ({len(p)} characters)" for p in path.parts)
    return str(Path(*cut))


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
