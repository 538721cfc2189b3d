"""Parquet files of encoded images, one or a folder of them, as Hugging Face data sets have them.

An image column holds structs of bytes and path, or bytes. Files whose names begin with train,
test or validation bring that split. Names of labels stand in the schema's metadata.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from monge.data.folder import HELD_OUT, LABEL_COLUMNS, TRAIN, shown
from monge.data.raw import Raw
from monge.data.reading import Reading
from monge.errors import UserError, nearest


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
        rows = sum(parquet.ParquetFile(f).metadata.num_rows for f in self.files)
        return rows if self.limit is None else min(rows, self.limit)

    @property
    def facts(self) -> dict[str, Any]:
        stats = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in self.files]
        columns = [self.image_column, self.label_column]
        return {"parquet": self.text, "files": stats, "columns": columns, "limit": self.limit}

    def blocks(self, size: int, start: int) -> Iterator[list[Raw]]:
        skip, block = start * size, []
        left = self.total - skip
        for raw in self._rows(skip):
            if left == 0:
                break
            left -= 1
            block.append(raw)
            if len(block) == size:
                yield block
                block = []
        if block:
            yield block

    def sample(self, n: int) -> list[Raw]:
        found = []
        for raw in self._rows(0):
            found.append(raw)
            if len(found) == n:
                break
        return found

    def _rows(self, skip: int) -> Iterator[Raw]:
        columns = [self.image_column, *([self.label_column] if self.label_column else [])]
        for file in self.files:
            table = parquet.ParquetFile(file)
            rows = table.metadata.num_rows
            if skip >= rows:
                skip -= rows
                continue
            heldout = side_of(file.name)
            position = 0
            for batch in table.iter_batches(256, columns=columns):
                first = max(0, skip - position)
                for i in range(first, len(batch)):
                    yield self._raw(batch, i, f"{file.name}, row {position + i}", heldout)
                position += len(batch)
            skip = 0

    def _raw(self, batch: pa.RecordBatch, i: int, where: str, heldout: bool | None) -> Raw:
        value = batch.column(self.image_column)[i].as_py()
        content = value.get("bytes") if isinstance(value, dict) else value
        label = None
        if self.label_column is not None:
            label = named(batch.column(self.label_column)[i].as_py(), self.label_names)
        return Raw(where, lambda: _there(content), label, heldout)


def _there(content: bytes | None) -> bytes:
    if content is None:
        raise OSError("the row holds no image")
    return content


def named(value: Any, names: list[str]) -> str | None:
    """The name of a label as it stands in a column: a number into the names, or a word."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(names):
        return names[value]
    return None if value is None else str(value)


def side_of(file: str) -> bool | None:
    """Whether a file's name puts its rows into the held-out data; None if it does not say.

    >>> side_of("test-00000-of-00001.parquet"), side_of("train.parquet"), side_of("part-0.parquet")
    (True, False, None)
    """
    word = re.split(r"[-_.]", file.lower())[0]
    return {**dict.fromkeys(TRAIN, False), **dict.fromkeys(HELD_OUT, True)}.get(word)


def is_image_column(kind: pa.DataType) -> bool:
    """Whether a column of this type holds encoded images."""
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def has_images(path: Path, reading: Reading) -> bool:
    """Whether parquet, a file or the first of a folder, is of images rather than a table."""
    file = min(path.rglob("*.parquet")) if path.is_dir() else path
    kinds = read_schema(file).types
    return reading.image_column is not None or any(map(is_image_column, kinds))


def open_parquet(path: Path, reading: Reading) -> ParquetImages:
    """The images in a parquet file, or in the parquet files of a folder and its subfolders.

    Raises:
        UserError: no image column, or several and none named; files that do not fit together.
    """
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    schema = read_schema(files[0])
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
    sides = {side_of(file.name) for file in files}
    if None in sides and sides != {None}:
        found.notes.append("some parquet files name a split and some do not: none is assumed")
    return found


def read_schema(file: Path) -> pa.Schema:
    """The schema of a parquet file.

    Raises:
        UserError: it is none.
    """
    try:
        return parquet.read_schema(file)
    except (OSError, pa.ArrowException) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"cannot read {shown(str(file))} as parquet: {reason}") from None


def _near(name: str, schema: pa.Schema) -> str:
    return nearest(name, schema.names)


def _label_names(schema: pa.Schema, label: str | None) -> list[str]:
    """The names of a label column's numbers, as the `datasets` library keeps them."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return [str(name) for name in features[label]["names"]]
    except (KeyError, ValueError, TypeError):
        return []
