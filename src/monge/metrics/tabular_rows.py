"""What the literature of synthetic tables reports, as rows: with intervals, floors and baselines.

Protocol. Samples, training rows and held-out rows are columns in their own units. One size n is
drawn of samples and of everything in their place; all are compared with the same held-out rows.
The *floor* puts training rows in the samples' place, which are other real rows. The baselines are
columns drawn independently, a Gaussian copula, and the training rows themselves, which a model
that copies would give: where they reach the floor, a number does not see copies.

Of a table of more than `MOST_COLUMNS` columns so many are judged, drawn at random.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from monge.metrics import tabular
from monge.metrics.alpha_beta import alpha_beta, alpha_beta_stderr
from monge.metrics.closest_records import closest
from monge.metrics.columns import Columns
from monge.metrics.intervals import Interval, normal, student
from monge.metrics.samples import random_rows
from monge.metrics.table import Better, Row
from monge.metrics.table_baselines import COPULA, INDEPENDENT, gaussian_copula, independent_columns
from monge.metrics.tabular import Table
from monge.metrics.utility import can_be_predicted, utility
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
class TabularReport:
    """The rows of a table's page, and which columns give the samples away.

    Attributes:
        giveaways: of each judged column its name and how much it helps boosted trees; largest
            first.
        shapes: each judged column's name and similarity; smallest first.
        trends: the same of pairs.
    """

    rows: tuple[Row, ...]
    giveaways: tuple[tuple[str, float], ...]
    shapes: tuple[tuple[str, float], ...]
    trends: tuple[tuple[str, float], ...]

    def content(self) -> dict[str, Any]:
        """Values for JSON."""
        return {
            "giveaways": [{"column": name, "auc_lost": value} for name, value in self.giveaways],
            "shapes": [{"column": name, "similarity": value} for name, value in self.shapes],
            "trends": [{"pair": name, "similarity": value} for name, value in self.trends],
        }


@dataclass(frozen=True)
class _Number:
    """One number of a page and how it becomes a row."""

    name: str
    better: Better
    settings: Mapping[str, str | int | float]
    interval: Callable[[], Interval]


@dataclass(frozen=True)
class _Family:
    """Numbers that one estimator makes, of a set in the samples' place.

    Attributes:
        quick: the same with less work, for baselines.
        floors: draws of training rows for the floor; the first is also a baseline.
        known: floors that are known exactly, in the place of measured ones.
    """

    estimate: Callable[[Table], Sequence[float]]
    numbers: tuple[_Number, ...]
    quick: Callable[[Table], Sequence[float]] | None = None
    floors: int = FLOORS
    known: tuple[float, ...] | None = None
    protocol: Mapping[str, str | int | float] = field(default_factory=dict)


def tabular_report(given: JudgedTable, seed: int) -> TabularReport:
    """Every number of a table's page; see the module's docstring for the protocol."""
    judged = _few_columns(given, seed)
    names = judged.columns.names
    n = min(len(judged.samples), len(judged.train), MOST)
    x, real = (
        z[random_rows(len(z), size, stream(seed, "table page", name))].double()
        for name, z, size in (("samples", judged.samples, n), ("real", judged.heldout, MOST))
    )
    order = torch.randperm(len(judged.train), generator=stream(seed, "table page", "floor"))
    fitted = judged.train[order[:MOST_FITTED]].double()
    draws = judged.train[order[: n * min(FLOORS, len(order) // n)]].double().split(n)
    others = {
        INDEPENDENT: independent_columns(fitted, n, seed),
        COPULA: gaussian_copula(fitted, n, seed),
    }
    told, helped = tabular.giveaways(x, real, judged.columns, seed)
    shape, trend = (f(x, real, judged.columns) for f in (tabular.shape, tabular.trend))
    families = [
        _similarities(x, real, judged.columns, shape, trend),
        _detections(x, real, judged.columns, seed, told),
        _support(x, real, judged.columns, seed),
        *_utility(x, judged, real, seed),
        *_closest(x, judged, seed),
    ]
    sizes = _sizes(judged, given, n, len(real), len(fitted), seed)
    rows = [row for f in families for row in _rows(f, x, draws, others, sizes, judged)]
    return TabularReport(
        tuple(rows),
        tuple(sorted(zip(names, helped, strict=True), key=lambda each: -each[1])),
        tuple(sorted(((names[j], v) for (j,), v in shape.parts.items()), key=lambda e: e[1])),
        tuple(
            sorted(
                ((f"{names[i]} and {names[j]}", v) for (i, j), v in trend.parts.items()),
                key=lambda each: each[1],
            )
        ),
    )


def target_of(real: Table, columns: Columns) -> int | None:
    """The column that models are asked to predict: the last category that varies and has few
    values, else the last number that varies."""
    able = [j for j in range(len(columns.names)) if can_be_predicted(real, columns, j)]
    codes = [j for j in able if columns.categorical[j]]
    return (codes or able or [None])[-1]


def _few_columns(given: JudgedTable, seed: int) -> JudgedTable:
    """The columns that are judged, and the target among them."""
    target = target_of(given.heldout, given.columns) if given.target is None else given.target
    d = len(given.columns.names)
    if d <= MOST_COLUMNS:
        return replace(given, target=target)
    kept = set(random_rows(d, MOST_COLUMNS, stream(seed, "table page", "columns")).tolist())
    if target is not None and target not in kept:
        kept = kept - {max(kept)} | {target}
    chosen = sorted(kept)
    columns = Columns(
        tuple(given.columns.names[j] for j in chosen),
        tuple(given.columns.categorical[j] for j in chosen),
    )
    return replace(
        given,
        samples=given.samples[:, chosen],
        train=given.train[:, chosen],
        heldout=given.heldout[:, chosen],
        columns=columns,
        target=None if target is None else chosen.index(target),
    )


def _sizes(
    judged: JudgedTable, given: JudgedTable, n: int, real: int, fitted: int, seed: int
) -> dict[str, str | int | float]:
    d, all_of_them = len(judged.columns.names), len(given.columns.names)
    told: dict[str, str | int | float] = {
        "compared with": f"{real} {judged.words['real']}",
        "baselines": f"{n} rows each, made from {fitted} {judged.words['train']}",
        "columns": d if d == all_of_them else f"{d} of {all_of_them}, drawn at random",
        "seed": seed,
    }
    return told


def _rows(
    family: _Family,
    x: Table,
    draws: Sequence[Table],
    others: Mapping[str, Table],
    sizes: Mapping[str, str | int | float],
    judged: JudgedTable,
) -> list[Row]:
    values = family.estimate(x)
    floors = [family.estimate(z) for z in draws[: family.floors]]
    beside = {name: (family.quick or family.estimate)(z) for name, z in others.items()}
    beside |= {TRAINING_ROWS: floors[0]} if judged.trained else {}
    floor = f"mean of {len(floors)} disjoint draws of {len(draws[0])} {judged.words['train']}"
    made = []
    for k, number in enumerate(family.numbers):
        measured = math.fsum(f[k] for f in floors) / len(floors)
        found = number.interval()
        made.append(
            Row(
                name=number.name,
                value=values[k],
                interval=(found.low, found.high),
                interval_method=found.method,
                floor=measured if family.known is None else family.known[k],
                baselines={name: each[k] for name, each in beside.items()},
                n=len(x),
                protocol={"floor": floor, **number.settings, **sizes, **family.protocol},
                better=number.better,
                p_value=found.p_value,
                group=GROUP,
                note="too few rows for an interval" if math.isnan(found.low) else "",
            )
        )
    return made


def _similarities(
    x: Table,
    real: Table,
    columns: Columns,
    shape: tabular.Similarity,
    trend: tabular.Similarity,
) -> _Family:
    def estimate(z: Table) -> tuple[float, float]:
        if z is x:
            return shape.value, trend.value
        return tabular.shape(z, real, columns).value, tabular.trend(z, real, columns).value

    def ends(found: tabular.Similarity) -> Callable[[], Interval]:
        # What a difference of equal laws adds is in the floor, not in the interval.
        return lambda: _within(
            normal(found.value, found.stderr, "normal, the places of largest difference held fixed")
        )

    return _Family(
        estimate,
        (
            _Number(
                SHAPE,
                "higher",
                {
                    "estimator": "1 - mean over columns of the Kolmogorov-Smirnov distance, of "
                    "categories the total variation",
                    "says": "nothing of dependence: independent columns have it right",
                },
                ends(shape),
            ),
            _Number(
                TREND,
                "higher",
                {
                    "estimator": "1 - mean over pairs of half the difference of correlations, "
                    "with a category the total variation of contingency tables "
                    f"({tabular.BINS} bins of a number, even between the ends of real rows)",
                },
                ends(trend),
            ),
        ),
    )


def _within(found: Interval, low: float = 0.0, high: float = 1.0) -> Interval:
    ends = min(max(found.low, low), high), max(min(found.high, high), low)
    return replace(found, low=ends[0], high=ends[1])


def _detections(
    x: Table, real: Table, columns: Columns, seed: int, told: tabular.Detection
) -> _Family:
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
    return _Family(
        estimate,
        tuple(
            _Number(
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


def _support(x: Table, real: Table, columns: Columns, seed: int) -> _Family:
    n = min(len(x), len(real), MOST_NEIGHBOURS)
    known = real[:n]
    values = alpha_beta(x[:n], known, columns)
    errors = alpha_beta_stderr(x[:n], known, columns, seed)
    size = {"rows": f"{n} of each set"}
    return _Family(
        lambda z: values if z is x else alpha_beta(z[:n], known, columns),
        (
            _Number(
                ALPHA,
                "higher",
                {"estimator": "integrated over balls around the mean of real rows", **size},
                lambda: _within(student(values[0], errors[0])),
            ),
            _Number(
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


def _utility(x: Table, judged: JudgedTable, real: Table, seed: int) -> list[_Family]:
    if judged.target is None:
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
    number = _Number(
        f"{TSTR} {kind} of {columns.names[target]}",
        "higher",
        settings,
        lambda: replace(
            _within(student(own.value, own.stderr), low=-math.inf),
            method="jackknife of the test rows in groups, Student's t; the model held fixed",
        ),
    )
    return [_Family(estimate, (number,), floors=1)]


def _closest(x: Table, judged: JudgedTable, seed: int) -> list[_Family]:
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
    number = _Number(DCR, "near floor", settings, lambda: _within(ends))
    found = _Family(estimate, (number,), floors=1, known=(0.5,))
    return [found]
