"""Loads a source, given as a name, a file or a folder, as training and held-out data.

`SOURCES` lists the kinds of source. A new kind is a row there and a function that reads it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from monge.components import FAMILIES, build
from monge.data.array_data import READING, from_arrays
from monge.data.base import Data
from monge.data.images.folder import holds_images, list_folder
from monge.data.images.hub import open_hub
from monge.data.images.parquet import find_files, has_images, open_parquet
from monge.data.images.prepare import load_images
from monge.data.reading import Reading
from monge.data.split import SHARE
from monge.data.tables import table_files, tables
from monge.errors import UserError, nearest, reason
from monge.system.own_code import is_own
from monge.system.own_faults import blamed, expect, fault, said
from monge.system.progress import Say, quiet
from monge.targets.base import Target
from monge.tensors import stream


@dataclass(frozen=True)
class Asked:
    """A request to read a source.

    Attributes:
        text: the source as it was given.
        reading: the settings.
        say: receives progress notes.
        check_cache: compare what is cached, and the files it was made from, with their hashes.
    """

    text: str
    reading: Reading
    say: Say
    check_cache: bool

    @property
    def path(self) -> Path:
        """The text as a path."""
        return Path(self.text)

    @property
    def suffix(self) -> str:
        """The suffix of the path, in lower case; of "table.csv.gz" that before ".gz"."""
        return table_files.suffix_of(self.path)

    @property
    def rest(self) -> str:
        """The text after the first colon."""
        return self.text.partition(":")[2]

    def images(self, source: Any) -> Data:
        """Data from images of a folder, parquet files or the hub, decoded once into the cache."""
        return load_images(source, self.reading, self.say, self.check_cache)


@dataclass(frozen=True)
class Source:
    """One kind of source.

    Attributes:
        known: decides whether a text names a source of this kind.
        read: reads the data.
    """

    known: Callable[[Asked], bool]
    read: Callable[[Asked], Data]


OF_TABLES = ("columns", "drop", "condition_columns", "categorical")
"""Settings that only tables use."""


def load(
    text: str, reading: Reading = READING, say: Say = quiet, check_cache: bool = False
) -> Data:
    """The data that a text names.

    Args:
        text: ``digits``, ``target:NAME:...``, ``hf:ORG/NAME``, a folder of images or of parquet
            files, or a .csv, .tsv, .parquet, .npz or .npy file.
        reading: the settings.
        say: receives progress notes.
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
    asked = Asked(text, reading, say, check_cache)
    for source in SOURCES:
        if source.known(asked):
            return source.read(asked)
    if os.path.exists(text):
        raise UserError(
            f"cannot read {text!r} as data: give a folder of images, or a .csv, .tsv, .parquet, "
            ".npz or .npy file"
        )
    known = [*BUNDLED, *(f"target:{name}" for name in FAMILIES["target"])]
    raise UserError(f"no such file or source {text!r}: {nearest(text, known)}")


def _bundled(asked: Asked) -> Data:
    head = asked.text.partition(":")[0]
    if asked.rest:
        raise UserError(f"source {head!r} takes no settings, not {asked.rest!r}")
    return BUNDLED[head]()


def _is_parquet(asked: Asked) -> bool:
    _refuse_special(asked.path)
    return asked.suffix == ".parquet" or bool(
        find_files(asked.path) and not holds_images(asked.path)
    )


def _parquet(asked: Asked) -> Data:
    if os.path.exists(asked.path) and not has_images(asked.path, asked.reading):
        return tables.load(asked.path, asked.reading)
    return asked.images(open_parquet(asked.path, asked.reading))


def _folder(asked: Asked) -> Data:
    refuse_run(asked.path)
    return asked.images(list_folder(asked.path, asked.reading))


def _is_array(asked: Asked) -> bool:
    _refuse_special(asked.path)
    return asked.suffix in (".npz", ".npy")


def _refuse_special(path: Path) -> None:
    """Refuse pipes and devices, which may never end."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise UserError(f"cannot read {path}: it is neither a file nor a folder")


def refuse_run(folder: Path) -> None:
    """Refuse a run folder: its pictures are no data.

    Raises:
        UserError: the folder is a run.
    """
    # os.path returns False for a path that may not be read; `Path` raises.
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
    # This split was drawn once; the project's measured numbers refer to it.
    order = torch.randperm(len(images), generator=stream(0, "split")).numpy()
    n_held = round(SHARE * len(images))
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
"""Sources without a file."""


def _built_target(text: str) -> Target:
    """The law of a component; one of the user's own is a law indeed, by two rows."""
    component = build("target", text)
    target = component.build()
    if is_own(text):
        if not isinstance(target, Target):
            raise fault(component, "build", f"returns {said(target)}; it builds a Target")
        drawn = target.sample_labelled(2, stream(0, "target", "trial"))
        if not isinstance(drawn, tuple) or len(drawn) != 2:
            wanted = "it returns samples and their labels, or None for the labels"
            raise fault(target, "sample_labelled", f"returns {said(drawn)}; {wanted}")
        x, label = drawn
        expect(target, "sample_labelled", [x], [torch.zeros(2, target.dim)])
        if label is not None:
            expect(target, "sample_labelled", [label], [torch.zeros(2)])
    return target


def _target(asked: Asked) -> Data:
    """New samples of an exactly known law."""
    with blamed(anywhere=True):
        target = _built_target(asked.rest)
        train, train_label = target.sample_labelled(20_000, stream(0, "target", "train"))
        heldout, heldout_label = target.sample_labelled(5_000, stream(0, "target", "held-out"))
    labels = () if train_label is None else tuple(str(k) for k in range(int(train_label.max()) + 1))
    return Data(
        name=asked.rest.partition(":")[0],
        text=asked.text,
        kind="table",
        train=train.float(),
        heldout=heldout.float(),
        train_label=train_label,
        heldout_label=heldout_label,
        label_names=labels,
        target=target,
    )


def _array_file(path: Path, reading: Reading) -> Data:
    """An .npy of examples, or an .npz with examples x, images, data or arr_0, and labels y.

    An array with two axes is a table; an array named columns gives the names of its columns.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"no such file: {path}") from None
    except Exception as error:  # zip and array readers raise many kinds for damaged files
        said = reason(error)
        if "load it unsafely" in said:  # numpy takes any unknown format for a pickle
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
    """Labels replaced by their names, if the archive holds names, as samples of monge do."""
    if y is None or names is None or y.dtype.kind not in "iu" or names.dtype.kind != "U":
        return y
    if names.ndim != 1 or not y.size or y.min() < 0 or y.max() >= len(names):
        return y
    return names[y]


def _member(archive: Any, name: str, path: Path) -> np.ndarray:
    try:
        return archive[name]
    except Exception as error:  # zip and array readers raise many kinds for a damaged member
        raise UserError(f"cannot read {name!r} in {path}: {reason(error)}") from None


SOURCES: tuple[Source, ...] = (
    Source(lambda asked: asked.text.partition(":")[0] == "target", _target),
    Source(lambda asked: asked.text.partition(":")[0] in BUNDLED, _bundled),
    Source(
        lambda asked: asked.text.partition(":")[0] == "hf",
        lambda asked: asked.images(open_hub(asked.rest, asked.reading)),
    ),
    Source(_is_array, lambda asked: _array_file(asked.path, asked.reading)),
    Source(_is_parquet, _parquet),
    Source(lambda asked: os.path.isdir(asked.path), _folder),
    Source(
        lambda asked: asked.suffix in table_files.SUFFIXES and os.path.isfile(asked.path),
        lambda asked: tables.load(asked.path, asked.reading),
    ),
)
"""Kinds of source; the first one that recognises a text reads it."""
