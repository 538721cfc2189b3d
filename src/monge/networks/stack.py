"""Several networks of one kind, one after another in a list: those of a chain of blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn


class Stack(nn.Module):
    """The networks of a chain's blocks, in the order they were fitted in.

    Weights of later blocks than there are here are left out when they are loaded: the first
    blocks of a longer chain are a chain.
    """

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.register_load_state_dict_pre_hook(_without_later_blocks)

    def __len__(self) -> int:
        return len(self.blocks)

    def first(self, n: int) -> Stack:
        """The first n blocks, with the same weights."""
        return Stack(list(self.blocks)[:n])


def _without_later_blocks(stack: nn.Module, state: dict[str, Any], *_: Any) -> None:
    count = len(stack.blocks)  # type: ignore[arg-type]
    for name in [n for n in state if n.startswith("blocks.") and int(n.split(".")[1]) >= count]:
        del state[name]
