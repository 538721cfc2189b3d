"""Locks a run folder or a cache entry for one process at a time.

The lock is an advisory lock of the operating system on a file. It ends with its process, so a lock
file left by a killed process blocks nobody. The content of the file only names the holder for
processes that wait.

A file of that name which monge did not write, a link or a folder is refused and left untouched,
because the folder may be somebody else's. The holder removes temporary files of interrupted writes.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from monge.errors import UserError
from monge.system import files
from monge.system.progress import Say

NAME = "lock"
POLL_S = 0.2
"""Seconds between attempts to take the lock."""

LOOKS = 10
"""Attempts, within `POLL_S`, to read the name of a holder that is still writing it."""

ATTEMPTS = 50
"""How often a lock file is created again when it is removed before it could be locked."""

LONGEST = 1000
"""Largest size of a lock file, in bytes."""

OPENING = b'{"pid": '
"""How the content of a lock file begins."""


class Held(UserError):
    """Another process holds the folder."""


_HELD: set[tuple[int, Path]] = set()
"""Folders that this process (pid) holds; holding one of them again is no conflict."""


@contextmanager
def hold(folder: Path, wait: Say | None = None) -> Iterator[None]:
    """Hold the lock of a folder; the folder is created if needed.

    Args:
        wait: wait for another process, and print its name by this function; None refuses.

    Raises:
        Held: a live process holds the lock (named by pid, host and start).
        UserError: the folder is not writable, its `lock` was not written by monge, or a subfolder
            is a link.
    """
    path, key = folder / NAME, (os.getpid(), folder.absolute())
    if key in _HELD:
        yield
        return
    with _telling(folder):
        descriptor = _lock(path) if wait is None else _wait(path, wait)
    _HELD.add(key)
    try:
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
        files.refuse_links(folder)
        files.remove_temporaries(folder)
        with _telling(folder):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(owner).encode(), 0)
        yield
    finally:
        _HELD.discard(key)
        if _is(path, descriptor):  # unless the folder has been moved away
            path.unlink(missing_ok=True)
        os.close(descriptor)


def tidy(folder: Path) -> None:
    """Remove temporary files of interrupted writes from a folder that no other process holds."""
    if folder.is_dir():
        with suppress(UserError), hold(folder):
            pass


@contextmanager
def _telling(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write to the folder {files.shown(folder)}: {error.strerror}; make it writable "
            "and make room, or choose another folder"
        ) from error


def _lock(path: Path) -> int:
    """A descriptor that holds the lock on the file of this name."""
    reason = "its lock file is removed again and again"
    for _ in range(ATTEMPTS):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        except FileNotFoundError as error:  # the folder was removed just now
            reason = str(error.strerror)
            time.sleep(POLL_S / ATTEMPTS)
            continue
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
                raise _foreign(path) from None
            raise
        try:
            if not _is_ours(descriptor):
                os.close(descriptor)
                raise _foreign(path)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise Held(_refusal(path)) from None
        # Its last holder may have removed the file between our opening and locking it.
        if _is(path, descriptor):
            return descriptor
        os.close(descriptor)
    raise UserError(f"cannot lock the folder {path.parent}: {reason}; choose another folder")


def _is_ours(descriptor: int) -> bool:
    """Whether this is a regular file with one name that holds a lock's content and nothing else."""
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1 or found.st_size > LONGEST:
        return False
    content = os.pread(descriptor, LONGEST, 0)
    # A lock file that is being written is empty or incomplete.
    return content.startswith(OPENING) or OPENING.startswith(content)


def _foreign(path: Path) -> UserError:
    return UserError(
        f"{path} is a link, or something else that monge did not write: it is left as it is; "
        "remove it, or choose another folder"
    )


def _wait(path: Path, say: Say) -> int:
    """Wait for the lock; returns a descriptor that holds it."""
    told = False
    while True:
        try:
            return _lock(path)
        except Held:
            if not told:
                say(f"waiting for {_owner(path)}, which works on {path.parent}")
                told = True
            time.sleep(POLL_S)


def _is(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _owner(path: Path) -> str:
    for _ in range(LOOKS):
        try:
            owner = json.loads(path.read_text(encoding="utf-8"))
            return "process {pid} on {host}, since {since}".format(**owner)
        except ValueError:  # the holder has not written its name yet
            time.sleep(POLL_S / LOOKS)
        except (OSError, LookupError, TypeError, AttributeError):
            break
    return "another process"


def _refusal(path: Path) -> str:
    return (
        f"the folder {path.parent} is in use by {_owner(path)}; wait until it has finished, stop "
        "it, or choose another folder"
    )
