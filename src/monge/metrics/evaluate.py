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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from monge.errors import UserError
from monge.metrics.catalogue import LAWS, Comparison, comparisons
from monge.metrics.classifiers import Judges, image_shape
from monge.metrics.clock import Clock, Progress
from monge.metrics.column_rows import WORST, ColumnReport, column_report
from monge.metrics.columns import MOST_COLUMNS, Columns
from monge.metrics.copies import Searched, copies_row
from monge.metrics.draws import Draws, draw
from monge.metrics.duplicates import dependence, identities
from monge.metrics.findings import NOT_INDEPENDENT, findings
from monge.metrics.intervals import GROUPS
from monge.metrics.label_rows import LabelReport, label_rows
from monge.metrics.labels import Labelled, as_labels
from monge.metrics.memorisation import Neighbours, distance_rows, nearest_neighbours
from monge.metrics.mmd import median_distance
from monge.metrics.samples import Rows, Samples, as_matrix, random_rows, require_same_dimension
from monge.metrics.table import Row, Table
from monge.metrics.tabular_rows import TabularReport
from monge.system.shown import as_paragraphs, wrapped
from monge.tensors import stream

MAX_N = 2000
MEMORISATION = "memorisation"
TRAINING_SET = "training set"
"""The baseline of a generator that has memorised everything."""


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
        tabular: which columns of a table give the samples away; None for anything else.
    """

    table: Table
    neighbours: Rows
    samples_to_train: Neighbours
    heldout_to_train: Neighbours
    labels: LabelReport | None
    columns: ColumnReport | None = None
    timings: Mapping[str, float] = field(default_factory=dict, compare=False)
    advice: tuple[tuple[str, str], ...] = ()
    tabular: TabularReport | None = None

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
            "tabular": self.tabular and self.tabular.content(),
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
    given = Given(samples, train, heldout, baselines or {}, table)
    labels = GivenLabels(sample_labels, train_labels, heldout_labels, baseline_labels or {})
    sets = _sets(given, labels, seed, max_n)
    clock = Clock(sets.parts, progress)
    rows, columns = _against_heldout(sets, clock)
    near, far, copies = _near_training(sets, searched, clock)
    report, shown = _of_labels(sets, clock)
    clock.end()
    found = Table([*rows, *copies, *shown])
    return Evaluation(found, near.index, near, far, report, columns, clock.seconds)


@dataclass(frozen=True)
class Given:
    """What is evaluated, as `evaluate` was given it."""

    samples: Tensor
    train: Tensor
    heldout: Tensor
    baselines: Mapping[str, Tensor]
    table: TableOf | None


@dataclass(frozen=True)
class GivenLabels:
    """The labels of the three sets and of baselines, where they have some."""

    samples: Tensor | None
    train: Tensor | None
    heldout: Tensor | None
    baselines: Mapping[str, Tensor]


@dataclass(frozen=True)
class Sets:
    """The sets of an evaluation as matrices of one width, and what is measured between them.

    Args:
        samples, train, heldout: (n, d), examples as distances are taken between them.
        draws: the parts of them that are compared, with the columns of a table behind.
        listed: the comparisons.
        labels: the three sets with theirs; None where one has none, or there is one class.
        labelled: baselines with theirs.
        columns: of a table.
    """

    samples: Samples
    train: Samples
    heldout: Samples
    draws: Draws
    listed: tuple[Comparison, ...]
    labels: tuple[Labelled, Labelled, Labelled] | None
    labelled: Mapping[str, Labelled]
    columns: Columns | None
    seed: int

    @property
    def parts(self) -> list[str]:
        """The names of what is measured together, in order."""
        names = [", ".join(head.name for head in c.heads) for c in self.listed]
        columns = [WORST] if self.columns else []
        return [*names, *columns, MEMORISATION, *(["labels"] if self.labels else [])]


def _sets(given: Given, labels: GivenLabels, seed: int, max_n: int) -> Sets:
    """The sets, checked against each other, and what is measured between them."""
    beside, beside_labels = dict(given.baselines), dict(labels.baselines)
    if own := TRAINING_SET not in beside:
        beside[TRAINING_SET] = given.train
        if labels.train is not None:
            beside_labels[TRAINING_SET] = labels.train
    x = as_matrix(given.samples, "samples", minimum=2 * GROUPS)
    known = as_matrix(given.train, "training set", minimum=2 * GROUPS)
    real = as_matrix(given.heldout, "held-out set", minimum=2 * GROUPS)
    real_label = labels.heldout
    if real_label is not None:
        real_label = as_labels(real_label, "labels of the held-out set", len(real))
    shown = random_rows(len(real), max_n, stream(seed, "rows", "heldout"))
    real, real_label = real[shown], None if real_label is None else real_label[shown]
    n = min(len(x), len(known), len(real), max_n)
    others = {name: _baseline(data, name, n) for name, data in beside.items()}
    for name, data in {"samples": x, "training set": known, **others}.items():
        require_same_dimension(data, name, real, "held-out set")
    three = _labelled((x, labels.samples), (known, labels.train), (real, real_label))
    table = given.table or _own_table(given.samples, given.train, given.heldout, beside)
    if table is not None:
        x, known, real = x.double(), known.double(), real.double()
        others = {name: z.double() for name, z in others.items()}
    if own:
        others[TRAINING_SET] = known
    draws = _drawn((x, known, real), others, table, shown, (n, max_n), seed)
    columns = table and table.columns
    judges = Judges(image_shape(given.samples), columns and columns.categorical)
    scale = median_distance(draws.seen("numbers").floors[0][0])
    listed = comparisons(x.shape[1], seed, scale, judges)
    labelled = _with_labels(others, beside_labels, len(x), seed) if three else {}
    return Sets(x, known, real, draws, listed, three, labelled, columns, seed)


def _drawn(
    sets: tuple[Samples, Samples, Samples],
    others: Mapping[str, Samples],
    table: TableOf | None,
    shown: Rows,
    sizes: tuple[int, int],
    seed: int,
) -> Draws:
    """What is compared of samples, training and held-out set, a table's columns behind."""
    n, most = sizes
    if table is None:
        return draw(*sets, others, n, seed, most=most)
    columns = table.samples, table.train, table.heldout[shown]
    x, known, real = (torch.cat([z, c.double()], 1) for z, c in zip(sets, columns, strict=True))
    beside = {
        name: known if z is sets[1] else torch.cat([z, table.baselines[name]], 1)
        for name, z in others.items()
    }
    return draw(x, known, real, beside, n, seed, most=most, numbers=sets[0].shape[1])


def _with_labels(
    others: Mapping[str, Samples], labels: Mapping[str, Tensor], most: int, seed: int
) -> dict[str, Labelled]:
    """The baselines that have labels, at most so many examples of each."""
    found = {}
    for name in others.keys() & labels.keys():
        label = as_labels(labels[name], f"labels of {name!r}", len(others[name]))
        found[name] = Labelled(others[name], label).cut(most, stream(seed, "labelled", name))
    return found


def _against_heldout(sets: Sets, clock: Clock) -> tuple[list[Row], ColumnReport | None]:
    """The rows of comparisons with held-out data; of a table the worst column after the laws."""
    rows: list[Row] = []
    for comparison in sets.listed:
        clock.begin()
        rows += comparison.rows(sets.draws, sets.seed)
    pair, names = (sets.samples, sets.heldout), ("the samples", "the held-out data")
    entire = sets.draws.seen("numbers", any_size=True)
    drawn, real = identities(*pair)
    told = dependence(names, (drawn, real), (entire.samples, entire.real))
    if told is not None:
        rows[0] = replace(rows[0], protocol={**rows[0].protocol, NOT_INDEPENDENT: told})
    if sets.columns is None:
        return rows, None
    clock.begin()
    seen = sets.draws.seen("columns", any_size=True)
    report = column_report(seen, sets.columns, LAWS, sets.seed)
    after = [row.name for row in rows].index("C2ST accuracy") + 1
    rows[after:after] = [] if report is None else [report.row]
    return rows, report


def _near_training(
    sets: Sets, searched: Searched | None, clock: Clock
) -> tuple[Neighbours, Neighbours, list[Row]]:
    """The training examples nearest to samples and to held-out examples, and the rows on them."""
    clock.begin()
    known = sets.train
    near, far = nearest_neighbours(sets.samples, known), nearest_neighbours(sets.heldout, known)
    baselines = dict(sets.draws.seen("numbers").baselines)
    beside = {name: nearest_neighbours(data, known) for name, data in baselines.items()}
    if searched is None:
        searched = Searched.directly(sets.samples, sets.heldout, known, sets.seed)
    else:  # training examples as they are do not stand among reconstructions
        del baselines[TRAINING_SET]
    copies = copies_row(searched, baselines)
    return near, far, [copies, *distance_rows(near, far, beside, len(known))]


def _of_labels(sets: Sets, clock: Clock) -> tuple[LabelReport | None, list[Row]]:
    """Whether the requested labels are shown; nothing where there are none."""
    if sets.labels is None:
        return None, []
    clock.begin()
    return label_rows(*sets.labels, sets.labelled, sets.seed)


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
