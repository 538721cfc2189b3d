"""The sets of a comparison: what each text names, as examples of one kind, shape and scale.

A text is whatever `monge train` reads, all of whose examples are taken, or a run folder, which is
sampled; ``heldout:SOURCE`` and ``train:SOURCE`` take one side of the source's split, of a run its
data's. What a run was trained on is no fair measure of it, so where a run takes part only the
held-out examples of its own data are compared.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import torch
from torch import Tensor

from monge.comparison import common_columns
from monge.data import sources
from monge.data.arrays import in_memory
from monge.data.base import Data
from monge.data.reading import Reading
from monge.data.tables.compared_columns import as_columns, as_matrices
from monge.errors import UserError
from monge.runs.folder import CONFIG
from monge.runs.provenance import of_examples, of_run
from monge.runs.run import Run
from monge.system.progress import Say, counting

Side = Literal["all", "train", "heldout"]
SIDES: tuple[Side, Side] = ("train", "heldout")
REST = "rest of the reference"
MOST_BYTES = 2**29
"""Memory for the examples of one side of a source; more enter as a random part."""


@dataclass(frozen=True)
class Taken:
    """One set as it enters: examples, labels, and what they are.

    Attributes:
        x: images (N, C, H, W) in [-1, 1], or rows (N, D) in one scale for all sets.
        label: (N,) indices into `label_names`, -1 for none; or None.
        table: rows with their columns, before they became numbers; None for images.
        facts: for the card: source, what was taken, n, fingerprint, sampling.
        columns: a name for each number of a row.
        plain, names, codes: of a table the columns in their own units (N, columns), their names,
            and which hold codes of categories.
    """

    name: str
    x: Tensor
    label: Tensor | None
    label_names: tuple[str, ...]
    table: pa.Table | None
    facts: dict[str, Any]
    columns: tuple[str, ...] = ()
    plain: Tensor | None = None
    names: tuple[str, ...] = ()
    codes: tuple[bool, ...] = ()

    @property
    def kind(self) -> str:
        return "image" if self.table is None else "table"


def is_run(text: str) -> bool:
    """Whether a text names a run folder."""
    return (Path(text) / CONFIG).is_file()


def take_all(
    texts: Mapping[str, str], reading: Reading, n: int, seed: int, device: str, say: Say
) -> list[Taken]:
    """The sets that the texts name; a reference that brings its rest becomes two.

    Args:
        texts: of "A", of "B" and perhaps of "reference".
        reading: where it is silent, tables and images are read as a compared run was trained.
        n: samples to draw from a run.
        device: where runs are sampled.

    Raises:
        UserError: what cannot be read; sets of different kinds, shapes or columns.
    """
    split = {name: _side_of(text) for name, text in texts.items()}
    runs = {name: Run.load(text, device) for name, (_, text) in split.items() if is_run(text)}
    sampled = {k: run for k, run in runs.items() if k != "reference" and split[k][0] == "all"}
    asked, reading = reading, _completed(reading, list(sampled.values()))
    files = {k: text for k, (_, text) in split.items() if k not in sampled and k not in runs}
    codecs = {k: run.codec for k, run in sampled.items()}
    columns = {k: [c.name for c in codec.columns] for k, codec in codecs.items() if codec}
    own = common_columns.readings(files, columns, reading, asked)
    taken: list[Taken] = []
    for k, (name, (side, text)) in enumerate(split.items()):
        if name in sampled:
            # With a reference the same noise makes the difference of two runs sharper; without
            # one the two sets must be independent.
            ours = seed if "reference" in texts else seed + k
            taken.append(_sampled(name, sampled[name], n, ours, say))
            continue
        data = runs[name].data() if name in runs else sources.load(text, own[name], say)
        for line in data.summary:
            if line.startswith(("left out", "ignored")):  # the rest speaks of training
                say(f"{name}: {line}")
        of_runs = _trained_on(data, list(sampled.values()))
        if name == "reference":
            # The split is the source's own, or the one that keeps what no run has seen.
            if side == "all" and (data.own_split or of_runs or name in runs):
                side = "heldout"
            taken.append(_part(name, data, side, seed))
            if side == "heldout":
                taken.append(_part(REST, data, "train", seed))
            continue
        if side == "all" and of_runs:
            say(f"{name}: only its held-out examples are compared: the run was trained on it")
            side = "heldout"
        taken.append(_part(name, data, side, seed))
    return _labels_aligned(_scaled(taken, reading))


def _side_of(text: str) -> tuple[Side, str]:
    head, colon, rest = text.partition(":")
    for side in SIDES:
        if colon and head == side:
            return side, rest
    return "all", text


def _completed(reading: Reading, runs: Sequence[Run]) -> Reading:
    """What is not asked for is as the first run was trained: columns, labels, size of images."""
    if not runs:
        return reading
    spec, shape = runs[0].spec, runs[0].facts.shape
    changed = {
        f.name: getattr(spec, f.name)
        for f in dataclasses.fields(Reading)
        if getattr(reading, f.name) == f.default and f.name not in ("limit", "allow_bad")
    }
    if runs[0].facts.kind == "image" and reading.image_size is None and shape[1] == shape[2]:
        changed["image_size"] = shape[1]
    return replace(reading, **changed)


def _trained_on(data: Data, runs: Sequence[Run]) -> bool:
    """Whether one of the runs was trained on a part of the data."""
    return any(
        (data.text is not None and run.facts.text == data.text)
        or run.facts.fingerprint == data.fingerprint
        for run in runs
    )


def _sampled(name: str, run: Run, n: int, seed: int, say: Say) -> Taken:
    with counting(f"{name}: sampling", n, say) as advance:
        samples = run.sample(n, seed=seed, progress=advance)
    table = None if run.facts.kind == "image" else samples.table()
    if table is not None and run.label_names:
        label = None if run.codec is None else run.codec.label
        table = table.drop_columns("label" if label is None else label.name)
    facts = {
        "source": str(run.folder.absolute()),
        "taken": f"{n:,} samples of the run",
        "n": n,
        "fingerprint": of_examples(samples.x),
        "run": of_run(run),
        "sampling": samples.info,
    }
    return Taken(name, samples.x, samples.label, tuple(run.label_names), table, facts)


def _part(name: str, data: Data, side: Side, seed: int) -> Taken:
    """The examples of one side of a source, or of both."""
    xs, labels = [], []
    for s in SIDES if side == "all" else (side,):
        x, label = getattr(data, s), getattr(data, f"{s}_label")
        if data.kind == "image":
            x, label = in_memory(x, label, MOST_BYTES, seed, s)
        xs.append(x[:])
        labels.append(label)
    x = torch.cat(xs)
    known = {"train": len(data.train), "heldout": len(data.heldout)}
    total = sum(known.values()) if side == "all" else known[side]
    what = {"all": "examples", "heldout": "held-out examples", "train": "training examples"}
    facts = {
        "source": data.text,
        "taken": f"{'all' if len(x) == total else f'{len(x):,} of the'} {total:,} {what[side]}",
        "n": len(x),
        "fingerprint": data.fingerprint,
    }
    label = None if any(part is None for part in labels) else torch.cat(labels)
    table = _table(data, x, side) if data.kind == "table" else None
    return Taken(name, x, label, data.label_names, table, facts)


def _table(data: Data, x: Tensor, side: Side) -> pa.Table:
    """The rows of a side with their columns, without labels; x0, x1, ... where they lack names."""
    if data.table is None or data.rows is None:
        return pa.table({f"x{j}": column.numpy() for j, column in enumerate(x.unbind(1))})
    where = torch.cat(data.rows).sort().values
    wanted = torch.cat(data.rows) if side == "all" else data.rows[SIDES.index(side)]
    rows = data.table.take(pa.array(torch.searchsorted(where, wanted).numpy()))
    label = None if data.codec is None else data.codec.label
    return rows if label is None else rows.drop_columns(label.name)


def _scaled(taken: list[Taken], reading: Reading) -> list[Taken]:
    """All sets as numbers of one meaning; table columns in deviations of the last sets'."""
    shapes = {(t.kind, *t.x.shape[1:]) if t.kind == "image" else (t.kind,) for t in taken}
    if len(shapes) > 1:
        raise UserError(_mismatch(taken))
    if taken[0].kind == "image":
        return taken
    tables = [(t.name, t.table) for t in taken if t.table is not None]
    rows, titles = as_matrices(tables, reading)
    measured = torch.cat(rows if len(rows) == 2 else rows[2:])
    mean, deviation = measured.mean(0), measured.std(0)
    scale = torch.where(deviation > 0, deviation, 1.0)
    scaled = [(x - mean) / scale for x in rows]
    plain, names, codes = as_columns(tables, reading)
    told = {"columns": tuple(titles), "names": tuple(names), "codes": tuple(codes)}
    return [
        replace(t, x=x, plain=own, **told) for t, x, own in zip(taken, scaled, plain, strict=True)
    ]


def _mismatch(taken: list[Taken]) -> str:
    def described(t: Taken) -> str:
        if t.kind == "table":
            return f"{t.name} ({t.facts['source']}) is a table"
        c, h, w = t.x.shape[1:]
        colours = {1: "grey", 3: "RGB"}.get(c, f"{c}-channel")
        return f"{t.name} ({t.facts['source']}) holds {colours} images of {h} x {w}"

    told = "; ".join(dict.fromkeys(map(described, taken)))
    images = [t.x.shape[1:] for t in taken if t.kind == "image"]
    if len(images) < len(taken):
        return f"{told}: only sets of one kind can be compared"
    if len({shape[0] for shape in images}) > 1:
        return f"{told}: only images of the same channels can be compared; convert one of them"
    return (
        f"{told}: bring them to one size by --image-size (digits, runs and images of floats keep "
        "their own: give that)"
    )


def _labels_aligned(taken: list[Taken]) -> list[Taken]:
    """Labels by name: one index for one name in all sets; those of the last set first."""
    names = tuple(dict.fromkeys(name for t in reversed(taken) for name in t.label_names))
    index = {name: k for k, name in enumerate(names)}

    def renumbered(t: Taken) -> Taken:
        if t.label is None or not t.label_names:
            return replace(t, label=None)
        own = torch.tensor([*(index[name] for name in t.label_names), -1])  # -1 stays -1
        return replace(t, label=own[t.label], label_names=names)

    return list(map(renumbered, taken))
