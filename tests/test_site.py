"""The documentation site: what its pages promise exists. `make docs` holds the rest."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import monge

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

pytestmark = pytest.mark.skipif(
    not (DOCS / "notation.md").exists(), reason="the documentation is not beside the tests"
)


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Makes the parts of the site importable."""
    monkeypatch.syspath_prepend(str(DOCS))
    yield
    for name in [name for name in sys.modules if name.startswith("site_parts")]:
        del sys.modules[name]


def missing_functions(text: str) -> list[str]:
    """The names `monge.*` of a page that cannot be imported."""
    return [name for name in re.findall(r"`(monge\.[\w.]+)`", text) if not exists(name)]


def exists(name: str) -> bool:
    """Whether a dotted name is a module, or an attribute of one."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            if not hasattr(value, part):
                return False
            value = getattr(value, part)
        return True
    return False


def missing_tests(text: str) -> list[str]:
    """The tests of a page that no file has."""
    found = []
    for path, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text):
        file = ROOT / path
        tree = ast.parse(file.read_text()) if file.exists() else ast.Module([], [])
        if name not in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}:
            found.append(f"{path}::{name}")
    return found


def test_every_function_and_test_of_the_notation_exists() -> None:
    text = (DOCS / "notation.md").read_text()
    assert missing_functions(text) == [] and missing_tests(text) == []
    assert len(re.findall(r"`tests/", text)) >= 25


def test_a_function_or_test_that_is_gone_is_named() -> None:
    text = "`monge.paths.Curved` `monge.paths.Linear` `monge.kurven.Linear`"
    assert missing_functions(text) == ["monge.paths.Curved", "monge.kurven.Linear"]
    here = "`tests/test_site.py::test_absent` `tests/test_none.py::test_a`"
    assert missing_tests(here) == ["tests/test_site.py::test_absent", "tests/test_none.py::test_a"]


def test_the_reference_has_every_public_name(parts: None) -> None:
    pages = importlib.import_module("site_parts.pages")
    text = "".join(pages.reference_pages().values())
    names = {name for name in re.findall(r"auto(?:class|function|data):: (\S+)", text)}
    for noun in pages.NOUNS:
        module = getattr(monge, noun)
        assert {f"monge.{noun}.{name}" for name in module.__all__} <= names, noun
    assert {f"monge.{name}" for name in (*pages.DOORS, "Run", "Generator")} <= names


def test_a_new_name_of_monge_needs_a_page(parts: None, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = importlib.import_module("site_parts.pages")
    monkeypatch.setattr(monge, "__all__", [*monge.__all__, "study"])
    with pytest.raises(ValueError, match=r"no page for \['study'\]"):
        pages.reference_pages()


def test_a_verb_has_its_help_as_a_page(parts: None) -> None:
    pages = importlib.import_module("site_parts.pages")
    verb = next(verb for verb in pages.VERBS if verb.name == "sample")
    text = pages.verb_page(verb)
    assert text.startswith("# monge sample\n\nDraw samples from a trained run.")
    assert "--guidance" in text and "\x1b[" not in text
    assert all(f"({verb.name}.md)" in pages.command_pages()["index.md"] for verb in pages.VERBS)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("(B, *shape) of |x - y|", r"(B, \*shape) of \|x - y\|"),
        ("*Precision* is `a | b`, ``*c``", "*Precision* is `a | b`, ``*c``"),
        (":math:`|x|` and |y|", r":math:`|x|` and \|y\|"),
    ],
)
def test_plain_signs_of_docstrings_are_text(text: str, shown: str, parts: None) -> None:
    docstrings = importlib.import_module("site_parts.docstrings")
    assert docstrings.escaped(text) == shown


def test_formulas_and_line_blocks_of_docstrings_are_left_alone(parts: None) -> None:
    docstrings = importlib.import_module("site_parts.docstrings")
    lines = [".. math:: |x|", "    |y|", "", "Then |z|.", "    | a reference"]
    assert list(docstrings.safe(lines)) == [*lines[:3], r"Then \|z\|.", lines[4]]
    table = docstrings.tables(["| a | b |", "|---|---|", "| c | d |", "text"])
    assert table[3:] == ["   * - a", "     - b", "   * - c", "     - d", "", "text"]


def test_the_index_of_a_letter_with_an_accent_stands_beside_it(parts: None) -> None:
    mathml = importlib.import_module("site_parts.mathml")
    head = '<math xmlns="http://www.w3.org/1998/Math/MathML">'
    dotted = "<munderover><mi>x</mi><mi>t</mi><mo>˙</mo></munderover>"
    shown = '<msub><mover accent="true"><mi>x</mi><mo>˙</mo></mover><mi>t</mi></msub>'
    assert mathml.indices_beside(f"{head}{dotted}</math>") == f"{head}{shown}</math>"
    total = f"{head}<munderover><mo>∑</mo><mi>i</mi><mi>n</mi></munderover></math>"
    assert mathml.indices_beside(total) == total
    named = f"{head}<mo>&nbsp;&lt;&Vert;</mo></math>"
    assert mathml.indices_beside(named) == f"{head}<mo>\xa0&lt;‖</mo></math>"
