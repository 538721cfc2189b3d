"""Two sets of samples compared: with each other, or both with a reference.

Rows of a table are also compared column by column (`columns`), and by boosted trees.

With a reference R, A and B meet the same n examples of R in every metric. The floor puts other
real examples in their place, independent of those: the rest of R, or, where none is given, the
other half of R. All sets have one size n, the smallest of all, because every bias depends on it.
What is asked is which set is *closer*: see `differences`. Each metric is told on its own at 5 %;
the verdict takes all together by Holm's rule. The worst column of each stands in its table and
is no part of the verdict, which is about the distance.

Where sets are not independent, because they have more examples in common than chance gives, the
verdict is about that.

Without a reference it is asked whether A and B are of one law. The floor is the same estimator
between two sets into which the 2n examples are dealt at random, A and B mixed. The tests are those
of the rows with a p-value, together by Holm's rule. Where they see nothing, the smallest shift
that the energy test would have seen is told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from monge.errors import UserError, nearest
from monge.metrics import duplicates, spaces
from monge.metrics.catalogue import LAWS, Comparison, Draws, comparisons
from monge.metrics.classifiers import Judges, image_shape
from monge.metrics.column_rows import column_report
from monge.metrics.columns import MOST_COLUMNS, Columns
from monge.metrics.differences import Difference, differences, of_intervals, remembered, with_holm
from monge.metrics.feature_rows import feature_comparisons
from monge.metrics.features import FeatureNetwork
from monge.metrics.intervals import GROUPS, wilson
from monge.metrics.label_rows import label_rows
from monge.metrics.labels import Labelled, as_labels
from monge.metrics.mmd import median_distance
from monge.metrics.samples import Rows, Samples, as_matrix, require_same_dimension
from monge.metrics.spaces import GAUSSIAN, Chosen, Given
from monge.metrics.table import Row, Table
from monge.metrics.tabular_families import JudgedTable
from monge.metrics.tabular_rows import TabularReport, tabular_report
from monge.metrics.tabular_words import tabular_in_words
from monge.metrics.verdicts import Compared, apart, closer, of_dependent
from monge.tensors import stream

MAX_N = 1000
FEWEST = 2 * GROUPS

Progress = Callable[[str, float], None]
"""Told what begins and the fraction done, in [0, 1]."""

Set: TypeAlias = Tensor | Labelled
"""Examples (N, ...), or examples and their labels (N,), -1 for none."""


def compare(
    a: Set,
    b: Set,
    reference: Set | None = None,
    *,
    rest: Set | None = None,
    network: FeatureNetwork | None = None,
    table: Mapping[str, Tensor] | None = None,
    columns: Columns | None = None,
    target: str | None = None,
    trained: bool = False,
    n: int = MAX_N,
    seed: int = 0,
    progress: Progress | None = None,
) -> Compared:
    """Which of two sets is closer to a reference; or, without one, whether they differ at all.

    Deterministic for a seed. Examples are flattened and compared as they are: bring the columns
    of a table to one scale before.

    Args:
        a, b: examples (N, ...), or `Labelled`, examples with labels (N,).
        reference: real examples that neither A nor B was made from.
        rest: real examples independent of the reference, for the floor; none: the reference is
            cut in two halves.
        network: in whose features images (N, C, H, W) in [-1, 1] are compared, too.
        table: of each set, by the names "a", "b", "reference" and "rest", the columns in their own
            units, categories as codes (N, columns); rows (N, d) are their own if None.
        columns: what those are; with them the numbers that papers on tables report are added.
        target: the column that models learn to predict; None for the last category or number.
        trained: whether A and B were made from the rest of the reference, so that copies of it
            can be looked for.
        n: examples of each set, at most; at least 20.
        progress: told what begins.

    Raises:
        UserError: different shapes, too few examples, or bad entries.

    >>> from monge.tensors import stream
    >>> x, y = torch.randn(2, 200, 2, generator=stream(0))
    >>> compare(x, y + 1, n=100).verdict.word
    'different'
    """
    sets = _all_given(a, b, reference, rest, n)
    ids = _identities(sets)
    sets, columns = _with_columns(sets, table, columns)
    notes = _notes(ids)
    chosen = _chosen(sets, ids, n, seed)
    classes = _classes(chosen, notes)
    parts = in_each_space(chosen, columns, network, classes)
    rows, found = _measured(parts, seed, progress)
    _add_columns(rows, parts[0].drawn, columns, seed)
    if classes > 1:
        found += _label_rows(rows, chosen)
    if progress:
        progress("done", 1.0)
    result = _concluded(rows, found, parts[0].drawn, ids, notes, seed)
    known = None if table is None else columns
    pages = _pages(chosen, known, target, trained, seed)
    return _with_pages(result, pages) if pages else result


@dataclass(frozen=True)
class Part:
    """The comparisons of one space, and what they compare there: A and B, or A against B."""

    listed: Sequence[Comparison]
    drawn: tuple[Draws, ...]


def _all_given(a: Set, b: Set, reference: Set | None, rest: Set | None, n: int) -> dict[str, Given]:
    """The sets by the names that messages have for them."""
    if rest is not None and reference is None:
        raise UserError("a rest of the reference needs the reference itself")
    if n < FEWEST:
        raise UserError(f"a comparison needs n of at least {FEWEST}, not {n}")
    given = {"A": a, "B": b, "the reference": reference, "the rest of the reference": rest}
    return {name: _given(x, name) for name, x in given.items() if x is not None}


def _identities(sets: Mapping[str, Given]) -> dict[str, Rows]:
    """A number for each example of each set; the sets are checked against each other first."""
    flat = {name: as_matrix(x.x, name, FEWEST) for name, x in sets.items()}
    for name, x in flat.items():
        require_same_dimension(flat["A"], "A", x, name)
    return dict(zip(flat, duplicates.identities(*flat.values()), strict=True))


def _chosen(sets: Mapping[str, Given], ids: Mapping[str, Rows], n: int, seed: int) -> Chosen:
    """The examples that enter, the reference cut in two halves if it brings no rest."""
    first, second, *real = sets.values()
    if len(real) == 1:
        sides = duplicates.halves(ids["the reference"], stream(seed, "halves"))
        real = [real[0][side] for side in sides]
    smallest = min(n, *map(len, (first, second, *real)))
    if smallest < FEWEST:
        raise UserError(
            f"the smaller half of the reference has {smallest} examples: {FEWEST} are needed"
        )
    # Without a reference each estimator that can takes all of A against all of B.
    return spaces.choose(first, second, real, smallest if real else n, seed)


def in_each_space(
    chosen: Chosen,
    columns: Columns | None = None,
    network: FeatureNetwork | None = None,
    classes: int = 0,
) -> list[Part]:
    """What is compared: the numbers of examples, features of a network, and labels.

    Args:
        classes: how many labels there are; 0: they are not compared.
    """
    seed, d = chosen.seed, chosen.a.x[0].numel()
    beside = partial(_gaussian, seed=seed)
    drawn = spaces.draws(chosen, _numbers, beside, d if columns else None)
    # Kernels are scaled by examples outside the tested sets, or by both of them together.
    first_floor = drawn[0].seen("numbers").floors[0]
    scale = median_distance(first_floor[0] if chosen.rest is not None else torch.cat(first_floor))
    judges = Judges(image_shape(chosen.a.x), columns and columns.categorical)
    parts = [Part(comparisons(d, seed, scale, judges), drawn)]
    if network is not None:
        network.require(chosen.a.x.shape[1:])
        seen = spaces.draws(chosen, lambda x: network.features(x.x).x.double(), beside)
        real = seen[0].real
        parts.append(Part(feature_comparisons(network, real, len(real), seed), seen))
    if classes:
        view = spaces.one_hot(classes)
        parts.append(Part([spaces.label_shares()], spaces.draws(chosen, view, spaces.equal_shares)))
    return parts


def _measured(
    parts: Sequence[Part], seed: int, progress: Progress | None
) -> tuple[list[list[Row]], list[Difference]]:
    """The rows of each side, and with a reference how much farther from it B is than A."""
    rows: list[list[Row]] = [[] for _ in parts[0].drawn]
    found: list[Difference] = []
    listed = [(remembered(c), part.drawn) for part in parts for c in part.listed]
    for k, (comparison, drawn) in enumerate(listed):
        if progress:
            progress(comparison.heads[0].name, k / len(listed))
        made = [comparison.rows(side, seed) for side in drawn]
        for known, new in zip(rows, made, strict=True):
            known += new
        if len(drawn) == 2 and comparison.jackknifed and comparison.stderr is None:
            first, second = (comparison.draws(side, seed) for side in drawn)
            found += differences(comparison, first, second, seed)
        elif len(drawn) == 2:
            found += [of_intervals(*pair) for pair in zip(*made, strict=True)]
    return rows, found


def _add_columns(
    rows: list[list[Row]], drawn: Sequence[Draws], columns: Columns | None, seed: int
) -> None:
    """Adds the worst column of each side, where each has one."""
    if columns is None:
        return
    sides = [side.seen("columns", any_size=True) for side in drawn]
    reports = [column_report(side, columns, LAWS, seed) for side in sides]
    if None in reports:
        return
    for side, report in zip(rows, reports, strict=True):
        assert report is not None
        side.append(report.row)


def _pages(
    chosen: Chosen, columns: Columns | None, target: str | None, trained: bool, seed: int
) -> list[TabularReport]:
    """What papers on tables report of A and of B; without a reference of A, half of B real.

    None where the sets are no tables.
    """
    if columns is None:
        return []
    words = {"real": "rows of the reference", "train": "other real rows"}
    real, rest = chosen.real, chosen.rest
    if rest is None:
        order = torch.randperm(len(real), generator=stream(seed, "table page", "halves"))
        first, second = order.chunk(2)
        real, rest = real[first], real[second]
        words = {"real": "rows of one half of B", "train": "rows of the other half of B"}
        trained = False
    place = None
    if target is not None:
        if target not in columns.names:
            raise UserError(f"--target: no column {target!r}: {nearest(target, columns.names)}")
        place = columns.names.index(target)
    pages = []
    for side in chosen.sides:
        sets = side.columns, rest.columns, real.columns
        assert sets[0] is not None and sets[1] is not None and sets[2] is not None
        given = JudgedTable(sets[0], sets[1], sets[2], columns, place, trained, words)
        pages.append(tabular_report(given, seed))
    return pages


def _with_pages(result: Compared, pages: Sequence[TabularReport]) -> Compared:
    """The rows of tables' pages after all others. The verdict does without them."""
    tables = tuple(Table([*t, *page.rows]) for t, page in zip(result.tables, pages, strict=True))
    notes = [
        f"{name}{line}"
        for name, page in zip(("A: ", "B: ") if len(pages) > 1 else ("",), pages, strict=True)
        for line in tabular_in_words(page.rows)
    ]
    return replace(result, tables=tables, of_tables=tuple(notes))


def _concluded(
    rows: list[list[Row]],
    found: list[Difference],
    drawn: tuple[Draws, ...],
    ids: dict[str, Rows],
    notes: list[str],
    seed: int,
) -> Compared:
    """The tables with what may be said of them."""
    tables, n = tuple(map(Table, rows)), len(drawn[0].real)
    same = duplicates.same(ids["A"], ids["B"])
    dependent = _dependent(ids, drawn)
    if found:
        tested = with_holm(found)
        verdict = of_dependent(closer(tested, n, same), dependent)
        return Compared(tables, tested, verdict, tuple(notes), n, seed)
    entire = drawn[0].seen("numbers", any_size=True)
    verdict = of_dependent(apart(tables[0], entire.samples, entire.real, same, seed), dependent)
    return Compared(tables, (), verdict, tuple(notes), n, seed)


def _dependent(ids: dict[str, Rows], drawn: Sequence[Draws]) -> list[str]:
    """Which of the compared pairs of sets are not independent: A and B, or each and the reference.

    That A and B have examples in common makes no difference to their distances from a reference.
    """
    real = "the reference" if len(drawn) == 2 else "B"
    found = [
        duplicates.dependence((name, real), (ids[name], ids[real]), (side.samples, side.real))
        for name, side in zip("AB", drawn, strict=False)
    ]
    return [sentence for sentence in found if sentence]


def _given(x: Set, name: str) -> Given:
    if not isinstance(x, Labelled):
        return Given(x, None)
    return Given(x.x, as_labels(x.label, f"labels of {name}", len(x.x)))


def _with_columns(
    sets: dict[str, Given], table: Mapping[str, Tensor] | None, columns: Columns | None
) -> tuple[dict[str, Given], Columns | None]:
    """The sets with their columns; rows (N, d) without a table are columns themselves."""
    if table is not None and columns is not None:
        named = dict(zip(sets, table.values(), strict=True))
        return {k: replace(x, columns=named[k].double()) for k, x in sets.items()}, columns
    d = sets["A"].x.shape[1] if sets["A"].x.ndim == 2 else 0
    if not 0 < d <= MOST_COLUMNS or any(x.x.ndim != 2 for x in sets.values()):
        return sets, None
    own = {k: replace(x, columns=x.x.cpu().double()) for k, x in sets.items()}
    return own, Columns.plain(d)


def _numbers(x: Given) -> Samples:
    numbers = x.x.flatten(1).cpu().double()
    return numbers if x.columns is None else torch.cat([numbers, x.columns], 1)


def _gaussian(real: Samples, n: int, seed: int) -> dict[str, Samples]:
    return {GAUSSIAN: spaces.gaussian(real, n, seed)}


def _notes(ids: dict[str, Rows]) -> list[str]:
    """What is repeated within a set or shared by two."""
    notes = [
        f"{name}: {again} of {len(own)} examples repeat another one exactly"
        for name, own in ids.items()
        if (again := duplicates.repeated(own))
    ]
    names = list(ids)
    for i, name in enumerate(names):
        for other in names[i + 1 :]:
            if duplicates.same(ids[name], ids[other]):
                notes.append(f"{name} and {other} hold the same examples")
            elif common := duplicates.shared(ids[name], ids[other]):
                notes.append(
                    f"{common} of the {len(ids[name])} examples of {name} occur in {other}: they "
                    "are not independent, which makes distances too small and p-values unreliable"
                )
    return notes


def _classes(chosen: Chosen, notes: list[str]) -> int:
    """How many labels there are, if all sets have some; else 0."""
    labels = [x.label for x in (chosen.a, chosen.b, chosen.real, chosen.rest) if x is not None]
    have = [label is not None and bool((label >= 0).any()) for label in labels]
    if any(have) and not all(have):
        notes.append("labels are not compared: not all sets have them")
    if not all(have):
        return 0
    return 1 + max(int(label.max()) for label in labels if label is not None)


def _label_rows(rows: list[list[Row]], chosen: Chosen) -> list[Difference]:
    """Adds whether labels are shown; a classifier learns them from the rest, or from half of B."""
    real, known = chosen.real, chosen.rest
    if known is None:
        even = torch.arange(len(real)) % 2 == 0
        known, real = real[even.nonzero()[:, 0]], real[(~even).nonzero()[:, 0]]
    train, heldout = _labelled(known), _labelled(real)
    if len(set(train.label.tolist()) - {-1}) < 2 or not (heldout.label >= 0).any():
        return []
    for table, side in zip(rows, chosen.sides, strict=True):
        table += label_rows(_labelled(side), train, heldout, {}, chosen.seed)[1]
    agreed = [Table(table)["label agreement"] for table in rows]
    if len(agreed) == 2:
        return [of_intervals(*agreed)]
    n = int((heldout.label >= 0).sum())
    expected = wilson(agreed[0].floor, n)
    ends = (expected.low, expected.high)
    as_often = replace(agreed[0], value=agreed[0].floor, interval=ends, n=n)
    tested = replace(agreed[0], p_value=of_intervals(agreed[0], as_often).p_value)
    rows[0][rows[0].index(agreed[0])] = tested
    return []


def _labelled(x: Given) -> Labelled:
    assert x.label is not None
    return Labelled(x.x.flatten(1).cpu().double(), x.label)
