"""One process at a time on a folder: a run's, or an entry of the cache.

The lock is an advisory lock of the operating system on a file, which dies with its process
however that ends; so a lock file left behind by a killed process is not in anybody's way. What
stands in the file is only there to tell a second process whom it is waiting for.

A file of that name which monge did not write, a link or a folder is left as it is and refused, for
the folder may be somebody else's. Who holds a folder removes what interrupted writes left there.
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
"""Seconds between looks at a lock that is waited for."""

LOOKS = 10
"""Looks at the name of a holder that has not written it yet, within `POLL_S`."""

ATTEMPTS = 50
"""How often a lock file is made that is removed, with its folder or alone, before it is locked."""

LONGEST = 1000
"""Bytes that a lock file has at most."""

OPENING = b'{"pid": '
"""How the content of a lock file begins."""


class Held(UserError):
    """Another process holds the folder."""


_HELD: set[tuple[int, Path]] = set()
"""Folders that this process (pid) holds; to hold one again inside is no conflict."""


@contextmanager
def hold(folder: Path, wait: Say | None = None) -> Iterator[None]:
    """Hold a folder, which is created if needed.

    Args:
        wait: wait for another process to leave it, and tell whom one is waiting for; None refuses.

    Raises:
        Held: a live process holds it (named by pid, host and start).
        UserError: it is not writable, what is called `lock` in it is not monge's, or a subfolder
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
    """Remove what interrupted writes have left in a folder, where nobody else works on it."""
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
    """Whether a lock file is a regular file of one name that says nothing but who holds it."""
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1 or found.st_size > LONGEST:
        return False
    content = os.pread(descriptor, LONGEST, 0)
    # One that is being written is empty, or holds the beginning of what is written.
    return content.startswith(OPENING) or OPENING.startswith(content)


def _foreign(path: Path) -> UserError:
    return UserError(
        f"{path} is a link, or something else that monge did not write: it is left as it is; "
        "remove it, or choose another folder"
    )


def _wait(path: Path, say: Say) -> int:
    """A descriptor that holds the lock, once no other process does."""
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
        except ValueError:  # it holds the lock, and is about to write its name
            time.sleep(POLL_S / LOOKS)
        except (OSError, LookupError, TypeError, AttributeError):
            break
    return "another process"


def _refusal(path: Path) -> str:
    return (
        f"the folder {path.parent} is in use by {_owner(path)}; wait until it has finished, stop "
        "it, or choose another folder"
    )
