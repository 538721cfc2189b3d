"""A real training process: a second one is refused, a signal stops it, the same command goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from monge.cli import main

COMMAND = [
    "train",
    "target:mixture:dim=2,modes=3,seed=0",
    "--network=mlp:width=32,depth=2",
    "--coupling=ot:plan=96",
    "--steps=1500",
    "--batch=64",
    "--save-every=100",
    "--log-every=5",
    "--grid=uniform:n=3",
    "--threads=1",
    "--device=cpu",
]


def deterministic(folder: Path) -> list[dict[str, object]]:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "wall"} for row in rows]


def test_stopped_by_a_signal_and_continued_equals_undisturbed_to_the_bit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    process = subprocess.Popen(
        [sys.executable, "-m", "monge", *COMMAND, f"--out={parts}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    log = parts / "log.jsonl"
    deadline = time.monotonic() + 120
    while not (log.exists() and log.stat().st_size > 300):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    assert main([*COMMAND, f"--out={parts}"]) == 2
    assert str(process.pid) in capsys.readouterr().err
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "run the same command again" in err and "Traceback" not in err
    stopped_at = deterministic(parts)[-1]["step"]
    assert isinstance(stopped_at, int) and stopped_at < 1500

    assert main([*COMMAND, f"--out={parts}"]) == 0
    assert main([*COMMAND, f"--out={whole}"]) == 0
    for name in ("model", "ema"):
        mine = load_file(parts / f"{name}.safetensors")
        theirs = load_file(whole / f"{name}.safetensors")
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    assert deterministic(parts) == deterministic(whole)


def test_two_processes_equal_one(tmp_path: Path) -> None:
    """Float64, micro-batches and a coupling that plans over several batches."""
    command = [word for word in COMMAND if not word.startswith(("--steps", "--save-every"))]
    command += ["--steps=20", "--precision=float64", "--micro-batch=16"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"]
    launcher += ["--standalone", "-m", "monge", *command, f"--out={tmp_path / 'two'}"]
    done = subprocess.run(launcher, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("report ") == 1  # the second process is silent
    assert main([*command, f"--out={tmp_path / 'one'}"]) == 0
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert next(iter(one.values())).dtype == torch.float64
    assert max(float((one[k] - two[k]).abs().max()) for k in one) < 1e-10
