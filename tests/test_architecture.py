"""The documents that describe the source: their paths exist, and the picture is up to date."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = ("docs/architecture.md", "CONTRIBUTING.md")


def paths_in(text: str) -> list[str]:
    """The Python files that a text names in backticks, but for patterns and placeholders."""
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"(?ms)^ *```.*?^ *```", "", text))
    return [s for s in spans if s.endswith(".py") and not re.search(r"[\s*<>]", s)]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_path_that_a_document_names_exists(document: str) -> None:
    named = paths_in((ROOT / document).read_text(encoding="utf-8"))
    missing = [p for p in named if not any((ROOT / at / p).is_file() for at in (".", "src/monge"))]
    assert named and not missing


def test_patterns_placeholders_and_commands_are_no_paths() -> None:
    text = "`paths.py`, `rules/*.py`, `verbs/<name>.py`, `python docs/x.py`\n```\n`y.py`\n```\n"
    assert paths_in(text) == ["paths.py"]


@pytest.fixture(scope="module")
def architecture() -> Iterator[ModuleType]:
    file = ROOT / "docs" / "architecture.py"
    spec = importlib.util.spec_from_file_location("architecture", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses with annotations as text look their module up.
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "architecture", module)
        spec.loader.exec_module(module)
        yield module


def test_the_picture_is_of_the_present_code(architecture: ModuleType) -> None:
    assert architecture.main(["--check"]) == 0


def test_an_old_picture_is_noticed(
    architecture: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(architecture, "PICTURE", tmp_path / "picture.svg")
    assert architecture.main(["--check"]) == 1
    assert architecture.main([]) == 0
    assert architecture.main(["--check"]) == 0


def test_imports_of_every_form_are_found(
    architecture: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "src" / "monge"
    (package / "upper").mkdir(parents=True)
    (package / "lower.py").write_text("import torch\n")
    (package / "beside.py").write_text("")
    (package / "upper" / "own.py").write_text("")
    (package / "upper" / "a.py").write_text(
        "from monge import lower\nfrom monge.lower import x\nfrom . import own\n"
        "def f():\n    import monge.beside\n    from ..beside import y\n"
    )
    (tmp_path / "pyproject.toml").write_text(
        '[[tool.importlinter.contracts]]\ntype = "layers"\n'
        'layers = ["monge.upper", "monge.lower | monge.beside"]\n'
    )
    monkeypatch.setattr(architecture, "ROOT", tmp_path)
    monkeypatch.setattr(architecture, "SOURCE", package)
    rooms, counts = architecture.rooms_and_imports()
    assert counts == {("upper", "lower"): 1, ("upper", "beside"): 1}
    assert architecture.layers(rooms) == [["upper"], ["lower", "beside"]]
    assert "<title>" in architecture.draw()


MOST_LINES, LONGEST_FUNCTION = 400, 60


def test_files_and_functions_stay_short() -> None:
    """A file of the package has one reason to exist, and a function is read at one glance."""
    files = sorted((ROOT / "src").rglob("*.py"))
    long = []
    for path in files:
        text = path.read_text(encoding="utf-8")
        if text.count("\n") > MOST_LINES:
            long.append(str(path))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > LONGEST_FUNCTION:
                    long.append(f"{path}: {node.name} has {lines} lines")
    assert len(files) > 300 and long == []
