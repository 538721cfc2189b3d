"""Copies of the test's process that can be killed, limited or run beside each other."""

from __future__ import annotations

import os
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path


def start(work: Callable[[], object]) -> int:
    """Run work in a child process; returns its pid. Exit status: 0, or 1 if it raised."""
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def open_to_all(folder: Path) -> None:
    """Let other users into a temporary folder, and into those of the tests that it lies in."""
    for path in (folder, *folder.parents):
        if path == Path(tempfile.gettempdir()):
            break
        os.chmod(path, 0o755)


def wait(pid: int) -> int:
    """The exit status, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill_when(pid: int, ready: Callable[[], bool], limit_s: float = 30.0) -> int:
    """Kill -9 as soon as something is true, or let it end by itself; returns the exit status."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if ready():
            break
        time.sleep(0.0005)
    os.kill(pid, signal.SIGKILL)
    return wait(pid)
