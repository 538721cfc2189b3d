"""The command ``monge``, and ``python -m monge``.

Modules are imported after the signals have been taken over, so that a Ctrl-C in the first second
ends the command with one word and not in the middle of an import.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType


def _stopped(*_: object) -> None:
    """Leave at once: while modules are imported, nothing is under way."""
    os.write(2, b"stopped\n")
    os._exit(130)


def _interrupted(signum: int, frame: FrameType | None) -> None:
    """Interrupt what is under way; an import is left at once, as C++ code that is interrupted
    while its module is made ends the process with a core dump."""
    while frame is not None:
        if "importlib._bootstrap" in frame.f_code.co_filename:
            _stopped()
        frame = frame.f_back
    raise KeyboardInterrupt


def main() -> int:
    """Run the command of this process; returns its exit code."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, _stopped)
    from monge.cli import STOPPED
    from monge.cli import main as command

    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, _interrupted)
    code = command()
    if code == STOPPED:
        # Threads that libraries have left may not keep the process, nor a second Ctrl-C tell.
        sys.stdout.flush()
        os._exit(code)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
