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
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from monge.data.images import SUFFIXES
from monge.data.raw import Raw, shown
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

    def rows(self, start: int) -> Iterator[Raw]:
        """The images from number `start` on."""
        return map(self._raw, range(start, len(self.paths)))

    def sample(self, n: int) -> Iterator[Raw]:
        """About n images from all over the folder."""
        return map(self._raw, range(0, len(self.paths), max(1, len(self.paths) // n)))

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
    lists = [name for name in LISTS if os.path.isfile(root / name)]
    if not found.paths:
        others = ", ".join(f"{n} {suffix or 'without suffix'}" for suffix, n in _most(found))
        what = f"; it holds {others}" if others else ": it is empty"
        if found.missing:
            what = "; cannot be read: " + ", ".join(map(" ".join, found.missing[:5]))
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


def _content(path: Path) -> bytes:
    return path.read_bytes()


def holds_images(root: Path, enough: int = 10) -> bool:
    """Whether a folder and its subfolders hold enough image files to be meant by them."""
    count = 0
    for _, _, names in os.walk(root):
        count += sum(name.lower().endswith(SUFFIXES) for name in names)
        if count >= enough:
            return True
    return False


def _walk(found: Folder) -> None:
    """List the files, those of a folder where its name stands among the others."""
    visited: set[tuple[int, int]] = set()
    waiting = [""]  # a stack, for folders may be nested deeper than calls
    while waiting:
        path = waiting.pop()
        full = os.path.join(found.root, path)
        is_image = path.lower().endswith(SUFFIXES)
        try:
            status = os.stat(full)
            if stat.S_ISDIR(status.st_mode):
                if (status.st_dev, status.st_ino) in visited:
                    found.notes.append(
                        f"{shown(path)} leads back to a folder already read: skipped"
                    )
                    continue
                visited.add((status.st_dev, status.st_ino))
                names = sorted(os.listdir(full), reverse=True)
                seen = [n for n in names if not n.startswith(".") and n != "__MACOSX"]
                waiting += [os.path.join(path, name) for name in seen]
                continue
        except OSError as error:
            if is_image or os.path.isdir(full):
                found.missing.append((shown(path or "."), error.strerror or str(error)))
            else:
                found.ignored[_suffix(path)] += 1
            continue
        if is_image and not stat.S_ISREG(status.st_mode):
            found.missing.append((shown(path), "no file, but a pipe or a device"))
        elif is_image:
            found.paths.append(path)
            found.stats.append((status.st_size, status.st_mtime_ns))
        elif path not in LISTS:
            found.ignored[_suffix(path)] += 1


def _suffix(path: str) -> str:
    return shown(os.path.splitext(path)[1].lower())


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
    plain = {column.lower(): column for column in reversed(columns)}
    file_column = next((plain[c] for c in FILE_COLUMNS if c in plain), columns[0])
    others = [column for column in columns if column != file_column]
    guessed = next((plain[c] for c in LABEL_COLUMNS if plain.get(c) in others), None)
    label_column = reading.label_column or guessed or others[0]
    if label_column not in columns:
        wanted = reading.label_column or "label"
        raise UserError(f"{shown(str(table))} has no column {wanted!r}: {nearest(wanted, columns)}")
    if reading.label_column is None and guessed is None and len(columns) > 2:
        raise UserError(
            f"{shown(str(table))} has the columns {', '.join(columns)}: say which holds the "
            "labels by --label-column"
        )
    known = {_plain(path, found.root): i for i, path in enumerate(found.paths)}
    kept: dict[int, str] = {}
    contradicted: set[int] = set()
    for row in rows:
        name, label = row.get(file_column) or "", (row.get(label_column) or "").strip()
        at = known.get(_plain(name, found.root), known.get(_plain(name.strip(), found.root)))
        if at is None:
            found.missing.append((shown(name), f"named in {table.name}, but not there"))
        elif label and kept.setdefault(at, label) != label:
            contradicted.add(at)
    left = len(found.paths) - len(kept)
    if not kept:
        raise UserError(
            f"{shown(str(table))} names none of the images: its column {file_column!r} should "
            f"hold paths like {shown(found.paths[0])!r}"
        )
    if left:
        found.notes.append(f"{left} images that {table.name} gives no label: left out")
    if contradicted:
        first = shown(found.paths[min(contradicted)])
        found.notes.append(
            f"{len(contradicted)} images have several labels in {table.name}, the first of them "
            f"{first}: its first label is taken"
        )
    order = sorted(kept)
    _keep(found, order)
    found.labels = [kept[i] for i in order]
    if len(set(found.labels)) == 1:
        label = shown(found.labels[0])
        found.notes.append(f"all images have the label {label}: learned without labels")
        found.labels = None


def _plain(path: str, root: Path) -> str:
    """A path below the root in one spelling, whether it is given from there or in full."""
    if os.path.isabs(path):
        path = os.path.relpath(path, root.absolute())
    return os.path.normpath(path)


def _read_list(table: Path) -> tuple[list[dict[str, str]], list[str]]:
    try:
        text = table.read_bytes().decode("utf-8-sig")
        head = text.partition("\n")[0]
        delimiter = max(",;\t", key=head.count)
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
        columns = reader.fieldnames = [name.strip() for name in reader.fieldnames or []]
        rows = list(reader)
    except OSError as error:
        raise UserError(f"cannot read {shown(str(table))}: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{shown(str(table))} is no table of file names: {error}") from None
    if len(set(columns)) < 2 or not rows:
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
