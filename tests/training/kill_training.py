"""Kills real training processes at random moments until a run ends; says what happened.

    python kill_training.py FOLDER KILLS

Each process is forked from this one, which has done the imports, and trains the toy problem in
the same folder, with dropout and a checkpoint every other step. Half of the kills wait for a
checkpoint that is being written. When a run ends before all kills are spent, another begins; each
must equal, to the bit, a run that nobody disturbed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
import torch._dynamo  # imported by every optimiser; here once, before the forks
from toy_training import assert_same, train

from monge.training.checkpoint import STATE, TEMPORARY

STEPS = 30


def start(folder: Path) -> int:
    """Fork a process that trains in the folder."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        train(folder, steps=STEPS, save_every=2, log_every=3, dropout=0.1)
        code = 0
    finally:
        os._exit(code)


def writing(folder: Path) -> bool:
    """Whether a checkpoint is being written or removed."""
    state = folder / STATE
    return state.is_dir() and any(name.startswith(TEMPORARY) for name in os.listdir(state))


def wait(pid: int) -> bool:
    """Whether the process ended by itself, without an error."""
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return False
    assert os.waitstatus_to_exitcode(status) == 0
    return True


def main(home: Path, kills: int) -> None:
    torch.set_num_threads(1)
    rng = random.Random(0)
    reference = home / "undisturbed"
    begun = time.monotonic()
    assert wait(start(reference))
    whole_s = time.monotonic() - begun
    killed, torn, runs = 0, 0, 0
    folder = home / "run-0"
    while killed < kills or folder.exists():
        pid = start(folder)
        if killed < kills:
            time.sleep(rng.uniform(0, 0.6) * whole_s)
            aimed = rng.random() < 0.5
            until = time.monotonic() + whole_s
            while aimed and not writing(folder) and time.monotonic() < until:
                pass
            os.kill(pid, signal.SIGKILL)
        if wait(pid):
            assert_same(folder, reference)
            runs += 1
            folder = home / f"run-{runs}"
        else:
            killed += 1
            torn += writing(folder)
    print(json.dumps({"killed": killed, "torn": torn, "runs": runs}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
