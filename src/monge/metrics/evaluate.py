"""Samples against held-out data: every metric of the first set, in one table.

Protocol. All comparisons of two sets use one size, n = the smallest of samples, held-out and
training set (and `max_n`), drawn at random without replacement: their bias depends on n, so a
value, its floor and its baselines are comparable only at equal n. The *floor* puts real examples
in the samples' place: the training set, which is real, and independent of the held-out set; its
mean over up to three disjoint draws of n. (Half of the held-out set against the other half would
be a floor at n/2, too high for each plug-in distance.) Baselines meet the same held-out draw, so
they must be independent of it: reconstructions of *training* examples, for instance, since those
of the held-out set itself would lie nearer to it than real data do. Memorisation and labels use
all samples, and all held-out examples up to `max_n`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from monge.errors import UserError
from monge.metrics.comparisons import comparisons, draw
from monge.metrics.copies import Searched, copies_in_words, copies_row
from monge.metrics.intervals import GROUPS
from monge.metrics.label_rows import LabelReport, label_rows
from monge.metrics.labels import Labelled, as_labels
from monge.metrics.memorisation import Neighbours, distance_rows, nearest_neighbours
from monge.metrics.mmd import median_distance
from monge.metrics.samples import Rows, Samples, as_matrix, random_rows, require_same_dimension
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
    """

    table: Table
    neighbours: Rows
    samples_to_train: Neighbours
    heldout_to_train: Neighbours
    labels: LabelReport | None

    @property
    def verdicts(self) -> tuple[str, ...]:
        """The main findings as sentences."""
        return _verdicts(self.table)

    def text(self) -> str:
        """The table and the verdicts, for the terminal."""
        return "\n".join([self.table.text(), *self.verdicts])

    def to_json(self, label_names: Sequence[str] | None = None) -> dict[str, Any]:
        """Values for JSON: ``table``, ``verdicts``, and ``labels`` as [value, low, high]."""
        return {
            "table": self.table.content(),
            "verdicts": list(self.verdicts),
            "labels": self.labels and self.labels.content(label_names),
        }


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

    draws = draw(x, known, real, others, n, seed)
    listed = comparisons(x.shape[1], seed, median_distance(draws.floors[0][0]))
    parts = [c.heads[0].name for c in listed] + ["memorisation"] + ["labels"] * bool(labels)

    def tell(part: int) -> None:
        if progress:
            progress(parts[part] if part < len(parts) else "done", part / len(parts))

    rows: list[Row] = []
    for part, comparison in enumerate(listed):
        tell(part)
        rows += comparison.rows(draws, seed)

    tell(len(listed))
    near, far = nearest_neighbours(x, known), nearest_neighbours(real, known)
    beside = {name: nearest_neighbours(data, known) for name, data in draws.baselines.items()}
    apart = dict(draws.baselines)
    if searched is None:
        searched = Searched.directly(x, real, known, seed)
    else:  # training examples as they are do not stand among reconstructions
        del apart[TRAINING_SET]
    rows.append(copies_row(searched, apart))
    rows += distance_rows(near, far, beside, len(known))

    report = None
    if labels:
        tell(len(listed) + 1)
        labelled: dict[str, Labelled] = {}
        for name in others.keys() & given_labels.keys():
            label = as_labels(given_labels[name], f"labels of {name!r}", len(others[name]))
            rng = stream(seed, "labelled", name)
            labelled[name] = Labelled(others[name], label).cut(len(x), rng)
        report, found = label_rows(*labels, labelled, seed)
        rows += found
    tell(len(parts))
    return Evaluation(Table(rows), near.index, near, far, report)


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


def _verdicts(table: Table) -> tuple[str, ...]:
    energy, coverage = table["energy distance"], table["coverage"]
    told = energy.p_value is not None and energy.p_value < 0.05
    apart = "differ from" if told else "cannot be told from"
    lines = [
        f"Samples {apart} held-out data by energy distance at n = {energy.n} "
        f"(p = {energy.p_value:.2g}).",
        f"Coverage is {coverage.value / coverage.floor:.2f} of the real-against-real value.",
        copies_in_words(table),
    ]
    if "label agreement" in {row.name for row in table}:
        agreed, worst = table["label agreement"], table["label agreement, worst class"]
        lines.append(
            f"{100 * agreed.value:.1f} % of samples show the requested label (worst class "
            f"{100 * worst.value:.1f} %); the classifier is right on {100 * agreed.floor:.1f} % of "
            "held-out examples."
        )
    return tuple(lines)
