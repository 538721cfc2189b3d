"""Sources: a name or arrays become training and held-out data, in one range and layout.

Images are (N, C, H, W) float32 in [-1, 1], tables (N, D) float32. The split is fixed by the
source, never by the run's seed, so that all runs on one source are held out against the same
examples.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from monge.components import FAMILIES, build
from monge.data import table_files, tables
from monge.data.base import Data
from monge.data.reading import Reading
from monge.errors import UserError, nearest
from monge.tensors import stream

HELD_OUT = 0.2
"""Fraction of a source without a split of its own that is held out."""

READING = Reading()
"""How a source is read unless told otherwise."""


def load(text: str, reading: Reading = READING) -> Data:
    """The data that a text names: ``digits``, ``target:NAME:...``, or a file.

    Files: .npz and .npy of images or table rows; .csv, .tsv and .parquet tables.

    Raises:
        UserError: unknown source, unreadable file, or arrays that are not data.
    """
    head, _, rest = text.partition(":")
    if head == "target":
        return _target(rest, text)
    if head in BUNDLED:
        if rest:
            raise UserError(f"source {head!r} takes no settings, not {rest!r}")
        return BUNDLED[head]()
    path = Path(text)
    if path.suffix in (".npz", ".npy"):
        return _array_file(path, reading)
    if path.suffix.lower() in table_files.SUFFIXES and path.is_file():
        return tables.load(path, reading)
    if path.exists():
        files = ", ".join((".npy", *table_files.SUFFIXES))
        raise UserError(f"cannot read {text!r} as data: known files are .npz, {files}")
    known = [*BUNDLED, *(f"target:{name}" for name in FAMILIES["target"])]
    raise UserError(f"no such file or source {text!r}: {nearest(text, known)}")


def _digits() -> Data:
    """scikit-learn's bundled digits: 1,797 grey images of 8 x 8, ten classes."""
    from sklearn.datasets import load_digits

    pixels, target = load_digits(return_X_y=True)
    images = np.asarray(pixels, dtype=np.float32).reshape(-1, 1, 8, 8) / 8 - 1
    labels = np.asarray(target, dtype=np.int64)
    names = tuple(str(k) for k in range(10))
    return from_arrays(images, labels, name="digits", text="digits", label_names=names)


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
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        reason = str(error)
        if "load it unsafely" in reason:  # numpy takes anything it does not know for a pickle
            reason = "it is no array file"
        raise UserError(f"cannot read {path}: {reason}") from None
    name, text = path.stem, str(path)
    if isinstance(loaded, np.ndarray):
        if loaded.ndim == 2:
            return tables.from_matrix(loaded, reading, name=name, text=text)
        return from_arrays(loaded, name=name, text=text)
    arrays = {key: _member(loaded, key, path) for key in loaded.files}
    known = ("x", "images", "data", "arr_0", "x_train")
    x = next((arrays[k] for k in known if k in arrays), None)
    if x is None:
        raise UserError(f"{path} holds {sorted(arrays)}: the examples should be one of {known}")
    y = next((arrays[k] for k in ("y", "labels", "arr_1", "y_train") if k in arrays), None)
    test = arrays.get("x_test"), arrays.get("y_test")
    if x.ndim == 2:
        titles = arrays.get("columns")
        return tables.from_matrix(x, reading, y, *test, titles=titles, name=name, text=text)
    return from_arrays(x, y, *test, name=name, text=text)


def _member(archive: Any, name: str, path: Path) -> np.ndarray:
    try:
        return archive[name]
    except Exception as error:  # zip and array readers raise many kinds on a damaged member
        raise UserError(f"cannot read {name!r} in {path}: {error}") from None


def from_arrays(
    x: np.ndarray | Tensor,
    label: np.ndarray | Tensor | None = None,
    heldout: np.ndarray | Tensor | None = None,
    heldout_label: np.ndarray | Tensor | None = None,
    *,
    name: str = "array",
    text: str | None = None,
    label_names: tuple[str, ...] = (),
) -> Data:
    """Data from arrays in memory.

    Args:
        x: images, uint8 or float in [-1, 1], (N, H, W), (N, H, W, C) or (N, C, H, W); or a
            table (N, D).
        label: (N,) integers or names, or None.
        heldout, heldout_label: likewise; without them a fifth is split off.

    Raises:
        UserError: wrong shapes or ranges, NaN or infinite values, or too few examples.
    """
    kind, examples = _as_examples(np.asarray(x), "the examples")
    labels, names = _as_labels(label, len(examples), label_names)
    if heldout is not None:
        other_kind, held = _as_examples(np.asarray(heldout), "the held-out examples")
        if other_kind != kind or held.shape[1:] != examples.shape[1:]:
            raise UserError(
                f"held-out examples have shape {tuple(held.shape[1:])}, "
                f"training examples {tuple(examples.shape[1:])}"
            )
        held_labels, _ = _as_labels(heldout_label, len(held), names)
        return Data(name, text, kind, examples, held, labels, held_labels, names)
    if len(examples) < 10:
        raise UserError(f"{name}: {len(examples)} examples are too few; at least 10 are needed")
    order = torch.randperm(len(examples), generator=stream(0, "split"))
    n_held = round(HELD_OUT * len(examples))
    test, train = order[:n_held].sort()[0], order[n_held:].sort()[0]
    pick = (lambda rows: labels[rows]) if labels is not None else (lambda rows: None)
    return Data(name, text, kind, examples[train], examples[test], pick(train), pick(test), names)


def from_dataset(dataset: Any, name: str = "dataset") -> Data:
    """Data from a `torch.utils.data.Dataset` of tensors, or of (tensor, label) pairs."""
    items = [dataset[i] for i in range(len(dataset))]
    if not items:
        raise UserError(f"{name}: the dataset is empty")
    if isinstance(items[0], (tuple, list)):
        x = np.stack([np.asarray(item[0]) for item in items])
        return from_arrays(x, np.asarray([item[1] for item in items]), name=name)
    return from_arrays(np.stack([np.asarray(item) for item in items]), name=name)


def _as_examples(x: np.ndarray, what: str) -> tuple[Literal["image", "table"], Tensor]:
    if x.dtype.kind not in "fiub":
        raise UserError(f"{what} have type {x.dtype}; numbers are needed")
    if 0 in x.shape:
        raise UserError(f"{what} have shape {x.shape}: there is nothing in them")
    if x.ndim == 2:
        kind: Literal["image", "table"] = "table"
    elif x.ndim == 3:
        kind, x = "image", x[:, None]
    elif x.ndim == 4:
        kind = "image"
        if x.shape[1] not in (1, 3, 4) and x.shape[3] in (1, 3, 4):
            x = x.transpose(0, 3, 1, 2)
    else:
        raise UserError(f"{what} have shape {x.shape}: images have 3 or 4 axes, tables 2")
    values = x.astype(np.float32)
    bad = ~np.isfinite(values.reshape(len(values), -1)).all(1)
    if bad.any():
        raise UserError(
            f"{what}: {int(bad.sum())} of {len(values)} hold NaN or infinite values, "
            f"the first is example {int(np.flatnonzero(bad)[0])}"
        )
    if kind == "image":
        if x.dtype == np.uint8:
            values = values / 127.5 - 1
        elif len(values) and (values.min() < -1.001 or values.max() > 1.001):
            raise UserError(
                f"{what} are images in [{values.min():g}, {values.max():g}]: "
                "give uint8, or floats in [-1, 1]"
            )
    return kind, torch.from_numpy(np.ascontiguousarray(values))


def _as_labels(
    label: np.ndarray | Tensor | None, n: int, names: tuple[str, ...]
) -> tuple[Tensor | None, tuple[str, ...]]:
    """(N,) class indices and the class names."""
    if label is None:
        return None, ()
    values = np.asarray(label)
    if values.shape != (n,):
        raise UserError(f"labels have shape {values.shape}; {n} examples need ({n},)")
    if not names:
        names = tuple(str(k) for k in np.unique(values))
    index = {k: i for i, k in enumerate(names)}
    unknown = sorted({str(k) for k in np.unique(values)} - set(index))
    if unknown:
        raise UserError(f"labels {unknown} do not occur in the training data: {list(index)}")
    classes, inverse = np.unique(values, return_inverse=True)
    positions = np.asarray([index[str(k)] for k in classes], dtype=np.int64)
    return torch.from_numpy(positions[inverse]), names
