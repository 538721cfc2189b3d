"""Copies are flagged, fresh examples are not, and the search is exact."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from monge.errors import UserError
from monge.metrics import memorisation
from monge.metrics.memorisation import memorisation_rows, nearest_neighbours
from monge.tensors import stream


def normal(n: int, d: int, *key: int) -> Tensor:
    return torch.randn(n, d, generator=stream(0, "memorisation", *key))


@pytest.mark.parametrize("chunk_entries", [2**23, 2**9])
def test_search_is_that_of_all_distances(
    chunk_entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memorisation, "CHUNK_ENTRIES", chunk_entries)
    queries, train = normal(70, 6, 1), normal(90, 6, 2)
    found = nearest_neighbours(queries, train)
    gap = (queries[:, None].double() - train.double()).norm(dim=2)
    two = gap.sort(1)
    assert torch.equal(found.index, two.indices[:, 0])
    torch.testing.assert_close(found.distance, two.values[:, 0])
    torch.testing.assert_close(found.second, two.values[:, 1])


def test_copies_are_flagged_and_fresh_examples_are_not() -> None:
    train = normal(300, 16, 1)
    exact = train[:40]
    near = train[40:80] + 0.05 * normal(40, 16, 2)
    fresh = normal(200, 16, 3)
    assert nearest_neighbours(exact, train).flagged.all()
    assert (nearest_neighbours(exact, train).distance == 0).all()
    assert torch.equal(nearest_neighbours(near, train).index, torch.arange(40, 80))
    assert nearest_neighbours(near, train).flagged.all()
    assert not nearest_neighbours(fresh, train).flagged.any()


def test_copies_far_from_the_origin_have_distance_zero() -> None:
    train = 1000 + normal(50, 8, 1)
    found = nearest_neighbours(train[:5], train)
    assert (found.distance == 0).all() and torch.equal(found.index, torch.arange(5))


def test_copies_of_repeated_examples_are_flagged() -> None:
    train = torch.cat([normal(100, 8, 1), normal(1, 8, 2).expand(3, 8)])
    near = train[-1:] + 0.01
    found = nearest_neighbours(torch.cat([train[-1:], near]), train)
    assert found.flagged.all()
    assert (found.second > 0.5).all()


def test_nothing_but_repetitions() -> None:
    found = nearest_neighbours(torch.zeros(2, 3) + torch.tensor([[0.0], [1.0]]), torch.zeros(9, 3))
    assert found.flagged.tolist() == [True, False]
    assert found.second[1] == pytest.approx(math.sqrt(3))


def test_rows_state_the_floor_of_held_out_examples_and_the_test() -> None:
    train, heldout = normal(300, 16, 1), normal(100, 16, 4)
    samples = torch.cat([train[:10], normal(90, 16, 3)])
    rows = memorisation_rows(
        nearest_neighbours(samples, train),
        nearest_neighbours(heldout, train),
        {"training set": nearest_neighbours(train[:50], train)},
        len(train),
    )
    share, *quantiles = rows
    assert share.value == pytest.approx(0.1) and share.floor == 0
    assert share.interval[0] < 0.1 < share.interval[1]
    assert share.baselines == {"training set": 1.0}
    # Hypergeometric: all ten of the 200 pooled flags fall on the samples.
    assert share.p_value == pytest.approx(math.comb(100, 10) / math.comb(200, 10))
    assert [row.name for row in quantiles] == [
        f"distance to training, {q} %" for q in ("1", "5", "50")
    ]
    assert quantiles[0].value == 0 and quantiles[0].floor > 1
    assert all(row.interval[0] <= row.value <= row.interval[1] for row in quantiles)


def test_bad_input_is_named() -> None:
    with pytest.raises(UserError, match="queries: 3 numbers per example, but training examples: 4"):
        nearest_neighbours(torch.ones(5, 3), torch.ones(5, 4))
    with pytest.raises(UserError, match="training set: 1 examples are too few"):
        nearest_neighbours(torch.ones(5, 3), torch.ones(1, 3))
