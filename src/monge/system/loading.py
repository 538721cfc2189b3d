"""Loads a user's component from its file or module."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from monge.errors import UserError, nearest


def load(text: str) -> Any:
    """The component that ``FILE.py:NAME`` or ``PACKAGE.MODULE:NAME`` names.

    A class is instantiated with its defaults; any other object is returned unchanged.

    Raises:
        UserError: no such file, module or name; a file that fails on import; a class that needs
            arguments.
    """
    source, colon, name = text.rpartition(":")
    if not colon or not source or not name:
        raise UserError(f"cannot read {text!r}: write FILE.py:NAME or PACKAGE.MODULE:NAME")
    looks_like_file = source.endswith(".py") or "/" in source or "\\" in source
    module = _import_file(Path(source)) if looks_like_file else _import_module(source)
    try:
        found = getattr(module, name)
    except AttributeError:
        public = [key for key in vars(module) if not key.startswith("_")]
        raise UserError(f"{source} has no {name!r}: {nearest(name, public)}") from None
    return _instantiate(found, f"{source}:{name}") if inspect.isclass(found) else found


def load_file(content: bytes, name: str, path: Path | None = None) -> ModuleType:
    """The module of a file's content, executed from memory.

    Args:
        name: of the module; errors name it where there is no path.
        path: of the file, for errors.

    Raises:
        UserError: the code fails.
    """
    shown = name if path is None else str(path)
    module = ModuleType(f"monge_loaded_{re.sub(r'[^0-9A-Za-z]', '_', name)}")
    module.__file__ = shown
    sys.modules[module.__name__] = module  # dataclasses look their module up
    try:
        with _told(shown):
            exec(compile(content, shown, "exec"), vars(module))
    except UserError:
        del sys.modules[module.__name__]
        raise
    return module


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UserError(f"no such file: {path}")
    spec = importlib.util.spec_from_file_location(f"monge_loaded_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is no Python file: its name should end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # dataclasses look their module up
    try:
        # Last on the path, so that the file finds its neighbours and shadows nothing.
        with _on_path(str(path.resolve().parent)), _told(str(path)):
            spec.loader.exec_module(module)
    except UserError:
        del sys.modules[module.__name__]
        raise
    return module


def _import_module(name: str) -> ModuleType:
    with _on_path(str(Path.cwd())), _told(name):
        return importlib.import_module(name)


@contextmanager
def _on_path(folder: str) -> Iterator[None]:
    sys.path.append(folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Turn any exception of the user's code into a message."""
    try:
        yield
    except (Exception, SystemExit) as error:
        line = getattr(error, "lineno", None) or last_line(error, what)
        where = f"{what}, line {line}" if line else what
        raise UserError(f"cannot import {where}: {type(error).__name__}: {error}") from error


def last_line(error: BaseException, file: str) -> int | None:
    """The last line of a file that an error came through."""
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def as_dataclass(cls: type, file: str) -> Any:
    """A component's class as the frozen dataclass that every component is.

    Raises:
        UserError: it cannot be made one.
    """
    if not dataclasses.is_dataclass(cls):
        try:
            return dataclasses.dataclass(frozen=True, repr=False)(cls)
        except (TypeError, ValueError) as error:
            raise UserError(f"{file}: {cls.__name__} is no frozen dataclass: {error}") from None
    if "__repr__" in vars(cls):  # made by @dataclass: a component's text is its own
        del cls.__repr__
    return cls


def _instantiate(cls: type, what: str) -> Any:
    if lacking := sorted(getattr(cls, "__abstractmethods__", ())):
        bases = " and ".join(base.__name__ for base in cls.__bases__)
        raise UserError(
            f"{what} does not define {', '.join(lacking)}, which every {bases} has to: write "
            f"{'it' if len(lacking) == 1 else 'them'} in the class"
        )
    if hasattr(cls, "in_full"):
        cls = as_dataclass(cls, what.rpartition(":")[0])
    parameters = inspect.signature(cls).parameters.values()
    needed = [
        p.name
        for p in parameters
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if needed:
        raise UserError(
            f"{what} needs arguments ({', '.join(needed)}): give them defaults, or name an "
            f"instance, mine = {cls.__name__}(...)"
        )
    try:
        return cls()
    except Exception as error:
        source, _, name = what.rpartition(":")
        line = last_line(error, source)
        where = f"{source}, line {line}: {name}" if line else what
        raise UserError(f"{where}() fails: {type(error).__name__}: {error}") from error
