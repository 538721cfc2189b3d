"""The real launchers: torchrun and accelerate, killed, and continued with other processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

TRAIN = [
    *("train", "target:mixture:dim=2,modes=3,seed=0", "--network=transformer:width=32,depth=2"),
    *("--batch=60", "--precision=float64", "--device=cpu", "--threads=1", "--log-every=5"),
    *("--sample-every=1000", "--grid=uniform:n=2", "--steps=120", "--save-every=20"),
]


def torchrun(processes: int) -> list[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*launcher, f"--nproc_per_node={processes}", "-m", "monge"]


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def killed_when(command: list[str], ready: Path) -> None:
    """Kill -9 the launcher and all its processes once a file is there."""
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 240
    while not ready.exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def assert_equal(one: Path, other: Path, within: float = 1e-10) -> None:
    found = 0.0
    for name in ("model", "ema"):
        mine, theirs = (load_file(f / f"{name}.safetensors") for f in (one, other))
        assert next(iter(mine.values())).dtype == torch.float64
        assert mine.keys() == theirs.keys()
        found = max(found, *(float((mine[k] - theirs[k]).abs().max()) for k in mine))
    assert found < within


@pytest.mark.slow
@pytest.mark.parametrize("shard", [False, True], ids=["whole", "sharded"])
def test_killed_and_continued_with_other_processes_is_the_same_run(
    tmp_path: Path, shard: bool
) -> None:
    """Two processes, killed; one, stopped; three to the end."""
    parts, whole = tmp_path / "parts", tmp_path / "whole"
    command = [*TRAIN, f"--out={parts}", "--shard" if shard else "--no-shard"]
    killed_when([*torchrun(2), *command], parts / "state" / "step-00000020")
    killed_when([sys.executable, "-m", "monge", *command], parts / "state" / "step-00000060")
    run([*torchrun(3), *command])
    run([sys.executable, "-m", "monge", *TRAIN, f"--out={whole}"])
    assert_equal(parts, whole)


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["lagrangian", "eulerian"])
def test_a_map_distilled_in_two_processes_is_that_of_one(tmp_path: Path, objective: str) -> None:
    """Killed and continued on the way."""
    teacher, one, two = (tmp_path / name for name in ("teacher", "one", "two"))
    run([sys.executable, "-m", "monge", *TRAIN, "--steps=20", f"--out={teacher}"])
    command = ["distil", str(teacher), f"--objective={objective}", "--steps=40"]
    killed_when([*torchrun(2), *command, f"--out={two}"], two / "state" / "step-00000020")
    run([*torchrun(2), *command, f"--out={two}"])
    run([sys.executable, "-m", "monge", *command, f"--out={one}"])
    assert_equal(one, two)


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["self-lagrangian", "self-eulerian"])
def test_a_sharded_map_is_that_of_one_process(tmp_path: Path, objective: str) -> None:
    """Derivatives by `torch.func.jvp` through gathered weights, not by dual numbers."""
    one, two = tmp_path / "one", tmp_path / "two"
    command = [*TRAIN, "--steps=20", f"--objective={objective}"]
    run([*torchrun(2), *command, "--shard", f"--out={two}"])
    run([sys.executable, "-m", "monge", *command, f"--out={one}"])
    assert_equal(one, two, within=1e-13)  # differences in time leave 1e-11


@pytest.mark.slow
def test_a_compiled_network_trains_in_two_processes(tmp_path: Path) -> None:
    command = [*TRAIN, "--steps=20", "--compile"]
    done = run([*torchrun(2), *command, f"--out={tmp_path / 'two'}"])
    assert "not compiled" not in done.stderr
    run([sys.executable, "-m", "monge", *TRAIN, "--steps=20", f"--out={tmp_path / 'one'}"])
    assert_equal(tmp_path / "two", tmp_path / "one")


@pytest.mark.slow
def test_accelerate_launches_too(tmp_path: Path) -> None:
    """Without a GPU, accelerate starts several processes only where it is told that there are."""
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
    launcher += ["--num_processes=2", "--num_machines=1", "--mixed_precision=no"]
    command = [*launcher, "--dynamo_backend=no", "-m", "monge"]
    run([*command, *TRAIN, "--steps=20", f"--out={tmp_path / 'two'}"])
    run([sys.executable, "-m", "monge", *TRAIN, "--steps=20", f"--out={tmp_path / 'one'}"])
    assert_equal(tmp_path / "two", tmp_path / "one")
    done = run([*command, "sample", str(tmp_path / "two"), "-n=300", "--device=cpu"])
    assert done.stdout.count("300 samples") == 1
