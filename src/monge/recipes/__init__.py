"""Complete named runs: each a module with its command, hardware, time and expected numbers."""

from __future__ import annotations

import importlib
from types import ModuleType

from monge.errors import UserError, nearest

NAMES = ("cifar10", "digits", "mixture", "mnist", "power_plant", "protein")


def find(name: str) -> ModuleType:
    """The recipe's module: its docstring explains it, its `SPEC` is the run.

    Raises:
        UserError: no such recipe.
    """
    if name not in NAMES:
        raise UserError(f"unknown recipe {name!r}: {nearest(name, NAMES)}")
    return importlib.import_module(f"monge.recipes.{name}")
