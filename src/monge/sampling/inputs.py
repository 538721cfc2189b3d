"""Reads the examples of a source in the shape of a generator's data and the source's order."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from monge.autoencoders.base import Rows
from monge.data import sources
from monge.data.arrays import Pixels
from monge.data.images import store
from monge.data.images.folder import holds_images, list_folder
from monge.data.images.raw import shown
from monge.data.tables.tables import FEWEST
from monge.errors import UserError
from monge.sampling.model import GenerativeModel
from monge.system.progress import Say
from monge.tensors import CHUNK


@dataclass(frozen=True)
class Inputs:
    """Examples in parts, with their positions in the source's order.

    Attributes:
        label, names, vector: of all examples, in the source's order.
        sources: the file name of each example, if they are files.
        rows: the numbers of the examples in the source, if some of its rows were left out.
    """

    name: str
    parts: Sequence[tuple[Rows, Tensor]]
    order: Tensor
    label: Tensor | None = None
    names: tuple[str, ...] = ()
    vector: Tensor | None = None
    sources: tuple[str, ...] | None = None
    rows: Tensor | None = None

    def __len__(self) -> int:
        return len(self.order)

    def chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(positions in the source's order, examples) of each chunk."""
        place = torch.empty_like(self.order)
        place[self.order] = torch.arange(len(self))
        start = 0
        for examples, rows in self.parts:
            for some in rows.split(CHUNK) if len(rows) else ():
                yield place[start : start + len(some)], examples[some]
                start += len(some)

    @classmethod
    def whole(cls, name: str, x: Rows, *known: Any) -> Inputs:
        """Inputs of examples in memory, in their order."""
        rows = torch.arange(len(x))
        return cls(name, [(x, rows)], rows, *known)


def read(
    generator: GenerativeModel, source: str | Path | Tensor, limit: int | None, say: Say
) -> Inputs:
    """All examples of a source, in the shape of the generator's data."""
    shape = tuple(generator.facts.shape)
    if isinstance(source, Tensor):
        found = Inputs.whole("tensor", source[:limit].float())
        return _checked(found, shape, "the examples")
    square = len(shape) == 3 and shape[1] == shape[2]
    side = shape[1] if square else generator.reading.image_size
    # More than the limit may be read: sources refuse fewer examples than training needs.
    most = None if limit is None else max(limit, FEWEST)
    reading = dataclasses.replace(generator.reading, image_size=side, limit=most)
    text, path = str(source), Path(source)
    image = generator.facts.kind == "image" and text not in sources.BUNDLED
    if image and path.is_dir() and holds_images(path, 1):
        sources.refuse_run(path)
        # Not by `sources.load`, which refuses fewer images than training needs.
        reading = dataclasses.replace(reading, limit=limit)
        listed = list_folder(path, reading)
        kept = store.prepare(listed, reading, say)
        label = torch.from_numpy(kept.labels) if len(kept.label_names) > 1 else None
        name = path.resolve().name
        files = tuple(shown(listed.paths[k]) for k in kept.rows.tolist())
        found = Inputs.whole(name, Pixels(kept.shards), label, kept.label_names, None, files)
        return _checked(found, shape, text)
    data = sources.load(text, reading, say)
    if data.kind != generator.facts.kind:
        kinds = {"image": "images", "table": "rows of a table"}
        raise UserError(
            f"this run takes {kinds[generator.facts.kind]}, and {text} holds {kinds[data.kind]}"
        )
    if generator.codec is not None:
        if data.table is None:
            raise UserError(f"{text} has no columns, which this run's table has")
        x, label, vector = generator.codec.encode(data.table.slice(0, limit))
        vector = None if vector is None else vector.float()
        names = tuple(generator.label_names)
        kept = None if data.rows is None else torch.cat(data.rows).sort().values[:limit]
        found = Inputs.whole(data.name, x, label, names, vector, kept)
        return _checked(found, shape, text)
    n, n_train = len(data.train) + len(data.heldout), len(data.train)
    order = torch.arange(n) if data.rows is None else torch.cat(data.rows).argsort()
    order = order[:limit]
    label = None
    if data.train_label is not None and data.heldout_label is not None:
        label = torch.cat([data.train_label, data.heldout_label])[order]
    rows = order.sort().values
    parts = [
        (cast("Rows", data.train), rows[rows < n_train]),
        (cast("Rows", data.heldout), rows[rows >= n_train] - n_train),
    ]
    order = torch.searchsorted(rows, order)
    found = Inputs(data.name, parts, order, label, data.label_names)
    return _checked(found, shape, text)


def _checked(found: Inputs, shape: tuple[int, ...], where: str) -> Inputs:
    for examples, _ in found.parts:
        has = tuple(examples[torch.zeros(0, dtype=torch.int64)].shape[1:])
        if has != shape:
            raise UserError(f"{where}: examples have shape {has}; this run takes {shape}")
    if not len(found):
        raise UserError(f"{where}: there are no examples")
    return found
