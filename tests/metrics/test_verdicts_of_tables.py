"""The verdict of a whole comparison of tables: one faulty column is told and named, at three n."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.metrics.test_metrics_columns import (
    COLUMNS,
    beyond_the_range,
    honest,
    lost_zeros,
    noisy_counts,
)

from monge.metrics import compare as compare_module
from monge.metrics.catalogue import Comparison, laws
from monge.metrics.columns import Columns
from monge.metrics.compare import compare
from monge.metrics.verdicts import Verdict


@pytest.fixture(autouse=True)
def tests_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No other row has a p-value, so that none can change the verdict."""

    def listed(d: int, *given: object) -> tuple[Comparison, ...]:
        return laws(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(compare_module, "comparisons", listed)


def verdict(x: np.ndarray, y: np.ndarray, columns: Columns = COLUMNS) -> Verdict:
    """Of two tables, as `monge compare` brings them to one scale."""
    a, b = torch.from_numpy(x), torch.from_numpy(y)
    scale = torch.cat([a, b]).std(0)
    return compare(a / scale, b / scale, table={"a": a, "b": b}, columns=columns, n=len(x)).verdict


def never_zero(x: np.ndarray) -> str:
    """Zeros of 55 % of the rows are small amounts instead."""
    zero = x[:, 3] == 0
    x[zero, 3] = np.random.default_rng(5).uniform(1e-4, 1e-2, int(zero.sum()))
    return "claim"


N = [200, pytest.param(500, marks=pytest.mark.slow), pytest.param(1000, marks=pytest.mark.slow)]


@pytest.mark.parametrize("n", N)
@pytest.mark.parametrize("cheat", [never_zero, noisy_counts, lost_zeros, beyond_the_range])
def test_one_faulty_column_is_told_and_named(cheat: Callable[[np.ndarray], str], n: int) -> None:
    x, y = honest(n, 11), honest(n, 12)
    name = cheat(x)
    found = verdict(x, y)
    assert found.word == "different" and f"column '{name}'" in found.text


@pytest.mark.parametrize("n", N)
def test_honest_tables_are_not_told_apart(n: int) -> None:
    found = verdict(honest(n, 11), honest(n, 12))
    assert found.word == "not distinguishable" and "would have been seen" in found.text


@pytest.mark.slow
def test_noise_in_every_column_of_magic_is_told(shared_data: Path) -> None:
    rows = np.loadtxt(
        shared_data / "tables" / "magic.csv", delimiter=",", skiprows=1, usecols=range(10)
    )
    rng = np.random.default_rng(0)
    rows = rows[rng.permutation(len(rows))]
    x, y = rows[:1000], rows[1000:2000]
    assert verdict(x, y, Columns.plain(10)).word == "not distinguishable"
    noisy = x + 0.15 * x.std(0) * rng.normal(size=x.shape)
    assert verdict(noisy, y, Columns.plain(10)).word == "different"
