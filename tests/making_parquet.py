"""Parquet files of small images, as the `datasets` library writes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from making_images import encoded, pixels_of

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""An image column of the `datasets` library."""


def images(n: int, side: int = 8, first: int = 0) -> list[bytes]:
    """The PNG files of `pixels_of(first)`, `pixels_of(first + 1)`, ..."""
    return [encoded(pixels_of(first + i, side)) for i in range(n)]


def write_parquet(
    path: Path,
    contents: Sequence[bytes | None],
    labels: Sequence[Any] | None = None,
    names: Sequence[str] = (),
    column: str = "image",
    **options: Any,
) -> Path:
    """One row an image; `names` are those of a ClassLabel column of numbers."""
    rows = [None if c is None else {"bytes": c, "path": f"{i}.png"} for i, c in enumerate(contents)]
    table = pa.table({column: pa.array(rows, IMAGE)})
    if labels is not None:
        table = table.append_column("label", pa.array(labels))
    if names:
        features = {
            column: {"_type": "Image"},
            "label": {"names": list(names), "_type": "ClassLabel"},
        }
        table = table.replace_schema_metadata(
            {"huggingface": json.dumps({"info": {"features": features}})}
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path, **options)
    return path
