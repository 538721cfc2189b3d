"""Claims held against measured rows: one verdict for each line or group.

| word | a rate | an upper bound |
|---|---|---|
| consistent | the slope is the predicted one | the bound holds, with the slope it predicts |
| steeper | the error falls faster (grows more slowly) | the bound holds and is not attained |
| refutes | the error falls more slowly (grows faster) | the same |
| undecided | too few points in the range, or an interval that is too wide around it | the same |
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from monge.studies.claims import Ceiling, Claim, Equal, Slope, about
from monge.studies.fitting import Fit, Point, fit

Word = Literal["consistent", "steeper", "refutes", "undecided"]


@dataclass(frozen=True)
class Line:
    """The points of one line of a claim about a slope.

    Attributes:
        claim, group: whose, and its values of the columns `by`.
        predicted: the slope.
        points: by abscissa; `Point.excluded` tells which are outside the range.
        fitted: those that the line was fitted to.
        fit: None where there were too few.
    """

    claim: Slope
    group: Mapping[str, Any]
    predicted: float
    points: tuple[Point, ...]
    fitted: tuple[Point, ...]
    fit: Fit | None


@dataclass(frozen=True)
class Verdict:
    """What a group of rows says about a claim."""

    claim: Claim
    group: Mapping[str, Any]
    word: Word
    sentence: str
    line: Line | None = None

    def row(self) -> dict[str, Any]:
        """For a table."""
        found: dict[str, Any] = {"claim": self.claim.name, **self.group}
        if self.line is not None:
            own, shown = self.line.fit, self.line.fitted
            found |= {
                "predicted": self.line.predicted,
                "slope": own and own.slope,
                "low": own and own.low,
                "high": own and own.high,
                "points": len(shown),
                "from": shown[0].x if shown else None,
                "to": shown[-1].x if shown else None,
            }
        return found | {"verdict": self.word, "sentence": self.sentence}


def judge(
    claims: Iterable[Claim], rows: Sequence[Mapping[str, Any]], repeats: str | None = None
) -> list[Verdict]:
    """The verdict on every group of every claim, in the order of the rows."""
    found = []
    for claim in claims:
        groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
        for row in rows:
            if about(claim, row):
                groups.setdefault(tuple(row.get(c) for c in claim.by), []).append(row)
        for key, members in groups.items():
            group = dict(zip(claim.by, key, strict=True))
            if isinstance(claim, Slope):
                found.append(_judge_slope(claim, group, line(claim, group, members, repeats)))
            else:
                found.append(_judge_values(claim, group, members))
    return found


def line(
    claim: Slope,
    group: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    repeats: str | None = None,
) -> Line:
    """The points of a group of rows and the line through those inside the range."""
    at: dict[float, list[Mapping[str, Any]]] = {}
    for row in rows:
        at.setdefault(float(row[claim.against]), []).append(row)
    points = []
    for x in sorted(at):
        members = sorted(at[x], key=lambda row: str(row.get(repeats)) if repeats else "")
        ys = tuple(float(row[claim.quantity]) for row in members)
        floor = max(float(row[claim.floor]) for row in members) if claim.floor else 0.0
        stiff = max(float(row[claim.stiffness]) for row in members) if claim.stiffness else 0.0
        points.append(Point(x, ys, floor, stiff))
    inside = [p for p in points if not p.excluded]
    if claim.finest:
        inside = inside[: claim.finest] if claim.towards == "zero" else inside[-claim.finest :]
    own = fit(inside, claim.semilog)
    return Line(claim, group, claim.predicted(rows[0]), tuple(points), tuple(inside), own)


def _judge_slope(claim: Slope, group: Mapping[str, Any], found: Line) -> Verdict:
    own = found.fit
    left_out = [p.excluded for p in found.points if p.excluded]
    why = ", ".join(f"{left_out.count(r)} {_REASONS[r]}" for r in sorted({*left_out}))
    if own is None:
        text = f"{len(found.fitted)} points in the range, 3 are needed" + (
            f" ({why})" if why else ""
        )
        return Verdict(claim, group, "undecided", text, found)
    range_ = f"{claim.against} {found.fitted[0].x:.3g} to {found.fitted[-1].x:.3g}"
    measured = f"slope {own.slope:.3g} [{own.low:.3g}, {own.high:.3g}] over {range_}"
    what = f"the {'rate' if claim.kind == 'rate' else 'upper bound'} {found.predicted:.3g}"
    near = own.low - claim.tolerance <= found.predicted <= own.high + claim.tolerance
    if own.half > claim.resolution and near:  # a wide interval still excludes what is outside
        text = f"{measured}: too wide an interval to decide about {what}"
        return Verdict(claim, group, "undecided", text, found)
    # Positive where the error falls faster, or grows more slowly, than predicted.
    gain = (own.slope - found.predicted) * (1 if claim.towards == "zero" else -1)
    agrees = abs(gain) <= claim.tolerance or own.low <= found.predicted <= own.high
    word: Word = "consistent" if agrees else "steeper" if gain > 0 else "refutes"
    return Verdict(claim, group, word, f"{measured}: {_said(claim, found, word, what)}", found)


_REASONS = {"floor": "below 3 floors", "stiff": "with h L above 1/2", "not finite": "not finite"}


def _said(claim: Slope, found: Line, word: Word, what: str) -> str:
    infinity = claim.towards == "infinity"
    grows = found.predicted >= 0 if infinity else found.predicted < 0
    better = "grows more slowly than" if grows else "steeper than"
    worse = "grows faster than" if grows else "shallower than"
    if claim.kind == "rate":
        return {
            "consistent": f"consistent with {what}",
            "steeper": f"{better} {what}, which is not the rate here",
            "refutes": f"{worse} {what}, and refutes it in this range",
        }[word]
    return {
        "consistent": f"consistent with {what}, which is attained",
        "steeper": f"{better} {what}, which holds and is not attained",
        "refutes": f"{worse} {what}, and refutes it in this range",
    }[word]


def _judge_values(
    claim: Ceiling | Equal, group: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> Verdict:
    if isinstance(claim, Ceiling):
        ratios = [_ratio(row[claim.quantity], row[claim.ceiling]) for row in rows]
        worst = max(ratios, key=lambda r: math.inf if math.isnan(r) else r)
        holds = worst <= 1 + claim.slack
        text = f"at most {worst:.3g} of the bound in {len(rows)} rows"
        text = text if holds else f"{worst:.4g} times the bound: it is violated"
        return Verdict(claim, group, "consistent" if holds else "refutes", text)
    gaps = [abs(_ratio(row[claim.quantity], row[claim.expected]) - 1) for row in rows]
    worst = max(gaps, key=lambda r: math.inf if math.isnan(r) else r)
    holds = worst <= claim.tolerance
    text = f"within {worst:.2g} of the value in {len(rows)} rows (tolerance {claim.tolerance:g})"
    text = text if holds else f"off the value by {worst:.3g} (tolerance {claim.tolerance:g})"
    return Verdict(claim, group, "consistent" if holds else "refutes", text)


def _ratio(value: float, of: float) -> float:
    """value / of; 1 of two zeros."""
    if value == of:
        return 1.0
    return value / of if of else math.inf
