"""Writes the pages that are made from the source: the reference, and the help of each verb.

They lie in ``docs/reference`` and ``docs/commands``, which git ignores.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import monge
from monge.verbs.table import VERBS, Verb, help_text

if TYPE_CHECKING:
    from sphinx.application import Sphinx

DOORS = ("train", "distil", "load", "read", "evaluate", "verify", "compare")
NOUNS = {
    "paths": "Paths",
    "couplings": "Couplings",
    "times": "Times and grids",
    "solvers": "Solvers",
    "fields": "Fields",
    "flows": "Flows",
    "targets": "Targets",
    "networks": "Networks",
    "objectives": "Objectives",
    "autoencoders": "Autoencoders",
    "learned": "What has been learned",
    "metrics": "Metrics",
    "conformance": "Conformance",
}

REFERENCE = """\
# Reference

Every public name, from its docstring. Time runs from noise at t = 0 to data at t = 1. A velocity
field is called as `v(x, t, cond)`, a flow map as `X(x, s, t, cond)`.
"""


def setup(app: Sphinx) -> dict[str, bool]:
    """Writes the pages before they are read."""
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def write(app: Sphinx) -> None:
    """Writes every generated page, and removes those of an earlier build."""
    root = Path(app.srcdir)
    write_folder(root / "reference", reference_pages())
    write_folder(root / "commands", command_pages())


def write_folder(folder: Path, pages: dict[str, str]) -> None:
    """Writes a folder of pages; those that have not changed keep their time."""
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        if old.name not in pages:
            old.unlink()
    for name, text in pages.items():
        file = folder / name
        if not file.exists() or file.read_text() != text:
            file.write_text(text)


def reference_pages() -> dict[str, str]:
    """The doors, `Run` and `Generator`, and a page for each noun.

    Raises:
        ValueError: a public name of monge has no page.
    """
    shown = {*DOORS, *NOUNS, "Run", "Generator"}
    if missing := set(monge.__all__) ^ shown:
        raise ValueError(f"docs/site_parts/pages.py: no page for {sorted(missing)}")
    pages = {
        "doors.rst": titled("Functions of monge", "monge")
        + "".join(entry("monge", name) for name in DOORS),
        "run.rst": titled("Run", "monge.runs.run", shown=False) + entry("monge", "Run"),
        "generator.rst": titled("Generator and Samples", "monge.sampling.generator", shown=False)
        + entry("monge", "Generator")
        + entry("monge.sampling.samples", "Samples"),
    }
    for noun, title in NOUNS.items():
        pages[f"{noun}.rst"] = noun_page(f"monge.{noun}", title)
    names = "".join(f"{name.removesuffix('.rst')}\n" for name in pages)
    pages["index.md"] = f"{REFERENCE}\n```{{toctree}}\n:maxdepth: 1\n\n{names}```\n"
    return pages


def noun_page(module: str, title: str) -> str:
    """A noun: its own text, then its names, grouped by the file that defines them."""
    noun = importlib.import_module(module)
    homes: dict[str, list[str]] = {}
    for name in sorted(noun.__all__, key=partial(line_of, noun)):
        home = getattr(getattr(noun, name), "__module__", module)
        homes.setdefault(home if home.startswith("monge.") else module, []).append(name)
    text = titled(title, module)
    text += "".join(entry(module, name) for name in homes.pop(module, []))
    for home in imported_in_order(noun, homes):
        text += f"{home}\n{'-' * len(home)}\n\n.. automodule:: {home}\n   :no-members:\n\n"
        text += "".join(entry(module, name) for name in homes[home])
    return text


def line_of(noun: object, name: str) -> int:
    """Where a class or function stands in its file: files go from words to what is said with them.

    Constants come first.
    """
    value = getattr(noun, name)
    if inspect.isclass(value) or inspect.isfunction(value):
        return inspect.getsourcelines(value)[1]
    return 0


def imported_in_order(noun: object, homes: Iterable[str]) -> list[str]:
    """The files of a noun by name; the file called ``base``, which defines its words, first."""
    return sorted(homes, key=lambda home: (not home.endswith(".base"), home))


def titled(title: str, module: str, shown: bool = True) -> str:
    """The head of a page, with the text of a module."""
    head = f"{title}\n{'=' * len(title)}\n\n"
    if not shown:
        return head + f".. py:module:: {module}\n   :no-index:\n\n"
    return head + f".. automodule:: {module}\n   :no-members:\n\n"


def entry(module: str, name: str) -> str:
    """One public name under the name by which a reader imports it."""
    value = getattr(importlib.import_module(module), name)
    if inspect.isclass(value):
        return f".. autoclass:: {module}.{name}\n\n"
    if inspect.isfunction(value):
        return f".. autofunction:: {module}.{name}\n\n"
    return f".. autodata:: {module}.{name}\n\n"


def command_pages() -> dict[str, str]:
    """The help of the command line, and a page for each verb."""
    rows = "".join(f"| [`{v.name}`]({v.name}.md) | {v.summary} |\n" for v in VERBS)
    index = (
        "# The command line\n\nThese pages are the help that `monge VERB --help` prints.\n\n"
        f"| verb | |\n|---|---|\n{rows}\n```text\n{help_text()}```\n\n"
        "```{toctree}\n:hidden:\n\n" + "".join(f"{v.name}\n" for v in VERBS) + "```\n"
    )
    return {"index.md": index, **{f"{verb.name}.md": verb_page(verb) for verb in VERBS}}


def verb_page(verb: Verb) -> str:
    """One verb: its line of help and all its flags."""
    return f"# monge {verb.name}\n\n{sentence(verb.summary)}\n\n```text\n{verb_help(verb)}```\n"


def sentence(text: str) -> str:
    """A line of help as a sentence."""
    return f"{text[0].upper()}{text[1:]}."


def verb_help(verb: Verb) -> str:
    """What ``monge VERB --help`` prints, in 100 columns and without colours."""
    from monge.cli import main

    before = {name: os.environ.get(name) for name in ("COLUMNS", "NO_COLOR")}
    os.environ.update(COLUMNS="100", NO_COLOR="1")
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            code = main([verb.name, "--help"])
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    if code or not out.getvalue():
        raise ValueError(f"monge {verb.name} --help exits with {code}")
    return "\n".join(line.rstrip() for line in out.getvalue().strip().splitlines()) + "\n"
