"""Finds the kind of `Learned` that an objective trains."""

from __future__ import annotations

import importlib

from monge.components import class_of
from monge.learned.base import Learned

KINDS = {
    "velocity": "monge.learned.velocity:LearnedVelocity",
    "flow map": "monge.learned.flow_map:LearnedFlowMap",
    "chain": "monge.learned.chain:LearnedChain",
}
"""The kinds by the names that objectives use. An objective of the user names its class."""


def kind_of(objective: str) -> type[Learned]:
    """The class of `Learned` that an objective, given as text, trains.

    Raises:
        UserError: an unknown objective.
    """
    learns = class_of("objective", objective).learns
    if isinstance(learns, type):
        return learns
    module, _, name = KINDS[learns].partition(":")
    return getattr(importlib.import_module(module), name)
