"""Checks that data are those of a run's training: names, order, types and content.

A run records its data in ``data.json`` and ``table.json``. Data that are read again are compared
with these records, and other data are refused: columns or classes in another order would swap
their meanings, and other examples would be measured as if they had been learned.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import torch

from monge.data.base import Data
from monge.data.columns import schema
from monge.data.columns.schema import TableCodec
from monge.errors import UserError
from monge.runs import schemas
from monge.runs.layout import DATA
from monge.sampling.facts import DataFacts
from monge.system.files import read_json

MOST = 5
"""Most names that a message lists."""


def checked(data: Data, folder: Path, allowed: bool) -> Data:
    """The data checked against a run folder; a table is encoded by the run's codec.

    Args:
        data: as read now.
        allowed: whether other examples are accepted; columns, labels and shapes must still be
            the same.

    Raises:
        UserError: other data, with the differences; nothing was written.
    """
    if not os.path.exists(folder / "data.json"):  # `Path` raises where a name is too long
        return data
    then = _facts(folder)
    kept = _codec(folder)
    form = differences(data, then, kept)
    if not form and data.fingerprint == then.fingerprint:
        return data
    told = [*form, *_counts(data, then)]
    if form or not allowed:
        remedy = (
            "give the data as they were, or another folder with --out"
            if form
            else "give the data as they were, or another folder with --out; --changed-data goes on "
            "with the data as they are now, and the run records it"
        )
        raise UserError(
            f"the data have changed since {folder} was trained:\n"
            + "".join(f"  {line}\n" for line in told)
            + remedy
        )
    return data if kept is None else _encoded(data, kept)


def changes(folder: Path, facts: DataFacts) -> dict[str, tuple[Any, Any]]:
    """The change of the data for a run's journal: old and new fingerprint, if they differ."""
    if not os.path.exists(folder / "data.json"):  # `Path` raises where a name is too long
        return {}
    then = _facts(folder)
    if then.fingerprint == facts.fingerprint:
        return {}
    old = f"{then.fingerprint} ({then.n_train} + {then.n_heldout} examples)"
    return {"data": (old, f"{facts.fingerprint} ({facts.n_train} + {facts.n_heldout} examples)")}


def differences(data: Data, then: DataFacts, kept: TableCodec | None) -> list[str]:
    """The differences in form between the data and a run's: kind, columns, labels, shape."""
    if data.kind != then.kind:
        return [f"they were of kind {then.kind}, and are now of kind {data.kind}"]
    found = []
    if kept is not None and data.codec is not None:
        found += _columns_differ(kept, data.codec)
    if tuple(data.label_names) != tuple(then.label_names):
        found += _names_differ("classes", tuple(then.label_names), tuple(data.label_names))
    if data.shape != then.shape and not found:
        found.append(f"an example had shape {then.shape}, and has now {data.shape}")
    return found


def _counts(data: Data, then: DataFacts) -> list[str]:
    lines = []
    for what, before, now in (
        ("training", then.n_train, len(data.train)),
        ("held-out", then.n_heldout, len(data.heldout)),
    ):
        if before != now:
            lines.append(f"there were {before} {what} examples, and are now {now}")
    if data.fingerprint != then.fingerprint:
        lines.append(
            f"their content differs: fingerprint {then.fingerprint}, now {data.fingerprint}"
        )
    return lines


def _columns_differ(then: TableCodec, now: TableCodec) -> list[str]:
    names = tuple(c.name for c in then.columns), tuple(c.name for c in now.columns)
    if names[0] != names[1]:
        return _names_differ("columns", *names)
    found = []
    for old, new in zip(then.columns, now.columns, strict=True):
        types = then.schema.field(old.name).type, now.schema.field(new.name).type
        if old.role != new.role:
            found.append(f"column {old.name!r} was a {old.role}, and is now a {new.role}")
        elif old.gaps != new.gaps:
            had, has = ("some", "none") if old.gaps else ("no", "some")
            found.append(f"column {old.name!r} had {had} missing values, and has now {has}")
        elif types[0] != types[1]:
            found.append(f"column {old.name!r} had type {types[0]}, and has now {types[1]}")
        elif old.role in ("category", "label") and old.values != new.values:
            own = tuple(map(str, old.values)), tuple(map(str, new.values))
            found += _names_differ(f"values of column {old.name!r}", *own)
    return found


def _names_differ(what: str, then: tuple[str, ...], now: tuple[str, ...]) -> list[str]:
    gone = [repr(name) for name in then if name not in now]
    new = [repr(name) for name in now if name not in then]
    if not gone and not new:
        return [f"{what} stand in another order: {_listed(then)}, now {_listed(now)}"]
    lines = []
    if gone:
        lines.append(
            f"{what} that are gone: {', '.join(gone[:MOST])}{', ...' * (len(gone) > MOST)}"
        )
    if new:
        lines.append(f"{what} that are new: {', '.join(new[:MOST])}{', ...' * (len(new) > MOST)}")
    return lines


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(map(repr, names[:MOST])) + (", ..." if len(names) > MOST else "")


def _facts(folder: Path) -> DataFacts:
    return DataFacts.from_json(schemas.read(folder, DATA))


def _codec(folder: Path) -> TableCodec | None:
    path = folder / schema.FILE
    return TableCodec.from_json(read_json(path), str(path)) if path.exists() else None


def _encoded(data: Data, codec: TableCodec) -> Data:
    """The data with a table's rows encoded by the run's codec.

    Raises:
        UserError: values that the codec lacks.
    """
    if data.table is None or data.rows is None:
        return data
    made = codec.encode(data.table)
    source = torch.cat(data.rows).sort().values  # the table's row numbers in the source
    train, heldout = (torch.searchsorted(source, rows) for rows in data.rows)

    def pick(values: torch.Tensor | None, rows: torch.Tensor) -> torch.Tensor | None:
        return None if values is None else values[rows]

    return dataclasses.replace(
        data,
        train=made.x[train],
        heldout=made.x[heldout],
        train_label=pick(made.label, train),
        heldout_label=pick(made.label, heldout),
        train_vector=pick(made.vector, train),
        heldout_vector=pick(made.vector, heldout),
        codec=codec,
    )
