"""Conditions of samples: requested, or drawn from the training rows that a run records."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import safetensors.torch
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from monge.data.base import Data
from monge.data.columns.schema import TableCodec
from monge.errors import UserError, nearest
from monge.system.files import write_atomic
from monge.tensors import stream

FILE = "conditions.safetensors"

KEPT = 10_000
"""Most training rows whose conditions a run records."""


@dataclass(frozen=True)
class Kept:
    """Conditions of training rows (M, K) in the columns' units, with the rows' labels (M,)."""

    condition: Float64[Tensor, "m k"]
    label: Int64[Tensor, "m"] | None

    def draw(self, label: Int64[Tensor, "n"] | None, n: int, seed: int) -> Int64[Tensor, "n"]:
        """Random row numbers for n samples; a row with the sample's label if there is one."""
        u = torch.rand(n, generator=stream(seed, "condition"), dtype=torch.float64)
        rows = (u * len(self.condition)).long()
        if label is None or self.label is None:
            return rows
        for k in label.unique().tolist():
            own, asked = (self.label == k).nonzero().flatten(), label == k
            if len(own):
                rows[asked] = own[(u[asked] * len(own)).long()]
        return rows


Source: TypeAlias = Callable[[], Kept]
"""Reads the conditions of training rows on demand."""


def source_of(data: Data) -> Source | None:
    """The conditions of training rows in memory; None for data without conditions."""
    vector, codec = data.train_vector, data.codec
    if vector is None or codec is None:
        return None
    return lambda: Kept(codec.condition_of(vector), data.train_label)


def keep(folder: Path, data: Data) -> None:
    """Write the conditions of up to `KEPT` training rows to a run folder."""
    if data.train_vector is None or data.codec is None:
        return
    order = torch.randperm(len(data.train_vector), generator=stream(0, "conditions"))[:KEPT]
    tensors = {"condition": data.codec.condition_of(data.train_vector[order])}
    if data.train_label is not None:
        tensors["label"] = data.train_label[order]
    write_atomic(folder / FILE, safetensors.torch.save(tensors))


def kept(folder: Path) -> Kept:
    """The conditions that `keep` wrote.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        tensors = safetensors.torch.load_file(folder / FILE)
        return Kept(tensors["condition"], tensors.get("label"))
    except (OSError, KeyError, safetensors.SafetensorError) as error:
        raise UserError(
            f"cannot read {folder / FILE} ({error}): give the condition, or run the run's "
            "`monge train` command again, which writes it anew"
        ) from None


def asked(condition: Any, codec: TableCodec, n: int) -> Float64[Tensor, "n k"]:
    """The condition of each of n samples, in the columns' units.

    Args:
        condition: "a=3.5,b=1", or a mapping from names to numbers, for all samples; or numbers
            (n, K) in the order of the table's condition columns.

    Raises:
        UserError: unknown or missing columns, or values that are not finite numbers.
    """
    names = [c.name for c in codec.conditions]
    if isinstance(condition, str):
        condition = _parsed(condition)
    if isinstance(condition, Mapping):
        for name in condition:
            if name not in names:
                raise UserError(f"no condition {name!r}: {nearest(str(name), names)}")
        if missing := [name for name in names if name not in condition]:
            raise UserError(f"the condition lacks {', '.join(map(repr, missing))}")
        condition = [[float(condition[name]) for name in names]] * n
    values = torch.as_tensor(condition, dtype=torch.float64)
    if values.shape != (n, len(names)):
        raise UserError(
            f"conditions of {n} samples should have shape {(n, len(names))}, not "
            f"{tuple(values.shape)}"
        )
    if not bool(values.isfinite().all()):
        raise UserError("conditions should be finite numbers")
    return values


def _parsed(text: str) -> dict[str, float]:
    """'a=3.5,"b,c"=1' -> {"a": 3.5, "b,c": 1.0}; quotes surround the whole part."""
    values = {}
    for part in next(csv.reader([text], skipinitialspace=True), []):
        name, equals, number = part.rpartition("=")
        try:
            values[name.strip()] = float(number) if equals else math.nan
        except ValueError:
            equals = ""
        if not equals:
            raise UserError(f"condition {part!r} should have the form column=number")
    return values
