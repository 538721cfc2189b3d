"""What a comparison found, and what may be said of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from monge.metrics.column_rows import WORST, in_words
from monge.metrics.differences import LEVEL, Difference, holm
from monge.metrics.power import detectable_gap, detectable_shift
from monge.metrics.samples import Samples
from monge.metrics.spaces import GAUSSIAN
from monge.metrics.table import SIGNS, Row, Table, short
from monge.metrics.table_baselines import INDEPENDENT
from monge.system.files import strict
from monge.system.shown import aligned, as_html, as_paragraphs, wrapped
from monge.tensors import stream

Word = Literal[
    "A", "B", "mixed", "different", "not distinguishable", "same examples", "not independent"
]


CLOSER = (
    "↓ lower, ↑ higher is better, ≈ as near to the floor as possible; floor: other real\n"
    "data in the place of A and B. Where A is farther by less than 0, A is closer.\n"
    "closer: by this metric alone at 5 %; p (Holm): all metrics taken together"
)


@dataclass(frozen=True)
class Verdict:
    """What may be said at 5 % of all tests together: a word, and a sentence."""

    word: Word
    text: str

    @property
    def differs(self) -> bool:
        """Whether A and B were told apart."""
        return self.word in ("A", "B", "mixed", "different")


@dataclass(frozen=True)
class Compared:
    """What `compare` found.

    Args:
        tables: with a reference that of A and that of B, row by row the same; else one.
        differences: in A's and B's distance from the reference; empty without one.
        notes: what a reader must know: examples that are shared or repeated, labels not used.
        n, seed: as used.
        of_tables: what the numbers that papers on tables report do not say here.
    """

    tables: tuple[Table, ...]
    differences: tuple[Difference, ...]
    verdict: Verdict
    notes: tuple[str, ...]
    n: int
    seed: int
    of_tables: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Compared({self.verdict.word}, n={self.n}, seed={self.seed}: {self.verdict.text})"

    def text(self, width: int | None = None) -> str:
        """Verdict, notes and table, for the terminal, in lines of so many characters at most."""
        said = [wrapped(x, width) for x in (self.verdict.text, *self.notes, *self.of_tables)]
        if self.differences:
            table = "\n".join([aligned(self._sides(), width=width), wrapped(CLOSER, width)])
        else:
            table = self.tables[0].text(width)
        return "\n".join([*said, "", table])

    def _repr_html_(self) -> str:
        said = as_paragraphs([self.verdict.text, *self.notes, *self.of_tables])
        if self.differences:
            return said + as_html(self._sides()) + as_paragraphs([CLOSER])
        return said + self.tables[0]._repr_html_()

    def _sides(self) -> list[list[str]]:
        """Cells of A beside B, with a head."""
        tested = {d.name: d for d in self.differences}
        shown = [
            k for k in (GAUSSIAN, INDEPENDENT) if any(k in r.baselines for r in self.tables[0])
        ]
        head = ["metric", "A", "B", "floor", *shown, "A farther by", "95 % interval"]
        lines = [[*head, "p", "p (Holm)", "closer"]]
        for a, b in zip(*self.tables, strict=True):
            beside = [short(a.baselines[k]) if k in a.baselines else "-" for k in shown]
            cells = [
                f"{SIGNS[a.better]} {a.name}",
                *map(short, (a.value, b.value, a.floor)),
                *beside,
            ]
            told = ["-"] * 5
            if d := tested.get(a.name):
                low, high = map(short, d.interval)
                ends = f"[{low}, {high}]"
                told = [short(d.value), ends, short(d.p_value), short(d.p_holm), d.closer or "?"]
            lines.append([*cells, *told])
        return lines

    def to_json(self) -> dict[str, Any]:
        """Values for JSON: ``table``, or ``tables`` of A and B and their ``differences``."""
        verdict = {**asdict(self.verdict), "differs": self.verdict.differs}
        found = {"n": self.n, "seed": self.seed, "verdict": verdict, "notes": list(self.notes)}
        found |= {"of_tables": list(self.of_tables)} if self.of_tables else {}
        if not self.differences:
            return {**found, "table": self.tables[0].content()}
        return {
            **found,
            "tables": {side: t.content() for side, t in zip("AB", self.tables, strict=True)},
            "differences": [
                strict(asdict(d), infinities=True)
                | {"closer": d.closer, "closer_among_all": d.closer_among_all}
                for d in self.differences
            ],
        }


def closer(found: Sequence[Difference], n: int, same: bool) -> Verdict:
    """Which set is closer, by all metrics together."""
    if same:
        return Verdict("same examples", "A and B hold the same examples: neither is closer.")
    names = {side: [d.name for d in found if d.closer_among_all == side] for side in ("A", "B")}
    rule = f"{len(found)} metrics, together at 5 % by Holm's rule"
    for side, other in (("A", "B"), ("B", "A")):
        if names[side] and not names[other]:
            word: Word = "A" if side == "A" else "B"
            by = f"by {', '.join(names[side])}"
            return Verdict(word, f"{side} is closer to the reference {by} (n = {n}; {rule}).")
    if names["A"]:
        return Verdict(
            "mixed",
            f"A is closer by {', '.join(names['A'])}, B by {', '.join(names['B'])} "
            f"(n = {n}; {rule}).",
        )
    return Verdict("not distinguishable", f"Which is closer cannot be told at n = {n} ({rule}).")


def apart(table: Table, x: Samples, y: Samples, same: bool, seed: int) -> Verdict:
    """Whether A and B differ, by all tests of the table together; x and y as they were compared."""
    if same:
        return Verdict("same examples", "A and B hold the same examples.")
    found = told_apart(table)
    rule = f"{len(found)} tests, together at 5 % by Holm's rule"
    if seen := [f"{_named(row)} (p = {short(p)})" for row, p, told in found if told]:
        sizes = f"n = {len(x)}" if len(x) == len(y) else f"{len(x)} examples of A, {len(y)} of B"
        return Verdict("different", f"A and B differ by {', '.join(seen)} ({sizes}; {rule}).")
    sizes = f"n = {len(x)}" if len(x) == len(y) else f"{len(x)} against {len(y)} examples"
    seen_if = would_have_seen(table, x, y, LEVEL / max(len(found), 1), seed)
    return Verdict(
        "not distinguishable", f"A and B cannot be told apart at {sizes} ({rule}). {seen_if}"
    )


def _named(row: Row) -> str:
    return in_words(row, "A", "B") if row.name == WORST else row.name


def told_apart(table: Iterable[Row]) -> list[tuple[Row, float, bool]]:
    """Each tested row, its p-value by Holm's rule, and whether it tells the sets apart.

    It does where that p-value is below 5 % and the interval excludes the floor: where real data
    differ as much by the same row, the difference is none of the samples'.
    """
    tested = [row for row in table if row.p_value is not None and not math.isnan(row.p_value)]
    adjusted = holm([row.p_value for row in tested if row.p_value is not None])
    return [
        (row, p, p < LEVEL and not row.reaches_floor)
        for row, p in zip(tested, adjusted, strict=True)
    ]


def would_have_seen(table: Iterable[Row], x: Samples, y: Samples, level: float, seed: int) -> str:
    """In sentences what each kind of test at this level would have seen in 80 % of comparisons."""
    shift = detectable_shift(x, y, level, stream(seed, "power"))
    spread = float(y.var(0).sum().sqrt())
    relative = f", {shift / spread:.2g} of the spread of the second," if spread > 0 else ","
    lines = [f"A shift of the mean by {short(shift)}{relative} in a random direction"]
    for row in table:
        if row.name == "C2ST AUC":
            each = level / max(sum(key.startswith("AUC of") for key in row.protocol), 1)
            lines.append(f"an AUC of {0.5 + detectable_gap(len(x), len(y), each, 'auc'):.2f}")
        if row.name == WORST:
            each = level / max(int(row.protocol["checks"]), 1)
            gap = 100 * detectable_gap(len(x), len(y), each, "share")
            lines.append(f"{gap:.2g} % of one column's values on another side of a threshold")
    joined = " and ".join(filter(None, [", ".join(lines[:-1]), lines[-1]]))
    return f"{joined} would have been seen in 80 % of such comparisons."


def of_dependent(verdict: Verdict, found: Sequence[str]) -> Verdict:
    """A verdict on sets that are not independent: it is about that.

    A difference of A and B that was told stands beside it, because common examples hide
    differences.

    Args:
        found: why two of the sets are not independent, as `duplicates.dependence` has it.
    """
    if not found or verdict.word == "same examples":
        return verdict
    if verdict.word == "different":
        return Verdict("different", " ".join([*found, verdict.text]))
    return Verdict("not independent", " ".join(found))
