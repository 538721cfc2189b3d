"""Samples against held-out data: every metric of the first set, in one table.

Protocol. The tests of one law (energy distance, MMD, classifiers, columns) have no bias that
depends on sizes: they take all samples against all held-out examples, at most `max_n` of each. All
other comparisons of two sets use one size, n = the smallest of samples, held-out and training set
(and `max_n`), drawn at random without replacement: their bias depends on n, so a value, its floor
and its baselines are comparable only at equal n. The *floor* puts real examples
in the samples' place: the training set, which is real, and independent of the held-out set; its
mean over up to three disjoint draws of n. (Half of the held-out set against the other half would
be a floor at n/2, too high for each plug-in distance.) Baselines meet the same held-out draw, so
they must be independent of it: reconstructions of *training* examples, for instance, since those
of the held-out set itself would lie nearer to it than real data do. Memorisation and labels use
all samples, and all held-out examples up to `max_n`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from monge.errors import UserError
from monge.metrics.catalogue import LAWS, comparisons
from monge.metrics.classifiers import Judges, image_shape
from monge.metrics.column_rows import WORST, ColumnReport, column_report
from monge.metrics.columns import MOST_COLUMNS, Columns
from monge.metrics.copies import Searched, copies_row
from monge.metrics.draws import draw
from monge.metrics.findings import findings
from monge.metrics.intervals import GROUPS
from monge.metrics.label_rows import LabelReport, label_rows
from monge.metrics.labels import Labelled, as_labels
from monge.metrics.memorisation import Neighbours, distance_rows, nearest_neighbours
from monge.metrics.mmd import median_distance
from monge.metrics.samples import Rows, Samples, as_matrix, random_rows, require_same_dimension
from monge.metrics.shown import as_paragraphs, wrapped
from monge.metrics.table import Row, Table
from monge.tensors import stream

MAX_N = 2000
TRAINING_SET = "training set"
"""The baseline of a generator that has memorised everything."""

Progress = Callable[[str, float], None]
"""Told what begins and the fraction done, in [0, 1]."""


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    Args:
        table: the metrics.
        neighbours: row of the training set nearest to each sample, for pictures.
        samples_to_train, heldout_to_train: the searches behind the memorisation rows.
        labels: None where samples or data have no labels.
        columns: None where examples are no rows of a table.
        timings: seconds for each group of rows that are measured together.
        advice: what to try next: why, and the command.
    """

    table: Table
    neighbours: Rows
    samples_to_train: Neighbours
    heldout_to_train: Neighbours
    labels: LabelReport | None
    columns: ColumnReport | None = None
    timings: Mapping[str, float] = field(default_factory=dict, compare=False)
    advice: tuple[tuple[str, str], ...] = ()

    @property
    def verdicts(self) -> tuple[str, ...]:
        """The main findings as sentences."""
        return findings(self.table).lines

    def __repr__(self) -> str:
        first = next(iter(self.verdicts), "")
        return f"Evaluation({len(self.table)} rows: {first})"

    def text(self, width: int | None = None) -> str:
        """The verdicts and the table, for the terminal, in lines of so many characters at most."""
        said = [wrapped(line, width) for line in self.verdicts]
        tried = [f"Next: {why}: {command}" for why, command in self.advice]
        return "\n".join([*said, *tried, "", self.table.text(width)])

    def _repr_html_(self) -> str:
        tried = [f"Next: {why}: {command}" for why, command in self.advice]
        return as_paragraphs([*self.verdicts, *tried]) + self.table._repr_html_()

    def to_json(self, label_names: Sequence[str] | None = None) -> dict[str, Any]:
        """Values for JSON: ``table``, ``verdicts``, and ``labels`` as [value, low, high]."""
        return {
            "table": self.table.content(),
            "verdicts": list(self.verdicts),
            "labels": self.labels and self.labels.content(label_names),
            "columns": self.columns and self.columns.content(),
            "next": [{"why": why, "command": command} for why, command in self.advice],
        }


@dataclass(frozen=True)
class TableOf:
    """The sets of an evaluation as columns in their own units (n, columns).

    Args:
        columns: their names, and which hold codes of categories.
        baselines: by the names of the baselines, the training set's included.
    """

    columns: Columns
    samples: Tensor
    train: Tensor
    heldout: Tensor
    baselines: Mapping[str, Tensor]


def _own_table(
    samples: Tensor, train: Tensor, heldout: Tensor, given: Mapping[str, Tensor]
) -> TableOf | None:
    """Rows (n, d) as their own columns; None for anything else."""
    if samples.ndim != 2 or samples.shape[1] > MOST_COLUMNS:
        return None
    columns = Columns.plain(samples.shape[1])
    return TableOf(columns, samples, train, heldout, {k: z.double() for k, z in given.items()})


def evaluate(
    samples: Tensor,
    train: Tensor,
    heldout: Tensor,
    *,
    sample_labels: Tensor | None = None,
    train_labels: Tensor | None = None,
    heldout_labels: Tensor | None = None,
    baselines: Mapping[str, Tensor] | None = None,
    baseline_labels: Mapping[str, Tensor] | None = None,
    table: TableOf | None = None,
    searched: Searched | None = None,
    seed: int = 0,
    max_n: int = MAX_N,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure how far samples are from held-out data, by every metric of the first set.

    Deterministic for a seed. Examples are flattened and compared as they are: scaling a table's
    columns is the caller's. Memory beyond the data is a few times 32 max_n^2 bytes.

    Args:
        samples: (n, ...) images, rows or latents, of one shape with all the rest.
        train, heldout: real examples of one law, at least 20 each.
        sample_labels: the label requested of each sample, -1 for none. Label rows need the
            labels of all three sets.
        baselines: other sets in the samples' place, by name, independent of `heldout` and at
            least n. The training set itself is always among them.
        baseline_labels: labels of those baselines that have them.
        table: the same sets with their columns in their own units, where examples are the rows of
            a table; two-dimensional `samples` are their own table if None.
        searched: where copies of training examples are looked for, if not among the examples
            themselves: reconstructions, where samples come from an autoencoder.
        max_n: the most held-out examples that enter, and so the largest n of a comparison.
        progress: told before each part.

    Raises:
        UserError: too few examples, shapes that differ, NaN or infinite entries, or bad labels;
            the message names the set.
    """
    given, given_labels = dict(baselines or {}), dict(baseline_labels or {})
    if TRAINING_SET not in given:
        given[TRAINING_SET] = train
        if train_labels is not None:
            given_labels[TRAINING_SET] = train_labels
    x = as_matrix(samples, "samples", minimum=2 * GROUPS)
    known = as_matrix(train, "training set", minimum=2 * GROUPS)
    real = as_matrix(heldout, "held-out set", minimum=2 * GROUPS)
    if heldout_labels is not None:
        heldout_labels = as_labels(heldout_labels, "labels of the held-out set", len(real))
    shown = random_rows(len(real), max_n, stream(seed, "rows", "heldout"))
    real = real[shown]
    n = min(len(x), len(known), len(real), max_n)
    others = {name: _baseline(data, name, n) for name, data in given.items()}
    for name, data in {"samples": x, "training set": known, **others}.items():
        require_same_dimension(data, name, real, "held-out set")
    real_labels = None if heldout_labels is None else heldout_labels[shown]
    labels = _labelled((x, sample_labels), (known, train_labels), (real, real_labels))

    rows_of = table or _own_table(samples, train, heldout, given)
    d = x.shape[1]
    if rows_of is not None:
        x, known, real = (
            torch.cat([z.double(), c.double()], 1)
            for z, c in (
                (x, rows_of.samples),
                (known, rows_of.train),
                (real, rows_of.heldout[shown]),
            )
        )
        others = {k: torch.cat([z, rows_of.baselines[k]], 1) for k, z in others.items()}
    numbers = None if rows_of is None else d
    draws = draw(x, known, real, others, n, seed, most=max_n, numbers=numbers)
    x, known, real = x[:, :d], known[:, :d], real[:, :d]
    others = {name: z[:, :d] for name, z in others.items()}
    plain = draws.seen("numbers")
    judges = Judges(image_shape(samples), rows_of and rows_of.columns.categorical)
    listed = comparisons(d, seed, median_distance(plain.floors[0][0]), judges)
    parts = [", ".join(h.name for h in c.heads) for c in listed]
    parts += [WORST] * bool(rows_of) + ["memorisation"] + ["labels"] * bool(labels)
    started, timings = [time.monotonic()], {}

    def tell(part: int) -> None:
        now = time.monotonic()
        if part:
            timings[parts[part - 1]] = now - started[0]
        started[0] = now
        if progress:
            progress(parts[part] if part < len(parts) else "done", part / len(parts))

    rows: list[Row] = []
    for part, comparison in enumerate(listed):
        tell(part)
        rows += comparison.rows(draws, seed)
    part = len(listed)
    by_column = None
    if rows_of is not None:
        tell(part)
        seen = draws.seen("columns", any_size=True)
        by_column = column_report(seen, rows_of.columns, LAWS, seed)
        after = [row.name for row in rows].index("C2ST accuracy") + 1
        rows[after:after] = [] if by_column is None else [by_column.row]
        part += 1

    tell(part)
    near, far = nearest_neighbours(x, known), nearest_neighbours(real, known)
    beside = {name: nearest_neighbours(data, known) for name, data in plain.baselines.items()}
    apart = dict(plain.baselines)
    if searched is None:
        searched = Searched.directly(x, real, known, seed)
    else:  # training examples as they are do not stand among reconstructions
        del apart[TRAINING_SET]
    rows.append(copies_row(searched, apart))
    rows += distance_rows(near, far, beside, len(known))

    report = None
    if labels:
        tell(part + 1)
        labelled: dict[str, Labelled] = {}
        for name in others.keys() & given_labels.keys():
            label = as_labels(given_labels[name], f"labels of {name!r}", len(others[name]))
            rng = stream(seed, "labelled", name)
            labelled[name] = Labelled(others[name], label).cut(len(x), rng)
        report, found = label_rows(*labels, labelled, seed)
        rows += found
    tell(len(parts))
    return Evaluation(Table(rows), near.index, near, far, report, by_column, timings)


def _baseline(data: Tensor, name: str, n: int) -> Samples:
    matrix = as_matrix(data, f"baseline {name!r}")
    if len(matrix) < n:
        raise UserError(
            f"baseline {name!r}: {len(matrix)} examples are too few, {n} are needed to compare it "
            "with the held-out set at the samples' size"
        )
    return matrix


def _labelled(
    samples: tuple[Samples, Tensor | None],
    train: tuple[Samples, Tensor | None],
    heldout: tuple[Samples, Tensor | None],
) -> tuple[Labelled, Labelled, Labelled] | None:
    """The three sets with their labels; None where a set has none, or there is one class."""

    def checked(data: tuple[Samples, Tensor | None], name: str) -> Labelled | None:
        x, label = data
        if label is None:
            return None
        label = as_labels(label, f"labels of the {name}", len(x))
        return Labelled(x, label) if (label >= 0).any() else None

    asked = checked(samples, "samples")
    known = checked(train, "training set")
    real = checked(heldout, "held-out set")
    if asked is None or known is None or real is None:
        return None
    classes = set(known.label.tolist()) - {-1}
    unknown = set(asked.label.tolist()) - classes - {-1}
    if unknown:
        raise UserError(
            f"labels of the samples: class {min(unknown)} has no training example, so no "
            "classifier can judge it"
        )
    return (asked, known, real) if len(classes) > 1 else None
