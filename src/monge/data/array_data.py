"""Training and held-out data from arrays in memory and data sets of PyTorch."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from monge.data.arrays import Examples, Pixels, Shards
from monge.data.base import Data
from monge.data.images.array_images import labels_of, refuse_infinite, scaled
from monge.data.images.image_files import resize
from monge.data.reading import Reading
from monge.data.split import split_by_content
from monge.errors import UserError

READING = Reading()
"""The default settings for reading a source."""


def from_arrays(
    x: np.ndarray | Tensor,
    label: np.ndarray | Tensor | None = None,
    heldout: np.ndarray | Tensor | None = None,
    heldout_label: np.ndarray | Tensor | None = None,
    *,
    name: str = "array",
    text: str | None = None,
    label_names: tuple[str, ...] = (),
    reading: Reading = READING,
) -> Data:
    """Data from arrays in memory.

    Args:
        x: images (N, H, W), (N, H, W, C) or (N, C, H, W), uint8 or of a scale that
            `array_images` detects; or a table (N, D).
        label: (N,) or (N, 1) integers or names, or None.
        heldout, heldout_label: likewise; without them a fifth is held out by content.
        reading: image_size, image_fit, image_mode and limit are used.

    Raises:
        UserError: wrong shapes or ranges, NaN or infinite values, or too few examples.
    """
    limit = reading.limit
    given = [np.asarray(x)[:limit]] + ([] if heldout is None else [np.asarray(heldout)])
    kind, examples, scale = _as_examples(given, "the examples", reading)
    label = None if label is None else np.asarray(label)[:limit]
    labels, names, notes = _as_labels(label, len(given[0]), label_names)
    if scale:
        notes = [f"images of {scale}", *notes]
    if kind == "image" and given[0].ndim == 4 and 4 in (given[0].shape[1], given[0].shape[3]):
        notes = [*notes, *_of_four_channels(examples[0], reading)]
    if heldout is not None:
        held_labels, _, more = _as_labels(heldout_label, len(given[1]), names)
        sides = (examples[0], examples[1], labels, held_labels)
        data = Data(name, text, kind, *sides, names)
        return dataclasses.replace(data, **_told(data, [*notes, *more]))
    if len(examples[0]) < 10:
        raise UserError(f"{name}: {len(examples[0])} examples are too few; at least 10 are needed")
    rows = split_by_content(_digests(examples[0]))
    train, test = (_rows_of(examples[0], side) for side in rows)
    pick = (lambda side: labels[side]) if labels is not None else (lambda side: None)
    sides = (train, test, pick(rows[0]), pick(rows[1]))
    data = Data(name, text, kind, *sides, names, rows=rows, own_split=False)
    return dataclasses.replace(data, **_told(data, notes))


def _told(data: Data, notes: list[str]) -> dict[str, Any]:
    """The data report of arrays, with its lines for people."""
    known = [part for part in (data.train_label, data.heldout_label) if part is not None]
    joined = torch.cat(known) if known else torch.empty(0, dtype=torch.int64)
    counts = {name: int((joined == k).sum()) for k, name in enumerate(data.label_names)}
    n = len(data.train) + len(data.heldout)
    report = {
        "kind": f"array of {'images' if data.kind == 'image' else 'rows'}",
        "examples": n,
        "shape": list(data.shape),
        "labels": counts,
        "unlabelled": int((joined < 0).sum()),
        "training": len(data.train),
        "held_out": len(data.heldout),
        "split": "the source's own" if data.own_split else "by content",
        "notes": notes,
    }
    sides = f"{len(data.train)} to train, {len(data.heldout)} held out"
    lines = [f"{n} examples of shape {data.shape}: {sides}", *notes]
    if counts:
        first = ", ".join(f"{k} {name}" for name, k in list(counts.items())[:10])
        lines.insert(1, f"labels: {first}{', ...' if len(counts) > 10 else ''}")
    return {"report": report, "summary": tuple(lines)}


def _digests(x: Examples) -> np.ndarray:
    """A hash of each example."""
    chunks = x.content if isinstance(x, Pixels) else (part.numpy() for part in x.split(4096))
    hashes = [hashlib.blake2b(row.tobytes(), digest_size=8).digest() for c in chunks for row in c]
    return np.frombuffer(b"".join(hashes), np.uint64)


def _rows_of(x: Examples, rows: Tensor) -> Examples:
    if isinstance(x, Pixels):
        return Pixels(x.shards, rows.numpy(), x.digests)
    return x[rows]


def from_dataset(dataset: Any, name: str = "dataset") -> Data:
    """Data from a `torch.utils.data.Dataset` of tensors, or of (tensor, label) pairs."""
    items = [dataset[i] for i in range(len(dataset))]
    if not items:
        raise UserError(f"{name}: the dataset is empty")
    if isinstance(items[0], (tuple, list)):
        x = np.stack([np.asarray(item[0]) for item in items])
        return from_arrays(x, np.asarray([item[1] for item in items]), name=name)
    return from_arrays(np.stack([np.asarray(item) for item in items]), name=name)


def _as_examples(
    arrays: list[np.ndarray], what: str, reading: Reading
) -> tuple[Literal["image", "table"], list[Examples], str]:
    """Arrays as examples of one kind and one scale, with a text on the original scale of images."""
    for x in arrays:
        if x.dtype.kind not in "fiub":
            raise UserError(f"{what} have type {x.dtype}; numbers are needed")
        if 0 in x.shape:
            raise UserError(f"{what} have shape {x.shape}: there is nothing in them")
        if x.ndim not in (2, 3, 4):
            raise UserError(f"{what} have shape {x.shape}: images have 3 or 4 axes, tables 2")
        if x.shape[1:] != arrays[0].shape[1:]:
            raise UserError(
                f"held-out examples have shape {x.shape[1:]}, training examples "
                f"{arrays[0].shape[1:]}"
            )
    if arrays[0].ndim == 2:
        for x in arrays:
            refuse_infinite(x, what)
        return "table", [torch.from_numpy(np.ascontiguousarray(x, np.float32)) for x in arrays], ""
    arrays, scale = scaled([_channels_first(x) for x in arrays], what)
    if arrays[0].dtype == np.uint8:
        return "image", [Pixels(Shards([_fitted(x, reading)])) for x in arrays], scale
    if reading.image_size is not None and arrays[0].shape[2:] != (reading.image_size,) * 2:
        raise UserError(f"{what} are floats of side {arrays[0].shape[2]}: resizing needs uint8")
    return "image", [torch.from_numpy(np.ascontiguousarray(x)) for x in arrays], scale


def _channels_first(x: np.ndarray) -> np.ndarray:
    if x.ndim == 3:
        return x[:, None]
    if x.shape[1] not in (1, 3, 4) and x.shape[3] in (1, 3, 4):
        return x.transpose(0, 3, 1, 2)
    return x


def _fitted(x: np.ndarray, reading: Reading) -> np.ndarray:
    """Images (N, C, H, W) uint8 at the requested size and channels.

    Images with four channels are put on white unless transparency is learned.
    """
    side, clear = reading.image_size, reading.image_mode == "RGBA"
    if clear and x.shape[1] in (1, 3):
        solid = np.full_like(x[:, :1], 255)
        x = np.concatenate([np.broadcast_to(x, (len(x), 3, *x.shape[2:])), solid], 1)
    if x.shape[1] == 4 and not clear:
        opacity = x[:, 3:].astype(np.float32) / 255
        x = (x[:, :3] * opacity + 255 * (1 - opacity)).round().astype(np.uint8)
    if side is None or x.shape[2:] == (side, side):
        return np.ascontiguousarray(x)
    fitted = np.empty((len(x), x.shape[1], side, side), np.uint8)
    for i, image in enumerate(x):
        shown = Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))
        pixels = np.asarray(resize(shown, (side, side), reading.image_fit))
        fitted[i] = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    return fitted


def _of_four_channels(x: Examples, reading: Reading) -> list[str]:
    """What became of a fourth channel, where the images have one."""
    if x.shape[1] == 4 and reading.image_mode == "RGBA":
        return ["the fourth channel is transparency, which is learned"]
    if x.shape[1] == 4:
        return ["images of four channels, all of which are learned as they are"]
    return ["the fourth channel is taken for transparency: on white (--image-mode RGBA learns it)"]


def _as_labels(
    label: np.ndarray | Tensor | None, n: int, names: tuple[str, ...]
) -> tuple[Tensor | None, tuple[str, ...], list[str]]:
    """(N,) class indices, -1 for no label; the class names; and notes on how labels were read."""
    if label is None:
        return None, (), []
    values, missing, notes = labels_of(np.asarray(label), n)
    known = np.unique(values[~missing])
    if not names:
        names = tuple(str(k) for k in known)
    index = {k: i for i, k in enumerate(names)}
    unknown = sorted({str(k) for k in known} - set(index))
    if unknown:
        raise UserError(f"labels {unknown} do not occur in the training data: {list(index)}")
    positions = np.full(n, -1, np.int64)
    for k in known:
        positions[~missing & (values == k)] = index[str(k)]
    return torch.from_numpy(positions), names, notes
