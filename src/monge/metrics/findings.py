"""An evaluation in plain words: what is good, what is not, and what cannot be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from monge.metrics.column_rows import WORST, in_words
from monge.metrics.copies import copies_in_words, copies_told
from monge.metrics.differences import LEVEL
from monge.metrics.table import Row, Table, short
from monge.metrics.tabular_words import closest_in_words, tabular_in_words
from monge.metrics.verdicts import told_apart

Standing = Literal["at the floor", "cannot tell", "away from the floor", "not measured"]

REAL = ("training set", "reconstructions")
"""Baselines that may be as good as real data: an interval need not exclude them."""

LAWS = "Same law as the data?"
NOT_INDEPENDENT = "not independent"
"""In the protocol of the first row: why samples and held-out data are not."""

CLOSE = 0.9
"""A coverage above this part of real data's is called good."""


def standing(row: Row) -> Standing:
    """Where a value stands between real data and the baselines.

    At the floor only where the interval excludes the baselines, too: an interval that holds both
    says nothing of the samples.

    >>> standing(Row("W2", 1.2, (0.9, 1.5), "jackknife", 1.0, {"gaussian": 4.0}, 100, {}))
    'at the floor'
    >>> standing(Row("W2", 1.2, (0.9, 4.5), "jackknife", 1.0, {"gaussian": 4.0}, 100, {}))
    'cannot tell'
    """
    if row.note:
        return "not measured"
    if not row.reaches_floor:
        return "away from the floor"
    low, high = row.interval
    simple = [value for name, value in row.baselines.items() if name not in REAL]
    if any(low <= value <= high for value in simple):
        return "cannot tell"
    return "at the floor"


def resolution(row: Row) -> str:
    """What a row that cannot tell would not have shown."""
    low, high = row.interval
    least = row.floor - low if row.better == "higher" else high - row.floor
    return f"differences from the floor below {short(least)} would not show"


@dataclass(frozen=True)
class Findings:
    """What a table says, in sentences.

    Args:
        good, bad, unclear: what was found of each kind.
        differs: whether samples were told from held-out data.
        copies, labels_wrong, uncovered: what is bad, for advice.
        notes: what numbers do not say.
    """

    good: tuple[str, ...]
    bad: tuple[str, ...]
    unclear: tuple[str, ...]
    differs: bool = False
    copies: bool = False
    labels_wrong: bool = False
    uncovered: bool = False
    notes: tuple[str, ...] = ()

    @property
    def lines(self) -> tuple[str, ...]:
        """All sentences, what is not good first."""
        known = (("Not good: ", self.bad), ("Good: ", self.good), ("Open: ", self.unclear))
        marked = (*known, ("Note: ", self.notes))
        return tuple(f"{mark}{line}" for mark, lines in marked for line in lines)


def findings(table: Table) -> Findings:
    """What the rows of an evaluation say together."""
    good, bad, unclear = [], [], []
    differs, law = _law(table)
    dependent = next(
        (r.protocol[NOT_INDEPENDENT] for r in table if NOT_INDEPENDENT in r.protocol), ""
    )
    if dependent:
        bad.append(str(dependent))
    (bad if differs else unclear if dependent or _blocked(table) else good).append(law)
    if not differs and any(standing(r) == "cannot tell" for r in table if r.group == LAWS):
        energy = table["energy distance"]
        if standing(energy) == "cannot tell":
            unclear.append(
                f"at this n even a simple baseline has the energy distance of real data; "
                f"{resolution(energy)}."
            )
    covered = table["coverage"]
    share = covered.value / covered.floor if covered.floor > 0 else float("nan")
    text = f"coverage is {share:.2f} of the real-against-real value."
    uncovered = not covered.reaches_floor and share < CLOSE
    (bad if uncovered else good).append(text)
    found = copies_told(table)
    copies = bool(found)
    (unclear if found is None else bad if found else good).append(copies_in_words(table))
    wrong = False
    if "label agreement" in {row.name for row in table}:
        wrong, text = _labels(table)
        (bad if wrong else good).append(text)
    notes = tabular_in_words(table)
    if nearer := closest_in_words(table):
        (bad if nearer[0] else notes).append(nearer[1])
    kinds = (tuple(good), tuple(bad), tuple(unclear))
    return Findings(*kinds, differs, copies, wrong, uncovered, tuple(notes))


def _law(table: Table) -> tuple[bool, str]:
    """Whether samples are told from held-out data by the tests of one law, and the sentence."""
    rows = [row for row in table if row.group == LAWS]
    found = told_apart(rows)
    energy = table["energy distance"]
    against = energy.protocol.get("compared with", f"{energy.n} held-out examples")
    sizes = f"{energy.n} samples against {against}"
    seen = []
    for row, p, told in found:
        if told:
            value = f", {row.value:.2f}" if "AUC" in row.name else ""
            name = in_words(row) if row.name == WORST else f"{row.name}{value}"
            seen.append(f"{name} (p = {short(p)})")
    if seen:
        return True, f"samples differ from held-out data by {'; by '.join(seen)} ({sizes})."
    if blocked := _blocked(table):
        by = " and ".join(row.name for row in blocked)
        return False, (
            f"samples differ from held-out data by {by}, but no more than training data "
            f"may: the interval holds the floor ({sizes})."
        )
    least = min((p for _, p, _ in found), default=1.0)
    return False, (
        f"samples cannot be told from held-out data by {len(found)} tests together "
        f"(least p = {short(least)} by Holm's rule; {sizes})."
    )


def _blocked(table: Table) -> list[Row]:
    """Rows whose p-value tells samples from held-out data, and whose interval holds the floor."""
    tested = told_apart([row for row in table if row.group == LAWS])
    return [row for row, p, told in tested if p < LEVEL and not told]


def _labels(table: Table) -> tuple[bool, str]:
    agreed, worst = table["label agreement"], table["label agreement, worst class"]
    return not agreed.reaches_floor, (
        f"{100 * agreed.value:.1f} % of samples show the requested label (worst class "
        f"{100 * worst.value:.1f} %); the classifier is right on {100 * agreed.floor:.1f} % of "
        "held-out examples."
    )
