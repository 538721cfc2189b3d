"""The distance to the closest record: golden values, cheats, its interval, and other libraries."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tests.metrics.test_metrics_tabular import MIXED, correlated

from monge.metrics.closest_records import closest, distances
from monge.metrics.columns import Columns


def test_the_share_is_counted_by_hand() -> None:
    # One number with a range of 10 and one category. Sample 0 is nearer to training, 1 to held-out
    # rows, 2 ties by symmetry, 3 equals a training row.
    columns = Columns(("a", "k"), (False, True))
    train = torch.tensor([[0.0, 0.0], [10.0, 1.0]]).double()
    held = torch.tensor([[4.0, 0.0], [6.0, 1.0]]).double()
    x = torch.tensor([[1.0, 0.0], [4.0, 0.0], [2.0, 0.0], [10.0, 1.0]]).double()
    found = closest(x, train, held, columns, 0)
    assert found.share == (1 + 0 + 0.5 + 1) / 4 and found.same == 0.25 and found.references == 2


def test_missing_values_equal_each_other_and_nothing_else() -> None:
    nan = math.nan
    x = torch.tensor([[nan, nan], [0.25, 1.0]]).double()
    y = torch.tensor([[nan, 2.0], [0.75, nan], [nan, nan]]).double()
    columns = Columns(("a", "k"), (False, True))
    expected = [[0.5, 0.5, 0.0], [1.0, 0.75, 1.0]]
    assert distances(x, y, columns).tolist() == expected


def test_copies_lie_nearer_to_training_rows_and_honest_rows_do_not() -> None:
    train, held, other = (correlated(1000, 0.5, seed) for seed in (11, 12, 13))
    honest = closest(other, train, held, MIXED, 0)
    assert abs(honest.share - 0.5) < 3 * honest.stderr < 0.2 and honest.same == 0
    assert closest(train, train, held, MIXED, 0).share == 1.0
    half = closest(torch.cat([train[:500], other[:500]]), train, held, MIXED, 0)
    assert 0.65 < half.share < 0.85 and half.same == 0.5
    assert half.share - 2 * half.stderr > 0.5
    leaked = closest(held, train, held, MIXED, 0)
    assert leaked.share == 0.0


def test_the_order_of_rows_and_the_scale_of_columns_change_nothing() -> None:
    train, held, other = (correlated(300, 0.5, seed) for seed in (14, 15, 16))
    found = closest(other, train, held, MIXED, 0)
    units = torch.tensor([1000.0, 0.01, 1.0]).double()
    assert (
        closest(other.flip(0) * units, train * units, held * units, MIXED, 0).share == found.share
    )


def test_of_more_training_rows_as_many_are_drawn() -> None:
    train, held, other = (
        correlated(900, 0.5, 17),
        correlated(300, 0.5, 18),
        correlated(300, 0.5, 19),
    )
    found = closest(other, train, held, MIXED, 0)
    assert found.references == 300 and abs(found.share - 0.5) < 4 * found.stderr


@pytest.mark.slow
def test_the_interval_covers_one_half() -> None:
    # 200 repetitions: 95 % +- 1.5 %, a standard error of 3 would be 90.4 %. The jackknife errs on
    # the long side.
    covered = 0
    for k in range(200):
        train, held, x = (correlated(300, 0.5, 1000 + 3 * k + j) for j in range(3))
        found = closest(x, train, held, MIXED, k)
        covered += abs(found.share - 0.5) <= 1.96 * found.stderr
    assert covered >= 181


def test_the_share_is_that_of_sdmetrics() -> None:
    privacy = pytest.importorskip("sdmetrics.single_table.privacy", reason="no sdmetrics")
    import pandas as pd

    train, held, x = (correlated(60, 0.5, seed) for seed in (20, 21, 22))
    for z in (train, held):  # theirs has a range of its own for either set
        z[0, :2], z[1, :2] = -4.0, 4.0
    kinds = {"a": "numerical", "b": "numerical", "k": "categorical"}
    told = {"columns": {name: {"sdtype": kind} for name, kind in kinds.items()}}
    frames = [
        pd.DataFrame({"a": z[:, 0], "b": z[:, 1], "k": ["uv"[int(k)] for k in z[:, 2]]})
        for z in (train, x, held)
    ]
    metric = privacy.DCROverfittingProtection
    theirs = metric.compute_breakdown(*frames, metadata=told, table_name=None)
    known = theirs["synthetic_data_percentages"]["closer_to_training"]
    assert closest(x, train, held, MIXED, 0).share == pytest.approx(known, abs=1e-9)
    assert np.isfinite(known)
