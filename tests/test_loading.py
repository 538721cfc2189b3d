"""A stranger's component is loaded from its file, or the message says what is wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from monge.conformance import check, family_of, load
from monge.errors import UserError

GOOD = '''
"""Components of one's own."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from helper import HALF
from monge.paths import Path
from monge.solvers import RungeKutta


@dataclass(frozen=True, repr=False)
class Quartic(Path):
    name = "quartic"

    def scales(self, t):
        return t**HALF, 1 - t**2


@dataclass(frozen=True, repr=False)
class Ralston(RungeKutta):
    """Ralston's second-order method."""

    name = "ralston"
    order = 2
    a = ((), (2 / 3,))
    b = (1 / 4, 3 / 4)


class Scaled(torch.nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x, t, cond=None):
        return self.factor * x


def rotate(x, t, cond=None):
    return torch.stack([-x[:, 1], x[:, 0]], dim=1)


def jump(x, s, t, cond=None):
    return x


class Broken(Path):
    pass


class Moody:
    def __init__(self):
        raise RuntimeError("not today")


constant = 3
'''


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "helper.py").write_text("HALF = 2.0\n")
    (tmp_path / "mine.py").write_text(GOOD)
    return tmp_path / "mine.py"


@pytest.mark.parametrize(
    ("name", "family"),
    [("Quartic", "path"), ("Ralston", "solver"), ("rotate", "field"), ("jump", "flow")],
)
def test_own_components_pass_the_laws(file: Path, name: str, family: str) -> None:
    before = list(sys.path)
    report = check(load(f"{file}:{name}"))
    assert sys.path == before
    assert report.family == family
    broken = {row.law for row in report.failed}
    assert broken == set(), report.text()


def test_module_by_its_name() -> None:
    assert repr(load("monge.paths:Power")) == "power"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mine.py", "write FILE.py:NAME"),
        ("{file}:", "write FILE.py:NAME"),
        ("nowhere.py:Name", "no such file: nowhere.py"),
        ("monge.pathz:Linear", "cannot import monge.pathz: ModuleNotFoundError"),
        ("{file}:Quatric", "did you mean 'Quartic'?"),
        ("{file}:Scaled", "needs arguments (factor)"),
        ("{file}:Moody", "fails: RuntimeError: not today"),
        ("{file}:Broken", "does not define scales, which every Path has to"),
        ("{folder}/syntax.py:Name", "line 2: SyntaxError"),
        ("{folder}/crash.py:Name", "line 3: ZeroDivisionError: division by zero"),
        ("{folder}/quits.py:Name", "SystemExit"),
    ],
)
def test_what_is_wrong_is_said(file: Path, text: str, message: str) -> None:
    folder = file.parent
    (folder / "syntax.py").write_text("x = 1\nclass :\n")
    (folder / "crash.py").write_text("x = 1\n\nx / 0\n")
    (folder / "quits.py").write_text("import sys\nsys.exit('bye')\n")
    with pytest.raises(UserError) as raised:
        load(text.format(file=file, folder=folder))
    assert message in str(raised.value)


@pytest.mark.parametrize("text", ["{file}:constant", "math:pi", "builtins:len"])
def test_what_is_no_component_is_refused(file: Path, text: str) -> None:
    with pytest.raises(UserError, match="no component that monge knows"):
        family_of(load(text.format(file=file)))


def test_a_component_that_crashes_breaks_its_laws(file: Path) -> None:
    file.write_text("def wrong(x, t):\n    return x\n")
    report = check(load(f"{file}:wrong"))
    assert not report.passed
    assert "takes 2 positional arguments but 3 were given" in report.text()
    assert "set its attribute `shape`" in report.text()
