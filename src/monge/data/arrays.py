"""Arrays in parts, in memory or mapped from files, for examples that need not fit in memory.

`Pixels` replaces a tensor of images: it has a length and a shape, and its rows are float32 tensors
in [-1, 1]. It stores uint8, and mapped parts stay on disk.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from monge.errors import UserError
from monge.tensors import stream

DTYPES = {"U8": np.uint8, "F32": np.float32, "I64": np.int64}
"""The types in monge's safetensors files, with numpy's types."""


class Shards:
    """Arrays (n_k, *shape) read as one array (sum n_k, *shape) without joining them in memory.

    Args:
        parts: at least one, of one shape and type.
    """

    def __init__(self, parts: Sequence[np.ndarray]) -> None:
        self.parts = list(parts)
        self.starts = np.cumsum([0, *(len(part) for part in self.parts)])
        self.shape = tuple(self.parts[0].shape[1:])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def take(self, rows: np.ndarray) -> np.ndarray:
        """The given rows, copied."""
        if len(self.parts) == 1:
            return np.asarray(self.parts[0][rows])
        taken = np.empty((len(rows), *self.shape), self.parts[0].dtype)
        part_of = np.searchsorted(self.starts, rows, side="right") - 1
        for k in np.unique(part_of):
            here = part_of == k
            taken[here] = self.parts[k][rows[here] - self.starts[k]]
        return taken


class Pixels:
    """Images (N, C, H, W): stored as uint8, read as float32 in [-1, 1].

    Args:
        shards: the uint8 images.
        rows: numbers of the selected images, in order; None for all.
        digests: a hash of each image of the shards; None to compute them from the pixels.
        mirrored: append a copy of every image with left and right exchanged.
    """

    dtype = torch.float32

    def __init__(
        self,
        shards: Shards,
        rows: np.ndarray | None = None,
        digests: np.ndarray | None = None,
        mirrored: bool = False,
    ) -> None:
        self.shards = shards
        self.rows = np.arange(len(shards)) if rows is None else np.asarray(rows, np.int64)
        self.digests = digests
        self.mirrored = mirrored

    def __len__(self) -> int:
        return len(self.rows) * (1 + self.mirrored)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""
        return (len(self), *self.shards.shape)

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        """The images of a slice or of row numbers, (B, C, H, W)."""
        if isinstance(rows, slice):
            wanted = np.arange(*rows.indices(len(self)))
        else:
            wanted = rows.cpu().numpy()
        n = len(self.rows)
        values = torch.from_numpy(self.shards.take(self.rows[wanted % n])).float()
        if self.mirrored and (flipped := torch.from_numpy(wanted >= n)).any():
            values[flipped] = values[flipped].flip(-1)
        return values.div_(127.5).sub_(1)

    def split(self, size: int, first: int = 0, stop: int | None = None) -> Iterator[Tensor]:
        """All images, or a range of them, `size` at a time."""
        stop = len(self) if stop is None else min(stop, len(self))
        for start in range(first, stop, size):
            yield self[start : min(start + size, stop)]

    @property
    def content(self) -> Iterator[np.ndarray]:
        """The arrays from which a hash of all images is computed."""
        if self.digests is not None:
            yield self.digests[self.rows]
            return
        for start in range(0, len(self.rows), 4096):
            yield self.shards.take(self.rows[start : start + 4096])


Examples: TypeAlias = Tensor | Pixels
"""A set of examples: a tensor (N, ...), or images on disk."""


def mirrored(x: Examples) -> Examples:
    """Images followed by their mirror images."""
    if isinstance(x, Pixels):
        return Pixels(x.shards, x.rows, x.digests, mirrored=True)
    return torch.cat([x, x.flip(-1)])


def map_file(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays of a safetensors file, mapped read-only, and the file's metadata.

    The mapping is shared and read-only, so its pages belong to the system's cache and not to the
    memory of this process (`safetensors.safe_open` maps privately, which counts as its memory).

    Raises:
        UserError: the file is missing, truncated, or was not written by monge.
    """
    try:
        with open(path, "rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if size > os.fstat(file.fileno()).st_size:
                raise ValueError("it is cut short")
            header = json.loads(file.read(size))
        metadata = dict(header.pop("__metadata__", {}))
        arrays = {}
        for name, entry in header.items():
            shape, offset = tuple(entry["shape"]), 8 + size + entry["data_offsets"][0]
            dtype = DTYPES[entry["dtype"]]
            size_in_file = entry["data_offsets"][1] - entry["data_offsets"][0]
            if min(shape, default=0) < 0 or math.prod(shape) * dtype().itemsize != size_in_file:
                raise ValueError(f"the sizes of {name} contradict each other")
            if math.prod(shape) == 0:
                arrays[name] = np.empty(shape, dtype)
            else:
                arrays[name] = np.memmap(path, dtype, "r", offset, shape)
    except Exception as error:  # a damaged header raises many kinds of errors
        raise damaged(path, str(error)) from None
    return arrays, metadata


def damaged(path: Path, reason: str) -> UserError:
    """The error for a damaged file of the cache."""
    return UserError(
        f"{path} is damaged ({reason}): remove the folder {path.parent} "
        f"(monge cache clear {path.parent.name}), and it is made anew"
    )


FEWEST_IN_MEMORY = 5000
"""Number of examples that `in_memory` loads whatever their size."""


def in_memory(
    x: Examples, label: Tensor | None, most_bytes: int, seed: int, what: str
) -> tuple[Tensor, Tensor | None]:
    """Examples loaded into memory; a random subset if all exceed the limit."""
    most = max(FEWEST_IN_MEMORY, most_bytes // (4 * math.prod(x.shape[1:])))
    if len(x) <= most:
        return x[:], label
    rows = torch.randperm(len(x), generator=stream(seed, what))[:most].sort().values
    return x[rows], None if label is None else label[rows]
