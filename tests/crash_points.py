"""A child process that is killed before its k-th change of a folder.

Python reports whatever opens, makes, renames, links or removes a file to its audit hooks, before
it is done; so no call of the program is missed, whichever module makes it.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import forked

CHANGES = {
    "os.rename": (0, 1),
    "os.remove": (0,),
    "os.mkdir": (0,),
    "os.rmdir": (0,),
    "os.link": (0, 1),
    "os.symlink": (1,),
    "os.truncate": (0,),
    "os.chmod": (0,),
    "shutil.rmtree": (0,),
    "shutil.copyfile": (1,),
}
"""Events that change files, and which of their arguments are paths."""

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

BEFORE = "killed before operation"


def _changed(event: str, arguments: tuple[object, ...]) -> list[str]:
    """The paths that an event is about to change."""
    if event == "open":
        path, _, flags = arguments
        writes = isinstance(flags, int) and flags & WRITES
        return [os.fsdecode(path)] if writes and isinstance(path, str | bytes) else []
    places = CHANGES.get(event, ())
    return [os.fspath(a) for i, a in enumerate(arguments) if i in places and isinstance(a, str)]


def _watch(root: Path, before: Callable[[str], None]) -> None:
    """Call `before` with each operation on a folder from now on, for the life of the process."""
    inside = str(root.resolve())

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event != "open" and event not in CHANGES:
            return
        paths = _changed(event, arguments)
        if any(os.path.abspath(path).startswith(inside) for path in paths):
            before(f"{event} {' '.join(os.path.basename(path) for path in paths)}")

    sys.addaudithook(hook)


def operations(root: Path, work: Callable[[], object], log: Path) -> list[str]:
    """What work changes in a folder, in order, done in a child process."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def child() -> None:
        _watch(root, lambda what: os.write(descriptor, f"{what}\n".encode()))
        work()

    assert forked.wait(forked.start(child)) == 0
    os.close(descriptor)
    return log.read_text().splitlines()


def kill_before(root: Path, work: Callable[[], object], k: int) -> int:
    """Do work in a child that is killed before its k-th operation; returns the exit status."""

    def child() -> None:
        left = [k]

        def count(_: str) -> None:
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1

        _watch(root, count)
        work()

    return forked.wait(forked.start(child))


def each_crash(
    begin: Path | None, root: Path, work: Callable[[], object], every: int = 1
) -> Iterator[tuple[int, str]]:
    """Kill work before each `every`-th operation, in a copy of a folder each time, then do it
    again to its end. Yields the operation; the folder is then what is left.

    Args:
        begin: the folder before work; None: work makes it.
    """

    def fresh() -> None:
        shutil.rmtree(root, ignore_errors=True)
        if begin is not None:
            shutil.copytree(begin, root)

    fresh()
    known = operations(root, work, root.parent / "operations.txt")
    assert known, "work changes nothing"
    for k in range(0, len(known), every):
        fresh()
        assert kill_before(root, work, k) == -signal.SIGKILL, f"{BEFORE} {k}: {known[k]}"
        assert forked.wait(forked.start(work)) == 0, f"{BEFORE} {k}: {known[k]}"
        yield k, known[k]


def temporaries(folder: Path) -> list[str]:
    """What is left of unfinished writes."""
    return [str(p.relative_to(folder)) for p in folder.rglob("*") if p.name.startswith(".tmp")]
