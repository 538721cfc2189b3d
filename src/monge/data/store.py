"""Images decoded once: a cache entry of uint8 pixels, however many and whatever they were.

Blocks of images become shards ``pixels-00000.safetensors``, written atomically in order, so that
an interrupted preparation goes on at the next block; ``entry.json`` is written last. Everything
after this reads rows of mapped shards: memory does not grow with the number of images.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save as to_bytes

from monge.data import cache, images
from monge.data.arrays import Shards, map_file
from monge.data.images import Header, Unreadable
from monge.data.raw import ImageSource, Raw
from monge.data.reading import Reading
from monge.errors import UserError
from monge.files import read_json, write_atomic, write_json
from monge.progress import Advance, Say, counting

FORMAT_VERSION = 1
BLOCK_BYTES = 2**25
"""About how many bytes of pixels a shard holds."""

LOOKED_AT = 256
"""Images whose headers decide the common size and whether there is colour."""

LARGEST_OWN = 128
"""Images of one common size are kept at it up to this side."""

DEFAULT_SIZE = 64
MOST_BAD = 0.01
"""Share of unreadable files beyond which a source is refused."""

NAMED = 20
"""Unreadable files that are listed by name."""


@dataclass(frozen=True)
class Store:
    """Prepared images.

    Attributes:
        shards: the pixels (N, C, H, W) uint8.
        digests: (N,) uint64 hashes of the pixels: equal images, equal hashes.
        rows: (N,) which image of the source each is, in the source's order.
        labels: (N,) index into `label_names`, -1 for none.
        heldout: (N,) 1 where the source holds it out, 0 where not, -1 where it does not say.
        label_names: in order.
        report: counts, for ``data_report.json``.
        folder: the cache entry.
    """

    shards: Shards
    digests: np.ndarray
    rows: np.ndarray
    labels: np.ndarray
    heldout: np.ndarray
    label_names: tuple[str, ...]
    report: dict[str, Any]
    folder: Path


@dataclass(frozen=True)
class _Plan:
    """What every block is prepared to."""

    size: tuple[int, int]
    channels: int
    fit: images.Fit
    block: int


class _Colour(Exception):
    """An image has colour where all were taken to be grey."""


def prepare(source: ImageSource, reading: Reading, say: Say) -> Store:
    """The images of a source, decoded and brought to one size; from the cache if they are there.

    Raises:
        UserError: too many files that cannot be read, or none that can.
    """
    facts = {
        "format_version": FORMAT_VERSION,
        "source": source.facts,
        "image_size": reading.image_size,
        "image_fit": reading.image_fit,
    }
    folder = cache.folder_for("images", source.name, facts)
    with cache.building(folder, say) as needed:
        if needed:
            _build(source, reading, folder, say)
    store = _open(folder)
    _refuse_if_bad(store.report, reading)
    return store


def check(folder: Path) -> None:
    """Read every shard of an entry again and compare it with its hash.

    Raises:
        UserError: naming the shard that has changed.
    """
    for name, digest in read_json(folder / cache.ENTRY)["shards"].items():
        if file_digest(folder / name) != digest:
            raise UserError(
                f"{folder / name} has changed since it was written: "
                f"monge cache clear {folder.name}, then run the command again"
            )


def changed_files(store: Store, source: ImageSource, say: Say) -> list[str]:
    """Names of source images whose content is not what was read, by their hashes."""
    changed = []
    position = 0
    expected = np.concatenate([_mapped(store.folder, n)["content"] for n in _shard_names(store)])
    with counting(f"checking {source.name}", source.total, say) as advance:
        for block in source.blocks(1024, 0):
            for raw in block:
                try:
                    now = _hash(raw.load())
                except OSError:
                    now = np.uint64(0)
                if position < len(expected) and now != expected[position].astype(np.uint64):
                    changed.append(raw.name)
                position += 1
            advance(len(block))
    return changed


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _build(source: ImageSource, reading: Reading, folder: Path, say: Say) -> None:
    plan = _planned(source, reading, folder)
    try:
        _write_blocks(source, plan, folder, say)
    except _Colour:
        say("an image in colour among grey ones: reading all in colour")
        for shard in folder.glob("pixels-*.safetensors"):
            shard.unlink()
        plan = _Plan(plan.size, 3, plan.fit, max(1, plan.block // 3))
        _keep_plan(folder, plan)
        _write_blocks(source, plan, folder, say)
    _finish(source, plan, reading, folder)


def _planned(source: ImageSource, reading: Reading, folder: Path) -> _Plan:
    """The plan of an interrupted preparation, or a new one from a look at some images."""
    path = folder / "plan.json"
    if path.exists():
        kept = read_json(path)
        height, width = kept["size"]
        return _Plan((height, width), kept["channels"], kept["fit"], kept["block"])
    headers = []
    for raw in source.sample(LOOKED_AT):
        try:
            headers.append(images.look(raw.load()))
        except (Unreadable, OSError):
            continue
    side = reading.image_size
    size = _common_size(headers) if side is None else (side, side)
    channels = 1 if headers and all(h.grey for h in headers) else 3
    block = max(16, BLOCK_BYTES // (channels * size[0] * size[1]))
    plan = _Plan(size, channels, reading.image_fit, block)
    _keep_plan(folder, plan)
    return plan


def _keep_plan(folder: Path, plan: _Plan) -> None:
    write_json(folder / "plan.json", {**plan.__dict__, "size": list(plan.size)})


def _common_size(headers: list[Header]) -> tuple[int, int]:
    sizes = {h.size for h in headers}
    if len(sizes) == 1 and max(size := next(iter(sizes))) <= LARGEST_OWN:
        return size
    return DEFAULT_SIZE, DEFAULT_SIZE


def _write_blocks(source: ImageSource, plan: _Plan, folder: Path, say: Say) -> None:
    start = 0
    while (folder / _shard(start)).exists():
        start += 1
    done = start * plan.block
    what = f"reading {source.name}"
    with (
        counting(what, source.total, say, done) as advance,
        ThreadPoolExecutor(os.cpu_count() or 1) as pool,
    ):
        for k, block in enumerate(source.blocks(plan.block, start), start):
            write_atomic(folder / _shard(k), _prepared(block, k * plan.block, plan, pool, advance))


def _shard(k: int) -> str:
    return f"pixels-{k:05d}.safetensors"


def _prepared(
    block: list[Raw], first: int, plan: _Plan, pool: ThreadPoolExecutor, advance: Advance
) -> bytes:
    """A shard: the readable images of a block, and what was found of all of them."""
    pixels = np.empty((len(block), plan.channels, *plan.size), np.uint8)
    good, content, bad = [], np.zeros(len(block), np.uint64), []
    counts: dict[str, Counter[str]] = {"formats": Counter(), "modes": Counter(), "sizes": Counter()}
    smaller = 0
    for i, (image, digest, header) in enumerate(pool.map(lambda raw: _one(raw, plan), block)):
        content[i] = digest
        advance(1)
        if header is None:
            bad.append([block[i].name, image])
            continue
        if plan.channels == 1 and not header.grey:
            raise _Colour
        good.append(i)
        pixels[i] = image
        counts["formats"][header.format] += 1
        counts["modes"][header.mode] += 1
        counts["sizes"]["x".join(map(str, header.size[::-1]))] += 1
        smaller += min(header.size) < min(plan.size)
    names = sorted({raw.label for raw in block if raw.label is not None})
    index = {name: k for k, name in enumerate(names)}
    labels = [-1 if (label := block[i].label) is None else index[label] for i in good]
    sides = [-1 if (side := block[i].heldout) is None else int(side) for i in good]
    kept = pixels[good]
    arrays = {
        "pixels": kept,
        "digest": np.asarray([_hash(x.tobytes()) for x in kept], np.uint64).astype(np.int64),
        "row": np.asarray(good, np.int64) + first,
        "label": np.asarray(labels, np.int64),
        "heldout": np.asarray(sides, np.int64),
        "content": content.astype(np.int64),
    }
    found = {"labels": names, "bad": bad, "smaller": smaller, **counts}
    return to_bytes(arrays, {"found": json.dumps(found)})


def _one(raw: Raw, plan: _Plan) -> tuple[Any, np.uint64, Header | None]:
    """Pixels, hash of the file and header; or the reason why it cannot be read, and None."""
    try:
        content = raw.load()
    except OSError as error:
        return error.strerror or str(error), np.uint64(0), None
    try:
        pixels, header = images.read(content, plan.size, plan.channels, plan.fit)
    except Unreadable as error:
        return str(error), _hash(content), None
    return pixels, _hash(content), header


def _hash(content: bytes) -> np.uint64:
    return np.frombuffer(hashlib.blake2b(content, digest_size=8).digest(), np.uint64)[0]


def _finish(source: ImageSource, plan: _Plan, reading: Reading, folder: Path) -> None:
    """Sum up the shards and write the entry, which makes it whole."""
    names: set[str] = set()
    bad: list[list[str]] = [list(pair) for pair in source.missing]
    totals = {key: Counter() for key in ("formats", "modes", "sizes")}
    n, n_seen, smaller, digests = 0, len(bad), 0, {}
    k = 0
    while (folder / _shard(k)).exists():
        arrays, metadata = map_file(folder / _shard(k))
        found = json.loads(metadata["found"])
        names |= set(found["labels"])
        bad += found["bad"]
        smaller += found["smaller"]
        for key, total in totals.items():
            total.update(found[key])
        n += len(arrays["pixels"])
        n_seen += len(arrays["content"])
        digests[_shard(k)] = file_digest(folder / _shard(k))
        k += 1
    sizes = totals["sizes"].most_common()
    report = {
        "source": source.text,
        "images": n,
        "unreadable": len(bad),
        "unreadable_files": {name: why for name, why in bad[:NAMED]},
        "formats": dict(totals["formats"].most_common()),
        "modes": dict(totals["modes"].most_common()),
        "sizes": dict(sizes[:10]),
        "distinct_sizes": len(sizes),
        "prepared_to": [plan.channels, *plan.size],
        "fit": plan.fit,
        "smaller_than_target": smaller,
        "ignored_files": dict(getattr(source, "ignored", {})),
        "notes": list(source.notes),
        "seen": n_seen,
    }
    entry = {
        "format_version": FORMAT_VERSION,
        "source": source.text,
        "n": n,
        "label_names": _in_order(source, names),
        "report": report,
        "shards": digests,
    }
    write_json(folder / cache.ENTRY, entry)


def _in_order(source: ImageSource, names: set[str]) -> list[str]:
    """The source's own order of labels; else numbers by value, and words by the alphabet."""
    own = [name for name in getattr(source, "label_names", ()) if name in names]
    if len(own) == len(names):
        return own
    return sorted(
        names, key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name)
    )


def _open(folder: Path) -> Store:
    entry = read_json(folder / cache.ENTRY)
    names = tuple(entry["label_names"])
    index = {name: k for k, name in enumerate(names)}
    columns: dict[str, list[np.ndarray]] = {}
    labels = []
    for shard in entry["shards"]:
        arrays, metadata = map_file(folder / shard)
        if len(arrays["pixels"]) == 0:
            continue
        for key in ("pixels", "digest", "row", "heldout"):
            columns.setdefault(key, []).append(arrays[key])
        own = json.loads(metadata["found"])["labels"]
        lookup = np.asarray([*(index[name] for name in own), -1], np.int64)
        labels.append(lookup[arrays["label"]])
    if not columns:
        raise UserError(_nothing_readable(entry["report"]))
    joined = {key: np.concatenate(columns[key]) for key in ("digest", "row", "heldout")}
    return Store(
        Shards(columns["pixels"]),
        joined["digest"].astype(np.uint64),
        joined["row"],
        np.concatenate(labels),
        joined["heldout"],
        names,
        entry["report"],
        folder,
    )


def _shard_names(store: Store) -> list[str]:
    return list(read_json(store.folder / cache.ENTRY)["shards"])


def _mapped(folder: Path, name: str) -> Mapping[str, np.ndarray]:
    return map_file(folder / name)[0]


def _nothing_readable(report: Mapping[str, Any]) -> str:
    return f"{report['source']}: none of its {report['seen']} images can be read:{_listed(report)}"


def _refuse_if_bad(report: Mapping[str, Any], reading: Reading) -> None:
    bad, seen = report["unreadable"], report["seen"]
    if bad > MOST_BAD * seen and not reading.allow_bad:
        raise UserError(
            f"{report['source']}: {bad} of {seen} images cannot be read, more than "
            f"{100 * MOST_BAD:g} %:{_listed(report)}\n"
            "repair or remove them, or leave them out by --allow-bad"
        )


def _listed(report: Mapping[str, Any]) -> str:
    files = report["unreadable_files"]
    lines = "".join(f"\n  {name}: {reason}" for name, reason in files.items())
    more = report["unreadable"] - len(files)
    return lines + (f"\n  and {more} more" if more else "")
