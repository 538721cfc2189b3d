"""Planted copies are estimated within their interval, and honest samples are not accused."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from monge.metrics.copies import (
    STRAY,
    CopyTest,
    Searched,
    copies_in_words,
    copies_row,
    make_test,
    plant,
)
from monge.metrics.memorisation import nearest_neighbours
from monge.metrics.table import Row
from monge.tensors import stream

D = 6
N_TRAIN, N_HELDOUT = 400, 200


def law(n: int, *key: int | str, d: int = D) -> Tensor:
    """A mixture of two Gaussians of different width."""
    rng = stream(0, "copies", *key)
    wide = (torch.rand(n, 1, generator=rng) < 0.5).double()
    return (0.3 + wide) * torch.randn(n, d, generator=rng).double() + 3 * wide


TRAIN, HELDOUT = law(N_TRAIN, "train"), law(N_HELDOUT, "heldout")


def memorised(n: int, noise: float, part: float, *key: int | str) -> Tensor:
    """n samples: a part of them training examples, moved by so much of the distance to the next."""
    rng = stream(1, "memorised", *key)
    rows = torch.randint(0, N_TRAIN, (round(n * part),), generator=rng)
    reach = nearest_neighbours(TRAIN[rows], TRAIN).second
    way = torch.randn(len(rows), D, generator=rng).double() / math.sqrt(D)
    honest = law(n - len(rows), "honest", *key)
    return torch.cat([TRAIN[rows] + noise * reach[:, None] * way, honest])


def row_of(samples: Tensor, train: Tensor = TRAIN, heldout: Tensor = HELDOUT) -> Row:
    searched = Searched.directly(samples, heldout, train, 0)
    return copies_row(searched, {"training set": train})


@pytest.mark.parametrize("n", [100, 300, 1000])
@pytest.mark.parametrize("noise", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("part", [0.1, 0.5, 1.0])
def test_the_share_of_planted_copies_lies_in_its_interval(
    n: int, noise: float, part: float
) -> None:
    row = row_of(memorised(n, noise, part))
    assert row.interval[0] <= part <= row.interval[1]
    assert row.interval[1] - row.interval[0] < 0.6 / math.sqrt(n / 50)
    assert row.p_value is not None and row.p_value < 0.05
    assert "are copies of a training example;" in copies_in_words([row])


@pytest.mark.parametrize("n", [50, 200, 1000])
def test_honest_samples_are_not_accused(n: int) -> None:
    accused = 0
    for k in range(20):
        row = row_of(law(n, "fresh", k), law(N_TRAIN, "train", k), law(N_HELDOUT, "heldout", k))
        assert row.interval[0] == 0 or row.p_value < 0.05  # type: ignore[operator]
        accused += row.p_value < 0.05  # type: ignore[operator]
    assert accused <= 3  # P(more) = 0.016 at exactly 5 %; Fisher's test is below that


def test_no_share_is_told_where_the_test_has_no_power() -> None:
    # In one dimension a held-out example is as near to one training example as a copy is.
    train, heldout = law(200, "line", d=1), law(20, "line heldout", d=1)
    searched = Searched.directly(train[:100], heldout, train, 0)
    row = copies_row(searched, {"training set": train})
    assert math.isnan(row.value) and row.interval == (0.0, 1.0)
    assert "unseen" in str(row.protocol["withheld"])
    assert "cannot be told" in copies_in_words([row])


def test_copies_behind_an_error_larger_than_the_data_are_not_called_absent() -> None:
    def blurred(x: Tensor, key: str) -> Tensor:
        return x + 30 * torch.randn(len(x), D, generator=stream(2, key)).double()

    planted, _ = plant(TRAIN, N_TRAIN, 0)
    searched = Searched(
        blurred(TRAIN[:300], "x"), blurred(HELDOUT, "y"), TRAIN, (blurred(planted, "z"),), N_TRAIN
    )
    assert math.isnan(copies_row(searched, {}).value)


def test_copies_of_mirror_images_count() -> None:
    twice = torch.cat([TRAIN, TRAIN.flip(1)])
    planted, rows = plant(twice, N_TRAIN, 0)
    assert int(rows.max()) >= N_TRAIN
    samples = torch.cat([TRAIN[:30].flip(1), law(70, "honest")])
    row = copies_row(Searched(samples, HELDOUT, twice, (planted,), N_TRAIN), {})
    assert row.interval[0] <= 0.3 <= row.interval[1] and row.interval[0] > 0.15
    assert row.protocol["mirror images"] == "yes"
    assert row_of(samples).interval[0] == 0  # without mirror images none is a copy


def test_planted_copies_stray_by_their_part_of_the_way_to_the_next_example() -> None:
    planted, rows = plant(TRAIN, N_TRAIN, 0)
    gap = torch.cdist(TRAIN, TRAIN).fill_diagonal_(torch.inf)
    moved = (planted - TRAIN[rows]).norm(dim=1)
    reach = gap.amin(1)[rows]
    size = (moved / reach).square().mean().sqrt()
    assert float(size) == pytest.approx(STRAY, rel=4 / math.sqrt(2 * D * len(rows)))


def test_the_share_solves_the_equation_of_the_mixture() -> None:
    test = CopyTest(ratio=0.4, floor=0.2, ceiling=0.9, n_heldout=500, n_planted=500)
    for part in (0.0, 0.25, 1.0):
        assert test.copied(part * 0.9 + (1 - part) * 0.2) == pytest.approx(part)
    assert test.copied(0.1) == 0 and test.copied(1.0) == 1


def test_the_interval_of_a_share_covers() -> None:
    rng, truth, hits, n = stream(3, "cover"), 0.3, 0, 150
    for _ in range(400):
        f = torch.rand(n, generator=rng) < truth * 0.9 + (1 - truth) * 0.2
        g, h = torch.rand(100, generator=rng) < 0.2, torch.rand(100, generator=rng) < 0.9
        means = [float(x.double().mean()) for x in (f, g, h)]
        low, high = CopyTest(0.4, means[1], means[2], 100, 100).interval(means[0], n)
        hits += low <= truth <= high
    assert 0.92 <= hits / 400 <= 0.985


def test_the_detectable_share_is_found_in_four_of_five_tests() -> None:
    test = CopyTest(ratio=0.4, floor=0.05, ceiling=0.99, n_heldout=200, n_planted=500)
    part, n, rng = test.detectable(300), 300, stream(4, "power")
    assert 0.02 < part < 0.2
    flagged = part * 0.99 + (1 - part) * 0.05
    found = sum(
        test.p_value(float((torch.rand(n, generator=rng) < flagged).double().mean()), n) < 0.05
        for _ in range(500)
    )
    assert 0.74 <= found / 500 <= 0.86


def test_the_ratio_flags_planted_copies_and_few_held_out_examples() -> None:
    planted, _ = plant(TRAIN, N_TRAIN, 0)
    near, apart = nearest_neighbours(planted, TRAIN), nearest_neighbours(HELDOUT + 100, TRAIN)
    free = make_test(apart, [near], 300)
    assert free.ceiling == 1 and free.floor == 0
    test = make_test(nearest_neighbours(HELDOUT, TRAIN), [near], 300)
    assert 0.9 <= test.ceiling < 1 and test.floor < 0.1


def test_copies_that_stray_less_than_planted_ones_are_in_the_interval() -> None:
    # Exact copies are flagged always, planted ones in 9 of 10 cases: half of the samples copied.
    test = CopyTest(ratio=0.5, floor=0.0, ceiling=0.9, n_heldout=5000, n_planted=5000)
    for flagged in (0.5, 0.45):
        low, high = test.interval(flagged, 5000)
        assert low < 0.5 < high and high - low < 0.1
