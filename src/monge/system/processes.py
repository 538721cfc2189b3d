"""The processes of one command, as ``torchrun`` or ``accelerate launch`` starts them.

Rank 0 is the main process, which alone talks and writes. All ranks encode and train. The rest runs
on rank 0 alone, which other ranks may help with chunks of rows: see `monge.system.row_sharing`.

Whatever fails, wherever, ends all (`together`): the first to fail says so in the store that the
processes share; a thread in each of the others sees it and leaves.
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
"""How long one process waits for another, which may be measuring or decoding; what has failed
ends all at once, so this need not be short."""

LOOK_EVERY_S = 0.2
"""Seconds between looks of a process at whether another has failed."""

LEAVE_WITHIN_S = 10.0
"""Seconds that the first to fail gives the others to leave before it does."""

FINISH_WITHIN_S = 60.0
"""Seconds that the main process gives the others to end well before it does."""

LOST_WITHIN_S = 1.0
"""The same where one of them is gone already."""

_store: Any = None
"""What the processes know of each other, once they have met."""


def rank() -> int:
    """Which of the processes this is."""
    return int(os.environ.get("RANK", "0")) if world() > 1 else 0


def world() -> int:
    """How many processes there are."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def is_main() -> bool:
    """Whether this is the process that talks and writes."""
    return rank() == 0


def join() -> None:
    """Meet the other processes, if there are any, and have a way to talk to them.

    Raises:
        UserError: it is not known where they are.
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
    # Tensors of the host go by gloo, so that waiting for each other never occupies a GPU.
    with_gpu = torch.cuda.is_available() and dist.is_nccl_available()
    backend = "cpu:gloo,cuda:nccl" if with_gpu else "gloo"
    dist.init_process_group(backend, store=store, rank=mine, world_size=size, timeout=PATIENCE)
    atexit.unregister(leave)  # once, and before what was registered earlier
    atexit.register(leave)


def leave() -> None:
    """Part from the other processes, without which some abort while the interpreter ends."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def wait() -> None:
    """Wait until all processes are here, however long that takes."""
    import torch.distributed as dist

    if world() > 1 and dist.is_initialized():
        import torch

        dist.all_reduce(torch.zeros(1))


@contextmanager
def main_first() -> Iterator[None]:
    """What the main process does, perhaps into the cache, before the others do the same."""
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
    """Whether all processes see one and the same folder, as those of one machine do."""
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
    """Give all processes the main one's weights and buffers."""
    import torch.distributed as dist

    if world() > 1:
        for tensor in module.state_dict().values():
            dist.broadcast(tensor, 0)


@contextmanager
def together() -> Iterator[None]:
    """Errors in any process end all of them: with one message, its exit code, and no delay.

    The first to fail raises; the others exit silently, whatever they are waiting for. SIGTERM
    becomes `KeyboardInterrupt`, as Ctrl-C; after a failure it is ignored, since launchers send it
    to whoever is not quick enough to leave with an exit code of its own.

    Raises:
        UserError: another process of this command has been killed.
    """
    if world() == 1:
        with _terminated_as_interrupted():
            yield
        return
    try:
        join()
    except KeyboardInterrupt:  # before there is a way to agree on who tells of it
        if is_main():
            raise
        raise SystemExit(130) from None
    assert _store is not None
    ours, done = _store.clone(), threading.Event()
    threading.Thread(target=_watch, args=(_store.clone(), done), daemon=True).start()
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
        if is_main():  # which may keep the store, so it leaves after the other ones
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
            time.sleep(2 * LOOK_EVERY_S)  # it may have said why, and then this process has ended
        _end_others(ours, _exit_code(error), done, LOST_WITHIN_S if lost else LEAVE_WITHIN_S)
        if lost:
            raise UserError(
                "another process of this command has ended without a word, perhaps killed for "
                "memory; training goes on from its last checkpoint when the same command is run "
                "again"
            ) from None
        raise


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM becomes `KeyboardInterrupt`, as Ctrl-C, where nobody else has taken it over."""
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
    """Make the others leave with an exit code, or be made to leave where one of them was first."""
    import torch.distributed as dist

    try:
        if store.add("failed", 1) > 1:
            threading.Event().wait()  # until `_watch` ends this process
        done.set()
        store.set("code", str(code))
        # The main process leaves after the other ones, as above.
        others = world() - 1 if is_main() else world() - 2
        _until(lambda: store.add("left", 0) >= others, within_s)
        store.set("over", "")
    except dist.DistError:  # whoever kept the store has been killed
        done.set()


def _until(happened: Callable[[], bool], within_s: float) -> None:
    """Wait, not for ever."""
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
    """Whether an exchange failed because the other process is gone."""
    import torch.distributed as dist

    if isinstance(error, UserError):
        return False
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and "gloo/" in str(error)
    )


def _watch(store: Any, done: threading.Event) -> None:
    """Leave as soon as another process has failed."""
    while not done.wait(LOOK_EVERY_S):
        try:
            if not store.check(["code"]):
                continue
            code = int(store.get("code"))
            if is_main():
                _until(lambda: store.check(["over"]), LEAVE_WITHIN_S)
            else:
                store.add("left", 1)
        except Exception:  # the store is gone: whoever kept it has ended
            return
        os._exit(code)
