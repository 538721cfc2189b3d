"""The version of the code that a cell depends on: a hash of the sources that it can reach.

A cached cell holds as long as neither the study's module nor any module of monge that it imports,
directly or through others, has changed, nor the version of torch or numpy.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path

from monge.errors import UserError


def code_version(module: str | Path) -> str:
    """The hash for a module of monge, by name, or for the file of a user's own study.

    Raises:
        UserError: the file cannot be read, or is no Python.
    """
    digest = hashlib.sha256()
    for package in ("torch", "numpy"):
        digest.update(f"{package} {version(package)}\n".encode())
    reached: dict[str, str] = {}
    if isinstance(module, Path):
        text = _text(module)
        digest.update(text.encode())
        waiting = [*_imports(text, str(module))]
    else:
        waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached[name] = _source(name)
            waiting += _imports_of(name)
    for name in sorted(reached):
        digest.update(f"{name}\n{reached[name]}".encode())
    return digest.hexdigest()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from None


@cache
def _source(name: str) -> str:
    """The text of a module; nothing of a name that is no module."""
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None or not found.origin.endswith(".py"):
        return ""
    return Path(found.origin).read_text(encoding="utf-8")


@cache
def _imports_of(name: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_imports(_source(name), name)))


def _imports(text: str, where: str) -> Iterator[str]:
    """The modules of monge that a source imports, with their packages."""
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise UserError(f"{where}, line {error.lineno}: {error.msg}") from None
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            if name.partition(".")[0] == "monge" and _is_module(name):
                parts = name.split(".")
                yield from (".".join(parts[:k]) for k in range(1, len(parts) + 1))


@cache
def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # a name inside a module that is no package
        return False
