"""The module name in folders exported by earlier versions; it re-exports their classes."""

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    return getattr(import_module("monge.export.diffusers_pipeline"), name)
