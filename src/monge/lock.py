"""One process at a time on a folder: a run's, or an entry of the cache.

The lock is an advisory lock of the operating system on a file, which dies with its process
however that ends; so a lock file left behind by a killed process is not in anybody's way. What
stands in the file is only there to tell a second process whom it is waiting for.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from monge.errors import UserError
from monge.progress import Say

NAME = "lock"
POLL_S = 0.2
"""Seconds between looks at a lock that is waited for."""

LOOKS = 10
"""Looks at the name of a holder that has not written it yet, within `POLL_S`."""


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
        UserError: it is not writable.
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
        with _telling(folder):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(owner).encode(), 0)
        yield
    finally:
        _HELD.discard(key)
        if _is(path, descriptor):  # unless the folder has been moved away
            path.unlink(missing_ok=True)
        os.close(descriptor)


@contextmanager
def _telling(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write to the folder {folder}: {error.strerror}; make it writable and "
            "make room, or choose another folder"
        ) from error


def _lock(path: Path) -> int:
    """A descriptor that holds the lock on the file of this name."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:  # the folder was removed just now
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise Held(_refusal(path)) from None
        # Its last holder may have removed the file between our opening and locking it.
        if _is(path, descriptor):
            return descriptor
        os.close(descriptor)


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
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _owner(path: Path) -> str:
    for _ in range(LOOKS):
        try:
            owner = json.loads(path.read_text())
            return "process {pid} on {host}, since {since}".format(**owner)
        except ValueError:  # it holds the lock, and is about to write its name
            time.sleep(POLL_S / LOOKS)
        except (OSError, KeyError):
            break
    return "another process"


def _refusal(path: Path) -> str:
    return (
        f"the folder {path.parent} is in use by {_owner(path)}; wait until it has finished, stop "
        "it, or choose another folder"
    )
