"""Broken components of a user's own: a sentence with file, line and class, never a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from broken_components import FAULTS, HEAD, KINDS, NETWORK, Fault, Kind, source, told
from monge import cli
from monge.errors import UserError
from monge.fitting.train import train
from monge.runs.spec import TrainSpec
from monge.system import own_code

SMALL = ["--network=mlp:width=8,depth=1", "--steps=3", "--batch=16", "--device=cpu"]


@pytest.fixture(autouse=True)
def strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test starts in a process that knows no code of a user's."""
    for name in ("_contents", "_places", "_classes"):
        monkeypatch.setattr(own_code, name, {})
    monkeypatch.setattr(own_code, "_trust_all", False)


def words_of(kind: Kind, own: str) -> list[str]:
    given = (
        [f"target:{own}"] if kind.flag == "target" else ["target:gaussian:dim=2", kind.flag, own]
    )
    return [*given, *(word for word in SMALL if not word.startswith(f"{kind.flag}="))]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("kind", KINDS)
def test_training_names_the_fault_and_writes_nothing(
    kind: str, fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = source(KINDS[kind], FAULTS[fault])
    file = tmp_path / "mine.py"
    file.write_text(text)
    words = words_of(KINDS[kind], f"{file}:Broken")
    assert cli.main(["train", *words, "--out", str(tmp_path / "run")]) == 2
    message = capsys.readouterr().err
    for part in told(KINDS[kind], FAULTS[fault], str(file), text):
        assert part in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("kind", ["path", "times", "coupling", "autoencoder", "target"])
def test_checking_names_the_fault(
    kind: str, fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = source(KINDS[kind], FAULTS[fault])
    file = tmp_path / "mine.py"
    file.write_text(text)
    code = cli.main(["check", f"{file}:Broken"])
    shown = capsys.readouterr()
    assert code in (2, 3)  # it cannot be had, or laws are broken
    assert ("BROKEN" in shown.out) == (code == 3) and "error: " in shown.err
    if fault == "raises when called":
        line = told(KINDS[kind], FAULTS[fault], str(file), text)[0]
        assert f"ZeroDivisionError: division by zero ({line})" in shown.out
    if fault == "raises when made" and code == 2:
        assert f"{file}, line " in shown.err


LATE = NETWORK.replace("INIT", "").replace(
    "METHOD",
    """def forward(self, x, t, cond=None):
        if File(SWITCH).exists() and len(x) != 16:
            FAULT  # here
        return self.w * x""",
)
LATER = {
    "raises": ("raise KeyError('gone')", "Net.forward fails: KeyError: 'gone'"),
    "returns None": ("return None", "Net.forward returns None"),
    "returns another shape": ("return x[:, :1, None]", "Net.forward returns a tensor of shape"),
}


def _late(folder: Path, fault: str) -> tuple[list[str], Path]:
    """A command whose network breaks when a file is there, but not in a trial of 16 rows."""
    switch, file = folder / "switch", folder / "mine.py"
    text = HEAD + "from pathlib import Path as File\n" + LATE
    file.write_text(text.replace("SWITCH", repr(str(switch))).replace("FAULT", LATER[fault][0]))
    words = [word for word in words_of(KINDS["network"], f"{file}:Broken") if "--batch" not in word]
    return ["train", *words, "--batch=24", "--save-every=2", "--out", str(folder / "run")], switch


@pytest.mark.parametrize("fault", LATER)
def test_what_breaks_later_is_named_and_the_run_goes_on(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words, switch = _late(tmp_path, fault)
    run = str(tmp_path / "run")
    assert cli.main(words) == 0
    switch.touch()
    more = ["--steps=6" if word == "--steps=3" else word for word in words]
    assert cli.main(more) == 2
    message = capsys.readouterr().err
    assert LATER[fault][1] in message and str(tmp_path / "mine.py") in message
    for name in ("_contents", "_places", "_classes"):
        monkeypatch.setattr(own_code, name, {})
    (copy,) = (tmp_path / "run" / "code").iterdir()
    for command in (["sample", run, "-n", "2"], ["evaluate", run, "-n", "50"]):
        assert cli.main([*command, "--trust-code"]) == 2
        message = capsys.readouterr().err
        assert LATER[fault][1] in message and str(copy) in message
    switch.unlink()
    assert cli.main(more) == 0
    assert cli.main(["sample", run, "-n", "2", "--trust-code"]) == 0


def test_a_file_is_mended_in_the_same_folder_until_something_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, switch = _late(tmp_path, "raises")
    file = tmp_path / "mine.py"
    honest = file.read_text()
    file.write_text(honest.replace("return self.w", "assert len(x) == 16; return self.w"))
    assert cli.main(words) == 2
    assert "Net.forward fails: AssertionError" in capsys.readouterr().err
    assert (tmp_path / "run" / "config.yaml").exists()
    file.write_text(honest)
    assert cli.main(words) == 0
    file.write_text(honest + "\nCHANGED = 1\n")
    assert cli.main(words) == 2
    assert "different run" in capsys.readouterr().err
    assert not switch.exists()


def test_python_has_the_message_and_the_error_behind_it(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(source(KINDS["path"], FAULTS["raises when called"]))
    spec = TrainSpec(data="target:gaussian:dim=2", path=f"{file}:Broken", steps=2)
    with pytest.raises(UserError, match=r"mine\.py, line \d+: Broken\.scales fails") as caught:
        train(spec, out=tmp_path / "run")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_trial_changes_no_number(tmp_path: Path) -> None:
    """The draws of a run with a path of its own are those without the trial's."""
    text = source(KINDS["path"], Fault((), "return t, 1 - t"))
    (tmp_path / "mine.py").write_text(text)
    plain = TrainSpec(data="target:gaussian:dim=2", network="mlp:width=8,depth=1", steps=4)
    ours = TrainSpec(**{**vars(plain), "path": f"{tmp_path / 'mine.py'}:Broken"})
    torch.manual_seed(1)
    a = train(plain, out=tmp_path / "a").sample(4).x
    b = train(ours, out=tmp_path / "b").sample(4).x
    assert torch.equal(a, b)


def test_the_honest_ones_train(tmp_path: Path) -> None:
    """What the matrix breaks works as it stands, so each refusal is of its fault."""
    honest = Fault(())
    for name in ("path", "network", "autoencoder", "target"):
        file = tmp_path / f"{name}.py"
        file.write_text(source(KINDS[name], honest))
        words = words_of(KINDS[name], f"{file}:Broken")
        assert cli.main(["train", *words, "--out", str(tmp_path / name)]) == 0, name
