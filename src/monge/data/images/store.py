"""The cache entry of a source's images, decoded once to uint8 pixels.

It consists of the shards of `decoding` and of ``entry.json``, which is written last. Later code
reads rows of mapped shards, so memory does not grow with the number of images.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from monge.data import cache
from monge.data.arrays import Shards, damaged, map_file
from monge.data.images import decoding
from monge.data.images.raw import ImageSource, shown
from monge.data.reading import Reading
from monge.errors import UserError
from monge.system import schema
from monge.system.progress import Say, counting

FORMAT_VERSION = 3

MOST_BAD = 0.01
"""Share of unreadable files above which a source is refused."""

NAMED = 20
"""Number of unreadable files listed by name."""


@dataclass(frozen=True)
class Store:
    """Prepared images.

    Attributes:
        shards: the pixels (N, C, H, W) uint8.
        digests: (N,) uint64 hashes of the pixels: equal images, equal hashes.
        rows: (N,) number of each image in the source's order.
        labels: (N,) index into `label_names`, -1 for no label.
        heldout: (N,) 1 for held out by the source, 0 for training, -1 for unassigned.
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


def prepare(source: ImageSource, reading: Reading, say: Say) -> Store:
    """The images of a source, decoded to one size, or read from the cache.

    Raises:
        UserError: too many unreadable files, or no readable one.
    """
    facts = {
        "format_version": FORMAT_VERSION,
        "source": source.facts,
        "image_size": reading.image_size,
        "image_fit": reading.image_fit,
        # Entries of the cache that are older than this setting keep their names.
        **({} if reading.image_mode == "auto" else {"image_mode": reading.image_mode}),
    }
    folder = cache.folder_for("images", source.name, facts)
    # Files that could not be opened are tried again: the cause may have been temporary.
    lost = tuple(cache.read_entry(folder)["lost"]) if cache.is_whole(folder) else ()
    with cache.building(folder, say, again=bool(lost)) as needed:
        if needed:
            plan = decoding.decode(source, reading, folder, say, lost)
            _finish(source, plan, folder)
    report = _report(cache.read_entry(folder)["report"], source, reading)
    _refuse_if_bad(report, reading)
    return _open(folder, report)


def check(folder: Path) -> None:
    """Read every shard of an entry again and compare it with its hash.

    Raises:
        UserError: a shard has changed; the message names it.
    """
    for name, digest in cache.read_entry(folder)["shards"].items():
        if file_digest(folder / name) != digest:
            raise UserError(
                f"{folder / name} has changed since it was written: "
                f"monge cache clear {folder.name}, then run the command again"
            )


def changed_files(store: Store, source: ImageSource, say: Say) -> list[str]:
    """Names of source images whose content has changed since they were read, by hash."""
    names = cache.read_entry(store.folder)["shards"]
    then = np.concatenate([map_file(store.folder / n)[0]["content"] for n in names])
    changed = []
    with counting(f"checking {shown(source.name)}", source.total, say) as advance:
        for raw, expected in zip(source.rows(0), then.astype(np.uint64), strict=False):
            if decoding.content_of(raw) != expected:
                changed.append(raw.name)
            advance(1)
    return changed


def file_digest(path: Path) -> str:
    """SHA-256 of a file.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror}; monge cache clear {path.parent.name}"
        ) from None


def _finish(source: ImageSource, plan: decoding.Plan, folder: Path) -> None:
    """Summarise the shards and write ``entry.json``, which completes the entry."""
    names: set[str] = set()
    bad: list[list[str]] = []
    totals = {key: Counter() for key in ("formats", "modes", "sizes")}
    n, seen, n_bad, smaller, digests, lost = 0, 0, 0, 0, {}, []
    k = greatest = 0
    while (path := folder / decoding.shard(k)).exists():
        arrays, found = _shard(path, (plan.channels, *plan.size))
        names |= set(found["labels"])
        n_bad += len(found["bad"])
        bad += found["bad"][: NAMED - len(bad)]
        smaller += found["smaller"]
        for key, total in totals.items():
            total.update(found[key])
        n += len(arrays["pixels"])
        greatest = max(greatest, int(arrays["pixels"].max(initial=0)))
        seen += len(arrays["content"])
        digests[path.name] = file_digest(path)
        if found["lost"]:
            lost.append(path.name)
        k += 1
    sizes = totals["sizes"].most_common()
    report = {
        "source": shown(source.text),
        "images": n,
        "seen": seen,
        "unreadable": n_bad,
        "unreadable_files": bad,
        "formats": dict(totals["formats"].most_common()),
        "modes": dict(totals["modes"].most_common()),
        "sizes": dict(sizes[:10]),
        "distinct_sizes": len(sizes),
        "prepared_to": [plan.channels, *plan.size],
        "fit": plan.fit,
        "greatest": greatest,
        "white": [plan.white.whole, plan.white.fraction],
        "smaller_than_target": smaller,
    }
    entry = {
        "format_version": FORMAT_VERSION,
        "source": report["source"],
        "n": n,
        "label_names": _in_order(source, names),
        "report": report,
        "shards": digests,
        "lost": lost,
    }
    cache.write_entry(folder, entry)


def _report(kept: dict[str, Any], source: ImageSource, reading: Reading) -> dict[str, Any]:
    """The report of an entry, updated with the source's present notes."""
    white, greatest = kept.pop("white"), kept.pop("greatest")
    missing = list(source.missing)
    bad = [*missing, *kept["unreadable_files"]][:NAMED]
    return {
        **kept,
        "seen": kept["seen"] + len(missing),
        "unreadable": kept["unreadable"] + len(missing),
        "unreadable_files": dict(bad),
        "ignored_files": dict(getattr(source, "ignored", {})),
        "size_because": _why(kept, reading),
        "notes": [*source.notes, *_scale_notes(kept, white, greatest)],
    }


def _why(kept: dict[str, Any], reading: Reading) -> str:
    """The reason for the size of the prepared images."""
    _, height, width = kept["prepared_to"]
    if reading.image_size is not None:
        return "image_size says so"
    most = next(iter(kept["sizes"].items()), ("", 0))
    if most[0] == f"{width}x{height}":
        return f"{most[1]} of {kept['images']} images have it"
    what = "no size of at most 128 is that of most images"
    return f"{what}: {decoding.DEFAULT_SIZE} by default, --image-size chooses another"


DARK = 64
"""A source whose brightest value is at most this, of 255, gets a warning."""


def _scale_notes(kept: dict[str, Any], white: list[float], greatest: int) -> list[str]:
    notes = []
    if any(mode.startswith("I") for mode in kept["modes"]):
        notes.append(
            f"grey images of more than 8 bits: {white[0]} is taken for white, the least of 255, "
            "1023, 4095, 16383 and 65535 that no value of the source exceeds"
        )
    if "F" in kept["modes"]:
        notes.append(
            f"images of floats: {white[1]:g} is taken for white, as "
            + ("no value is greater" if white[1] == 1 else "there are values above 1")
        )
    if kept["images"] and greatest < DARK:
        notes.append(
            f"no pixel is brighter than {greatest} of 255: the images use a part of their range, "
            "as masks of class numbers and scans of few bits do; rescale them if black is not meant"
        )
    return notes


def _in_order(source: ImageSource, names: set[str]) -> list[str]:
    """Labels in the source's order; else numbers by value, and words by the alphabet."""
    own = [name for name in getattr(source, "label_names", ()) if name in names]
    if len(own) == len(names):
        return own
    numbers = {name for name in names if name.isascii() and name.isdigit()}
    return [*sorted(numbers, key=lambda name: (int(name), name)), *sorted(names - numbers)]


def _open(folder: Path, report: dict[str, Any]) -> Store:
    entry = cache.read_entry(folder)
    names = tuple(entry["label_names"])
    index = {name: k for k, name in enumerate(names)}
    columns: dict[str, list[np.ndarray]] = {}
    labels = []
    for name in entry["shards"]:
        arrays, found = _shard(folder / name, tuple(report["prepared_to"]))
        if not set(found["labels"]) <= index.keys():
            raise damaged(folder / name, "it has labels of its own")
        if len(arrays["pixels"]) == 0:
            continue
        for key in ("pixels", "digest", "row", "heldout"):
            columns.setdefault(key, []).append(arrays[key])
        lookup = np.asarray([*(index[name] for name in found["labels"]), -1], np.int64)
        labels.append(lookup[arrays["label"]])
    joined = {key: np.concatenate(columns[key]) for key in ("digest", "row", "heldout")}
    return Store(
        Shards(columns["pixels"]),
        joined["digest"].astype(np.uint64),
        joined["row"],
        np.concatenate(labels),
        joined["heldout"],
        names,
        report,
        folder,
    )


def _shard(path: Path, shape: tuple[int, ...]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of a shard, and its metadata.

    Raises:
        UserError: damage that is visible without reading the arrays.
    """
    arrays, metadata = map_file(path)
    try:
        found = json.loads(metadata["found"])
        schema.check(found, decoding.FOUND, str(path))
        n, labels = len(arrays["pixels"]), arrays["label"]
        sound = (
            arrays["pixels"].shape == (n, *shape)
            and all(arrays[key].shape == (n,) for key in ("digest", "row", "label", "heldout"))
            and (n == 0 or -1 <= labels.min() <= labels.max() < len(found["labels"]))
        )
    except (UserError, KeyError, ValueError, TypeError, AttributeError, RecursionError):
        sound, found = False, {}
    if not sound:
        raise damaged(path, "it does not hold what it should")
    return arrays, found


def _refuse_if_bad(report: Mapping[str, Any], reading: Reading) -> None:
    bad, seen = report["unreadable"], report["seen"]
    if not seen:
        raise UserError(f"{report['source']}: there are no images in it")
    if not report["images"]:
        raise UserError(
            f"{report['source']}: none of its {seen} images can be read:{_listed(report)}"
        )
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
