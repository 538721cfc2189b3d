"""Checkpoints, log and lock: what is written, and what cannot be."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy_training import Net, outcome, train

from monge.errors import UserError
from monge.system import lock
from monge.training import checkpoint, journal


def write(folder: Path, step: int, size: int = 4) -> None:
    groups = {name: {"w": torch.full((size,), float(step))} for name in ("model", "ema", "more")}
    checkpoint.save(folder, step, groups, {"note": f"step {step}"})


def test_a_run_folder(tmp_path: Path) -> None:
    fitted = train(tmp_path, save_every=5)
    files = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    kept = "state/step-00000012"
    names = ("model.safetensors", "ema.safetensors", "optimizer.safetensors", "manifest.json")
    top = {"log.jsonl", "model.safetensors", "ema.safetensors"}
    assert files == top | {f"{kept}/{name}" for name in names}
    for name, module in (("model", fitted.network), ("ema", fitted.ema)):
        saved = load_file(tmp_path / f"{name}.safetensors")
        assert saved.keys() == module.state_dict().keys()
        assert all(torch.equal(saved[k], v) for k, v in module.state_dict().items())
        assert (tmp_path / f"{name}.safetensors").samefile(tmp_path / kept / f"{name}.safetensors")
    optimizer = load_file(tmp_path / kept / "optimizer.safetensors")
    assert set(optimizer) == {
        f"{key}/{name}"
        for key in ("exp_avg", "exp_avg_sq", "step")
        for name, _ in Net().named_parameters()
    }
    assert all(float(v) == 12 for k, v in optimizer.items() if k.startswith("step/"))


def test_the_newest_complete_checkpoint_is_loaded_and_leftovers_go(tmp_path: Path) -> None:
    write(tmp_path, 3)
    state = tmp_path / "state"
    shutil.copytree(state / "step-00000003", state / ".tmp-step-00000009")
    shutil.copytree(state / "step-00000003", state / ".tmp-old-step-00000001")
    shutil.copytree(state / "step-00000003", state / "step-00000002")
    (tmp_path / "model.safetensors").unlink()
    assert checkpoint.newest_step(tmp_path) == 3
    assert len(list(state.iterdir())) == 4
    found = checkpoint.load(tmp_path)
    assert found is not None
    assert (found.step, found.facts) == (3, {"note": "step 3"})
    assert torch.equal(found.groups["more"]["w"], torch.full((4,), 3.0))
    assert [p.name for p in state.iterdir()] == ["step-00000003"]
    assert load_file(tmp_path / "model.safetensors")["w"][0] == 3
    assert checkpoint.load(tmp_path / "nowhere") is None


def test_without_hard_links_files_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    for step in (1, 2):
        write(tmp_path, step)
        assert load_file(tmp_path / "ema.safetensors")["w"][0] == step


def test_a_damaged_checkpoint_is_passed_over_or_named(tmp_path: Path) -> None:
    write(tmp_path, 3)
    state = tmp_path / "state"
    shutil.copytree(state / "step-00000003", state / "step-00000007")
    (state / "step-00000007" / "more.safetensors").write_bytes(b"short")
    assert checkpoint.newest_step(tmp_path) == 3
    (state / "step-00000003" / "manifest.json").unlink()
    with pytest.raises(UserError, match="step-00000007 is damaged"):
        checkpoint.load(tmp_path)
    assert len(list(state.iterdir())) == 2


def test_a_newer_format_is_refused_with_its_version(tmp_path: Path) -> None:
    train(tmp_path, steps=3)
    manifest = tmp_path / "state" / "step-00000003" / "manifest.json"
    facts = json.loads(manifest.read_text())
    facts |= {"format_version": 99, "written_by": "monge 7.1"}
    manifest.write_text(json.dumps(facts))
    with pytest.raises(UserError, match=r"format version 99, written by monge 7\.1"):
        train(tmp_path, steps=6)
    assert manifest.exists()


def test_another_network_is_refused(tmp_path: Path) -> None:
    train(tmp_path, steps=3)
    other = Net()
    other.inner = torch.nn.Linear(3, 8, bias=False)
    with pytest.raises(UserError, match=r"does not fit .* 'inner.bias' has shape \(8,\) there"):
        train(tmp_path, steps=6, net=other)


@contextmanager
def largest_file(n_bytes: int) -> Iterator[None]:
    """Let the system refuse to write more than so much to a file, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_write_that_the_system_refuses_leaves_the_earlier_checkpoint(tmp_path: Path) -> None:
    write(tmp_path, 1)
    with largest_file(100_000), pytest.raises(UserError) as caught:
        write(tmp_path, 2, size=100_000)
    assert "cannot write the checkpoint of step 2" in str(caught.value)
    assert "File too large" in str(caught.value)
    assert [p.name for p in (tmp_path / "state").iterdir()] == ["step-00000001"]
    found = checkpoint.load(tmp_path)
    assert found is not None and found.step == 1
    assert load_file(tmp_path / "model.safetensors")["w"][0] == 1


def test_a_run_on_a_full_disk_ends_with_a_message_and_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    train(tmp_path / "b", steps=3)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", full)
        with pytest.raises(UserError, match=r"step 12.*No space left.*intact: make room"):
            train(tmp_path / "b")
    assert checkpoint.newest_step(tmp_path / "b") == 3
    assert len(journal.read(tmp_path / "b" / "log.jsonl")) > 3
    train(tmp_path / "b")
    assert checkpoint.newest_step(tmp_path / "b") == 12
    assert len(outcome(tmp_path / "b")[1]) == 7  # steps 2, 3, then 4, 6, ..., 12


def test_a_disk_too_small_is_said_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match=r"checkpoints need .* where 100 B are free"):
        train(tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to the folder"):
        train(tmp_path / "file" / "run")

    def read_only(*_: object) -> int:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(UserError, match=r"cannot write to .*Read-only file system"):
        train(tmp_path / "run")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match=r"cannot write to .*Permission denied"):
        train(tmp_path / "run")
    tmp_path.chmod(0o700)


def test_the_log_drops_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with journal.Journal(tmp_path, 0) as log:
        for step in (1, 2, 3):
            log.write({"step": step, "loss": 0.1 * step, "parts": {"a": float("inf")}})
        log.sync()
    with path.open("a") as file:
        file.write('{"step": 4, "lo')
    assert [row["step"] for row in journal.read(path)] == [1, 2, 3]
    with journal.Journal(tmp_path, 2) as log:
        log.write({"step": 3, "loss": 5.0})
    lines = path.read_text().splitlines()
    assert lines[1] == '{"step": 2, "loss": 0.2, "parts": {"a": null}}'
    assert [json.loads(line).get("loss") for line in lines] == [0.1, 0.2, 5.0]
    assert not list(tmp_path.glob(".tmp-*"))
    path.write_text("nonsense\n" + path.read_text())
    with pytest.raises(UserError, match=r"log\.jsonl, line 1, is not a JSON object"):
        journal.Journal(tmp_path, 2)


def test_tensorboard_on_request(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(tmp_path, tensorboard=True)
    reader = events.EventAccumulator(str(tmp_path / "tensorboard"))
    reader.Reload()
    assert {"loss", "grad_norm", "parts/error"} <= set(reader.Tags()["scalars"])
    points = [(point.step, point.value) for point in reader.Scalars("loss")]
    rows = journal.read(tmp_path / "log.jsonl")
    assert points == [(row["step"], pytest.approx(row["loss"])) for row in rows]


HOLD = """
import sys, time
from pathlib import Path
from monge.system import lock
with lock.hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_live_process_keeps_others_out_and_a_dead_one_does_not(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=rf"in use by process {process.pid} on .+, since 20"):
            train(tmp_path)
        assert not (tmp_path / "state").exists()
        process.kill()
    assert (tmp_path / lock.NAME).exists()
    train(tmp_path)
    assert not (tmp_path / lock.NAME).exists()


def test_a_process_may_hold_twice_and_must_release(tmp_path: Path) -> None:
    with lock.hold(tmp_path), lock.hold(tmp_path):
        assert json.loads((tmp_path / lock.NAME).read_text())["pid"] == os.getpid()
    with pytest.raises(ZeroDivisionError), lock.hold(tmp_path):
        _ = 1 / 0
    assert not (tmp_path / lock.NAME).exists()
    with lock.hold(tmp_path):
        pass
