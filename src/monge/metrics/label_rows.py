"""What labels say of samples, as rows of the table and as a report of each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import nan
from typing import Any

import torch

from monge.metrics.intervals import Interval, wilson
from monge.metrics.labels import (
    MAX_TRAIN,
    SHUFFLED,
    Agreement,
    Diversity,
    Labelled,
    Labels,
    OneClass,
    TooFewPerClass,
    agreement,
    agreement_if_shuffled,
    classifier_name,
    fit_classifier,
    within_class_diversity,
)
from monge.metrics.table import Row
from monge.tensors import stream


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


GROUP = "The label that was asked for?"


def label_rows(
    samples: Labelled,
    train: Labelled,
    heldout: Labelled,
    baselines: Mapping[str, Labelled],
    seed: int = 0,
) -> tuple[LabelReport, list[Row]]:
    """Agreement with the requested label, overall and of the worst class, and both ways' variety.

    Floors: the classifier's accuracy on held-out examples; that of a classifier trained on as
    many training examples as there are samples; the diversity of as many. The row of the second
    classifier is missing where samples have one class, the row of diversity where no class has
    `MIN_CLASS` examples among samples and held-out ones.
    """
    classify = fit_classifier(train.x, train.label, seed)
    predicted = classify(samples.x)
    found = agreement(predicted, samples.label)
    real = agreement(classify(heldout.x), heldout.label)
    others = {name: agreement(classify(y.x), y.label) for name, y in baselines.items()}
    chance, worst_chance = agreement_if_shuffled(predicted, samples.label)
    protocol: dict[str, str | int | float] = {
        "classifier": (
            f"{classifier_name(train.label)} on {min(len(train.x), MAX_TRAIN)} training examples"
        ),
        "floor": f"the classifier on {real.n} held-out examples",
        "seed": seed,
    }
    overall, worst = found.overall_interval(), found.worst_interval()

    def row(name: str, value: float, interval: Interval, floor: float, beside: Any) -> Row:
        return Row(
            name=name,
            value=value,
            interval=(interval.low, interval.high),
            interval_method=interval.method,
            floor=floor,
            baselines=beside,
            n=found.n,
            protocol=protocol,
            better="higher",
            group=GROUP,
        )

    by_all = {**{name: a.overall for name, a in others.items()}, SHUFFLED: chance}
    by_worst = {**{name: a.worst for name, a in others.items()}, SHUFFLED: worst_chance}
    rows = [
        row("label agreement", found.overall, overall, real.overall, by_all),
        row("label agreement, worst class", found.worst, worst, real.worst, by_worst),
    ]
    with suppress(OneClass):
        rows.append(_trained_on_samples(samples, train, heldout, baselines, seed))
    try:
        diversity, of_diversity = _diversity_row(samples, train, heldout, baselines, seed)
        rows.append(of_diversity)
    except TooFewPerClass:
        diversity = None
    return LabelReport(found, real, diversity, predicted), rows


def _trained_on_samples(
    samples: Labelled,
    train: Labelled,
    heldout: Labelled,
    baselines: Mapping[str, Labelled],
    seed: int,
) -> Row:
    """The classification accuracy score, every classifier trained on equally many examples."""
    sets = {"samples": samples, "training set": train, **baselines}
    sets = {name: _labelled_part(x) for name, x in sets.items()}
    size = min(len(x.label) for x in sets.values())
    size = min(size, MAX_TRAIN)

    def score(name: str, x: Labelled) -> Agreement:
        part = x.cut(size, stream(seed, "score", name))
        return agreement(fit_classifier(part.x, part.label, seed)(heldout.x), heldout.label)

    found = score("samples", sets["samples"])
    floor = score("training set", sets["training set"])
    order = torch.randperm(len(sets["samples"].label), generator=stream(seed, "shuffled labels"))
    shuffled = Labelled(sets["samples"].x, sets["samples"].label[order])
    interval = found.overall_interval()
    return Row(
        name="classifier trained on samples",
        value=found.overall,
        interval=(interval.low, interval.high),
        interval_method=f"{interval.method}, for the classifier that was trained",
        floor=floor.overall,
        baselines={
            **{name: score(name, sets[name]).overall for name in baselines},
            SHUFFLED: score("samples", shuffled).overall,
        },
        n=size,
        protocol={
            "classifier": (
                f"{classifier_name(samples.label)} on {size} samples with their requested labels"
            ),
            "tested on": f"{found.n} held-out examples",
            "floor": "the same, trained on as many training examples",
            "seed": seed,
        },
        better="higher",
        group=GROUP,
    )


def _labelled_part(x: Labelled) -> Labelled:
    known = x.label >= 0
    return Labelled(x.x[known], x.label[known])


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
        group=GROUP,
    )
    return diversity, row
