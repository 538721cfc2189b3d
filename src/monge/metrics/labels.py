"""Do samples show what was asked for, in as many ways as the data do?

A second classifier, trained on real examples alone, says which class a sample shows. How often it
is right on held-out real examples is the floor of its agreement with the requested label.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, nan
from typing import Any, NamedTuple, TypeAlias

import torch
from jaxtyping import Int
from torch import Tensor

from monge.errors import UserError
from monge.metrics.intervals import LEVEL, Interval, normal, wilson
from monge.metrics.samples import Samples, as_matrix, own_distances, random_rows
from monge.metrics.table import Row
from monge.metrics.two_sample import mean_of_pairs, pairs_variance
from monge.tensors import stream

Labels: TypeAlias = Int[Tensor, "_n"]
MAX_TRAIN = 10_000
MIN_CLASS = 4
"""Examples of a class below which its diversity is not measured."""
SHUFFLED = "shuffled labels"
"""The baseline of a generator that ignores what is asked for."""


class Labelled(NamedTuple):
    """Examples (n, d) and their labels (n,)."""

    x: Samples
    label: Labels

    def cut(self, size: int, rng: torch.Generator) -> Labelled:
        """At most `size` of them, drawn at random."""
        rows = random_rows(len(self.x), size, rng)
        return Labelled(self.x[rows], self.label[rows])


def as_labels(labels: Tensor, name: str, n: int) -> Labels:
    """Class labels (n,) as int64 on the CPU; -1 means none.

    Raises:
        UserError: not whole numbers from -1 upwards, one for each example.
    """
    whole = isinstance(labels, Tensor) and not (labels.is_floating_point() or labels.is_complex())
    if not whole or tuple(labels.shape) != (n,):
        kind = type(labels).__name__
        found = f"{labels.dtype} {tuple(labels.shape)}" if isinstance(labels, Tensor) else kind
        raise UserError(f"{name}: expected {n} whole numbers, one each example, not {found}")
    if n and labels.min() < -1:
        raise UserError(f"{name}: {int(labels.min())} is no label (-1 means none)")
    return labels.detach().cpu().long()


def fit_classifier(
    train: Tensor, labels: Tensor, seed: int = 0, max_train: int = MAX_TRAIN
) -> Callable[[Tensor], Labels]:
    """An RBF-kernel SVM (C = 10) fitted to real labelled examples, as a function to labels.

    Trained on at most `max_train` examples, drawn at random.

    Raises:
        UserError: fewer than two classes, or bad input.
    """
    from sklearn.svm import SVC

    x = as_matrix(train, "training set")
    y = as_labels(labels, "training labels", len(x))
    known = (y >= 0).nonzero()[:, 0]
    rows = known[random_rows(len(known), max_train, stream(seed, "classifier"))]
    if len(y[rows].unique()) < 2:
        raise UserError("training labels: a classifier needs examples of at least two classes")
    machine = SVC(C=10.0).fit(x[rows].double().numpy(), y[rows].numpy())

    def predict(examples: Tensor) -> Labels:
        matrix = as_matrix(examples, "examples", minimum=1).double()
        return torch.from_numpy(machine.predict(matrix.numpy()))

    return predict


@dataclass(frozen=True)
class Agreement:
    """How often predicted and requested labels agree, and for each class (hits, asked)."""

    per_class: Mapping[int, tuple[int, int]]

    @property
    def n(self) -> int:
        return sum(asked for _, asked in self.per_class.values())

    @property
    def overall(self) -> float:
        return sum(hits for hits, _ in self.per_class.values()) / self.n

    @property
    def worst(self) -> float:
        """The smallest agreement of any class."""
        return min(hits / asked for hits, asked in self.per_class.values())

    def overall_interval(self) -> Interval:
        return wilson(self.overall, self.n)

    def worst_interval(self) -> Interval:
        """For the smallest agreement: all classes' intervals hold at once (Bonferroni)."""
        level = 1 - (1 - LEVEL) / len(self.per_class)
        each = [wilson(hits / asked, asked, level) for hits, asked in self.per_class.values()]
        low, high = min(i.low for i in each), min(i.high for i in each)
        return Interval(low, high, "Wilson, Bonferroni over classes")


def agreement(predicted: Tensor, requested: Tensor) -> Agreement:
    """Agreement of predicted with requested labels (n,); requests of -1 are left out.

    Raises:
        UserError: labels that are not whole numbers, of different lengths, or none requested.
    """
    requested = as_labels(requested, "requested labels", len(requested))
    predicted = as_labels(predicted, "predicted labels", len(requested))
    classes = [int(c) for c in requested.unique() if c >= 0]
    if not classes:
        raise UserError("requested labels: no example has one")
    counts = {}
    for c in classes:
        mine = requested == c
        counts[c] = (int((predicted[mine] == c).sum()), int(mine.sum()))
    return Agreement(counts)


def agreement_if_shuffled(predicted: Labels, requested: Labels) -> tuple[float, float]:
    """Expected agreement if requests were dealt out at random: overall, and of the worst class."""
    asked = requested[requested >= 0]
    predicted = predicted[requested >= 0]
    classes, counts = asked.unique(return_counts=True)
    share = torch.stack([(predicted == c).double().mean() for c in classes])
    return float((share * counts).sum() / len(asked)), float(share.min())


class TooFewPerClass(UserError):
    """No class has enough examples to measure its diversity."""


@dataclass(frozen=True)
class Diversity:
    """Mean distance between two samples of one class, over that of real examples.

    `ratio` is the quotient of the two means over classes; below 1 the samples are too alike.
    `per_class` holds each class's own ratio; `skipped` classes had fewer than `MIN_CLASS`.
    """

    ratio: float
    stderr_log: float
    per_class: Mapping[int, float]
    skipped: tuple[int, ...]

    def interval(self) -> Interval:
        """Normal for the logarithm of the ratio."""
        log = normal(0.0, self.stderr_log, "U-statistic variance, normal for the log ratio")
        return Interval(self.ratio * exp(log.low), self.ratio * exp(log.high), log.method)


def within_class_diversity(
    samples: Tensor, sample_labels: Tensor, real: Tensor, real_labels: Tensor
) -> Diversity:
    """Within-class diversity of samples relative to real examples, classes weighted equally.

    Raises:
        TooFewPerClass: no class with `MIN_CLASS` examples in both sets.
        UserError: bad input.
    """
    x, y = as_matrix(samples, "samples").double(), as_matrix(real, "real examples").double()
    x_label = as_labels(sample_labels, "sample labels", len(x))
    y_label = as_labels(real_labels, "real labels", len(y))
    ratios: dict[int, float] = {}
    skipped: list[int] = []
    totals = torch.zeros(2, 2, dtype=torch.float64)  # (samples, real) x (mean, variance)
    for c in (int(c) for c in x_label.unique() if c >= 0):
        mine, theirs = x[x_label == c], y[y_label == c]
        if min(len(mine), len(theirs)) < MIN_CLASS:
            skipped.append(c)
            continue
        moments = torch.tensor([_spread(mine), _spread(theirs)], dtype=torch.float64)
        totals += moments
        ratios[c] = float(moments[0, 0] / moments[1, 0])
    if not ratios:
        raise TooFewPerClass(f"diversity needs a class with {MIN_CLASS} examples in both sets")
    (mean_x, variance_x), (mean_y, variance_y) = totals.tolist()
    if mean_y == 0:
        raise UserError("real examples: all of a class are equal, so diversity has no ratio")
    stderr_log = (variance_x / mean_x**2 + variance_y / mean_y**2) ** 0.5 if mean_x else 0.0
    return Diversity(mean_x / mean_y, stderr_log, ratios, tuple(skipped))


def _spread(x: Samples) -> tuple[float, float]:
    """Mean distance between two of the examples, and the variance of that estimate."""
    own = own_distances(x)
    return float(mean_of_pairs(own)), max(pairs_variance(own), 0.0)


@dataclass(frozen=True)
class LabelReport:
    """Agreement of samples and of held-out examples with their labels, and diversity."""

    agreement: Agreement
    heldout: Agreement
    diversity: Diversity | None
    predicted: Labels

    def content(self, label_names: Sequence[str] | None = None) -> dict[str, Any]:
        """Fractions as [value, low, high] for JSON; ``per_class`` by name or number."""

        def triple(value: float, interval: Interval) -> list[float]:
            return [value, interval.low, interval.high]

        def name(c: int) -> str:
            return label_names[c] if label_names else str(c)

        found, real = self.agreement, self.heldout
        return {
            "agreement": triple(found.overall, found.overall_interval()),
            "worst_class": triple(found.worst, found.worst_interval()),
            "classifier_on_heldout": triple(real.overall, real.overall_interval()),
            "per_class": {
                name(c): triple(hits / asked, wilson(hits / asked, asked))
                for c, (hits, asked) in found.per_class.items()
            },
        }


def label_rows(
    samples: Labelled,
    train: Labelled,
    heldout: Labelled,
    baselines: Mapping[str, Labelled],
    seed: int = 0,
) -> tuple[LabelReport, list[Row]]:
    """Agreement with the requested label, overall and of the worst class, and diversity.

    Floors: the classifier's accuracy on held-out examples; the diversity of as many training
    examples as there are samples. The last row is missing where no class has `MIN_CLASS`
    examples among samples and held-out ones.
    """
    classify = fit_classifier(train.x, train.label, seed)
    predicted = classify(samples.x)
    found = agreement(predicted, samples.label)
    real = agreement(classify(heldout.x), heldout.label)
    others = {name: agreement(classify(y.x), y.label) for name, y in baselines.items()}
    chance, worst_chance = agreement_if_shuffled(predicted, samples.label)
    protocol: dict[str, str | int | float] = {
        "classifier": f"RBF-SVM (C = 10) on {min(len(train.x), MAX_TRAIN)} training examples",
        "floor": f"the classifier on {real.n} held-out examples",
        "seed": seed,
    }
    overall, worst = found.overall_interval(), found.worst_interval()
    rows = [
        Row(
            name="label agreement",
            value=found.overall,
            interval=(overall.low, overall.high),
            interval_method=overall.method,
            floor=real.overall,
            baselines={**{name: a.overall for name, a in others.items()}, SHUFFLED: chance},
            n=found.n,
            protocol=protocol,
            better="higher",
        ),
        Row(
            name="label agreement, worst class",
            value=found.worst,
            interval=(worst.low, worst.high),
            interval_method=worst.method,
            floor=real.worst,
            baselines={**{name: a.worst for name, a in others.items()}, SHUFFLED: worst_chance},
            n=found.n,
            protocol=protocol,
            better="higher",
        ),
    ]
    try:
        diversity, row = _diversity_row(samples, train, heldout, baselines, seed)
        rows.append(row)
    except TooFewPerClass:
        diversity = None
    return LabelReport(found, real, diversity, predicted), rows


def _diversity_row(
    samples: Labelled,
    train: Labelled,
    heldout: Labelled,
    baselines: Mapping[str, Labelled],
    seed: int,
) -> tuple[Diversity, Row]:
    def ratio(x: Labelled) -> float:
        try:
            return within_class_diversity(x.x, x.label, heldout.x, heldout.label).ratio
        except TooFewPerClass:
            return nan

    order = torch.randperm(len(samples.x), generator=stream(seed, "shuffled labels"))
    shuffled = Labelled(samples.x, samples.label[order])
    diversity = within_class_diversity(samples.x, samples.label, heldout.x, heldout.label)
    interval = diversity.interval()
    row = Row(
        name="within-class diversity",
        value=diversity.ratio,
        interval=(interval.low, interval.high),
        interval_method=interval.method,
        floor=ratio(train.cut(len(samples.x), stream(seed, "diversity"))),
        baselines={
            **{name: ratio(x) for name, x in baselines.items()},
            SHUFFLED: ratio(shuffled),
        },
        n=int((samples.label >= 0).sum()),
        protocol={
            "estimator": "mean distance within a requested class, samples over held-out",
            "floor": "as many training examples over held-out",
            "classes skipped": len(diversity.skipped),
            "seed": seed,
        },
        better="near floor",
    )
    return diversity, row
