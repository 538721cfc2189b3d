"""`Data`: the training and held-out examples of a source, in one range and layout.

Images are (N, C, H, W) in [-1, 1], tables (N, D) float32. The split depends on the source and not
on the run's seed, so all runs on one source hold out the same examples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import pyarrow as pa
import torch
from torch import Tensor

from monge.data.arrays import Examples, Pixels
from monge.data.columns.schema import TableCodec
from monge.targets.base import Target

FEW = 500
"""Number of training examples below which memorisation is expected and counteracted."""


@dataclass(frozen=True)
class Data:
    """Training and held-out examples of one source.

    Attributes:
        name: short, for folder names: "digits".
        text: the source as a text for `load`; None for arrays in memory.
        kind: image or table.
        train, heldout: (N, C, H, W) in [-1, 1] or (N, D).
        train_label, heldout_label: (N,) int64, or None.
        label_names: the name of each label; empty without labels.
        target: the exact law, where it is known.
        train_vector, heldout_vector: (N, K) conditions of mean 0 and deviation 1, or None.
        codec: converts between a table's columns and rows of numbers; None for images.
        rows: numbers of the training and the held-out examples in the source's order.
        own_split: whether the source defines the held-out part; else it was split by content.
        table: the rows of a table with their original columns, in the source's order.
        report: findings of the reading, for ``data_report.json``.
        summary: the same in lines for people.
    """

    name: str
    text: str | None
    kind: Literal["image", "table"]
    train: Examples
    heldout: Examples
    train_label: Tensor | None = None
    heldout_label: Tensor | None = None
    label_names: tuple[str, ...] = ()
    target: Target | None = None
    train_vector: Tensor | None = None
    heldout_vector: Tensor | None = None
    codec: TableCodec | None = None
    rows: tuple[Tensor, Tensor] | None = None
    own_split: bool = True
    table: pa.Table | None = None
    report: Mapping[str, Any] = field(default_factory=dict)
    summary: tuple[str, ...] = ()

    def __repr__(self) -> str:
        parts = f"{len(self.train)} + {len(self.heldout)} held out, shape {self.shape}"
        classes = f", {len(self.label_names)} classes" if self.label_names else ""
        return f"Data({self.name!r}, {self.kind}, {parts}{classes})"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return tuple(self.train.shape[1:])

    def conditions(
        self, side: Literal["train", "heldout"] = "train", rows: Tensor | slice = slice(None)
    ) -> dict[str, Tensor]:
        """The inputs of networks besides the state: ``label`` (n,) and ``vector`` (n, K).

        Args:
            side: part of the split.
            rows: of that part; by default all.

        Returns:
            The conditions that the data has; empty without labels and conditions.
        """
        train = side == "train"
        label = self.train_label if train else self.heldout_label
        vector = self.train_vector if train else self.heldout_vector
        found = {} if label is None else {"label": label[rows]}
        return found if vector is None else {**found, "vector": vector[rows].float()}

    @cached_property
    def fingerprint(self) -> str:
        """A hash of every example and label: equal data, equal fingerprint."""
        digest = hashlib.sha256()
        parts = (self.train, self.heldout, self.train_label, self.heldout_label)
        vectors = (self.train_vector, self.heldout_vector)
        for part in (*parts, *(v for v in vectors if v is not None)):
            if part is None:
                continue
            digest.update(str(tuple(part.shape)).encode())
            chunks = part.content if isinstance(part, Pixels) else [part.contiguous().numpy()]
            for chunk in chunks:
                digest.update(chunk.data)
        return digest.hexdigest()[:16]


def distance_scale(kind: str, x: Examples) -> Tensor:
    """The unit of distances: the deviation (D,) of each column of a table (N, D), 1 for images."""
    if kind == "image":
        return torch.ones(())
    deviation = x[:].std(0)
    return torch.where(deviation > 0, deviation, 1.0)
