"""Couplings: exact permutations, within plans and classes, unbiased for what is trained."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from monge.couplings import MOST_BY_LAP, Independent, MinibatchOT, optimal_permutation, source_like
from monge.tensors import stream


def data(n: int, *shape: int) -> Tensor:
    return torch.randn(n, *shape, dtype=torch.float64, generator=stream(0, "data"))


def cost(x0: Tensor, x1: Tensor) -> float:
    return float((x0 - x1).square().sum())


@pytest.mark.parametrize("n", [1, 2, 5, 7])
def test_optimal_among_all_permutations(n: int) -> None:
    x0, x1 = data(n, 3), data(2 * n, 3)[n:]
    orders = torch.tensor(list(itertools.permutations(range(n))))
    least = float((x0[orders] - x1).square().sum((1, 2)).min())
    found = optimal_permutation(x0, x1)
    assert sorted(found.tolist()) == list(range(n))
    assert cost(x0[found], x1) == pytest.approx(least, abs=1e-10)


def test_scipy_and_lap_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    x0, x1 = data(300, 8), data(600, 8)[300:]
    pytest.importorskip("lap")
    by_lap = optimal_permutation(x0, x1)
    monkeypatch.setitem(__import__("sys").modules, "lap", None)
    assert torch.equal(optimal_permutation(x0, x1), by_lap)


def test_large_plans_are_left_to_what_lets_other_threads_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lap = pytest.importorskip("lap")
    monkeypatch.setattr(lap, "lapjv", lambda *_: 1 / 0)
    n = MOST_BY_LAP + 1
    assert sorted(optimal_permutation(data(n, 2), data(n, 2)).tolist()) == list(range(n))
    with pytest.raises(ZeroDivisionError):
        optimal_permutation(data(n - 1, 2), data(n - 1, 2))


def test_optimal_on_the_line_is_monotone() -> None:
    x0, x1 = data(50, 1), data(100, 1)[50:]
    paired = x0[optimal_permutation(x0, x1)]
    assert torch.equal(paired[x1[:, 0].argsort()], x0.sort(0)[0])


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("shape", [(4,), (2, 3, 3)])
def test_permutes_the_independent_draws(shape: tuple[int, ...], labelled: bool) -> None:
    """The same generator gives the same noise, each once; within its plan and class."""
    n, plan = 100, 32
    x1 = data(n, *shape)
    label = torch.arange(n) % 3 - 1 if labelled else None
    independent, _ = Independent().pair(x1, label, stream(0, "x0"))
    x0, same = MinibatchOT(plan).pair(x1, label, stream(0, "x0"))
    assert same is x1
    where = (x0.flatten(1)[:, None] == independent.flatten(1)[None]).all(2).float()
    assert torch.equal(where.sum(0), torch.ones(n)) and torch.equal(where.sum(1), torch.ones(n))
    origin = where.argmax(1)
    assert torch.equal(origin // plan, torch.arange(n) // plan)
    if label is not None:
        assert torch.equal(label[origin], label)
    for rows in torch.arange(n).split(plan):
        assert cost(x0[rows], x1[rows]) <= cost(independent[rows], x1[rows])
    assert cost(x0, x1) < 0.97 * cost(independent, x1)


def test_larger_plans_are_cheaper() -> None:
    x1 = data(256, 2)
    costs = [cost(*MinibatchOT(plan).pair(x1, None, stream(0, "x0"))) for plan in (2, 16, 256)]
    assert costs[0] > costs[1] > costs[2]


def test_float64_sees_the_numbers_of_float32() -> None:
    x1 = data(8, 2)
    fine, coarse = (source_like(x, stream(0, "x0")) for x in (x1, x1.float()))
    assert fine.dtype == torch.float64 and torch.equal(fine.float(), coarse)


def test_only_independent_noise_is_gaussian_given_the_data() -> None:
    assert Independent().gaussian and not MinibatchOT().gaussian
    assert Independent().plan_batch is None and MinibatchOT(64).plan_batch == 64
