"""The rows of a table's page in sentences: what they do not say; no privacy is promised."""

from __future__ import annotations

import math
from collections.abc import Iterable

from monge.metrics.table import Row, short
from monge.metrics.table_baselines import INDEPENDENT
from monge.metrics.tabular_families import DCR, GROUP, TRAINING_ROWS

NO_PRIVACY = (
    "No privacy is promised: this is an average over samples. It excludes no copy of a single row, "
    "and nothing that can be learned of one"
)


def tabular_in_words(rows: Iterable[Row]) -> list[str]:
    """Sentences on the rows of a table's page; none where there are no such rows.

    A row is blind where independent columns lie within half an interval of real rows.
    """
    own = [row for row in rows if row.group == GROUP]
    known = [row for row in own if row.better == "higher" and INDEPENDENT in row.baselines]
    blind = [row for row in known if row.baselines[INDEPENDENT] >= row.floor - _half(row)]
    seeing = [row for row in known if row not in blind]
    lost = [row for row in seeing if row.baselines[INDEPENDENT] >= row.interval[0]]
    lines = []
    if blind:
        lines.append(
            f"{_listed(blind)} cannot tell columns drawn independently of each other from real "
            "rows: this says nothing of dependence here."
        )
    if lost:
        lines.append(f"by {_listed(lost)} samples are no better than independent columns.")
    if better := [row for row in seeing if row not in lost]:
        lines.append(f"by {_listed(better)} samples are better than independent columns.")
    return lines


def _half(row: Row) -> float:
    """Half of the interval; nothing where it is not known."""
    half = (row.interval[1] - row.interval[0]) / 2
    return 0.0 if math.isnan(half) else half


def closest_in_words(rows: Iterable[Row]) -> tuple[bool, str] | None:
    """Whether samples lie too near to training rows, and the sentence; None without that row."""
    row = next((row for row in rows if row.name == DCR and row.group == GROUP), None)
    if row is None:
        return None
    low, high = row.interval
    equal = float(row.protocol["equal to one of these training rows"])
    text = (
        f"{_percent(row.value)} [{_percent(low)}, {_percent(high)}] of samples lie nearer to a "
        f"training row than to any of {row.protocol['held-out rows']} held-out rows, and "
        f"{_percent(equal)} equal one; of new rows 50 % do, of the training rows themselves "
        f"{_percent(row.baselines[TRAINING_ROWS])}. {NO_PRIVACY}."
    )
    return low > row.floor, text


def _listed(rows: Iterable[Row]) -> str:
    return ", ".join(
        f"{row.name} ({short(row.value)}; independent {short(row.baselines[INDEPENDENT])}, real "
        f"rows {short(row.floor)})"
        for row in rows
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
