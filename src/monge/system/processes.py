"""The processes of one command, started by ``torchrun`` or ``accelerate launch``.

Rank 0 is the main process; only it prints and writes. All ranks encode and train. All other work
runs on rank 0; other ranks may compute chunks of rows for it: see `monge.system.row_sharing`.

A failure in any process ends all of them (`together`): the process that fails first records it in
the shared store, and a watching thread in each other process ends that process.
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from monge.errors import UserError
from monge.system.files import temporary_for, write_atomic

if TYPE_CHECKING:
    import torch

PATIENCE = timedelta(days=30)
"""How long one process waits for another, which may be measuring or decoding. A failure ends all
processes at once, so this may be long."""

LOOK_EVERY_S = 0.2
"""Seconds between a process's checks whether another has failed."""

LEAVE_WITHIN_S = 10.0
"""Seconds that the process which fails first waits for the others to end."""

FINISH_WITHIN_S = 60.0
"""Seconds that the main process waits for the others to end normally."""

LOST_WITHIN_S = 1.0
"""The same when one of them has ended already."""

_store: Any = None
"""The key-value store that the processes share, after `join`."""


def rank() -> int:
    """The rank of this process."""
    return int(os.environ.get("RANK", "0")) if world() > 1 else 0


def world() -> int:
    """The number of processes."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def is_main() -> bool:
    """Whether this is rank 0, the process that prints and writes."""
    return rank() == 0


def join() -> None:
    """Connect to the other processes, if there are any.

    Raises:
        UserError: the launcher gave no address of the main process.
    """
    import torch
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    if world() == 1 or dist.is_initialized():
        return
    lacking = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if lacking:
        raise UserError(
            f"RANK and WORLD_SIZE are set, but not {' and '.join(lacking)}: start several "
            "processes by torchrun or accelerate launch, or unset RANK for one"
        )
    global _store
    store, mine, size = next(rendezvous("env://"))
    _store = PrefixStore("monge", store)
    # CPU tensors go by gloo, so that waiting never occupies a GPU.
    with_gpu = torch.cuda.is_available() and dist.is_nccl_available()
    backend = "cpu:gloo,cuda:nccl" if with_gpu else "gloo"
    dist.init_process_group(backend, store=store, rank=mine, world_size=size, timeout=PATIENCE)
    atexit.unregister(leave)  # once, and before what was registered earlier
    atexit.register(leave)


def leave() -> None:
    """Disconnect from the other processes; else some abort while the interpreter ends."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def wait() -> None:
    """Wait until all processes reach this call."""
    import torch.distributed as dist

    if world() > 1 and dist.is_initialized():
        import torch

        dist.all_reduce(torch.zeros(1))


@contextmanager
def main_first() -> Iterator[None]:
    """Run the block in the main process first, so that the others find its results in the cache."""
    if not is_main():
        wait()
    yield
    if is_main():
        wait()


def agreed(text: str, source: int = 0) -> str:
    """The text of one process, the main one by default, in every process."""
    import torch
    import torch.distributed as dist

    if world() == 1:
        return text
    content = torch.frombuffer(bytearray(text, "utf-8") or bytearray(1), dtype=torch.uint8)
    size = torch.tensor(len(text.encode()))
    dist.broadcast(size, source)
    if rank() != source:
        content = torch.empty(max(1, int(size)), dtype=torch.uint8)
    dist.broadcast(content, source)
    return bytes(content[: int(size)].tolist()).decode()


def gathered(text: str) -> list[str]:
    """The text of every process, by rank, in every process."""
    return [agreed(text, source) for source in range(world())]


def share_folder(folder: Path) -> bool:
    """Whether all processes see the same folder, as on one machine."""
    if world() == 1:
        return True
    mark = folder / agreed(temporary_for(Path("ranks")).name)
    if is_main():
        write_atomic(mark, "")
    wait()
    seen = gathered(str(mark.exists()))
    wait()
    if is_main():
        mark.unlink(missing_ok=True)
    return "False" not in seen


def same(module: torch.nn.Module) -> None:
    """Copy the main process's weights and buffers to all processes."""
    import torch.distributed as dist

    if world() > 1:
        for tensor in module.state_dict().values():
            dist.broadcast(tensor, 0)


@contextmanager
def together() -> Iterator[None]:
    """An error in any process ends all of them at once, with one message and its exit code.

    The process that fails first raises; the others exit silently, even while they wait. SIGTERM
    becomes `KeyboardInterrupt`, like Ctrl-C. After a failure SIGTERM is ignored, because launchers
    send it to processes that have not yet ended with their own exit code.

    Raises:
        UserError: another process of this command was killed.
    """
    if world() == 1:
        with _terminated_as_interrupted():
            yield
        return
    try:
        join()
    except KeyboardInterrupt:  # before the processes can agree on which one reports it
        if is_main():
            raise
        raise SystemExit(130) from None
    assert _store is not None
    ours, done = _store.clone(), threading.Event()
    threading.Thread(target=_watch, args=(_store.clone(), done), daemon=True).start()
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
        if is_main():  # it may host the store, so it leaves last
            _until(lambda: ours.add("left", 0) >= world() - 1, FINISH_WITHIN_S)
        done.set()
        leave()
        if not is_main():
            ours.add("left", 1)
        signal.signal(signal.SIGTERM, before)
    except BaseException as error:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        lost = _is_lost(error)
        if lost:
            time.sleep(2 * LOOK_EVERY_S)  # `_watch` ends this process if a failure was recorded
        _end_others(ours, _exit_code(error), done, LOST_WITHIN_S if lost else LEAVE_WITHIN_S)
        if lost:
            raise UserError(
                "another process of this command has ended without an error, perhaps killed for "
                "memory; training goes on from its last checkpoint when the same command is run "
                "again"
            ) from None
        raise


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM becomes `KeyboardInterrupt`, like Ctrl-C, unless another handler is installed."""
    free = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if threading.current_thread() is not threading.main_thread() or not free:
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end_others(store: Any, code: int, done: threading.Event, within_s: float) -> None:
    """End the others with an exit code; if another process failed first, wait to be ended."""
    import torch.distributed as dist

    try:
        if store.add("failed", 1) > 1:
            threading.Event().wait()  # until `_watch` ends this process
        done.set()
        store.set("code", str(code))
        # The main process leaves last, as above.
        others = world() - 1 if is_main() else world() - 2
        _until(lambda: store.add("left", 0) >= others, within_s)
        store.set("over", "")
    except dist.DistError:  # the process that hosts the store was killed
        done.set()


def _until(happened: Callable[[], bool], within_s: float) -> None:
    """Wait for a condition, at most so many seconds."""
    end = time.monotonic() + within_s
    while not happened() and time.monotonic() < end:
        time.sleep(LOOK_EVERY_S / 4)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _exit_code(error: BaseException) -> int:
    if isinstance(error, UserError):
        return error.exit_code
    return 130 if isinstance(error, KeyboardInterrupt) else 1


def _is_lost(error: BaseException) -> bool:
    """Whether communication failed because the other process has ended."""
    import torch.distributed as dist

    if isinstance(error, UserError):
        return False
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and "gloo/" in str(error)
    )


def _watch(store: Any, done: threading.Event) -> None:
    """End this process as soon as another has failed."""
    while not done.wait(LOOK_EVERY_S):
        try:
            if not store.check(["code"]):
                continue
            code = int(store.get("code"))
            if is_main():
                _until(lambda: store.check(["over"]), LEAVE_WITHIN_S)
            else:
                store.add("left", 1)
        except Exception:  # the process that hosts the store has ended
            return
        os._exit(code)
