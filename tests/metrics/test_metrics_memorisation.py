"""Copies have small ratios, fresh examples have not, and the search is exact."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from monge.errors import UserError
from monge.metrics import memorisation
from monge.metrics.memorisation import distance_rows, nearest_neighbours
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


def test_copies_have_small_ratios_and_fresh_examples_have_not() -> None:
    train = normal(300, 16, 1)
    exact = train[:40]
    near = train[40:80] + 0.05 * normal(40, 16, 2)
    fresh = normal(200, 16, 3)
    assert (nearest_neighbours(exact, train).ratio == 0).all()
    assert (nearest_neighbours(exact, train).distance == 0).all()
    assert torch.equal(nearest_neighbours(near, train).index, torch.arange(40, 80))
    assert (nearest_neighbours(near, train).ratio < 0.2).all()
    assert (nearest_neighbours(fresh, train).ratio > 0.4).all()


def test_copies_far_from_the_origin_have_distance_zero() -> None:
    train = 1000 + normal(50, 8, 1)
    found = nearest_neighbours(train[:5], train)
    assert (found.distance == 0).all() and torch.equal(found.index, torch.arange(5))


def test_copies_of_repeated_examples_have_small_ratios() -> None:
    train = torch.cat([normal(100, 8, 1), normal(1, 8, 2).expand(3, 8)])
    near = train[-1:] + 0.01
    found = nearest_neighbours(torch.cat([train[-1:], near]), train)
    assert (found.ratio < 0.05).all()
    assert (found.second > 0.5).all()


def test_nothing_but_repetitions() -> None:
    found = nearest_neighbours(torch.zeros(2, 3) + torch.tensor([[0.0], [1.0]]), torch.zeros(9, 3))
    assert found.ratio.tolist() == [0, 1]
    assert found.second[1] == pytest.approx(math.sqrt(3))


def test_an_example_and_its_mirror_image_are_one() -> None:
    images = normal(40, 12, 1)
    images[0] = images[0] + 0.01 * normal(1, 12, 2)[0]
    twice = torch.cat([images, images.flip(1)])
    twice[40] = twice[0] + 0.01  # nearly symmetric: its mirror image is next to it
    query = twice[:1] + 0.003
    assert nearest_neighbours(query, twice).ratio > 0.4
    found = nearest_neighbours(query, twice, 40)
    assert found.index.item() == 0 and found.ratio < 0.02
    others = torch.cat([twice[1:40], twice[41:]])
    assert found.second.item() == pytest.approx(float((others - query).norm(dim=1).min()))


def test_distances_stand_beside_those_of_held_out_examples() -> None:
    train, heldout = normal(300, 16, 1), normal(100, 16, 4)
    samples = torch.cat([train[:10], normal(90, 16, 3)])
    rows = distance_rows(
        nearest_neighbours(samples, train),
        nearest_neighbours(heldout, train),
        {"training set": nearest_neighbours(train[:50], train)},
        len(train),
    )
    assert [row.name for row in rows] == [f"distance to training, {q} %" for q in ("1", "5", "50")]
    assert rows[0].value == 0 and rows[0].floor > 1
    assert all(row.interval[0] <= row.value <= row.interval[1] for row in rows)


def test_bad_input_is_named() -> None:
    with pytest.raises(UserError, match="queries: 3 numbers per example, but training examples: 4"):
        nearest_neighbours(torch.ones(5, 3), torch.ones(5, 4))
    with pytest.raises(UserError, match="training set: 1 examples are too few"):
        nearest_neighbours(torch.ones(5, 3), torch.ones(1, 3))
