"""What may be said of an evaluation: the badge, the verdict by planted cases, and the sentences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from monge.metrics.catalogue import comparisons
from monge.metrics.draws import Draws, draw
from monge.metrics.evaluate import evaluate
from monge.metrics.findings import findings, resolution, standing
from monge.metrics.intervals import of_test
from monge.metrics.table import Row
from monge.metrics.two_sample import energy_test
from monge.metrics.verdicts import told_apart
from monge.tensors import stream


def normals(n: int, d: int, *key: int | str) -> Tensor:
    return torch.randn(n, d, generator=stream(0, "findings", *key), dtype=torch.float64)


# The badge


@pytest.mark.parametrize(
    ("better", "interval", "gaussian", "expected"),
    [
        ("lower", (0.9, 1.5), 2.0, "at the floor"),
        ("lower", (0.9, 2.5), 2.0, "cannot tell"),
        ("lower", (1.1, 1.5), 2.0, "away from the floor"),
        ("higher", (0.1, 0.5), 0.2, "away from the floor"),
        ("higher", (0.5, 1.5), 0.2, "at the floor"),
        ("higher", (0.1, 1.5), 0.2, "cannot tell"),
        ("near floor", (0.5, 1.5), 2.0, "at the floor"),
        ("near floor", (0.1, 0.5), 2.0, "away from the floor"),
    ],
)
def test_the_badge_needs_an_interval_without_the_baselines(better, interval, gaussian, expected):
    beside = {"gaussian": gaussian, "training set": 1.0, "reconstructions": 1.1}
    row = Row("x", sum(interval) / 2, interval, "m", 1.0, beside, 9, {}, better=better)
    assert standing(row) == expected


def test_what_would_not_show_is_the_way_to_the_end_of_the_interval() -> None:
    row = Row("x", 1.5, (0.5, 2.5), "m", 1.0, {"gaussian": 2.0}, 9, {})
    assert resolution(row) == "differences from the floor below 1.5 would not show"


def test_a_row_without_interval_says_why_and_has_no_badge() -> None:
    nan = (math.nan, math.nan)
    row = Row("x", 1.0, nan, "m", 1.0, {"gaussian": 2.0}, 9, {}, note="halves of 15 are too few")
    assert standing(row) == "not measured"


# One method for interval and verdict


def test_the_interval_lies_above_zero_exactly_where_the_test_rejects() -> None:
    said = set()
    for k in range(60):
        x, y = normals(40, 2, "x", k) + 0.015 * k, normals(30, 2, "y", k)
        test = energy_test(x, y, stream(k))
        interval = of_test(test.value, 0.05, test.critical)
        assert (interval.low > 0) == (test.p_value < 0.05) == (test.value > test.critical)
        assert interval.low <= test.value <= interval.high
        said.add(interval.low > 0)
    assert said == {True, False}


def test_the_score_interval_solves_its_equation_and_ends_at_students() -> None:
    value, stderr, critical = 1.0, 0.3, 0.4
    low = of_test(value, stderr, critical).low
    half = stats.t.ppf(0.975, 9) * stderr
    at_low = critical**2 + (half**2 - critical**2) * low / value
    assert (value - low) ** 2 == pytest.approx(at_low)
    far = of_test(100.0, stderr, critical)
    assert far.low == pytest.approx(100 - half, abs=0.01) and far.high == pytest.approx(100 + half)


@pytest.mark.parametrize("shift", [0.0, 0.2, 1.0])
def test_the_score_interval_of_unequal_sizes_covers(shift: float) -> None:
    listed = next(c for c in comparisons(2, 0, 1.0) if c.heads[0].name == "energy distance")
    truth = []
    ends = []
    for k in range(40):
        x, y = normals(120, 2, "cover x", k), normals(50, 2, "cover y", k)
        x[:, 0] += shift
        truth.append(listed.estimate(x, y)[0])
        ends.append(listed.intervals(x, y, stream(k), k)[0])
    mean = float(np.mean(truth)) if shift else 0.0
    covered = sum(i.low <= mean <= i.high for i in ends)
    assert covered >= stats.binom.ppf(0.002, 40, 0.95)


def test_unequal_sizes_take_all_examples_and_equal_ones_change_nothing() -> None:
    x, train, y = normals(90, 2, "x"), normals(200, 2, "t"), normals(40, 2, "y")
    wide = draw(x, train, y, {"b": normals(90, 2, "b")}, 40, 0, most=500)
    assert wide.wide is not None and len(wide.samples) == 40
    assert len(wide.wide.samples) == 90 and len(wide.wide.real) == 40
    assert [len(f) for f, _ in wide.wide.floors] == [90, 90]
    assert draw(x[:40], train, y, {}, 40, 0, most=500).wide is None
    joined = Draws(x, x, ((x, x),), {"b": x}, {}, numbers=1)
    assert torch.equal(joined.seen("numbers").samples, x[:, :1])
    assert torch.equal(joined.seen("columns").baselines["b"], x[:, 1:])


# Verdicts of whole evaluations


def measured(x: Tensor, n: int = 150):
    train, real = normals(400, 2, "train"), normals(n, 2, "real")
    return evaluate(x, train, real, baselines={"gaussian": normals(len(x), 2, "g") * 1.05})


def test_an_honest_sampler_is_not_accused_and_a_shift_is() -> None:
    good = measured(normals(300, 2, "good"))
    assert good.verdicts[0].startswith("Good: samples cannot be told from held-out data")
    assert "300 samples against 150 held-out examples" in good.verdicts[0]
    bad = measured(normals(300, 2, "bad") + torch.tensor([0.6, 0.0]))
    found = findings(bad.table)
    assert found.differs and bad.verdicts[0].startswith("Not good: samples differ")
    for row, _, told in told_apart([r for r in bad.table if r.group == "Same law as the data?"]):
        assert not told or row.interval[0] > row.floor


def test_a_rounded_column_is_told_and_named_though_no_distance_sees_it() -> None:
    rounded = normals(300, 2, "rounded")
    rounded[:, 1] = rounded[:, 1].mul(50).round() / 50
    found = measured(rounded)
    assert found.table["energy distance"].p_value > 0.05
    assert "column 'x1'" in found.verdicts[0] and findings(found.table).differs


def test_seconds_are_told_for_every_row_that_is_measured_once() -> None:
    found = measured(normals(60, 2, "few"), 40)
    assert "C2ST AUC, C2ST accuracy" in found.timings and min(found.timings.values()) >= 0
    assert "timings" not in found.to_json()  # times are no part of a result that repeats


@pytest.mark.slow
@pytest.mark.parametrize(("n", "m"), [(200, 60), (400, 400)])
def test_honest_samplers_are_accused_in_at_most_one_of_twenty(n: int, m: int) -> None:
    accused = 0
    for k in range(60):
        x, train, real = (normals(size, 3, "fp", k, size, j) for j, size in enumerate((n, 600, m)))
        beside = {"gaussian": normals(n, 3, "fp", k, "g") + 1}
        accused += findings(evaluate(x, train, real, baselines=beside, seed=k).table).differs
    print("accused", accused, "of 60")
    assert accused <= stats.binom.ppf(0.999, 60, 0.05)


@pytest.mark.parametrize("part", [0.0, 0.2])
@pytest.mark.parametrize("levels", [0, 6])
def test_samples_that_hold_heldout_examples_are_told_and_repeated_values_are_not(
    part: float, levels: int
) -> None:
    """Of numbers, and of a table of two columns with few levels, whose rows repeat by chance."""
    sizes = {"x": 200, "train": 400, "real": 150}
    x, train, real = (normals(n, 2, "shared", key) for key, n in sizes.items())
    if levels:
        x, train, real = ((z * levels).round() / levels for z in (x, train, real))
    common = round(part * len(x))
    x[:common] = real[:common]
    found = findings(evaluate(x, train, real).table)
    told = [line for line in found.bad if "are not independent" in line]
    assert bool(told) == bool(part)
    if part:
        assert "occur in the held-out data" in told[0]
        assert not any("cannot be told from" in line for line in found.good)


def test_the_floor_of_a_known_null_is_it_unless_real_sets_are_told_apart() -> None:
    """An area of .52 of 400 scores is chance (its deviation is .029); one of .65 is none."""
    area = comparisons(2, 0, 1.0)[1].heads[0]
    assert area.floor(0.52, 400) == area.floor(0.46, 400) == 0.5
    assert area.floor(0.65, 400) == 0.65 and area.floor(0.52, 40_000) == 0.52
    energy = comparisons(2, 0, 1.0)[0].heads[0]
    assert energy.floor(0.01, 400) == 0.01


def test_a_difference_that_training_data_show_too_is_open() -> None:
    """Held-out data of another law than the training data: real and honest samples differ alike."""
    x, train, real = normals(300, 2, "x"), normals(900, 2, "t"), normals(300, 2, "r") + 0.5
    found = findings(evaluate(x, train, real).table)
    open_line = next(line for line in found.unclear if "no more than training data may" in line)
    assert "C2ST AUC" in open_line and not found.differs
    assert not any("cannot be told" in line for line in found.good)
