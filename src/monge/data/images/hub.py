"""Streams image data sets from the Hugging Face hub, or from a local folder in its layouts.

Only the prepared images are stored, so a data set larger than the disk can be read.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monge.data.images.label_lists import LABEL_COLUMNS
from monge.data.images.parquet import bytes_of, named
from monge.data.images.raw import Raw
from monge.data.reading import Reading
from monge.data.split import HELD_OUT
from monge.errors import UserError, missing_extra, nearest, reason
from monge.system.hub_access import hub_access


@dataclass
class HubImages:
    """Images of a data set by name."""

    repo: str
    reading: Reading
    builder: Any
    splits: list[tuple[str, bool | None]]
    image_column: str
    label_column: str | None
    label_names: list[str]
    notes: list[str] = field(default_factory=list)
    missing: list[tuple[str, str]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.repo.rstrip("/").rpartition("/")[2]

    @property
    def text(self) -> str:
        return f"hf:{self.repo}"

    @property
    def total(self) -> int | None:
        known = self.builder.info.splits or {}
        counts = [known[s].num_examples if s in known else None for s, _ in self.splits]
        if any(not c for c in counts):
            return self.reading.limit
        total = sum(c for c in counts if c)
        return total if self.reading.limit is None else min(total, self.reading.limit)

    @property
    def facts(self) -> dict[str, Any]:
        return {
            "hub": self.repo,
            "subset": self.reading.subset,
            "version": self.builder.hash or str(self.builder.info.version),
            "splits": self.splits,
            "columns": [self.image_column, self.label_column],
            "limit": self.reading.limit,
        }

    def rows(self, start: int) -> Iterator[Raw]:
        limit = self.reading.limit
        return itertools.islice(self._rows(start), None if limit is None else max(0, limit - start))

    def sample(self, n: int) -> Iterator[Raw]:
        return itertools.islice(self.rows(0), n)

    def _rows(self, skip: int) -> Iterator[Raw]:
        position = 0
        for split, heldout in self.splits:
            for i, row in enumerate(self._stream(split)):
                position += 1
                if position > skip:
                    yield self._raw(row, f"{split}, row {i}", heldout)

    def _stream(self, split: str) -> Iterator[dict[str, Any]]:
        from datasets import Image

        try:
            rows = self.builder.as_streaming_dataset(split)
            yield from rows.cast_column(self.image_column, Image(decode=False))
        except Exception as error:  # the library, the network and file formats raise many kinds
            raise UserError(
                f"reading {self.text} stopped: {reason(error)}; run the command again to continue"
            ) from None

    def _raw(self, row: dict[str, Any], where: str, heldout: bool | None) -> Raw:
        value = row[self.image_column]
        label = None
        if self.label_column is not None:
            label = named(row[self.label_column], self.label_names)
        return Raw(where, lambda: bytes_of(value, Path()), label, heldout)


def open_hub(repo: str, reading: Reading) -> HubImages:
    """The images of a data set on the hub, by name (ORG/NAME) or local folder.

    Without a named split, train is used for training, and test (or validation) is held out.

    Raises:
        UserError: the `datasets` library is missing, or no such data set, subset, split or column.
    """
    try:
        import datasets
    except ImportError:
        raise missing_extra("datasets", "data", "reading hub data sets") from None
    with nullcontext() if os.path.isdir(repo) else hub_access() as why:
        try:
            builder = datasets.load_dataset_builder(repo, reading.subset)
            splits = list(
                builder.info.splits or datasets.get_dataset_split_names(repo, reading.subset)
            )
            features = builder.info.features
            if features is None:
                features = _first_features(builder, splits[0])
        except Exception as error:  # the library, the network and the hub raise many kinds
            raise UserError(
                f"cannot read the hub data set {repo!r}: {why or reason(error)}{_remedy(repo)}"
            ) from None
    chosen = _chosen_splits(splits, reading, repo)
    images = [name for name, kind in features.items() if _is_image(kind)]
    column = reading.image_column or (images[0] if len(images) == 1 else None)
    if column is None or column not in features:
        wanted = reading.image_column
        hint = nearest(wanted, features) if wanted else f"columns: {', '.join(features)}"
        what = f"has no column {wanted!r}" if wanted else f"has {len(images)} columns of images"
        raise UserError(f"hf:{repo} {what}: {hint}; choose one by --image-column")
    if column not in images:
        raise UserError(f"column {column!r} of hf:{repo} holds no images")
    label = reading.label_column
    if label is None:
        label = next((name for name in LABEL_COLUMNS if name in features), None)
    elif label not in features:
        raise UserError(f"hf:{repo} has no column {label!r}: {nearest(label, features)}")
    names = list(getattr(features[label], "names", [])) if label else []
    return HubImages(repo, reading, builder, chosen, column, label, names)


def _is_image(kind: Any) -> bool:
    """Whether a feature holds images, or bytes that may be images, as in parquet files."""
    import datasets

    if isinstance(kind, dict):
        return "bytes" in kind and _is_image(kind["bytes"])
    binary = isinstance(kind, datasets.Value) and kind.dtype in ("binary", "large_binary")
    return binary or isinstance(kind, datasets.Image)


def _remedy(repo: str) -> str:
    if os.path.isdir(repo):
        return " (--subset names a configuration)"
    return (
        "; look at its name (hf:ORG/NAME), at the network and at HF_HUB_OFFLINE, or read a copy "
        "from a folder; a private data set needs `hf auth login`"
    )


def _first_features(builder: Any, split: str) -> Any:
    """The columns of a data set without declared columns, from its first rows."""
    return builder.as_streaming_dataset(split)._resolve_features().features or {}


def _chosen_splits(splits: list[str], reading: Reading, repo: str) -> list[tuple[str, bool | None]]:
    if reading.split is not None:
        if reading.split not in splits:
            hint = nearest(reading.split, splits)
            raise UserError(f"hf:{repo} has no split {reading.split!r}: {hint}")
        return [(reading.split, None)]
    train = "train" if "train" in splits else splits[0]
    heldout = next((s for s in HELD_OUT if s in splits and s != train), None)
    if heldout is None:
        return [(train, None)]
    return [(train, False), (heldout, True)]
