"""Decodes the images of a source to one size, in shards of a block of images each.

Blocks become ``pixels-00000.safetensors``, written atomically in order, so an interrupted decoding
continues at the next block. For each image a shard holds the pixels and their hash, the image's
number in the source, its label and its side of the split. For every image of the block, readable
or not, it holds a hash of the file.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
import os
import warnings
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from safetensors.numpy import save as to_bytes

from monge.data import cache
from monge.data.images import image_files
from monge.data.images.budget import Budget
from monge.data.images.image_files import Header, Unreadable
from monge.data.images.raw import ImageSource, Raw, shown
from monge.data.reading import Reading
from monge.system.files import write_atomic, write_json
from monge.system.progress import Advance, Say, counting
from monge.system.schema import (
    Schema,
    fields,
    listed,
    number,
    one_of,
    read_json,
    table,
    text,
    whole,
)

BLOCK_BYTES = 2**25
"""Approximate size of the pixels of a shard, in bytes."""

LOOKED_AT = 256
"""Number of images whose headers decide the common size and colour."""

LARGEST_OWN = 128
"""Largest side of images that keep their common size."""

MOST = 0.5
"""Least share of images with one size that makes it the common size."""

DEFAULT_SIZE = 64

PLAN = "plan.json"


@dataclass(frozen=True)
class Plan:
    """The size, channels and other settings of the decoding, equal for every block."""

    size: tuple[int, int]
    channels: int
    fit: image_files.Fit
    block: int
    white: image_files.White = image_files.BRIGHTEST


PLANNED: Schema = fields(
    {
        "size": listed(whole(1, 2**16), 2, 2),
        "channels": one_of(1, 3, 4),
        "fit": one_of(*get_args(image_files.Fit)),
        "block": whole(16),
        "white": listed(number(1), 2, 2),
    }
)
"""Schema of a plan's file."""

FOUND: Schema = fields(
    {
        "labels": listed(text),
        "bad": listed(listed(text, 2, 2)),
        "lost": whole(),
        "smaller": whole(),
        "formats": table(whole()),
        "modes": table(whole()),
        "sizes": table(whole()),
    }
)
"""Schema of a shard's metadata."""

PIXELS = Budget(2**27)
"""Pixels that all threads together decode at once."""

FILE_BYTES = Budget(2**29)
"""Bytes of encoded images held at once."""


class _Colour(Exception):
    """An image has colour although all were expected to be grey."""


@dataclass(frozen=True)
class _Decoded:
    """One decoded image of a source, or the reason why it cannot be read.

    Attributes:
        content: hash of the file; 0 if its bytes cannot be read.
        lost: whether its bytes cannot be read now, which may be temporary, unlike damage.
    """

    content: np.uint64
    pixels: np.ndarray | None = None
    header: Header | None = None
    reason: str = ""
    lost: bool = False


def decode(
    source: ImageSource, reading: Reading, folder: Path, say: Say, again: tuple[str, ...] = ()
) -> Plan:
    """Write the missing shards of a source.

    Args:
        again: existing shards that are written again.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of damaged files, which are counted instead
        plan = _planned(source, reading, folder)
        while True:
            try:
                _write_blocks(source, plan, folder, say, again)
                return plan
            except _Colour:
                say("an image in colour among grey ones: reading all in colour")
                block = max(1, plan.block // 3)
                plan = dataclasses.replace(plan, channels=3, block=block)
            except image_files.Brighter as found:
                white = image_files.brighter(plan.white, found.white)
                say(f"an image with values above {plan.white.whole}: reading all with {white}")
                plan = dataclasses.replace(plan, white=white)
            (folder / cache.ENTRY).unlink(missing_ok=True)
            for path in folder.glob("pixels-*.safetensors"):
                path.unlink()
            again = ()
            _keep_plan(folder, plan)


def shard(k: int) -> str:
    """The file name of block k."""
    return f"pixels-{k:05d}.safetensors"


def content_hash(content: bytes) -> np.uint64:
    """A 64-bit hash of bytes."""
    return np.frombuffer(hashlib.blake2b(content, digest_size=8).digest(), np.uint64)[0]


def content_of(raw: Raw) -> np.uint64:
    """The hash of an image's file, as stored in its shard; 0 if the file cannot be read."""
    try:
        return content_hash(raw.load())
    except OSError:
        return np.uint64(0)
    except Unreadable:
        return content_hash(b"")


def _planned(source: ImageSource, reading: Reading, folder: Path) -> Plan:
    """The plan of an interrupted decoding, or a new one from a sample of the images."""
    path = folder / PLAN
    if path.exists():
        kept = read_json(path, PLANNED, "clear it with monge cache clear")
        height, width = kept["size"]
        white = image_files.White(*kept["white"])
        return Plan((height, width), kept["channels"], kept["fit"], kept["block"], white)
    headers, white = [], image_files.DARKEST
    for raw in source.sample(LOOKED_AT):
        try:
            content = raw.load()
            headers.append(image_files.look(content))
            if headers[-1].deep:
                white = image_files.brighter(white, image_files.white_in(content))
        except (Unreadable, OSError):
            continue
    side = reading.image_size
    size = _common_size(headers) if side is None else (side, side)
    asked = {"auto": None, "RGB": 3, "RGBA": 4}[reading.image_mode]
    channels = asked or (1 if headers and all(h.grey for h in headers) else 3)
    block = max(16, BLOCK_BYTES // (channels * size[0] * size[1]))
    plan = Plan(size, channels, reading.image_fit, block, white)
    _keep_plan(folder, plan)
    return plan


def _keep_plan(folder: Path, plan: Plan) -> None:
    white = [plan.white.whole, plan.white.fraction]
    write_json(folder / PLAN, {**plan.__dict__, "size": list(plan.size), "white": white})


def _common_size(headers: list[Header]) -> tuple[int, int]:
    """The size of most images, if its sides are at most `LARGEST_OWN`; else the default size."""
    sizes = Counter(h.size for h in headers)
    if sizes:
        size, n = sizes.most_common(1)[0]
        if max(size) <= LARGEST_OWN and n > MOST * len(headers):
            return size
    return DEFAULT_SIZE, DEFAULT_SIZE


def _write_blocks(
    source: ImageSource, plan: Plan, folder: Path, say: Say, again: tuple[str, ...]
) -> None:
    first = 0
    while (folder / shard(first)).exists() and shard(first) not in again:
        first += 1
    rows = source.rows(first * plan.block)
    workers = os.cpu_count() or 1
    with (
        counting(f"reading {shown(source.name)}", source.total, say, first * plan.block) as advance,
        ThreadPoolExecutor(workers) as pool,
    ):
        for k in itertools.count(first):
            block = itertools.islice(rows, plan.block)
            if (folder / shard(k)).exists() and shard(k) not in again:
                n = sum(1 for _ in block)
                advance(n)
            else:
                n, content = _encoded(_decoded(block, plan, pool, workers), plan, k, advance)
                if n:
                    write_atomic(folder / shard(k), content)
            if n < plan.block:
                break


def _decoded(
    raws: Iterator[Raw], plan: Plan, pool: ThreadPoolExecutor, workers: int
) -> Iterator[tuple[Raw, _Decoded]]:
    """Images with their pixels, in order; only a few files are held at once."""
    waiting: deque[tuple[Raw, Future[_Decoded]]] = deque()
    for raw in raws:
        waiting.append((raw, pool.submit(_one, raw, plan)))
        if len(waiting) > 2 * workers:
            oldest, future = waiting.popleft()
            yield oldest, future.result()
    for raw, future in waiting:
        yield raw, future.result()


def _one(raw: Raw, plan: Plan) -> _Decoded:
    content = b""
    try:
        with FILE_BYTES.holding(raw.bytes):
            content = raw.load()
            with PIXELS.holding(math.prod(image_files.look(content).size)):
                pixels, header = image_files.read(
                    content, plan.size, plan.channels, plan.fit, plan.white
                )
    except OSError as error:
        return _Decoded(np.uint64(0), reason=error.strerror or str(error), lost=True)
    except Unreadable as error:
        return _Decoded(content_hash(content), reason=str(error))
    return _Decoded(content_hash(content), pixels, header)


def _encoded(
    decoded: Iterator[tuple[Raw, _Decoded]], plan: Plan, k: int, advance: Advance
) -> tuple[int, bytes]:
    """The number of images in block k, and the content of its shard."""
    pixels, digests, rows, names, sides, contents, bad = [], [], [], [], [], [], []
    counts: dict[str, Counter[str]] = {"formats": Counter(), "modes": Counter(), "sizes": Counter()}
    smaller = lost = 0
    for i, (raw, image) in enumerate(decoded):
        contents.append(image.content)
        advance(1)
        if image.pixels is None or image.header is None:
            bad.append([raw.name, image.reason])
            lost += image.lost
            continue
        header = image.header
        if plan.channels == 1 and not header.grey:
            raise _Colour
        pixels.append(image.pixels)
        digests.append(content_hash(image.pixels.tobytes()))
        rows.append(k * plan.block + i)
        names.append(raw.label)
        sides.append(-1 if raw.heldout is None else int(raw.heldout))
        counts["formats"][header.format] += 1
        counts["modes"][header.mode] += 1
        counts["sizes"]["x".join(map(str, header.size[::-1]))] += 1
        smaller += any(has < wanted for has, wanted in zip(header.size, plan.size, strict=True))
    known = sorted({name for name in names if name is not None})
    index = {None: -1, **{name: i for i, name in enumerate(known)}}
    arrays = {
        "pixels": np.asarray(pixels, np.uint8).reshape(-1, plan.channels, *plan.size),
        "digest": np.asarray(digests, np.uint64).astype(np.int64),
        "row": np.asarray(rows, np.int64),
        "label": np.asarray([index[name] for name in names], np.int64),
        "heldout": np.asarray(sides, np.int64),
        "content": np.asarray(contents, np.uint64).astype(np.int64),
    }
    found = {"labels": known, "bad": bad, "lost": lost, "smaller": smaller, **counts}
    return len(contents), to_bytes(arrays, {"found": json.dumps(found)})
