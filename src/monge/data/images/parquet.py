"""Reads encoded images from a parquet file or a folder of them, in the Hugging Face layout.

An image column holds structs of bytes and path, or bytes. If a struct has only a path, as
`Dataset.to_parquet` writes it for local files, that file is read. Files whose names begin with
train, test or validation define that split. Names of labels are in the schema's metadata.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from monge.data.images.image_files import Unreadable
from monge.data.images.label_lists import LABEL_COLUMNS
from monge.data.images.raw import Raw, content_of_file, shown
from monge.data.reading import Reading
from monge.data.split import HELD_OUT, TRAIN
from monge.errors import UserError, nearest, reason

BATCH = 32
"""Rows read at once: photographs may have megabytes each."""

FAILURES = (OSError, pa.ArrowException, UnicodeEncodeError)
"""The exceptions of Arrow for unreadable files."""

BUFFER = 2**20
"""Bytes of a column read at once, instead of a whole row group."""


@dataclass
class ParquetImages:
    """Images in parquet files."""

    path: Path
    files: list[Path]
    image_column: str
    label_column: str | None
    label_names: list[str]
    limit: int | None = None
    notes: list[str] = field(default_factory=list)
    missing: list[tuple[str, str]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.path.resolve().stem

    @property
    def text(self) -> str:
        return str(self.path.absolute())

    @property
    def total(self) -> int:
        rows = sum(_opened(f).metadata.num_rows for f in self.files)
        return rows if self.limit is None else min(rows, self.limit)

    @property
    def facts(self) -> dict[str, Any]:
        files = []
        for file in self.files:
            status = file.stat()
            files.append([str(file), status.st_size, status.st_mtime_ns])
        columns = [self.image_column, self.label_column]
        return {"parquet": self.text, "files": files, "columns": columns, "limit": self.limit}

    def rows(self, start: int) -> Iterator[Raw]:
        return itertools.islice(self._rows(start), self._left(start))

    def sample(self, n: int) -> Iterator[Raw]:
        return itertools.islice(self.rows(0), n)

    def _left(self, start: int) -> int | None:
        return None if self.limit is None else max(0, self.limit - start)

    def _rows(self, skip: int) -> Iterator[Raw]:
        columns = [self.image_column, *([self.label_column] if self.label_column else [])]
        for file in self.files:
            table = _opened(file)
            rows = table.metadata.num_rows
            if skip >= rows:
                skip -= rows
                continue
            heldout = side_in(self.path, file)
            position = 0
            for batch in _batches(table, columns, file):
                first = max(0, skip - position)
                for i in range(first, len(batch)):
                    where = f"{shown(file.name)}, row {position + i}"
                    yield self._raw(batch, i, where, file.parent, heldout)
                position += len(batch)
            skip = 0

    def _raw(
        self, batch: pa.RecordBatch, i: int, where: str, home: Path, heldout: bool | None
    ) -> Raw:
        value = batch.column(self.image_column)[i].as_py()
        label = None
        if self.label_column is not None:
            label = named(batch.column(self.label_column)[i].as_py(), self.label_names)
        return Raw(where, lambda: bytes_of(value, home), label, heldout)


def bytes_of(value: Any, home: Path) -> bytes:
    """The encoded bytes of an image, from a row or from the file that the row names.

    Args:
        value: bytes, or a mapping of bytes and path.
        home: the folder of relative paths.

    Raises:
        Unreadable: the row holds neither.
        OSError: the named file cannot be read.
    """
    content = value.get("bytes") if isinstance(value, dict) else value
    if isinstance(content, bytes):
        return content
    path = value.get("path") if isinstance(value, dict) else None
    if not isinstance(path, str) or not path:
        raise Unreadable("the row holds no image")
    if "\0" in path:
        raise Unreadable("the row's path is none")
    return content_of_file(home / path)


def _opened(file: Path) -> parquet.ParquetFile:
    try:
        # With pre-buffering, all data read from a file would stay in memory until its end.
        return parquet.ParquetFile(file, buffer_size=BUFFER, pre_buffer=False)
    except FAILURES as error:
        raise unreadable(file, error) from None


def _batches(
    table: parquet.ParquetFile, columns: list[str], file: Path
) -> Iterator[pa.RecordBatch]:
    try:
        for batch in table.iter_batches(BATCH, columns=columns):
            batch.validate(full=True)  # finds invalid text
            yield batch
    except FAILURES as error:
        raise unreadable(file, error) from None


def unreadable(file: Path, error: Exception) -> UserError:
    """The message for one of `FAILURES` of Arrow."""
    path_is_none = isinstance(error, UnicodeEncodeError)
    said = "its path is not UTF-8: rename it" if path_is_none else reason(error)
    return UserError(f"cannot read {shown(str(file))} as parquet: {said}")


def named(value: Any, names: list[str]) -> str | None:
    """The name of a label in a column: a number is an index into the names, a word is itself."""
    if isinstance(value, int) and not isinstance(value, bool) and names:
        # Hidden labels, such as those of test data, are -1.
        return names[value] if 0 <= value < len(names) else None
    return None if value is None else str(value)


def side_of(file: str) -> bool | None:
    """Whether a file's name marks its rows as held out; None if it names no split.

    >>> side_of("test-00000-of-00001.parquet"), side_of("train.parquet"), side_of("part-0.parquet")
    (True, False, None)
    """
    word = re.split(r"[-_.]", file.lower())[0]
    return {**dict.fromkeys(TRAIN, False), **dict.fromkeys(HELD_OUT, True)}.get(word)


def is_image_column(kind: pa.DataType) -> bool:
    """Whether a column of this type holds encoded images."""
    if isinstance(kind, pa.StructType):
        at = kind.get_field_index("bytes")
        return at >= 0 and _is_bytes(kind.field(at).type)
    return _is_bytes(kind)


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def has_images(path: Path, reading: Reading) -> bool:
    """Whether a parquet file, or the first one of a folder, holds images and not a table."""
    kinds = read_schema(_files(path)[0]).types
    return reading.image_column is not None or any(map(is_image_column, kinds))


def open_parquet(path: Path, reading: Reading) -> ParquetImages:
    """The images in a parquet file, or in the parquet files of a folder and its subfolders.

    Raises:
        UserError: no image column, several and none chosen, or files with different columns.
    """
    files = _files(path)
    schema = read_schema(files[0])
    if twice := [name for name, n in Counter(schema.names).items() if n > 1]:
        raise UserError(f"{shown(str(files[0]))} has several columns {twice[0]!r}: rename one")
    for file in files[1:]:
        if read_schema(file).names != schema.names:
            raise UserError(
                f"{shown(str(file))} has other columns than {shown(str(files[0]))}: "
                "give one data set at a time"
            )
    candidates = [name for name in schema.names if is_image_column(schema.field(name).type)]
    column = reading.image_column
    if column is None:
        if len(candidates) != 1:
            what = f"several: {', '.join(candidates)}; choose one by --image-column"
            raise UserError(
                f"{shown(str(path))} has {what if candidates else 'no column of images'}"
            )
        column = candidates[0]
    if column not in schema.names:
        raise UserError(f"{shown(str(path))} has no column {column!r}: {_near(column, schema)}")
    if column not in candidates:
        raise UserError(f"column {column!r} of {shown(str(path))} holds no images")
    label = reading.label_column
    if label is None:
        label = next((name for name in LABEL_COLUMNS if name in schema.names), None)
    elif label not in schema.names:
        raise UserError(f"{shown(str(path))} has no column {label!r}: {_near(label, schema)}")
    found = ParquetImages(path, files, column, label, _label_names(schema, label), reading.limit)
    found.notes += _paths_outside(files, column, schema.field(column).type)
    sides = {side_in(path, file) for file in files}
    if None in sides and sides != {None}:
        found.notes.append("some parquet files name a split and some do not: none is assumed")
    return found


def _paths_outside(files: list[Path], column: str, kind: pa.DataType) -> list[str]:
    """Notes on rows that name image files outside the parquet file's folder."""
    if not isinstance(kind, pa.StructType) or kind.get_field_index("path") < 0:
        return []
    n, first = 0, ""
    for file in files:
        home = os.path.realpath(file.parent)
        try:
            for batch in _opened(file).iter_batches(2**12, columns=[f"{column}.path"]):
                for value in batch.column(column).to_pylist():
                    path = (value or {}).get("path")
                    if not isinstance(path, str) or not path or "\0" in path:
                        continue
                    where = os.path.normpath(os.path.join(home, path))
                    if not where.startswith(home + os.sep) and os.path.lexists(where):
                        n, first = n + 1, first or path
        except FAILURES:
            return []  # reported when the images are read
    return [f"{n} rows name files outside of the folder, the first {shown(first)}"] if n else []


def _files(path: Path) -> list[Path]:
    if not os.path.isdir(path):
        return [path]
    if files := find_files(path):
        return files
    raise UserError(f"{shown(str(path))} holds no parquet files")


def find_files(root: Path) -> list[Path]:
    """The parquet files of a folder and its subfolders, without hidden ones, in the order of names.

    Files of training come first, so that a limit on the number of rows takes theirs.
    """
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = [Path(folder, name) for name in names if not name.startswith(".")]
        found += [
            path for path in paths if path.suffix.lower() == ".parquet" and os.path.isfile(path)
        ]
    return sorted(found, key=lambda path: (side_in(root, path) is True, path))


def side_in(root: Path, file: Path) -> bool | None:
    """Whether the file's name, or a folder between it and the root, marks held-out data."""
    below = file.relative_to(root).parts if file != root else (file.name,)
    return next((s for part in reversed(below) if (s := side_of(part)) is not None), None)


def read_schema(file: Path) -> pa.Schema:
    """The schema of a parquet file.

    Raises:
        UserError: it is no parquet file.
    """
    try:
        return parquet.read_schema(file)
    except FAILURES as error:
        raise unreadable(file, error) from None


def _near(name: str, schema: pa.Schema) -> str:
    return nearest(name, schema.names)


def _label_names(schema: pa.Schema, label: str | None) -> list[str]:
    """The names of a label column's numbers, in the metadata of the `datasets` library."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return [str(name) for name in features[label]["names"]]
    except (KeyError, ValueError, TypeError):
        return []
