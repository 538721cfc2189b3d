"""Checks of columns: planted faults at three sizes, honest tables, and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from monge.metrics.column_rows import WORST, column_report, in_words
from monge.metrics.columns import Columns, column_checks, decimals, gap_interval
from monge.metrics.draws import Draws

D = 5


def honest(n: int, seed: int) -> np.ndarray:
    """Rows of a normal number, one rounded to cents, a count, a claim that is often 0, a code."""
    r = np.random.default_rng(seed)
    z = r.normal(size=(n, 2))
    claim = np.where(r.random(n) < 0.55, 0.0, np.exp(1 + 0.3 * z[:, 0]))
    return np.stack(
        [z[:, 0], z[:, 1].round(2), r.poisson(6, n).astype(float), claim, r.integers(0, 4, n)], 1
    )


COLUMNS = Columns(("a", "cents", "count", "claim", "kind"), (False, False, False, False, True))


def noisy_counts(x: np.ndarray) -> str:
    x[:, 2] += 0.1 * np.random.default_rng(9).normal(size=len(x))
    return "count"


def lost_zeros(x: np.ndarray) -> str:
    x[:, 3] += 0.05 * np.abs(np.random.default_rng(9).normal(size=len(x)))
    return "claim"


def beyond_the_range(x: np.ndarray) -> str:
    x[: max(len(x) * 3 // 100, 16), 0] = 8 + np.arange(max(len(x) * 3 // 100, 16)) / 50
    return "a"


def too_many_decimals(x: np.ndarray) -> str:
    x[::4, 1] += 0.00123
    return "cents"


def a_category_too_often(x: np.ndarray) -> str:
    x[np.random.default_rng(9).random(len(x)) < 0.45, 4] = 2
    return "kind"


def stretched(x: np.ndarray) -> str:
    x[:, 0] *= 2.2
    return "a"


CHEATS = [
    noisy_counts,
    lost_zeros,
    beyond_the_range,
    too_many_decimals,
    a_category_too_often,
    stretched,
]


@pytest.mark.parametrize("n", [200, 1000, 4000])
@pytest.mark.parametrize("cheat", CHEATS)
def test_a_planted_fault_of_one_column_is_found_and_named(cheat, n: int) -> None:
    x, y = honest(n, 1), honest(n, 2)
    assert column_checks(*map(torch.from_numpy, (x, y)), COLUMNS)[0].p_holm > 0.05
    name = cheat(x)
    worst = column_checks(torch.from_numpy(x), torch.from_numpy(y), COLUMNS)[0]
    assert COLUMNS.names[worst.column] == name and worst.p_holm < 0.01, worst


@pytest.mark.parametrize(
    ("n", "repeats"), [(200, 50), pytest.param(1000, 200, marks=pytest.mark.slow)]
)
def test_honest_tables_are_told_apart_in_at_most_one_of_twenty(n: int, repeats: int) -> None:
    alarms = [
        column_checks(
            torch.from_numpy(honest(n, 2 * k)), torch.from_numpy(honest(n, 2 * k + 1)), COLUMNS
        )[0].p_holm
        < 0.05
        for k in range(repeats)
    ]
    print("false alarms", sum(alarms), "of", repeats)
    assert sum(alarms) <= stats.binom.ppf(0.999, repeats, 0.05)


def test_the_run_at_the_end_has_the_probability_of_drawing_one_set_alone() -> None:
    x = torch.arange(10.0, dtype=torch.float64)[:, None]
    y = torch.cat([x[:7] + 0.5, torch.full((3, 1), -5.0, dtype=torch.float64)])
    found = {c.what: c for c in column_checks(x, y, Columns.plain(1))}
    above = found["above 6.5, the largest of the data"]
    assert above.shares == (0.3, 0.0)
    assert above.p_value == pytest.approx(2 * (10 * 9 * 8) / (20 * 19 * 18))


def test_a_count_has_fishers_p_value_doubled_and_ks_is_scipys() -> None:
    x = torch.tensor([0.0] * 12 + list(np.linspace(1, 2, 18)), dtype=torch.float64)[:, None]
    y = torch.tensor([0.0] * 3 + list(np.linspace(1.01, 2.01, 27)), dtype=torch.float64)[:, None]
    found = {c.what: c for c in column_checks(x, y, Columns.plain(1))}
    one_sided = stats.fisher_exact([[12, 18], [3, 27]], alternative="greater").pvalue
    assert found["exactly 0"].p_value == pytest.approx(2 * one_sided)
    ks = stats.ks_2samp(x[:, 0].numpy(), y[:, 0].numpy(), method="exact")
    by_ks = [c for c in found.values() if c.what.startswith("up to")]
    assert by_ks[0].p_value == pytest.approx(ks.pvalue)
    assert by_ks[0].gap == pytest.approx(ks.statistic)


def test_a_gap_never_exceeds_the_total_variation() -> None:
    x, y = (torch.from_numpy(honest(300, k)) for k in (1, 2))
    kinds = [torch.bincount(z[:, 4].long(), minlength=4) / 300 for z in (x, y)]
    total = float((kinds[0] - kinds[1]).abs().sum() / 2)
    gaps = [c.gap for c in column_checks(x, y, COLUMNS) if c.column == 4]
    assert gaps and max(gaps) <= total + 1e-12


def test_missing_values_are_a_share_of_their_own() -> None:
    x, y = (torch.from_numpy(honest(300, k)) for k in (1, 2))
    x[:60, 0] = torch.nan
    found = column_report(Draws(x, y, ((y, y),), {"none": y}, {}), COLUMNS, "laws", 0)
    assert found is not None and found.row.protocol["values"] == "missing"
    assert found.row.value == 0.2 and found.row.p_value is not None and found.row.p_value < 1e-9


def test_decimals_are_those_of_six_digits() -> None:
    values = torch.tensor([0.0, 12.0, 1.5, 100.25, 1 / 3, 2**0.5 * 1000], dtype=torch.float64)
    assert decimals(values).tolist() == [0, 0, 1, 2, 6, 2]
    single = torch.tensor([0.1, 2.34], dtype=torch.float32).double()
    assert decimals(single).tolist() == [1, 2]


def test_the_interval_of_the_worst_gap_covers_it() -> None:
    # Shares .3 and .3: the gap of the worst of 40 equal checks must still be covered at 95 %.
    rng = np.random.default_rng(0)
    missed = 0
    for _ in range(100):
        p, q = rng.binomial(400, 0.3, 40) / 400, rng.binomial(400, 0.3, 40) / 400
        k = int(np.abs(p - q).argmax())
        x = torch.zeros(10, 1, dtype=torch.float64)
        check = column_checks(x, x + torch.arange(10.0)[:, None], Columns.plain(1))[0]
        chosen = type(check)(0, "", check.mark, (float(p[k]), float(q[k])), 1.0)
        missed += gap_interval(chosen, 400, 400, 40).low > 0
    assert missed <= stats.binom.ppf(0.999, 100, 0.05)


@pytest.mark.parametrize("lose", [True, False])
def test_the_gap_of_two_sets_of_one_law_is_zero_on_average(lose: bool) -> None:
    """In the direction of the check: what a floor is the mean of."""
    x, y = (torch.from_numpy(honest(400, k)) for k in (1, 2))
    more, less = (y, x) if lose else (x, y)
    less[:, 3] = less[:, 3].clamp(min=0.01)
    checks = column_checks(x, y, COLUMNS)
    check = next(c for c in checks if c.column == 3 and c.what == "exactly 0")
    assert check.gap_between(x, y) == check.gap == float((more[:, 3] == 0).double().mean())
    sets = [torch.from_numpy(honest(200, k)) for k in range(100, 140)]
    gaps = np.array([check.gap_between(*pair) for pair in zip(sets[::2], sets[1::2], strict=True)])
    assert abs(gaps.mean()) < 3 * gaps.std() / len(gaps) ** 0.5 and gaps.min() < 0 < gaps.max()


def test_floor_and_baselines_are_of_the_same_set_of_values() -> None:
    x, y, other, wide = (torch.from_numpy(honest(400, k)) for k in range(4))
    lost: Tensor = x.clone()
    lost[:, 3] += 0.01 * torch.rand(400, generator=torch.Generator().manual_seed(0))
    wide[:, 3] += 1
    found = column_report(Draws(lost, y, ((other, y),), {"wide": wide}, {}), COLUMNS, "laws", 0)
    assert found is not None and found.row.name == WORST
    row = found.row
    assert row.protocol["column"] == "claim" and row.value > 0.45
    assert row.floor < 0.15 and row.baselines["wide"] > 0.4
    assert row.interval[0] > row.floor and row.interval[0] <= row.value <= row.interval[1]
    assert "column 'claim': 0.0 % of samples are exactly 0" in in_words(row)
    told = {c["column"]: c for c in found.content()}
    assert set(told) == set(COLUMNS.names)
    assert row.p_value is not None and told["claim"]["p_holm"] <= row.p_value < 1e-9
