"""Do samples show what was asked for, in as many ways as the data do?

A second classifier, trained on real examples alone, says which class a sample shows. How often it
is right on held-out real examples is the floor of its agreement with the requested label. The other
way round, a classifier trained on samples and their requested labels is tested on held-out real
examples: it is right as often as one trained on real examples only if samples show their labels
and vary as the data do within each.

References:
    | Classification accuracy score (Ravuri and Vinyals, 2019) -- https://arxiv.org/abs/1905.10887
    | The Nystroem method (Williams and Seeger, 2001)
    | -- https://proceedings.neurips.cc/paper/2000/hash/19de10adbaa1b2ee13f77f679fa1483a-Abstract.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import exp
from typing import Any, NamedTuple, TypeAlias

import torch
from jaxtyping import Int
from torch import Tensor

from monge.errors import UserError
from monge.metrics.intervals import LEVEL, Interval, normal, wilson
from monge.metrics.samples import Samples, as_matrix, own_distances, random_rows
from monge.metrics.two_sample import mean_of_pairs, pairs_variance
from monge.tensors import stream

Labels: TypeAlias = Int[Tensor, "_n"]
MAX_TRAIN = 10_000
MOST_PAIRED = 50
"""Classes up to which each pair of them gets a machine of its own."""
LANDMARKS = 1000
"""Examples that the kernel is approximated from, for more classes."""
PENALTY = 10.0
"""Of an error against the size of the weights, C in the SVM."""
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


class OneClass(UserError):
    """A classifier has nothing to tell apart."""


def classifier_name(labels: Labels) -> str:
    """Which classifier `fit_classifier` takes for these labels."""
    classes = len(labels[labels >= 0].unique())
    if classes <= MOST_PAIRED:
        return f"RBF-SVM (C = {PENALTY:g})"
    return f"RBF ridge classifier ({LANDMARKS} landmarks, for more than {MOST_PAIRED} classes)"


def fit_classifier(
    train: Tensor, labels: Tensor, seed: int = 0, max_train: int = MAX_TRAIN
) -> Callable[[Tensor], Labels]:
    """A classifier fitted to labelled examples, as a function to labels.

    It is an RBF-kernel SVM (C = 10), which is made of a machine for each pair of classes. For more
    than `MOST_PAIRED` classes it is a ridge regression of each class against the rest, with the
    same kernel approximated from `LANDMARKS` examples (Williams and Seeger, 2001), whose time grows
    linearly in the classes. Trained on at most `max_train` examples, drawn at random.

    Raises:
        OneClass: fewer than two classes.
        UserError: bad input.
    """
    x = as_matrix(train, "training set")
    y = as_labels(labels, "training labels", len(x))
    known = (y >= 0).nonzero()[:, 0]
    rows = known[random_rows(len(known), max_train, stream(seed, "classifier"))]
    classes = len(y[rows].unique())
    if classes < 2:
        raise OneClass("training labels: a classifier needs examples of at least two classes")
    matrix = x[rows].double()
    machine = _paired() if classes <= MOST_PAIRED else _one_against_the_rest(matrix, seed)
    machine.fit(matrix.numpy(), y[rows].numpy())

    def predict(examples: Tensor) -> Labels:
        matrix = as_matrix(examples, "examples", minimum=1).double()
        return torch.from_numpy(machine.predict(matrix.numpy()))

    return predict


def _paired() -> Any:
    from sklearn.svm import SVC

    return SVC(C=PENALTY)


def _one_against_the_rest(x: Tensor, seed: int) -> Any:
    from sklearn.kernel_approximation import Nystroem
    from sklearn.linear_model import RidgeClassifier
    from sklearn.pipeline import make_pipeline

    width = float(x.shape[1] * x.var(unbiased=False)) or 1.0  # as the SVM's own scale
    landmarks = Nystroem(
        gamma=1 / width, n_components=min(LANDMARKS, len(x)), random_state=seed % 2**32
    )
    return make_pipeline(landmarks, RidgeClassifier(alpha=1 / PENALTY))


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
