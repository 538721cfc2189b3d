"""`DataFacts`: the facts of the data that a generator needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from monge.data.base import Data


@dataclass(frozen=True)
class DataFacts:
    """The facts of the data that sampling needs and a run records.

    Attributes:
        kind: image or table.
        shape: of an example.
        label_names, label_counts: of the classes, with their counts in the training data.
        n_vector: numbers in the condition of an example.
        name, text: name of the data, and the text of the source if there is one.
        n_train, n_heldout: numbers of examples.
        fingerprint: a hash of the content.
        learned: facts of the objective, such as the times of a map.
    """

    kind: str
    shape: tuple[int, ...]
    label_names: tuple[str, ...] = ()
    label_counts: tuple[int, ...] = ()
    n_vector: int = 0
    name: str = "data"
    text: str | None = None
    n_train: int = 0
    n_heldout: int = 0
    fingerprint: str = ""
    learned: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, data: Data, learned: Mapping[str, Any] | None = None) -> DataFacts:
        """The facts of data."""
        counts = []
        if data.train_label is not None:
            known = data.train_label[data.train_label >= 0]  # -1 is no label
            counts = torch.bincount(known, minlength=len(data.label_names)).tolist()
        return cls(
            data.kind,
            data.shape,
            tuple(data.label_names),
            tuple(counts),
            n_vector_of(data),
            data.name,
            data.text,
            len(data.train),
            len(data.heldout),
            data.fingerprint,
            learned or {},
        )

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> DataFacts:
        """The facts that `to_json` wrote; other keys belong to the objective."""
        own = [f.name for f in dataclasses.fields(cls) if f.name != "learned"]
        known: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in found.items() if k in own
        }
        return cls(**known, learned={k: v for k, v in found.items() if k not in own})

    def to_json(self) -> dict[str, Any]:
        """The content of ``data.json`` of a run."""
        return {
            "name": self.name,
            "text": self.text,
            "kind": self.kind,
            "shape": list(self.shape),
            "n_train": self.n_train,
            "n_heldout": self.n_heldout,
            "label_names": list(self.label_names),
            "label_counts": list(self.label_counts),
            "n_vector": self.n_vector,
            "fingerprint": self.fingerprint,
            **self.learned,
        }


def n_vector_of(data: Data) -> int:
    """Numbers in the condition of an example; 0 without conditions."""
    return 0 if data.train_vector is None else data.train_vector.shape[1]
