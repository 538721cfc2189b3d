"""Components of a user's own in a run: every kind, kept with the run, executed only on request."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import monge
from monge import cli
from monge.errors import UserError
from monge.runs.run import Run
from monge.system import own_code

SOURCE = """
import math
from dataclasses import dataclass
from pathlib import Path as File

import torch
from torch import nn

from monge.autoencoders.identity import IdentitySpec
from monge.couplings import Independent
from monge.networks.mlp import MLPSpec
from monge.objectives.flow_matching import FlowMatchingSpec
from monge.paths import Path
from monge.solvers import Heun
from monge.targets.gaussian import GaussianSpec
from monge.times import UniformTimes

MARK


class MyPath(Path):
    def scales(self, t):
        return torch.sin(t * math.pi / 2), torch.cos(t * math.pi / 2)


@dataclass(frozen=True)
class MyNetwork(MLPSpec):
    depth: int = 1


@dataclass(frozen=True)
class MyCoupling(Independent):
    pass


class MyTimes(UniformTimes):
    pass


class MySolver(Heun):
    pass


class MyObjective(FlowMatchingSpec):
    pass


class MyAutoencoder(IdentitySpec):
    pass


@dataclass(frozen=True)
class MyTarget(GaussianSpec):
    pass
"""

KINDS = {
    "path": ("--path", "MyPath"),
    "network": ("--network", "MyNetwork:width=8"),
    "coupling": ("--coupling", "MyCoupling"),
    "times": ("--times", "MyTimes"),
    "solver": ("--solver", "MySolver"),
    "objective": ("--objective", "MyObjective"),
    "autoencoder": ("--autoencoder", "MyAutoencoder"),
    "target": ("target", "MyTarget:dim=2"),
}
SMALL = ["--network=mlp:width=8,depth=1", "--steps=3", "--batch=16", "--device=cpu"]


@pytest.fixture(autouse=True)
def strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test starts in a process that trusts nothing."""
    _forget(monkeypatch)


def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_code, "_contents", {})
    monkeypatch.setattr(own_code, "_classes", {})
    monkeypatch.setattr(own_code, "_trust_all", False)


def _trained(folder: Path, kind: str) -> tuple[Path, Path]:
    """A run with one component of its own, and the file that its code touches when executed."""
    mark, run = folder / "executed", folder / "run"
    (folder / "mine.py").write_text(SOURCE.replace("MARK", f"File({str(mark)!r}).touch()"))
    flag, text = KINDS[kind]
    own = f"{folder / 'mine.py'}:{text}"
    words = [f"target:{own}"] if flag == "target" else ["target:gaussian:dim=2", flag, own]
    small = [word for word in SMALL if not word.startswith(f"{flag}=")]
    assert cli.main(["train", *words, *small, "--out", str(run)]) == 0
    assert mark.exists()
    mark.unlink()
    return run, mark


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_keeps_it_and_runs_it_only_on_request(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, mark = _trained(tmp_path, kind)
    (copy,) = (run / "code").iterdir()
    assert copy.read_bytes() == (tmp_path / "mine.py").read_bytes()
    (tmp_path / "mine.py").unlink()
    _forget(monkeypatch)
    digest = hashlib.sha256(copy.read_bytes()).hexdigest()
    for words in (["sample", str(run), "-n", "4"], ["info", str(run)]):
        assert cli.main(words) == 2
        told = capsys.readouterr().err
        assert str(copy) in told and digest in told and "--trust-code" in told
    with pytest.raises(UserError, match="trust_code=True"):
        monge.load(run)
    assert not mark.exists()
    trusted = monge.load(run, trust_code=True)
    assert trusted.sample(4).x.isfinite().all()
    assert trusted.data().shape == (2,)  # sampling needs no target
    assert mark.exists()
    for words in (["sample", str(run), "-n", "4"], ["info", str(run)]):
        assert cli.main([*words, "--trust-code"]) == 0


def test_its_settings_and_its_file_are_part_of_what_the_run_is(tmp_path: Path) -> None:
    run, _ = _trained(tmp_path, "network")
    spec = Run.load(run, "cpu").spec
    assert spec.network.endswith(".py:MyNetwork:width=8")
    words = ["target:gaussian:dim=2", *SMALL[1:], "--out", str(run)]
    own = f"{tmp_path / 'mine.py'}:MyNetwork:width=8"
    assert cli.main(["train", *words, "--network", own]) == 0
    with (tmp_path / "mine.py").open("a") as file:
        file.write("\nCHANGED = True\n")
    assert cli.main(["train", *words, "--network", own]) == 2


def test_it_is_what_its_class_says(tmp_path: Path) -> None:
    run, _ = _trained(tmp_path, "path")
    t = torch.tensor(0.5)
    alpha, sigma = Run.load(run, "cpu").path.scales(t)
    assert alpha == torch.sin(t * torch.pi / 2) and sigma == torch.cos(t * torch.pi / 2)


def test_code_that_was_changed_in_the_run_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, mark = _trained(tmp_path, "path")
    (copy,) = (run / "code").iterdir()
    copy.write_text(copy.read_text() + "\n")
    _forget(monkeypatch)
    with pytest.raises(UserError, match="is not the code that the run was trained with"):
        monge.load(run, trust_code=True)
    assert not mark.exists()


@pytest.mark.parametrize("text", ["{file}:MyPath", "code/other.py:MyPath", "/etc/x.py:MyPath"])
def test_a_strangers_configuration_executes_no_file_of_the_disk(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, mark = _trained(tmp_path, "path")
    _forget(monkeypatch)
    config = run / "config.yaml"
    lines = config.read_text().splitlines()
    own = text.format(file=tmp_path / "mine.py")
    lines = [f"path: {own}" if line.startswith("path:") else line for line in lines]
    config.write_text("\n".join(lines) + "\n")
    for trust in (False, True):
        with pytest.raises(UserError, match="code"):
            monge.load(run, trust_code=trust)
    assert not mark.exists()


def test_it_travels_with_a_copy_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = _trained(tmp_path, "path")
    copy = Run.load(run, "cpu").save_pretrained(tmp_path / "copy")
    _forget(monkeypatch)
    assert monge.load(copy, trust_code=True).sample(2).x.shape == (2, 2)


def test_a_map_distilled_from_it_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, mark = _trained(tmp_path, "path")
    out = tmp_path / "map"
    _forget(monkeypatch)
    words = ["distil", str(run), "--steps", "2", "--batch", "8", "--out", str(out)]
    assert cli.main(words) == 2 and not mark.exists()
    assert cli.main([*words, "--trust-code"]) == 0
    assert [p.name for p in (out / "code").iterdir()] == [p.name for p in (run / "code").iterdir()]


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("raise ValueError('no')", "ValueError: no"),
        ("import sys; sys.exit(3)", "SystemExit"),
        ("def f(:", "SyntaxError"),
        ("x = 1", "has no class 'MyPath'"),
        ("class MyPath: pass", "is no component"),
    ],
)
def test_a_file_that_fails_says_why(
    code: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(code)
    own = f"{tmp_path / 'mine.py'}:MyPath"
    words = ["train", "target:gaussian:dim=2", *SMALL, "--path", own, "--out", str(tmp_path / "r")]
    assert cli.main(words) == 2
    assert told in capsys.readouterr().err and not (tmp_path / "r").exists()


def test_a_process_of_its_own_trusts_nothing(tmp_path: Path) -> None:
    run, mark = _trained(tmp_path, "solver")
    words = [sys.executable, "-m", "monge", "sample", str(run), "-n", "2"]
    found = subprocess.run(words, capture_output=True, text=True, check=False)
    assert found.returncode == 2 and "--trust-code" in found.stderr and not mark.exists()
