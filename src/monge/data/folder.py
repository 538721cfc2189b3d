"""Folders of image files: what is in them, under which label and on which side of the split.

Labels are, in this order: what a ``labels.csv`` or ``metadata.csv`` says; the folder in which an
image lies, where all images lie in folders; none. Folders named train and test (val, ...) at the
top are a split that the source brings. Names are what the file system says, so they may hold
anything; `shown` makes them fit to print.
"""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from monge.data.images import SUFFIXES
from monge.data.raw import Raw
from monge.data.reading import Reading
from monge.errors import UserError, nearest

TRAIN = ("train", "training")
HELD_OUT = ("test", "testing", "val", "valid", "validation", "heldout", "held-out", "held_out")
LISTS = ("labels.csv", "metadata.csv")
FILE_COLUMNS = ("file_name", "filename", "file", "path", "image", "name", "id")
LABEL_COLUMNS = ("label", "labels", "class", "category", "target", "species")


@dataclass
class Folder:
    """The image files of a folder, in the order of their names.

    Attributes:
        root: the folder.
        paths: of the images, below the root.
        labels: of each image; None where there are none.
        heldout: of each image, whether the source holds it out; None where it does not say.
        stats: size in bytes and time of change (ns) of each.
        ignored: how many other files there are, by suffix.
        missing: files that a list names and that are not there, or cannot be looked at.
        notes: what a person should know.
    """

    root: Path
    paths: list[str] = field(default_factory=list)
    labels: list[str] | None = None
    heldout: list[bool] | None = None
    stats: list[tuple[int, int]] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    missing: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.root.resolve().name or "images"

    @property
    def text(self) -> str:
        return str(self.root.absolute())

    @property
    def total(self) -> int:
        return len(self.paths)

    @property
    def facts(self) -> dict[str, Any]:
        """What the images depend on, as far as it can be told without reading them."""
        rows = zip(self.paths, self.stats, strict=True)
        files = [[ascii(path), *stat] for path, stat in rows]
        return {"folder": self.text, "files": files, "labels": self.labels, "split": self.heldout}

    def blocks(self, size: int, start: int) -> Iterator[list[Raw]]:
        """The images, `size` at a time, from block `start` on."""
        for first in range(start * size, len(self.paths), size):
            yield [self._raw(i) for i in range(first, min(first + size, len(self.paths)))]

    def sample(self, n: int) -> list[Raw]:
        """About n images from all over the folder."""
        step = max(1, len(self.paths) // n)
        return [self._raw(i) for i in range(0, len(self.paths), step)]

    def _raw(self, i: int) -> Raw:
        path = self.paths[i]
        return Raw(
            shown(path),
            partial(_content, self.root / path),
            None if self.labels is None else self.labels[i],
            None if self.heldout is None else self.heldout[i],
        )


def list_folder(root: Path, reading: Reading) -> Folder:
    """What is in a folder of images.

    Links to folders are followed, each folder once. Hidden files and folders are skipped.

    Raises:
        UserError: no images there, or a list of labels that cannot be used.
    """
    found = Folder(root)
    _walk(found)
    lists = [name for name in LISTS if (root / name).is_file()]
    if not found.paths:
        others = ", ".join(f"{n} {suffix or 'without suffix'}" for suffix, n in _most(found))
        what = f"; it holds {others}" if others else ": it is empty"
        raise UserError(
            f"{shown(str(root))} holds no images ({', '.join(SUFFIXES)} are looked for){what}"
        )
    _split_by_folder(found)
    if lists:
        _label_by_list(found, root / lists[0], reading)
    elif reading.label_column is not None:
        raise UserError(f"--label-column needs a {' or '.join(LISTS)} in {shown(str(root))}")
    else:
        _label_by_folder(found)
    if reading.limit is not None:
        n = len(found.paths)
        # Spread over the folder, since its first images may all be of one class.
        _keep(found, sorted({k * n // reading.limit for k in range(reading.limit)}))
    return found


def shown(name: str) -> str:
    """A file name that can be printed: on one line, whatever its bytes."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _content(path: Path) -> bytes:
    return path.read_bytes()


def _walk(found: Folder) -> None:
    visited: set[tuple[int, int]] = set()

    def enter(folder: str) -> None:
        here = os.path.join(found.root, folder)
        try:
            status = os.stat(here)
            if (status.st_dev, status.st_ino) in visited:
                found.notes.append(f"{shown(folder)} leads back to a folder already read: skipped")
                return
            visited.add((status.st_dev, status.st_ino))
            names = sorted(os.listdir(here))
        except OSError as error:
            found.missing.append((shown(folder or "."), str(error.strerror)))
            return
        for name in names:
            if name.startswith(".") or name == "__MACOSX":
                continue
            path = os.path.join(folder, name)
            full = os.path.join(here, name)
            if os.path.isdir(full):
                enter(path)
            elif name.lower().endswith(SUFFIXES):
                try:
                    status = os.stat(full)
                except OSError as error:
                    found.missing.append((shown(path), str(error.strerror)))
                    continue
                found.paths.append(path)
                found.stats.append((status.st_size, status.st_mtime_ns))
            elif folder or name not in LISTS:
                found.ignored[os.path.splitext(name)[1].lower()] += 1

    enter("")


def _most(found: Folder) -> list[tuple[str, int]]:
    return found.ignored.most_common(5)


def _split_by_folder(found: Folder) -> None:
    """Take folders named train and test at the top as a split, if there is nothing else."""
    tops = [path.partition(os.sep)[0] if os.sep in path else "" for path in found.paths]
    names = {top.lower() for top in tops}
    if names & set(TRAIN) and names & set(HELD_OUT) and names <= {*TRAIN, *HELD_OUT}:
        found.heldout = [top.lower() in HELD_OUT for top in tops]


def _label_by_folder(found: Folder) -> None:
    """The first folder below the root, or below the split, names the class."""
    depth = 0 if found.heldout is None else 1
    parts = [path.split(os.sep)[depth:] for path in found.paths]
    loose = sum(len(p) < 2 for p in parts)
    if loose == len(parts):
        return
    if loose:
        found.notes.append(
            f"{loose} images lie beside folders of images, so folders are not taken for classes"
        )
        return
    labels = [p[0] for p in parts]
    if len(set(labels)) == 1:
        found.notes.append(
            f"all images lie in one folder, {shown(labels[0])}: learned without labels"
        )
        return
    found.labels = [shown(label) for label in labels]


def _label_by_list(found: Folder, table: Path, reading: Reading) -> None:
    """Labels from a table of file names; images that it does not name are left out."""
    rows, columns = _read_list(table)
    file_column = next((c for c in FILE_COLUMNS if c in columns), columns[0])
    label_column = reading.label_column or next(
        (c for c in (*LABEL_COLUMNS, *columns) if c in columns and c != file_column), None
    )
    if label_column not in columns:
        wanted = reading.label_column or "label"
        raise UserError(f"{shown(str(table))} has no column {wanted!r}: {nearest(wanted, columns)}")
    if reading.label_column is None and label_column not in LABEL_COLUMNS and len(columns) > 2:
        raise UserError(
            f"{shown(str(table))} has the columns {', '.join(columns)}: say which holds the "
            "labels by --label-column"
        )
    position = {path: i for i, path in enumerate(found.paths)}
    known = {_plain(path): i for path, i in position.items()}
    kept: dict[int, str] = {}
    for row in rows:
        name, label = row.get(file_column) or "", (row.get(label_column) or "").strip()
        at = known.get(_plain(name))
        if at is None:
            found.missing.append((shown(name), f"named in {table.name}, but not there"))
        elif not label:
            found.missing.append((shown(name), f"has no {label_column} in {table.name}"))
        else:
            kept[at] = label
    left = len(found.paths) - len(kept)
    if not kept:
        raise UserError(
            f"{shown(str(table))} names none of the images: its column {file_column!r} should "
            f"hold paths like {shown(found.paths[0])!r}"
        )
    if left:
        found.notes.append(f"{left} images that {table.name} gives no label: left out")
    order = sorted(kept)
    _keep(found, order)
    found.labels = [kept[i] for i in order]
    if len(set(found.labels)) == 1:
        found.notes.append(f"all images have the label {found.labels[0]}: learned without labels")
        found.labels = None


def _plain(path: str) -> str:
    return os.path.normpath(path).replace(os.sep, "/")


def _read_list(table: Path) -> tuple[list[dict[str, str]], list[str]]:
    try:
        text = table.read_bytes().decode("utf-8-sig")
        head = text.partition("\n")[0]
        delimiter = max(",;\t", key=head.count)
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
        columns = list(reader.fieldnames or [])
        rows = list(reader)
    except OSError as error:
        raise UserError(f"cannot read {shown(str(table))}: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{shown(str(table))} is no table of file names: {error}") from None
    if len(columns) < 2 or not rows:
        raise UserError(
            f"{shown(str(table))} should have a header and two columns, file_name and label"
        )
    return rows, columns


def _keep(found: Folder, order: list[int]) -> None:
    found.paths = [found.paths[i] for i in order]
    found.stats = [found.stats[i] for i in order]
    if found.labels is not None:
        found.labels = [found.labels[i] for i in order]
    if found.heldout is not None:
        found.heldout = [found.heldout[i] for i in order]
