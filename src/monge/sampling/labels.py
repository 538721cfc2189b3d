"""The labels of samples: requested by name or index, or drawn by their frequency in the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Int64
from torch import Tensor

from monge.errors import UserError, nearest
from monge.tensors import stream


@runtime_checkable
class Labels(Protocol):
    """Names of the labels, and their counts in the training data."""

    @property
    def label_names(self) -> Sequence[str]: ...
    @property
    def label_counts(self) -> Sequence[int]: ...


def asked_labels(label: Any, facts: Labels, n: int, seed: int) -> Int64[Tensor, "n"] | None:
    """The label of each of n samples; None for a run without labels.

    Args:
        label: a name or an index, several of them (in equal parts, in their order), "all", or an
            index per sample (n,); None draws labels by their frequency in the training data.
        facts: of the run's data: `label_names` and `label_counts`.

    Raises:
        UserError: an unknown label, or a label for a run without labels.
    """
    names = facts.label_names
    if not names:
        if label is not None:
            raise UserError("this run has no labels: leave out --label")
        return None
    if isinstance(label, Tensor) or hasattr(label, "__array__"):
        return _one_each(torch.as_tensor(label), len(names), n)
    if label is None:
        weights = torch.tensor(facts.label_counts, dtype=torch.float64)
        u = torch.rand(n, generator=stream(seed, "label"), dtype=torch.float64)
        edges = weights.cumsum(0) / weights.sum()
        return torch.bucketize(u, edges).clamp_max(len(names) - 1)
    wanted = [label] if isinstance(label, (str, int)) else list(label)
    if not wanted:
        raise UserError(f"no label given: known: {', '.join(names)}")
    if wanted == ["all"]:
        wanted = list(range(len(names)))
    index = torch.tensor([_index(k, names) for k in wanted])
    return index[(torch.arange(n) * len(index)) // n]


def _one_each(label: Tensor, n_labels: int, n: int) -> Tensor:
    """Label indices (n,), from one index for all samples or one for each."""
    if label.is_floating_point() or label.numel() not in (1, n) or label.ndim > 1:
        raise UserError(
            f"labels should be one index or {n} of them, whole numbers, not "
            f"{label.dtype} of shape {tuple(label.shape)}"
        )
    if label.min() < 0 or label.max() >= n_labels:
        raise UserError(f"label indices should lie in 0..{n_labels - 1}")
    return label.long().expand(n).contiguous()


def _index(label: str | int, names: Sequence[str]) -> int:
    if isinstance(label, int) and 0 <= label < len(names):
        return label
    if str(label) in names:
        return list(names).index(str(label))
    alike = [i for i, name in enumerate(names) if _same(str(label), name)]
    if len(alike) == 1:
        return alike[0]
    raise UserError(f"unknown label {label!r}: {nearest(str(label), names)}")


def _same(asked: str, name: str) -> bool:
    """Whether two spellings are the same label: TRUE and true, 1.0 and 1."""
    if asked.strip().casefold() == name.strip().casefold():
        return True
    try:
        return float(asked) == float(name) and not name.startswith("0")
    except ValueError:
        return False
