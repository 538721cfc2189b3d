"""The numbers of a table's page, in families that one estimator makes.

A family knows how to estimate its numbers from a set in the samples' place, how its intervals are
made, and what each number says. `tabular_rows` draws the sets and makes the rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from monge.metrics import tabular
from monge.metrics.alpha_beta import alpha_beta, alpha_beta_stderr
from monge.metrics.closest_records import closest
from monge.metrics.columns import Columns
from monge.metrics.intervals import Interval, normal, student
from monge.metrics.samples import random_rows
from monge.metrics.table import Better
from monge.metrics.tabular import Table
from monge.metrics.utility import utility
from monge.tensors import stream

GROUP = "As papers on tables judge"
TRAINING_ROWS = "training set"
SHAPE, TREND = "Shape", "Trend"
LOGISTIC, TREES = "detection score, logistic", "detection score, boosted trees"
ALPHA, BETA = "alpha-precision", "beta-recall"
TSTR = "TSTR"
DCR = "nearer to training rows (DCR)"

MOST = 2000
"""Rows of each set, at most."""

MOST_NEIGHBOURS = 1000
"""Rows of each set in alpha-precision and beta-recall."""

MOST_FITTED = 20_000
"""Training rows from which the baselines are made, at most."""

MOST_COLUMNS = 64
FLOORS = 3


@dataclass(frozen=True)
class JudgedTable:
    """The sets of a table's page, as columns in their own units.

    Attributes:
        samples, train, heldout: (n, columns), NaN where a value is missing.
        target: the column that is predicted; None for the last category that can be, or else the
            last number.
        trained: whether `train` are the rows that a model was trained on. If not, nothing can be
            said of copies, and DCR is left out.
        words: what the sets are called, for the protocol.
    """

    samples: Table
    train: Table
    heldout: Table
    columns: Columns
    target: int | None = None
    trained: bool = True
    words: Mapping[str, str] = field(
        default_factory=lambda: {"real": "held-out rows", "train": "training rows"}
    )


@dataclass(frozen=True)
class Number:
    """One number of a page and how it becomes a row."""

    name: str
    better: Better
    settings: Mapping[str, str | int | float]
    interval: Callable[[], Interval]


@dataclass(frozen=True)
class Family:
    """Numbers that one estimator makes, of a set in the samples' place.

    Attributes:
        quick: the same with less work, for baselines.
        floors: draws of training rows for the floor; the first is also a baseline.
        known: floors that are known exactly, in the place of measured ones.
    """

    estimate: Callable[[Table], Sequence[float]]
    numbers: tuple[Number, ...]
    quick: Callable[[Table], Sequence[float]] | None = None
    floors: int = FLOORS
    known: tuple[float, ...] | None = None
    protocol: Mapping[str, str | int | float] = field(default_factory=dict)


def similarities(
    x: Table,
    real: Table,
    columns: Columns,
    shape: tabular.Similarity,
    trend: tabular.Similarity,
) -> Family:
    def estimate(z: Table) -> tuple[float, float]:
        if z is x:
            return shape.value, trend.value
        return tabular.shape(z, real, columns).value, tabular.trend(z, real, columns).value

    def ends(found: tabular.Similarity) -> Callable[[], Interval]:
        # What a difference of equal laws adds is in the floor, not in the interval.
        return lambda: _within(
            normal(found.value, found.stderr, "normal, the places of largest difference held fixed")
        )

    numbers = (
        Number(
            SHAPE,
            "higher",
            {
                "estimator": "1 - mean over columns of the Kolmogorov-Smirnov distance, of "
                "categories the total variation",
                "says": "nothing of dependence: independent columns have it right",
            },
            ends(shape),
        ),
        Number(
            TREND,
            "higher",
            {
                "estimator": "1 - mean over pairs of half the difference of correlations, "
                "with a category the total variation of contingency tables "
                f"({tabular.BINS} bins of a number, even between the ends of real rows)",
            },
            ends(trend),
        ),
    )
    # A table of one column has no pairs.
    return Family(estimate, numbers if trend.parts else numbers[:1])


def _within(found: Interval, low: float = 0.0, high: float = 1.0) -> Interval:
    """An interval cut to the range of its number; one that is not known stays so."""
    if math.isnan(found.low):
        return found
    ends = min(max(found.low, low), high), max(min(found.high, high), low)
    return replace(found, low=ends[0], high=ends[1])


def detections(
    x: Table, real: Table, columns: Columns, seed: int, told: tabular.Detection
) -> Family:
    """Both classifiers; `told` is what the trees made of the samples."""
    kinds = {LOGISTIC: False, TREES: True}
    own = {LOGISTIC: tabular.detection(x, real, columns, seed), TREES: told}

    def estimate(z: Table, parts: int = tabular.FOLDS) -> list[float]:
        if z is x:
            return [found.score for found in own.values()]
        return [
            tabular.detection(
                z, real, columns, seed, trees, parts if trees else tabular.FOLDS
            ).score
            for trees in kinds.values()
        ]

    words = {
        LOGISTIC: "logistic regression on one-hot categories and numbers in quartiles",
        TREES: "histogram gradient boosting (60 trees of 15 leaves, categories as such)",
    }
    blind = "sees shifts and scales only: independent columns pass it"
    says = {LOGISTIC: blind, TREES: "sees dependence"}
    return Family(
        estimate,
        tuple(
            Number(
                name,
                "higher",
                {
                    "estimator": f"2 (1 - mean of max(AUC, 1/2)) of {tabular.FOLDS} parts, "
                    f"{words[name]}",
                    "says": says[name],
                    "baselines are of": "the first of three parts" if kinds[name] else "all parts",
                    "AUC": own[name].auc,
                    "p-value": "of an area of 1/2, two-sided, this row alone; no part of the "
                    "verdict, whose classifiers are those of the C2ST rows",
                },
                lambda name=name: own[name].interval,
            )
            for name in kinds
        ),
        quick=lambda z: estimate(z, 1),
        floors=1,
    )


def supports(x: Table, real: Table, columns: Columns, seed: int) -> Family:
    n = min(len(x), len(real), MOST_NEIGHBOURS)
    # Rows may be in any order, such as that of their classes.
    known = real[random_rows(len(real), n, stream(seed, "table page", "support"))]
    drawn = random_rows(len(x), n, stream(seed, "table page", "supported"))
    values = alpha_beta(x[drawn], known, columns)
    errors = alpha_beta_stderr(x[drawn], known, columns, seed)
    size = {"rows": f"{n} of each set"}
    return Family(
        lambda z: values if z is x else alpha_beta(z[drawn], known, columns),
        (
            Number(
                ALPHA,
                "higher",
                {"estimator": "integrated over balls around the mean of real rows", **size},
                lambda: _within(student(values[0], errors[0])),
            ),
            Number(
                BETA,
                "near floor",
                {
                    "estimator": "integrated over balls around the mean of samples; 1/2 is what a "
                    "perfect sampler has",
                    **size,
                },
                lambda: _within(student(values[1], errors[1])),
            ),
        ),
    )


def utilities(x: Table, judged: JudgedTable, real: Table, seed: int) -> list[Family]:
    if judged.target is None or len(judged.columns.names) < 2:
        return []
    columns, target = judged.columns, judged.target
    kind = "AUROC" if columns.categorical[target] else "R²"
    own = utility(x, real, columns, target, seed)
    if math.isnan(own.value):
        return []

    def estimate(z: Table) -> tuple[float]:
        return ((own if z is x else utility(z, real, columns, target, seed)).value,)

    settings = {
        "estimator": f"{kind} of histogram gradient boosting that learns {columns.names[target]!r} "
        f"from all other columns of the samples, on {judged.words['real']}; categories one "
        "against the rest",
        "target": columns.names[target],
        "floor is": "train on real, test on real: the same model on as many real rows",
    }
    number = Number(
        f"{TSTR} {kind} of {columns.names[target]}",
        "higher",
        settings,
        lambda: replace(
            _within(student(own.value, own.stderr), low=-math.inf),
            method="jackknife of the test rows in groups, Student's t; the model held fixed",
        ),
    )
    return [Family(estimate, (number,), floors=1)]


def closeness(x: Table, judged: JudgedTable, seed: int) -> list[Family]:
    if not judged.trained:
        return []
    size = min(MOST, len(judged.heldout), len(judged.train))
    train, held = (
        z[random_rows(len(z), size, stream(seed, "table page", "closest", name))].double()
        for name, z in (("train", judged.train), ("heldout", judged.heldout))
    )
    own = closest(x, train, held, judged.columns, seed)

    def estimate(z: Table) -> tuple[float]:
        return ((own if z is x else closest(z, train, held, judged.columns, seed)).share,)

    settings = {
        "estimator": "share of samples nearer to one of as many training rows than held-out rows, "
        "ties half; Gower's distance",
        "training rows": own.references,
        "held-out rows": own.references,
        "equal to one of these training rows": own.same,
        "floor": "1/2, exactly: for a new row both sets are exchangeable",
        "privacy": "not promised: an average over samples excludes no copy and protects no row",
    }
    ends = normal(own.share, own.stderr, "normal; samples, and the jackknife of real rows")
    number = Number(DCR, "near floor", settings, lambda: _within(ends))
    found = Family(estimate, (number,), floors=1, known=(0.5,))
    return [found]
