"""The table of verbs: what the help, the dispatch and the flags of every verb follow from."""

from __future__ import annotations

import dataclasses
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

from monge.cli import main
from monge.verbs import table
from monge.verbs.table import VERBS, Verb

GREET = '''
"""A verb of a test's own."""

from dataclasses import dataclass
from typing import Any

from tyro.conf import Positional

from monge.verbs.shown import tell


@dataclass(frozen=True)
class Greet:
    """Greet somebody, so many times."""

    name: Positional[str]
    """Whom to greet."""
    times: int | None = 1
    """How often; none: not at all."""
    json: bool = False
    """Print the result as JSON."""


def act(arguments: Greet) -> dict[str, Any]:
    """Greet."""
    for _ in range(arguments.times or 0):
        tell(arguments, f"hello {arguments.name}")
    return {"times": arguments.times, "exit_code": 0 if arguments.times else 3}
'''


@pytest.fixture
def greet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file and one row."""
    (tmp_path / "greeting_verb.py").write_text(GREET)
    monkeypatch.syspath_prepend(tmp_path)
    row = Verb("greet", "NAME", "greet somebody", "greeting_verb")
    monkeypatch.setattr(table, "VERBS", (*VERBS, row))


@pytest.mark.usefixtures("greet")
def test_a_verb_is_one_file_and_one_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "\n  greet NAME          greet somebody\n" in capsys.readouterr().out
    assert main(["greet", "--help"]) == 0
    assert "Whom to greet." in capsys.readouterr().out
    assert main(["greet", "Gaspard", "--times", "2"]) == 0
    assert capsys.readouterr().out == "hello Gaspard\nhello Gaspard\n"
    assert main(["greet", "Gaspard", "--times", "none", "--json"]) == 3
    assert json.loads(capsys.readouterr().out) == {"times": None, "exit_code": 3}
    assert main(["gret", "Gaspard"]) == 2
    assert "unknown verb 'gret': did you mean 'greet'?" in capsys.readouterr().err


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_every_row_has_a_module_whose_arguments_are_documented(verb: Verb) -> None:
    arguments = verb.arguments
    assert dataclasses.is_dataclass(arguments) and arguments.__module__ == verb.module
    assert arguments.__doc__ and not arguments.__doc__.startswith(f"{arguments.__name__}(")
    documented = "".join(
        inspect.getsource(cls) for cls in arguments.__mro__ if dataclasses.is_dataclass(cls)
    )
    for field in dataclasses.fields(arguments):
        _, found, rest = documented.partition(f"\n    {field.name}: ")
        assert found and rest.partition("\n")[2].startswith('    """'), field.name
    assert "json" in {field.name for field in dataclasses.fields(arguments)}


def test_every_file_of_a_verb_has_a_row() -> None:
    home = Path(table.__file__).parent
    acting = {path.stem for path in home.glob("*.py") if "\ndef act(" in path.read_text()}
    assert acting == {verb.name for verb in VERBS}
    assert len({verb.name for verb in VERBS}) == len(VERBS)


def test_the_help_of_no_verb_imports_torch() -> None:
    code = (
        "import sys\nfrom monge import cli\nfrom monge.verbs.table import VERBS\n"
        "assert cli.main(['--help']) == 0 and 'tyro' not in sys.modules\n"
        "for verb in VERBS:\n    assert cli.main([verb.name, '--help']) == 0\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
