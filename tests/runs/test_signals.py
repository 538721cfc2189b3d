"""A signal at any moment of any verb ends it with a word and exit code 130, never a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from monge.errors import UserError
from monge.runs.run import Run

STARTED = """
import builtins, os, signal, sys
sys.argv = ["monge", *sys.argv[3:]]
module, number = "{module}", {number}
plain = builtins.__import__
def noticing(name, *rest, **more):
    if name == module:
        builtins.__import__ = plain
        os.kill(os.getpid(), number)
    return plain(name, *rest, **more)
builtins.__import__ = noticing
from monge.__main__ import main
raise SystemExit(main())
"""
"""The command, to which a signal comes as soon as a module is imported."""


@pytest.mark.parametrize("module", ["monge.cli", "torch"])
@pytest.mark.parametrize("each", [signal.SIGINT, signal.SIGTERM], ids=lambda s: s.name)
def test_a_signal_while_modules_are_imported(module: str, each: signal.Signals) -> None:
    code = STARTED.replace("{module}", module).replace("{number}", str(int(each)))
    words = [sys.executable, "-c", code, "-", "-", "sample", "nowhere"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (130, "stopped\n")


VERBS = {
    "sample": ["-n", "100000"],
    "evaluate": ["-n", "20000"],
    "verify": ["-n", "4000"],
    "export": [],
}


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("each", [signal.SIGINT, signal.SIGTERM], ids=lambda s: s.name)
def test_a_signal_at_any_time(
    verb: str, each: signal.Signals, table_run: Run, tmp_path: Path
) -> None:
    out = ["--out", str(tmp_path / "out")] if verb in ("sample", "export") else []
    words = [sys.executable, "-m", "monge", verb, str(table_run.folder), *VERBS[verb], *out]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for wait_s in (0.6, 1.2, 2.0, 3.0, 4.5, 6.0):
        running = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        time.sleep(wait_s)
        running.send_signal(each)
        _, told = running.communicate(timeout=120)
        if running.returncode == 0:
            break
        assert running.returncode == 130 and "Traceback" not in told, (wait_s, told)
        assert told.rstrip().endswith("stopped"), told


def test_a_folder_that_is_moved_while_it_is_trained_is_not_made_again(tmp_path: Path) -> None:
    from toy_for_moves import moved_while_trained

    old, new = tmp_path / "old", tmp_path / "new"
    with pytest.raises(UserError, match="was moved or removed while it was trained, after step 4"):
        moved_while_trained(old, new)
    assert not old.exists() and (new / "state" / "step-00000002").is_dir()
