"""Lists of labels beside images: selects the lists, and finds the image of each row."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from monge.data.images.array_images import NOT_LABELS
from monge.data.images.image_files import SUFFIXES, Unreadable
from monge.data.images.raw import content_of_file, shown
from monge.data.reading import Reading
from monge.errors import UserError, nearest

LISTS = ("labels.csv", "metadata.csv")
"""Names of lists, in upper or lower case, in the order of preference."""

FILE_COLUMNS = ("file_name", "filename", "file", "path", "image", "name", "id")
LABEL_COLUMNS = ("label", "labels", "class", "category", "target", "species")


@runtime_checkable
class Listed(Protocol):
    """The attributes of `folder.Folder` that labels need."""

    root: Path
    paths: list[str]
    labels: list[str] | None
    heldout: list[bool] | None
    missing: list[tuple[str, str]]
    notes: list[str]

    def keep(self, order: list[int]) -> None: ...


def lists_to_use(found: Listed, lists: Sequence[str]) -> list[str]:
    """The lists of labels in use: one at the top, else one in each folder of the split.

    Other lists are noted.
    """
    by_folder: dict[str, str] = {}
    for path in sorted(lists, key=lambda p: LISTS.index(os.path.basename(p).lower())):
        by_folder.setdefault(os.path.dirname(path), path)
    if "" in by_folder:
        used = [by_folder[""]]
    else:
        tops = {os.path.normpath(path).partition(os.sep)[0] for path in found.paths}
        used = [path for folder, path in sorted(by_folder.items()) if folder in tops]
        if set(map(os.path.dirname, used)) != tops:
            used = []
    left = [path for path in lists if path not in used]
    if left:
        named = ", ".join(map(shown, left[:5])) + (", ..." if len(left) > 5 else "")
        found.notes.append(
            f"lists of labels that are not used: {named} (a list counts at the top, or where each "
            "folder at the top has one)"
        )
    return used


def label_by_lists(found: Listed, lists: Sequence[str], reading: Reading) -> None:
    """Label the images by tables of file names; images without a row are left out."""
    kept: dict[int, str] = {}
    contradicted: set[int] = set()
    unlabelled = 0
    for path in lists:
        unlabelled += _add_labels(found, path, reading, kept, contradicted)
    listed = ", ".join(map(shown, lists))
    if not kept:
        raise UserError(
            f"{shown(str(found.root / lists[0]))} names none of the images: its column "
            f"{_columns(found.root / lists[0], reading)[1]!r} should hold paths like "
            f"{shown(found.paths[0])!r}"
        )
    if unlabelled:
        found.notes.append(f"{unlabelled} rows of {listed} have no label (empty, NA, nan, ?)")
    if left := len(found.paths) - len(kept):
        found.notes.append(f"{left} images that {listed} gives no label: left out")
    if contradicted:
        first = shown(found.paths[min(contradicted)])
        found.notes.append(
            f"{len(contradicted)} images have several labels in {listed}, the first of them "
            f"{first}: its first label is taken"
        )
    order = sorted(kept)
    found.keep(order)
    labels = [kept[i] for i in order]
    found.labels = labels
    if len(set(labels)) == 1:
        found.notes.append(f"all images have the label {shown(labels[0])}: learned without labels")
        found.labels = None


def _add_labels(
    found: Listed, path: str, reading: Reading, kept: dict[int, str], contradicted: set[int]
) -> int:
    """Take the labels of one list; returns the number of rows without a label."""
    table, folder = found.root / path, os.path.dirname(path)
    rows, file_column, label_column = _columns(table, reading)
    places = _Places(found, folder)
    unlabelled = 0
    for row in rows:
        name, label = row.get(file_column) or "", (row.get(label_column) or "").strip()
        at = places.of(name)
        if at is None:
            found.missing.append((shown(name), f"named in {shown(path)}, but not there"))
        elif label in NOT_LABELS:
            unlabelled += 1
        elif kept.setdefault(at, label) != label:
            contradicted.add(at)
    return unlabelled


class _Places:
    """Finds the image that a list's cell names.

    The cell is a path relative to the list's folder; else such a path with backslashes; else it
    matches a single image when suffix, folders or case of letters are ignored.
    """

    def __init__(self, found: Listed, folder: str) -> None:
        self.root, self.folder = found.root, folder
        self.exact: dict[str, int] = {}
        self.loose: dict[str, set[int]] = {}
        for i, path in enumerate(found.paths):
            self.exact[self._plain(path, "")] = i
            if folder and not path.startswith(folder + os.sep):
                continue
            inner = os.path.relpath(path, folder) if folder else path
            base = os.path.basename(path)
            keys = {inner, base, _stem(inner), _stem(base)}
            for key in {*keys, *(key.lower() for key in keys)}:
                self.loose.setdefault(key, set()).add(i)

    def of(self, name: str) -> int | None:
        for text in (name, name.strip(), name.strip().replace("\\", os.sep)):
            at = self.exact.get(self._plain(text, self.folder))
            if at is not None:
                return at
        text = os.path.normpath(name.strip().replace("\\", os.sep))
        for key in (text, text.lower()):
            places = self.loose.get(key, set())
            if len(places) == 1:
                return next(iter(places))
        return None

    def _plain(self, path: str, folder: str) -> str:
        """A normalised path relative to the root, from a relative or an absolute one."""
        if os.path.isabs(path):
            return os.path.normpath(os.path.relpath(path, self.root.absolute()))
        return os.path.normpath(os.path.join(folder, path))


def _stem(path: str) -> str:
    return os.path.splitext(path)[0] if path.lower().endswith(SUFFIXES) else path


def _columns(table: Path, reading: Reading) -> tuple[list[dict[str, str]], str, str]:
    """The rows of a list, and the names of its columns of files and of labels."""
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
    return rows, file_column, label_column


def _read_list(table: Path) -> tuple[list[dict[str, str]], list[str]]:
    try:
        text = content_of_file(table).decode("utf-8-sig")
        head = text.partition("\n")[0]
        delimiter = max(",;\t", key=head.count)
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
        columns = reader.fieldnames = [name.strip() for name in reader.fieldnames or []]
        rows = list(reader)
    except OSError as error:
        raise UserError(f"cannot read {shown(str(table))}: {error.strerror}") from None
    except (Unreadable, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{shown(str(table))} is no table of file names: {error}") from None
    if len(set(columns)) < 2 or not rows:
        raise UserError(
            f"{shown(str(table))} should have a header and two columns, file_name and label"
        )
    return rows, columns
