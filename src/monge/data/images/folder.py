"""Lists the image files of a folder, with their labels and their side of the split.

Labels come from the first of: a ``labels.csv`` or ``metadata.csv`` at the top or in each folder of
the split (`label_lists`); the folder of an image, if all but a few images lie in folders; else
there are none. Folders named train and test (val, ...) at the top are the source's own split. File
names may hold any bytes; `shown` makes them printable. Pictures that monge drew, in run folders
and the grid among samples, are no examples.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from monge.data.images.image_files import SUFFIXES
from monge.data.images.label_lists import LISTS, label_by_lists, lists_to_use
from monge.data.images.raw import Raw, content_of_file, shown
from monge.data.reading import Reading
from monge.data.split import HELD_OUT, TRAIN
from monge.errors import UserError
from monge.system.ownership import MANIFEST

LOOSE = 0.1
"""Share of images (at least one image) that may lie beside class folders; they are left out."""

RUN = ("config.yaml", "environment.json")
"""Files that identify a run folder."""

GRID = "grid.png"
"""The picture of all samples in a folder of samples."""


@dataclass
class Folder:
    """The image files of a folder, in the order of their names.

    Attributes:
        root: the folder.
        paths: of the images, relative to the root.
        labels: of each image; None without labels.
        heldout: whether the source holds out each image; None without a split.
        stats: size in bytes and time of change (ns) of each.
        ignored: number of other files, by suffix.
        missing: files in a list of labels that do not exist or cannot be examined.
        notes: for people.
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
        """Everything that the images depend on and that is known without reading them."""
        rows = zip(self.paths, self.stats, strict=True)
        files = [[ascii(path), *stat] for path, stat in rows]
        return {"folder": self.text, "files": files, "labels": self.labels, "split": self.heldout}

    def rows(self, start: int) -> Iterator[Raw]:
        """The images from number `start` on."""
        return map(self._raw, range(start, len(self.paths)))

    def sample(self, n: int) -> Iterator[Raw]:
        """About n images, spread over the folder."""
        return map(self._raw, range(0, len(self.paths), max(1, len(self.paths) // n)))

    def _raw(self, i: int) -> Raw:
        path = self.paths[i]
        return Raw(
            shown(path),
            partial(content_of_file, self.root / path),
            None if self.labels is None else self.labels[i],
            None if self.heldout is None else self.heldout[i],
            self.stats[i][0],
        )

    def keep(self, order: list[int]) -> None:
        """Keep only these images, in this order."""
        self.paths = [self.paths[i] for i in order]
        self.stats = [self.stats[i] for i in order]
        if self.labels is not None:
            self.labels = [self.labels[i] for i in order]
        if self.heldout is not None:
            self.heldout = [self.heldout[i] for i in order]


def list_folder(root: Path, reading: Reading) -> Folder:
    """The images of a folder.

    Links to folders are followed, each folder once. Hidden files and folders are skipped.

    Raises:
        UserError: no images, or a list of labels that cannot be used.
    """
    found = Folder(root)
    lists = _walk(found)
    if not found.paths:
        others = ", ".join(f"{n} {suffix or 'without suffix'}" for suffix, n in _most(found))
        what = f"; it holds {others}" if others else ": it is empty"
        if found.missing:
            what = "; cannot be read: " + ", ".join(map(" ".join, found.missing[:5]))
        raise UserError(
            f"{shown(str(root))} holds no images ({', '.join(SUFFIXES)} are looked for){what}"
        )
    _split_by_folder(found)
    used = lists_to_use(found, lists)
    if used:
        label_by_lists(found, used, reading)
    elif reading.label_column is not None:
        raise UserError(f"--label-column needs a {' or '.join(LISTS)} in {shown(str(root))}")
    else:
        _label_by_folder(found)
    if reading.limit is not None:
        n = len(found.paths)
        # Spread over the folder, since the first images may all have one class.
        found.keep(sorted({k * n // reading.limit for k in range(reading.limit)}))
    return found


def holds_images(root: Path, enough: int = 10) -> bool:
    """Whether a folder and its subfolders hold enough image files to be a folder of images."""
    count = 0
    for _, _, names in os.walk(root):
        count += sum(name.lower().endswith(SUFFIXES) for name in names)
        if count >= enough:
            return True
    return False


def _walk(found: Folder) -> list[str]:
    """List the image files; a folder's files stand where its name stands in the order of names.

    Returns the paths of the lists of labels, relative to the root.
    """
    lists: list[str] = []
    visited: set[tuple[int, int]] = set()
    waiting = [""]  # a stack: folders may be nested deeper than the limit of recursion
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
                if path and set(RUN) <= set(names):
                    found.notes.append(f"{shown(path)} is a run folder of monge: skipped")
                    continue
                seen = [n for n in names if not n.startswith(".") and n != "__MACOSX"]
                if MANIFEST in names and GRID in seen:
                    seen.remove(GRID)
                    where = shown(os.path.join(path, GRID))
                    found.notes.append(f"{where} is the picture of the samples beside it: skipped")
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
        elif os.path.basename(path).lower() in LISTS and stat.S_ISREG(status.st_mode):
            lists.append(path)
        else:
            found.ignored[_suffix(path)] += 1
    return sorted(lists)


def _suffix(path: str) -> str:
    return shown(os.path.splitext(path)[1].lower())


def _most(found: Folder) -> list[tuple[str, int]]:
    return found.ignored.most_common(5)


def _split_by_folder(found: Folder) -> None:
    """Take folders named train and test at the top as a split, if there are no other folders."""
    tops = [path.partition(os.sep)[0] if os.sep in path else "" for path in found.paths]
    names = {top.lower() for top in tops}
    if names & set(TRAIN) and names & set(HELD_OUT) and names <= {*TRAIN, *HELD_OUT}:
        found.heldout = [top.lower() in HELD_OUT for top in tops]


def _label_by_folder(found: Folder) -> None:
    """Label each image by the first folder below the root, or below the split's folder."""
    depth = 0 if found.heldout is None else 1
    parts = [path.split(os.sep)[depth:] for path in found.paths]
    loose = [path for path, p in zip(found.paths, parts, strict=True) if len(p) < 2]
    if len(loose) == len(parts):
        return
    classes = {p[0] for p in parts if len(p) > 1}
    if loose and (len(loose) > max(1, LOOSE * len(parts)) or len(classes) < 2):
        found.notes.append(
            f"{len(loose)} of {len(parts)} images lie beside folders of images: folders are not "
            f"taken for classes (they would be with one image beside them, or {LOOSE:.0%} of all)"
        )
        return
    if loose:
        named = ", ".join(map(shown, loose[:5])) + (", ..." if len(loose) > 5 else "")
        found.notes.append(
            f"{len(loose)} of {len(parts)} images lie beside the folders of the classes: left out "
            f"({named})"
        )
        found.keep([i for i, p in enumerate(parts) if len(p) > 1])
        parts = [p for p in parts if len(p) > 1]
    labels = [p[0] for p in parts]
    if len(set(labels)) == 1:
        found.notes.append(
            f"all images lie in one folder, {shown(labels[0])}: learned without labels"
        )
        return
    found.labels = [shown(label) for label in labels]
