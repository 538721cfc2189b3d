"""A process of its own that reads and encodes images under a limit of memory: see test_memory.

Arguments: the limit in bytes, the bytes of a shard, the first images, which only warm up, and
others. Prints JSON: for each of the others the bytes of their pixels and the peak of anonymous
memory above what the process had before; and what holding all the last pixels at once came to.
"""

from __future__ import annotations

import gc
import json
import math
import os
import resource
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from monge.components import build
from monge.data.arrays import Pixels
from monge.data.base import Data
from monge.data.images import decoding
from monge.data.sources import load
from monge.latents import cache as latent_cache
from monge.latents.cache import latents_of, standardised_by
from monge.system.progress import quiet
from monge.tensors import stream


def kilobytes(name: str) -> int:
    """A line of /proc/self/status, in bytes."""
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith(name + ":"))
    return 1024 * int(line.split()[1])


@contextmanager
def watched() -> Iterator[list[int]]:
    """The peak of anonymous memory, looked at all the time."""
    peak, done = [0], threading.Event()

    def look() -> None:
        while not done.wait(0.001):
            peak[0] = max(peak[0], kilobytes("RssAnon"))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


def work(source: str) -> Data:
    """Read, encode and standardise."""
    data = load(source)
    assert isinstance(data.train, Pixels)
    bare = build("autoencoder", "conv:down=8,channels=2,width=8,blocks=1").build(
        data.shape, rng=stream(0, "weights")
    )
    fingerprint, device = data.fingerprint, torch.device("cpu")
    latents = latents_of(bare, data.train, fingerprint, data.name, device, quiet)
    standardised_by(bare, latents, data.train[:2])
    return data


def size(data: Data) -> int:
    """Bytes of all pixels."""
    return (len(data.train) + len(data.heldout)) * math.prod(data.shape)


def hoard(data: Data) -> str:
    """What comes of holding them: the limit must bite, or it proves nothing."""
    assert isinstance(data.train, Pixels)
    try:
        held = data.train.shards.take(data.train.rows)
    except MemoryError:
        return "MemoryError"
    return f"{held.nbytes} bytes"


def main(limit: str, shard: str, warm: str, *sources: str) -> None:
    torch.set_num_threads(1)
    os.cpu_count = lambda: 2
    decoding.BLOCK_BYTES = latent_cache.BLOCK_BYTES = int(shard)
    latent_cache.CHUNK_NUMBERS = min(latent_cache.CHUNK_NUMBERS, int(shard) // 4)
    with watched():  # so that its thread's stack is there too
        work(warm)
    gc.collect()
    base, allowed = kilobytes("RssAnon"), kilobytes("VmData") + int(limit)
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, allowed))
    told = []
    for source in sources:
        with watched() as peak:
            data = work(source)
        told.append({"pixels": size(data), "peak": peak[0] - base})
    print(json.dumps({"read": told, "held": hoard(data)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
