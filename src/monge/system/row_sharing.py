"""Row-parallel evaluation: rank 0 runs the program; other ranks compute chunks of rows on request.

Inside `lead`, rank 0 calls `spread` for work that goes row by row, such as sampling; the other
ranks wait for its requests until it leaves the block. They run no other code of the program, so
ranks need not keep in step.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from monge.system.processes import agreed, is_main, join, rank, world

if TYPE_CHECKING:
    from torch import Tensor

Task: TypeAlias = Callable[[Mapping[str, Any], Mapping[str, "Tensor"]], dict[str, "Tensor"]]
"""task(settings, rows): maps a chunk of rows of each tensor to as many rows of each result, all on
the CPU. Settings are JSON values."""

_leading = False


@contextmanager
def lead(*tasks: Task) -> Iterator[bool]:
    """True in the main process, which may then `spread` these tasks; the others serve its requests.

    The others get False after the main process has left this block.

    Args:
        tasks: identified by their names, the same in all processes.
    """
    global _leading
    if world() == 1:
        yield True
        return
    join()
    if not is_main():
        _serve({task.__name__: task for task in tasks})
        yield False
        return
    _leading = True
    try:
        yield True
    finally:
        _leading = False
    agreed("[]")


def spread(
    task: Task,
    chunk: int,
    settings: Mapping[str, Any],
    rows: Mapping[str, Tensor],
    progress: Callable[[int], None] | None = None,
) -> dict[str, Tensor]:
    """The results of a task, chunk by chunk; inside `lead`, all processes compute a share.

    Each process computes consecutive chunks. The chunks do not depend on the number of processes,
    so on equal machines the results are the same to the bit.

    Args:
        chunk: rows of one call of the task.
        settings: JSON values.
        rows: tensors on the CPU, all with the same number of rows.
        progress: called with the number of rows, after each chunk here and each share received.
    """
    import torch
    import torch.distributed as dist

    if not _leading:
        return _work(task, chunk, settings, rows, progress)
    n = len(next(iter(rows.values())))
    shares = [_share(n, chunk, r) for r in range(world())]
    forms = {name: _form(tensor) for name, tensor in rows.items()}
    header = (task.__name__, chunk, dict(settings), forms, shares)  # type: ignore[attr-defined]
    agreed(json.dumps(header))
    busy = [r for r, (start, stop) in enumerate(shares) if r and stop > start]
    for r in busy:
        for tensor in rows.values():
            dist.send(tensor[slice(*shares[r])].contiguous(), r)
    own = {name: tensor[slice(*shares[0])] for name, tensor in rows.items()}
    parts = [_work(task, chunk, settings, own, progress)]
    for r in busy:
        size = shares[r][1] - shares[r][0]
        parts.append({name: _receive(size, _form(t), r) for name, t in parts[0].items()})
        if progress is not None:
            progress(size)
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _serve(tasks: Mapping[str, Task]) -> None:
    """Compute what the main process requests, until it leaves `lead`."""
    import torch.distributed as dist

    while header := json.loads(agreed("[]")):
        name, chunk, settings, forms, shares = header
        start, stop = shares[rank()]
        if stop > start:
            rows = {key: _receive(stop - start, form, 0) for key, form in forms.items()}
            for tensor in _work(tasks[name], chunk, settings, rows, None).values():
                dist.send(tensor.contiguous(), 0)


def _work(
    task: Task,
    chunk: int,
    settings: Mapping[str, Any],
    rows: Mapping[str, Tensor],
    progress: Callable[[int], None] | None,
) -> dict[str, Tensor]:
    import torch

    parts = []
    for some in zip(*(tensor.split(chunk) for tensor in rows.values()), strict=True):
        parts.append(task(settings, dict(zip(rows, some, strict=True))))
        if progress is not None:
            progress(len(some[0]))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _share(n: int, chunk: int, which: int) -> tuple[int, int]:
    """The range of rows of a process; the main process has some whenever there are any."""
    chunks, size = -(-n // chunk), world()
    ends = [-(-chunks * r // size) * chunk for r in (which, which + 1)]
    return min(ends[0], n), min(ends[1], n)


def _form(tensor: Tensor) -> tuple[str, list[int]]:
    return str(tensor.dtype).removeprefix("torch."), list(tensor.shape[1:])


def _receive(n: int, form: tuple[str, list[int]], source: int) -> Tensor:
    import torch
    import torch.distributed as dist

    tensor = torch.empty((n, *form[1]), dtype=getattr(torch, form[0]))
    dist.recv(tensor, source)
    return tensor
