"""The rows of a table's page: each has a cheat that it tells, and one that it does not."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable

import pytest
import torch
from tests.metrics.test_metrics_tabular import MIXED, correlated

from monge.errors import UserError
from monge.metrics import classifiers, tabular_rows
from monge.metrics.columns import Columns
from monge.metrics.compare import compare
from monge.metrics.findings import standing
from monge.metrics.table import Row, Table
from monge.metrics.table_baselines import COPULA, INDEPENDENT, independent_columns
from monge.metrics.tabular_families import (
    ALPHA,
    BETA,
    DCR,
    GROUP,
    LOGISTIC,
    SHAPE,
    TRAINING_ROWS,
    TREES,
    TREND,
    JudgedTable,
)
from monge.metrics.tabular_rows import TabularReport, tabular_report, target_of
from monge.metrics.tabular_words import closest_in_words, tabular_in_words

UTILITY = "TSTR AUROC of k"
EVERY = {SHAPE, TREND, LOGISTIC, TREES, ALPHA, BETA, UTILITY, DCR}
TRAIN, HELD, OTHER = (correlated(600, 0.9, seed) for seed in (1, 2, 3))


@pytest.fixture(autouse=True, scope="module")
def few_trees() -> object:
    patch = pytest.MonkeyPatch()
    patch.setattr(classifiers, "ITERATIONS", 20)
    yield
    patch.undo()


def report(x: torch.Tensor, **settings: object) -> TabularReport:
    return tabular_report(JudgedTable(x, TRAIN, HELD, MIXED, **settings), 0)  # type: ignore


def independent() -> torch.Tensor:
    return independent_columns(TRAIN, 600, 9)


def copied() -> torch.Tensor:
    return TRAIN.flip(0)


def shifted() -> torch.Tensor:
    return OTHER + torch.tensor([0.5, 0.0, 0.0])


def shuffled_class() -> torch.Tensor:
    order = torch.randperm(600, generator=torch.Generator().manual_seed(0))
    return torch.cat([OTHER[:, :2], OTHER[order, 2:]], 1)


def at_the_centre() -> torch.Tensor:
    return torch.cat([0.2 * OTHER[:, :2], OTHER[:, 2:]], 1)


def leaked() -> torch.Tensor:
    return HELD.clone()


def wider() -> torch.Tensor:
    return torch.cat([2 * OTHER[:, :2], OTHER[:, 2:]], 1)


CHEATS: dict[str, tuple[Callable[[], torch.Tensor], set[str], set[str]]] = {
    # what: who tells it, and who cannot
    "independent columns": (independent, {TREND, TREES, UTILITY, BETA}, {SHAPE, LOGISTIC}),
    "training rows": (copied, {DCR}, EVERY - {DCR}),
    "a shifted column": (shifted, {SHAPE, LOGISTIC, TREES}, {DCR}),
    "a shuffled class": (shuffled_class, {TREND, TREES, UTILITY}, {SHAPE, LOGISTIC}),
    "too little spread": (at_the_centre, {SHAPE, ALPHA, BETA, TREES}, {LOGISTIC}),
    "too much spread": (wider, {SHAPE, ALPHA, BETA, TREES}, {LOGISTIC, UTILITY}),
    "the held-out rows": (leaked, {BETA, DCR}, {SHAPE, LOGISTIC, TREES, ALPHA}),
}


@functools.cache
def cheat(what: str) -> TabularReport:
    return report(CHEATS[what][0]())


SLOWER = ("a shifted column", "a shuffled class", "too much spread")
NAMES = [pytest.param(k, marks=pytest.mark.slow) if k in SLOWER else k for k in CHEATS]


@pytest.mark.parametrize("what", NAMES)
def test_every_cheat_is_told_by_the_rows_that_see_it_and_by_no_other(what: str) -> None:
    _, told, blind = CHEATS[what]
    rows = Table(cheat(what).rows)
    assert {row.name for row in rows} == EVERY
    reached = {row.name for row in rows if row.reaches_floor}
    assert not told & reached and blind <= reached


def test_every_row_is_told_by_some_cheat() -> None:
    assert set().union(*(told for _, told, _ in CHEATS.values())) == EVERY


@pytest.fixture(scope="module")
def honest() -> TabularReport:
    return report(OTHER)


def test_other_rows_reach_every_floor(honest: TabularReport) -> None:
    assert all(row.reaches_floor for row in honest.rows)
    assert {standing(row) for row in honest.rows if row.name in (TREND, TREES, UTILITY)} == {
        "at the floor"
    }


def test_every_row_has_an_interval_a_floor_three_baselines_and_its_protocol(
    honest: TabularReport,
) -> None:
    for row in honest.rows:
        assert row.group == GROUP and row.interval[0] <= row.value <= row.interval[1]
        assert list(row.baselines) == [INDEPENDENT, COPULA, TRAINING_ROWS]
        assert {"estimator", "floor", "compared with", "baselines", "columns"} <= set(row.protocol)
    rows = Table(honest.rows)
    assert Table.from_json(rows.to_json()).content() == rows.content()
    assert rows[DCR].floor == 0.5 and "not promised" in str(rows[DCR].protocol["privacy"])
    assert json.dumps(honest.content())


def test_the_page_says_that_independent_columns_win_shape_and_logistic_detection(
    honest: TabularReport,
) -> None:
    first, second = tabular_in_words(honest.rows)
    assert "Shape (" in first and "logistic (" in first and "nothing of dependence" in first
    assert all(name in second for name in (TREND, TREES, UTILITY))
    lines = tabular_in_words(cheat("independent columns").rows)
    assert SHAPE in lines[0] and LOGISTIC in lines[0] and "no better" in lines[1]
    assert all(name in lines[1] for name in (TREND, TREES, UTILITY))


def test_nearness_is_said_in_words_and_promises_nothing(honest: TabularReport) -> None:
    near, text = closest_in_words(honest.rows) or (True, "")
    assert not near and "No privacy is promised" in text and "new rows 50 %" in text
    near, text = closest_in_words(cheat("training rows").rows) or (False, "")
    assert near and text.startswith("100 %")
    assert closest_in_words(row for row in honest.rows if row.name != DCR) is None


def test_rows_in_the_order_of_their_classes_are_drawn_at_random() -> None:
    order = HELD[:, 2].argsort()
    held = torch.cat([HELD, correlated(600, 0.9, 4)])
    held = held[held[:, 2].argsort()]
    given = JudgedTable(OTHER[OTHER[:, 2].argsort()], TRAIN[order], held, MIXED)
    rows = Table(tabular_report(given, 0).rows)
    assert rows[ALPHA].floor > 0.9 and rows[ALPHA].reaches_floor and rows[UTILITY].reaches_floor


def test_the_target_is_the_last_category_or_else_the_last_number() -> None:
    assert target_of(HELD, MIXED) == 2
    assert target_of(HELD, Columns.plain(3)) == 2
    constant = torch.cat([HELD[:, :2], torch.ones(600, 1)], 1)
    assert target_of(constant, MIXED) == 1 and target_of(constant[:, 2:], Columns.plain(1)) is None
    many = torch.cat([HELD[:, :2], torch.arange(600.0)[:, None].double()], 1)
    assert target_of(many, MIXED) == 1
    # Whether a value is missing is a category too, and nothing that anybody predicts.
    gaps = Columns(("k", "y", "y is missing"), (True, False, True))
    codes = HELD[:, [2, 0, 2]]
    assert target_of(codes, gaps) == 0 and target_of(codes, MIXED) == 2


def test_of_many_columns_some_are_judged_and_the_page_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = torch.Generator().manual_seed(0)
    a, b, c = torch.randn(3, 60, 9, generator=rng).double()
    monkeypatch.setattr(tabular_rows, "MOST_COLUMNS", 3)
    found = tabular_report(JudgedTable(a, b, c, Columns.plain(9), 3), 0)
    assert {row.protocol["columns"] for row in found.rows} == {"3 of 9, drawn at random"}
    assert any(row.name == "TSTR R² of x3" for row in found.rows) and len(found.shapes) == 3


def test_one_column_has_no_pairs_and_nothing_to_predict_from() -> None:
    a, b, c = (z[:, :1] for z in (OTHER, TRAIN, HELD))
    names = {r.name for r in tabular_report(JudgedTable(a, b, c, Columns.plain(1)), 0).rows}
    assert names == EVERY - {TREND, UTILITY}


def rows_of(result: object, side: int = 0) -> dict[str, Row]:
    return {row.name: row for row in result.tables[side] if row.group == GROUP}  # type: ignore


def test_a_comparison_has_the_same_rows_but_copies_without_what_was_trained_on() -> None:
    columns = {"table": {"a": independent(), "b": HELD}, "columns": MIXED}
    found = compare(independent(), HELD, **columns, n=200)  # type: ignore[arg-type]
    rows = rows_of(found)
    assert set(rows) == EVERY - {DCR} and not rows[TREND].reaches_floor
    assert TRAINING_ROWS not in rows[TREND].baselines and "half of B" in str(rows[TREND].protocol)
    assert any("nothing of dependence" in line for line in found.of_tables)
    plain = compare(independent(), HELD, n=200)
    text = found.verdict.text.replace("column 'a'", "column 'x0'")
    assert plain.verdict.text.split("(p")[:3] == text.split("(p")[:3]  # the page is no part of it
    assert "4 tests" in plain.verdict.text and "4 tests" in text
    with pytest.raises(UserError, match="no column 'kk'"):
        compare(OTHER, HELD, **columns, target="kk", n=50)  # type: ignore[arg-type]


def test_with_a_reference_both_sides_have_them_and_copies_of_the_rest() -> None:
    train, held, other = (z[:100] for z in (TRAIN, HELD, OTHER))
    sets = {"a": train, "b": other, "reference": held, "rest": train}
    found = compare(
        train, other, held, rest=train, table=sets, columns=MIXED, trained=True, n=100
    )  # fmt: skip
    first, second = rows_of(found, 0), rows_of(found, 1)
    assert set(first) == set(second) == EVERY
    assert first[DCR].value == 1 and second[DCR].reaches_floor
    assert INDEPENDENT in found.text() and any(line.startswith("B: ") for line in found.of_tables)
