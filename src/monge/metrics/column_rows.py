"""The worst column of a table, as a row: by which share of its values two sets differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from monge.metrics.columns import Check, Columns, column_checks, gap_interval
from monge.metrics.draws import Draws
from monge.metrics.table import Row

WORST = "worst column"
PLAIN = ("exactly", "of category", "missing")
"""How the sets of values begin that are named before others."""


@dataclass(frozen=True)
class ColumnReport:
    """What the columns of a table say.

    Args:
        row: of the worst column.
        checks: all, the most significant first.
        sizes: of the samples and of the data.
    """

    row: Row
    checks: tuple[Check, ...]
    columns: Columns
    sizes: tuple[int, int]

    def content(self) -> list[dict[str, Any]]:
        """For each column its most significant check, for JSON."""
        first: dict[int, Check] = {}
        for check in self.checks:
            first.setdefault(check.column, check)
        return [
            {
                "column": self.columns.names[j],
                "values": check.what,
                "share of samples": check.shares[0],
                "share of data": check.shares[1],
                "p_value": check.p_value,
                "p_holm": check.p_holm,
            }
            for j, check in sorted(first.items())
        ]


def column_report(draws: Draws, columns: Columns, group: str, seed: int) -> ColumnReport | None:
    """Every check of every column; None where no column can be checked.

    Floor and baselines are the gaps of the same set of values of the same column; the floor is the
    mean over its draws of the gap in the direction of the samples', at least 0. The row's p-value
    is adjusted for all checks (Holm).

    Args:
        draws: of columns in their own units.
    """
    x, y = draws.samples, draws.real
    checks = column_checks(x, y, columns)
    if not checks:
        return None
    worst = _plainest(checks)
    name = columns.names[worst.column]
    interval = gap_interval(worst, len(x), len(y), len(checks))
    floors = [worst.gap_between(*pair) for pair in draws.floors]
    row = Row(
        name=WORST,
        value=worst.gap,
        interval=(interval.low, interval.high),
        interval_method=interval.method,
        floor=max(sum(floors) / len(floors), 0.0),
        baselines={k: abs(worst.gap_between(z, y)) for k, z in draws.baselines.items()},
        n=len(x),
        protocol={
            "estimator": "distance of two shares of a column's values",
            "column": name,
            "values": worst.what,
            "share of samples": worst.shares[0],
            "share of data": worst.shares[1],
            "checks": len(checks),
            **draws.protocol,
            "seed": seed,
        },
        better="lower",
        p_value=worst.p_holm,
        group=group,
    )
    return ColumnReport(row, tuple(checks), columns, (len(x), len(y)))


def _plainest(checks: Sequence[Check]) -> Check:
    """The most significant check, or one of the same column that says nearly as much more plainly.

    Values shared by many rows or missing say why a column has too many decimals. The p-value is
    that of the check which is returned.
    """
    worst = checks[0]
    plain = [
        check
        for check in checks
        if check.column == worst.column
        and check.what.startswith(PLAIN)
        and check.p_holm < 0.001
        and check.gap >= 0.8 * worst.gap
    ]
    return plain[0] if plain else worst


def in_words(row: Row, first: str = "samples", second: str = "held-out data") -> str:
    """What is wrong with the worst column, as a clause.

    >>> row = Row(WORST, 0.5, (0.4, 0.6), "Newcombe", 0.01, {"gaussian": 0.5}, 600,
    ...     {"column": "claim", "values": "exactly 0", "share of samples": 0.0,
    ...      "share of data": 0.54})
    >>> in_words(row)
    "column 'claim': 0.0 % of samples are exactly 0, 54.0 % of held-out data"
    """
    told = row.protocol
    values = str(told["values"])
    are = f"have {values.removeprefix('with ')}" if values.startswith("with ") else f"are {values}"
    shares = [100 * float(told[f"share of {whose}"]) for whose in ("samples", "data")]
    return (
        f"column '{told['column']}': {shares[0]:.1f} % of {first} {are}, "
        f"{shares[1]:.1f} % of {second}"
    )


def joined_names(names: Sequence[str], most: int = 3) -> str:
    """Names in a sentence: the first few.

    >>> joined_names(["a", "b"]), joined_names(["a", "b", "c", "d", "e"])
    ('a and b', 'a, b, c and 2 more')
    """
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
