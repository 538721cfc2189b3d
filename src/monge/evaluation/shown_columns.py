"""Each column of a table, samples beside held-out rows, as the report draws them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from torch import Tensor

from monge.data.columns import arrow
from monge.data.columns.coordinates import Column
from monge.data.columns.schema import TableCodec
from monge.data.columns.spelling import text_of
from monge.metrics.evaluate import TableOf

BINS = 24
"""Bars of a histogram, at most."""

CENTRAL = (0.001, 0.999)
"""Quantiles of the real rows between which a histogram is drawn."""

MOST_PAIRS = 40
"""Columns whose associations are computed; of more, the first ones."""

Numbers = np.ndarray


def shown_columns(table: TableOf, codec: TableCodec | None) -> dict[str, Any]:
    """What ``columns.json`` holds.

    Every column has the shares of samples and of held-out rows in each bin or category. A number
    has the rows beyond the range of the training rows, samples and held-out ones.

    The association of two columns is Pearson's correlation of numbers, Cramér's V of two
    categories, and the correlation ratio (eta) of a number given a category.
    """
    known = {} if codec is None else {c.name: c for c in codec.columns}
    names, codes = table.columns.names, table.columns.categorical
    made, real, train = (_numbers(x) for x in (table.samples, table.heldout, table.train))
    columns = []
    for j, (name, categorical) in enumerate(zip(names, codes, strict=True)):
        sets = made[:, j], real[:, j], train[:, j]
        column = known.get(name)
        drawn = _category(sets, column, codec) if categorical else _number(sets, column)
        if column is not None and codec is not None and not categorical:
            drawn |= _texts(drawn, codec.schema.field(name))
        columns.append({"name": name, **drawn})
    few = min(len(names), MOST_PAIRS)
    return {
        "format_version": 1,
        "n_samples": len(made),
        "n_heldout": len(real),
        "n_train": len(train),
        "columns": columns,
        "associations": {
            "names": list(names[:few]),
            "samples": _associations(made[:, :few], codes),
            "heldout": _associations(real[:, :few], codes),
        },
    }


def _numbers(x: Tensor) -> Numbers:
    return x.detach().double().cpu().numpy()


def _number(sets: tuple[Numbers, Numbers, Numbers], column: Column | None) -> dict[str, Any]:
    made, real, train = sets
    edges = _edges(np.concatenate([real, train]), column)
    low, high = float(train.min()), float(train.max())
    return {
        "kind": "number",
        "edges": edges.tolist(),
        "samples": _shares(made, edges),
        "heldout": _shares(real, edges),
        "range": [low, high],
        "beyond": {"samples": _beyond(made, low, high), "heldout": _beyond(real, low, high)},
        "mean": [float(made.mean()), float(real.mean())],
        "deviation": [float(made.std()), float(real.std())],
    }


SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
SPANS = {"days": 86_400.0, "h": 3_600.0, "min": 60.0, "s": 1.0}


def _texts(number: Mapping[str, Any], field: pa.Field) -> dict[str, Any]:
    """Ends, range, means and deviations of dates, times and durations as people read them."""
    dtype = field.type
    if not arrow.is_temporal(dtype):
        return {}
    unit = 86_400.0 if pa.types.is_date32(dtype) else SECONDS[getattr(dtype, "unit", "ms")]

    def told(values: Sequence[float]) -> list[str]:
        whole = np.rint(values)
        if pa.types.is_time(dtype):  # a day has no more
            whole = whole.clip(0, round(86_400 / unit) - 1)
        return list(text_of(arrow.array_of(whole.tolist(), dtype), field))

    ends = number["edges"][0], number["edges"][-1]
    texts = {"ends": told(ends), "range": told(number["range"]), "mean": told(number["mean"])}
    return {"texts": {**texts, "deviation": [span(unit * d) for d in number["deviation"]]}}


def span(seconds: float) -> str:
    """A length of time in the largest unit that it fills.

    >>> span(190_080.0), span(5_400.0), span(0.25)
    ('2.2 days', '1.5 h', '0.25 s')
    """
    name = next((n for n, s in SPANS.items() if seconds >= s), "s")
    return f"{seconds / SPANS[name]:.4g} {name}"


def _edges(known: Numbers, column: Column | None) -> Numbers:
    """The ends of the bins: around each value where these are few and on a grid."""
    if column is not None and column.grid is not None:
        width = column.grid.width
        levels = np.rint((known - known.min()) / width)
        if levels.max() < BINS:
            return known.min() + width * (np.arange(levels.max() + 2) - 0.5)
    low, high = (float(q) for q in np.quantile(known, CENTRAL))
    # Large numbers close together: the bins must be told apart.
    least = 8 * BINS * float(np.spacing(max(abs(low), abs(high))))
    margin = max(0.02 * (high - low) or 0.5, (least - (high - low)) / 2)
    return np.linspace(low - margin, high + margin, BINS + 1)


def _shares(x: Numbers, edges: Numbers) -> list[float]:
    """Shares in each bin; what lies outside is in none."""
    return (np.histogram(x[np.isfinite(x)], edges)[0] / max(len(x), 1)).tolist()


def _beyond(x: Numbers, low: float, high: float) -> int:
    return int(((x < low) | (x > high)).sum())


def _category(
    sets: tuple[Numbers, Numbers, Numbers], column: Column | None, codec: TableCodec | None
) -> dict[str, Any]:
    made, real, train = (x.astype(np.int64) for x in sets)
    size = int(max(x.max(initial=0) for x in (made, real, train))) + 1
    values: Sequence[str] = [str(k) for k in range(size)]
    if column is not None and codec is not None:
        field = codec.schema.field(column.name)
        values = text_of(arrow.array_of(column.values, arrow.plain_type(field.type)), field)
    shares = {
        name: (np.bincount(x, minlength=len(values)) / max(len(x), 1)).tolist()
        for name, x in (("samples", made), ("heldout", real), ("train", train))
    }
    return {"kind": "category", "values": list(values), **shares}


def _associations(x: Numbers, codes: Sequence[bool]) -> list[list[float | None]]:
    size = x.shape[1]
    found: list[list[float | None]] = [[1.0] * size for _ in range(size)]
    for i, j in itertools.combinations(range(size), 2):
        value = association(x[:, i], x[:, j], codes[i], codes[j])
        found[i][j] = found[j][i] = value
    return found


def association(a: Numbers, b: Numbers, a_category: bool, b_category: bool) -> float | None:
    """How much two columns go together: see `shown_columns`; None where one does not vary.

    >>> x = np.array([0.0, 1.0, 2.0, 3.0])
    >>> association(x, -x, False, False), association(x, x * 0, False, False)
    (-1.0, None)
    >>> association(np.array([0, 0, 1, 1]), np.array([1, 1, 0, 0]), True, True)
    1.0
    """
    if a.min() == a.max() or b.min() == b.max():
        return None
    if not a_category and not b_category:
        return round(float(np.corrcoef(a, b)[0, 1]), 4)
    if a_category and b_category:
        return round(_cramer(a, b), 4)
    return round(_eta(a, b) if a_category else _eta(b, a), 4)


def _cramer(a: Numbers, b: Numbers) -> float:
    """Cramér's V: the root of chi squared over n (least number of categories - 1)."""
    _, i = np.unique(a, return_inverse=True)
    _, j = np.unique(b, return_inverse=True)
    table = np.zeros((i.max() + 1, j.max() + 1))
    np.add.at(table, (i, j), 1)
    expected = table.sum(1, keepdims=True) * table.sum(0) / len(a)
    chi = float(((table - expected) ** 2 / expected).sum())
    return float(np.sqrt(chi / len(a) / (min(table.shape) - 1)))


def _eta(codes: Numbers, x: Numbers) -> float:
    """The correlation ratio: the part of the deviation of x that its category explains."""
    _, i = np.unique(codes, return_inverse=True)
    counts = np.bincount(i)
    means = np.bincount(i, x) / counts
    between = float((counts * (means - x.mean()) ** 2).sum() / len(x))
    return float(np.sqrt(between / x.var()))


def rows_without_names(sets: Mapping[str, Tensor]) -> TableOf:
    """Sets of plain rows (n, d) as columns x0, x1, ..., as their samples are written."""
    from monge.metrics.columns import Columns

    d = sets["samples"].shape[1]
    return TableOf(Columns.plain(d), sets["samples"], sets["train"], sets["heldout"], {})
