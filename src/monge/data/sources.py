"""Sources: a name, a file, a folder or arrays become training and held-out data."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from monge.components import FAMILIES, build
from monge.data import table_files, tables
from monge.data.array_images import labels_of, refuse_infinite, scaled
from monge.data.arrays import Examples, Pixels, Shards
from monge.data.base import Data
from monge.data.folder import holds_images, list_folder
from monge.data.hub import open_hub
from monge.data.images import resize
from monge.data.parquet import find_files, has_images, open_parquet
from monge.data.pictures import load_images
from monge.data.reading import Reading
from monge.data.split import HELD_OUT, split_by_content
from monge.errors import UserError, nearest, reason
from monge.progress import Say, quiet
from monge.tensors import stream

READING = Reading()
"""How a source is read unless told otherwise."""


OF_TABLES = ("columns", "drop", "condition_columns", "categorical")
"""Settings that only a table has a use for."""


def load(
    text: str, reading: Reading = READING, say: Say = quiet, check_cache: bool = False
) -> Data:
    """The data that a text names.

    Args:
        text: ``digits``, ``target:NAME:...``, ``hf:ORG/NAME``, a folder of images or of parquet
            files, or a .csv, .tsv, .parquet, .npz or .npy file.
        reading: how it is read.
        say: told what happens.
        check_cache: compare what is cached, and the files it was made from, with their hashes.

    Raises:
        UserError: unknown source, unreadable file, or content that is not data.
    """
    data = _loaded(text, reading, say, check_cache)
    given = [name for name in OF_TABLES if getattr(reading, name) is not None]
    if given and data.codec is None:
        what = {"image": "images", "table": "rows without names"}[data.kind]
        flags = ", ".join("--" + name.replace("_", "-") for name in given)
        raise UserError(f"{flags}: {text} holds {what}, which have no columns to name")
    return data


def _loaded(text: str, reading: Reading, say: Say, check_cache: bool) -> Data:
    for name in ("image_size", "limit"):
        value = getattr(reading, name)
        if value is not None and value < 1:
            raise UserError(f"{name} must be at least 1, not {value}")
    head, _, rest = text.partition(":")
    if head == "target":
        return _target(rest, text)
    if head in BUNDLED:
        if rest:
            raise UserError(f"source {head!r} takes no settings, not {rest!r}")
        return BUNDLED[head]()
    if head == "hf":
        return load_images(open_hub(rest, reading), reading, say, check_cache)
    path = Path(text)
    _refuse_special(path)
    if path.suffix.lower() in (".npz", ".npy"):
        return _array_file(path, reading)
    if path.suffix.lower() == ".parquet" or (find_files(path) and not holds_images(path)):
        if os.path.exists(path) and not has_images(path, reading):
            return tables.load(path, reading)
        return load_images(open_parquet(path, reading), reading, say, check_cache)
    if os.path.isdir(path):
        refuse_run(path)
        return load_images(list_folder(path, reading), reading, say, check_cache)
    if path.suffix.lower() in table_files.SUFFIXES and os.path.isfile(path):
        return tables.load(path, reading)
    if os.path.exists(path):
        raise UserError(
            f"cannot read {text!r} as data: give a folder of images, or a .csv, .tsv, .parquet, "
            ".npz or .npy file"
        )
    known = [*BUNDLED, *(f"target:{name}" for name in FAMILIES["target"])]
    raise UserError(f"no such file or source {text!r}: {nearest(text, known)}")


def _refuse_special(path: Path) -> None:
    """Refuse pipes and devices, which have no end."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise UserError(f"cannot read {path}: it is neither a file nor a folder")


def refuse_run(folder: Path) -> None:
    """Refuse a run folder, whose pictures are no data.

    Raises:
        UserError: it is one.
    """
    # os.path says no of what it may not look at; `Path` raises.
    if all(os.path.isfile(folder / name) for name in ("config.yaml", "environment.json")):
        raise UserError(
            f"{folder} is a run folder, not data: its samples lie in {folder / 'samples'}"
        )


def _digits() -> Data:
    """scikit-learn's bundled digits: 1,797 grey images of 8 x 8, ten classes."""
    from sklearn.datasets import load_digits

    pixels, target = load_digits(return_X_y=True)
    images = np.asarray(pixels, dtype=np.float32).reshape(-1, 1, 8, 8) / 8 - 1
    labels = np.asarray(target, dtype=np.int64)
    names = tuple(str(k) for k in range(10))
    # A split of its own, drawn once: measured numbers of this project are on these rows.
    order = torch.randperm(len(images), generator=stream(0, "split")).numpy()
    n_held = round(HELD_OUT * len(images))
    test, train = np.sort(order[:n_held]), np.sort(order[n_held:])
    return from_arrays(
        images[train],
        labels[train],
        images[test],
        labels[test],
        name="digits",
        text="digits",
        label_names=names,
    )


BUNDLED: dict[str, Callable[[], Data]] = {"digits": _digits}
"""Sources that need no file."""


def _target(settings: str, text: str) -> Data:
    """Fresh samples of a law that is known exactly."""
    target = build("target", settings).build()
    train, train_label = target.sample_labelled(20_000, stream(0, "target", "train"))
    heldout, heldout_label = target.sample_labelled(5_000, stream(0, "target", "held-out"))
    labels = () if train_label is None else tuple(str(k) for k in range(int(train_label.max()) + 1))
    return Data(
        name=settings.partition(":")[0],
        text=text,
        kind="table",
        train=train.float(),
        heldout=heldout.float(),
        train_label=train_label,
        heldout_label=heldout_label,
        label_names=labels,
        target=target,
    )


def _array_file(path: Path, reading: Reading) -> Data:
    """An .npy of examples, or an .npz with them under x, images, data or arr_0, labels under y.

    Two axes make a table; its columns may be named by an array under columns.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"no such file: {path}") from None
    except Exception as error:  # zip and array readers raise many kinds on damaged files
        said = reason(error)
        if "load it unsafely" in said:  # numpy takes anything it does not know for a pickle
            said = "it is no array file"
        raise UserError(f"cannot read {path}: {said}") from None
    name, text = path.stem, str(path.absolute())
    if isinstance(loaded, np.ndarray):
        if loaded.ndim == 2:
            return tables.from_matrix(loaded, reading, name=name, text=text)
        return from_arrays(loaded, name=name, text=text, reading=reading)
    arrays = {key: _member(loaded, key, path) for key in loaded.files}
    known = ("x", "images", "data", "arr_0", "x_train")
    x = next((arrays[k] for k in known if k in arrays), None)
    if x is None:
        raise UserError(f"{path} holds {sorted(arrays)}: the examples should be one of {known}")
    y = next((arrays[k] for k in ("y", "labels", "arr_1", "y_train") if k in arrays), None)
    test = arrays.get("x_test"), arrays.get("y_test")
    y = _named(y, arrays.get("label_names"))
    if x.ndim == 2:
        titles = arrays.get("columns")
        return tables.from_matrix(x, reading, y, *test, titles=titles, name=name, text=text)
    return from_arrays(x, y, *test, name=name, text=text, reading=reading)


def _named(y: np.ndarray | None, names: np.ndarray | None) -> np.ndarray | None:
    """Labels by their names, where an archive brings these along, as samples of monge do."""
    if y is None or names is None or y.dtype.kind not in "iu" or names.dtype.kind != "U":
        return y
    if names.ndim != 1 or not y.size or y.min() < 0 or y.max() >= len(names):
        return y
    return names[y]


def _member(archive: Any, name: str, path: Path) -> np.ndarray:
    try:
        return archive[name]
    except Exception as error:  # zip and array readers raise many kinds on a damaged member
        raise UserError(f"cannot read {name!r} in {path}: {reason(error)}") from None


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
        x: images, uint8, or of a scale that `array_images` tells, (N, H, W), (N, H, W, C) or
            (N, C, H, W); or a table (N, D).
        label: (N,) or (N, 1) integers or names, or None.
        heldout, heldout_label: likewise; without them a fifth is split off by content.
        reading: image_size, image_fit and limit are looked at.

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
    """The report of arrays, and its lines."""
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
    """Arrays as examples of one kind and one scale, and what the scale of images was."""
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
    """Images (N, C, H, W) uint8 at the size and of the channels that were asked for.

    Four channels are put on white unless transparency is to be learned.
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


def _as_labels(
    label: np.ndarray | Tensor | None, n: int, names: tuple[str, ...]
) -> tuple[Tensor | None, tuple[str, ...], list[str]]:
    """(N,) class indices, -1 for none; the class names; and what was decided about them."""
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
