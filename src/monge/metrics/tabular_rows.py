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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from monge.data.columns.gaps import is_gaps
from monge.metrics import tabular
from monge.metrics.columns import Columns
from monge.metrics.samples import random_rows
from monge.metrics.table import Row
from monge.metrics.table_baselines import COPULA, INDEPENDENT, gaussian_copula, independent_columns
from monge.metrics.tabular import Table
from monge.metrics.tabular_families import (
    FLOORS,
    GROUP,
    MOST,
    MOST_COLUMNS,
    MOST_FITTED,
    TRAINING_ROWS,
    Family,
    JudgedTable,
    closeness,
    detections,
    similarities,
    supports,
    utilities,
)
from monge.metrics.utility import can_be_predicted
from monge.tensors import stream


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
        similarities(x, real, judged.columns, shape, trend),
        detections(x, real, judged.columns, seed, told),
        supports(x, real, judged.columns, seed),
        *utilities(x, judged, real, seed),
        *closeness(x, judged, seed),
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
    values, else the last number that varies; not whether a value is missing."""
    asked = [j for j, name in enumerate(columns.names) if not is_gaps(name, columns.names)]
    able = [j for j in asked if can_be_predicted(real, columns, j)]
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
    family: Family,
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
