"""The page of a table for the samples of a run: its sets, its label, and its target."""

from __future__ import annotations

import torch
from torch import Tensor

from monge.data.base import Data
from monge.errors import UserError, nearest
from monge.metrics.columns import Columns
from monge.metrics.evaluate import TableOf
from monge.metrics.tabular_families import JudgedTable
from monge.metrics.tabular_rows import tabular_report

__all__ = ["judged", "tabular_report"]


def judged(
    data: Data,
    table: TableOf,
    labels: tuple[Tensor | None, Tensor | None, Tensor | None],
    target: str | None = None,
) -> JudgedTable:
    """The sets with their label as a last column, where all have one.

    Args:
        labels: of samples, training and held-out rows, -1 for none.
        target: name of the column to predict; None for the label, or the choice of the page.

    Raises:
        UserError: a target that is no column.
    """
    sets, columns = (table.samples, table.train, table.heldout), table.columns
    known = [k for k in labels if k is not None]
    if len(known) == len(sets) and data.label_names:
        own = None if data.codec is None else data.codec.label
        name = "label" if own is None else own.name
        columns = Columns((*columns.names, name), (*columns.categorical, True))
        made, train, held = (torch.cat([z, _codes(k)], 1) for z, k in zip(sets, known, strict=True))
        sets = made, train, held
        target = name if target is None else target
    if target is not None and target not in columns.names:
        raise UserError(f"--target: no column {target!r}: {nearest(target, columns.names)}")
    place = None if target is None else columns.names.index(target)
    return JudgedTable(*sets, columns, place)


def _codes(label: Tensor) -> Tensor:
    found = label.double()[:, None].cpu()
    return torch.where(found >= 0, found, torch.nan)
