"""Several processes of one command, forked from the test's, which has done the imports."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import forked
from monge.cli import main


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code, or minus the signal that ended it, and what it said."""

    code: int
    out: str
    err: str


def start(
    size: int, work: Callable[[], int], home: Path, env: Mapping[str, Sequence[str]] | None = None
) -> list[int]:
    """Start processes of ranks 0, 1, ...; returns their pids.

    Args:
        work: returns the exit code.
        home: for what they say.
        env: further variables, a value for each process.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home.mkdir(parents=True, exist_ok=True)
    pids = []
    for rank in range(size):
        variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": port}
        own = {name: str(value) for name, value in variables.items()}
        own |= {"MASTER_ADDR": "127.0.0.1"}
        own |= {name: values[rank] for name, values in (env or {}).items()}

        def one(rank: int = rank, own: dict[str, str] = own) -> None:
            os.environ.update(own)
            for number, name in ((1, "out"), (2, "err")):
                os.dup2(os.open(home / f"{name}-{rank}", os.O_WRONLY | os.O_CREAT), number)
            sys.stdout, sys.stderr = os.fdopen(1, "w", 1), os.fdopen(2, "w", 1)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            code = work()
            os._exit(code)

        pids.append(forked.start(one))
    return pids


def wait(pids: Sequence[int], home: Path, limit_s: float = 60.0) -> list[Ended]:
    """How they ended; after `limit_s` they are killed."""
    end, codes = time.monotonic() + limit_s, dict[int, int]()
    while len(codes) < len(pids):
        for pid in pids:
            if pid not in codes:
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    codes[pid] = os.waitstatus_to_exitcode(status)
                elif time.monotonic() > end:
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    said = [
        [(home / f"{name}-{r}").read_text() for name in ("out", "err")] for r in range(len(pids))
    ]
    return [Ended(codes[pid], *texts) for pid, texts in zip(pids, said, strict=True)]


def run(
    size: int,
    argv: Sequence[str],
    home: Path,
    env: Mapping[str, Sequence[str]] | None = None,
) -> list[Ended]:
    """Run one command of monge in several processes."""
    return wait(start(size, lambda: main(list(argv)), home, env), home)
