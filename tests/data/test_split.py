"""The split by content: equal examples together, order irrelevant, a fifth held out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monge.data.split import split_by_content
from monge.errors import UserError

HASHES = st.lists(st.integers(0, 40), min_size=2, max_size=200).filter(lambda h: len(set(h)) > 1)


@given(HASHES, st.integers(0, 99))
def test_equal_examples_stay_together_whatever_the_order(hashes: list[int], seed: int) -> None:
    values = np.array(hashes, dtype=np.uint64)
    train, heldout = split_by_content(values)
    assert train.dtype == torch.int64 and len(train) and len(heldout)
    assert sorted([*train.tolist(), *heldout.tolist()]) == list(range(len(values)))
    assert train.tolist() == sorted(train.tolist()) and heldout.tolist() == sorted(heldout.tolist())
    held = set(values[heldout.numpy()].tolist())
    assert not held & set(values[train.numpy()].tolist())
    again = np.random.default_rng(seed).permutation(values)
    assert set(again[split_by_content(again)[1].numpy()].tolist()) == held


def test_a_fifth_is_held_out_and_large_groups_are_not() -> None:
    values = np.random.default_rng(0).integers(0, 2**63, 1000).astype(np.uint64)
    assert len(split_by_content(values)[1]) == 200
    assert len(split_by_content(values, 0.5)[1]) == 500
    # The group that comes first by its hash has 60 % of the rows: it is for training.
    crowded = np.concatenate([np.zeros(600, np.uint64), values[:400]])
    train, heldout = split_by_content(crowded)
    assert len(heldout) == 200 and set(range(600)) <= set(train.tolist())
    # Two groups, both too large: the smaller is held out.
    assert split_by_content(np.array([5, 5, 3, 3, 3], dtype=np.uint64))[1].tolist() == [0, 1]


def test_hashes_may_be_bytes() -> None:
    digests = np.array([b"\0a", b"zz", b"\0a", b"b\0", b"cc"], dtype="V2")
    train, heldout = split_by_content(digests)
    assert heldout.tolist() == [3] and train.tolist() == [0, 1, 2, 4]


def test_identical_examples_are_refused() -> None:
    with pytest.raises(UserError, match="all 5 examples are identical"):
        split_by_content(np.zeros(5, np.uint64))
    with pytest.raises(UserError, match="there are 1 examples"):
        split_by_content(np.zeros(1, np.uint64))
