"""`monge cache`: list or clear the cached data and latents."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import Any, Literal

from tyro.conf import Positional

from monge.verbs.shown import tell


@dataclass(frozen=True)
class Cache:
    """List or clear the cached data and latents; cleared entries are made again when needed."""

    action: Positional[Literal["list", "clear"]] = "list"
    """What to do."""
    names: Positional[tuple[str, ...]] = ()
    """Entries to clear; none: all entries that are not in use."""
    json: bool = False
    """Print the result as JSON."""


def act(arguments: Cache) -> Any:
    """List or clear the cache."""
    from monge.data import cache as cached
    from monge.system.progress import size

    if arguments.action == "clear":
        removed, busy = cached.clear(list(arguments.names) or None)
        tell(arguments, f"removed {len(removed)} entries from {cached.root()}")
        for name in busy:
            tell(arguments, f"left, it is in use: {name}")
        for name in cached.foreign():
            tell(arguments, f"left, it is not monge's: {name}")
        return {"removed": removed, "in_use": busy}
    found = cached.entries()
    for e in found:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(e.used))
        count = "-" if e.n is None else str(e.n)
        tell(arguments, f"{e.kind:8} {e.name:32} {count:>9} {size(e.bytes):>9}  {used}  {e.source}")
    total = sum(e.bytes for e in found)
    tell(arguments, f"{len(found)} entries, {size(total)}, in {cached.root()}")
    return [dataclasses.asdict(e) for e in found]
