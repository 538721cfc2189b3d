"""Comparing two sets: the right verdict in the expected share of repetitions, on known laws."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

import monge
from monge.errors import UserError
from monge.metrics import compare as module
from monge.metrics import duplicates, spaces
from monge.metrics.catalogue import Comparison, Draws, Head, comparisons
from monge.metrics.classifiers import Judges
from monge.metrics.column_rows import WORST
from monge.metrics.compare import compare
from monge.metrics.differences import differences, holm, of_intervals, remembered, with_holm
from monge.metrics.feature_networks import LeNet5
from monge.metrics.features import FeatureNetwork
from monge.metrics.intervals import student, wilson
from monge.metrics.labels import Labelled
from monge.metrics.power import detectable_shift
from monge.metrics.table import Row
from monge.metrics.two_sample import energy_test
from monge.metrics.verdicts import closer
from monge.tensors import stream


def normals(*shape: int, key: str = "x", seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=stream(seed, key), dtype=torch.float64)


def near(shift: float, key: str, n: int = 120, seed: int = 0) -> Tensor:
    return normals(n, 2, key=key, seed=seed) + torch.tensor([shift, 0.0])


# Which is closer to a reference


def test_the_nearer_of_two_gaussians_is_closer_and_sides_are_symmetric() -> None:
    a, b, real = near(0.1, "a"), near(1.0, "b"), near(0, "r", 240)
    found = monge.compare(a, b, real)
    assert found.verdict.word == "A" and found.verdict.differs
    assert "A is closer to the reference by" in found.text()
    energy = found.differences[0]
    assert energy.name == "energy distance" and energy.closer == energy.closer_among_all == "A"
    assert energy.value == pytest.approx(
        found.tables[0]["energy distance"].value - found.tables[1]["energy distance"].value
    )
    assert found.n == 120 and found.tables[0]["coverage"].n == 120
    swapped = monge.compare(b, a, real)
    assert swapped.verdict.word == "B"
    for one, other in zip(found.differences, swapped.differences, strict=True):
        assert other.value == pytest.approx(-one.value, abs=1e-12)
        assert other.interval == pytest.approx((-one.interval[1], -one.interval[0]), abs=1e-12)
        assert other.p_value == pytest.approx(one.p_value)


def test_every_metric_says_farther_in_its_own_direction() -> None:
    found = compare(near(0, "a"), near(3.0, "b"), near(0, "r", 240))
    farther = {d.name: d.value for d in found.differences if d.name != "variance ratio"}
    assert all(value < 0 for value in farther.values()), farther


def test_near_floor_is_told_by_the_distance_from_the_floor_on_both_sides() -> None:
    def spread(x: Tensor, y: Tensor) -> tuple[float, ...]:
        return (float(x.var(0).sum() / y.var(0).sum()),)

    head = Head("spread", lambda value, stderr, n: student(value, stderr), "near floor")
    comparison = Comparison(spread, (head,), {})
    real, other = near(0, "r", 400), near(0, "f", 400)
    floor = ((other, real),)
    narrow, wide = (Draws(s * near(0, "a", 400), real, floor, {}, {}) for s in (0.9, 1.5))
    (found,) = differences(comparison, narrow, wide, 0)
    phi = spread(other, real)[0]
    excess = [abs(spread(d.samples, real)[0] - phi) for d in (narrow, wide)]
    assert found.value == pytest.approx(excess[0] - excess[1])
    assert found.closer == "A"


def test_holm_is_the_rule_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


def share_row(hits: int, n: int) -> Row:
    interval = wilson(hits / n, n)
    ends = (interval.low, interval.high)
    return Row("share", hits / n, ends, "Wilson", 1.0, {"none": 0.0}, n, {}, better="higher")


def test_difference_of_two_shares_is_newcombes() -> None:
    # Newcombe (1998), example (a): 56/70 and 48/80, method 10: 0.0524 to 0.3339.
    found = of_intervals(share_row(48, 80), share_row(56, 70))
    assert found.value == pytest.approx(0.2)
    assert found.interval == pytest.approx((0.0524, 0.3339), abs=1e-4)
    assert found.p_value < 0.05 and found.closer == "B"


def test_equal_examples_are_said_to_be_and_shared_ones_counted() -> None:
    x, real = near(0, "a"), near(0, "r", 240)
    found = compare(x, x[torch.randperm(120, generator=stream(0))], real)
    assert found.verdict.word == "same examples" and not found.verdict.differs
    assert "A and B hold the same examples" in found.notes
    same = compare(x, x, real)
    assert all(d.value == 0 and d.p_value == 1 for d in same.differences)
    mixed = torch.cat([x[:30], x[:5], near(0, "b", 85)])
    notes = compare(x, mixed, real, n=40).notes
    assert any(note.startswith("B: 5 of 120 examples repeat") for note in notes)
    assert any(note.startswith("30 of the 120 examples of A occur in B") for note in notes)


# Sets that are not independent


def discrete(n: int, *key: int | str) -> Tensor:
    """Rows of a law with many ties: four columns of counts."""
    return torch.poisson(torch.full((n, 4), 2.0), generator=stream(0, "discrete", *key)).double()


def why(a: Tensor, b: Tensor) -> str | None:
    ids = duplicates.identities(a, b)
    return duplicates.dependence(("A", "B"), (ids[0], ids[1]), (a, b))


@pytest.mark.parametrize("n", [40, 120, 400])
@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_examples_in_common_are_found(n: int, noise: float) -> None:
    a, b = near(0, "a", n), near(0, "b", n)
    copies = a[: 3 * n // 10]
    b[-len(copies) :] = copies + noise * near(0, "noise", len(copies)) / n**0.5
    told = why(a, b)
    assert told is not None and told.startswith("A and B are not independent")
    if noise == 0:
        assert f"{len(copies)} of the {n} examples of A occur in B" in told


def test_examples_in_common_are_the_verdict() -> None:
    a = near(0, "a", 40)
    verdict = compare(a, torch.cat([a[:12], near(0, "b", 28)])).verdict
    assert verdict.word == "not independent" and not verdict.differs
    assert verdict.text.startswith("A and B are not independent: 12 of the 40 examples")


def test_a_difference_is_told_beside_examples_in_common() -> None:
    a = near(0, "a", 40)
    verdict = compare(a, torch.cat([a[:12], near(3.0, "b", 28)])).verdict
    assert verdict.word == "different" and verdict.text.startswith("A and B are not independent")
    assert "A and B differ by" in verdict.text


def test_examples_of_the_reference_in_a_set_are_the_verdict() -> None:
    real = near(0, "r", 120)
    leaked = torch.cat([real[:30], real[60:90]])
    verdict = compare(leaked, near(0, "b", 60), real).verdict
    assert verdict.word == "not independent"
    assert "A and the reference are not independent" in verdict.text
    # In common of A and B alone: both are still as far from the reference as they are.
    a = near(0, "a", 60)
    both = compare(a, torch.cat([a[:30], near(0, "b", 30)]), real).verdict
    assert both.word == "not distinguishable"


def test_chance_alone_is_no_dependence() -> None:
    told = {"ties": 0, "continuous": 0, "on a line": 0, "narrow in wide": 0}
    for k in range(100):
        pairs = {
            "ties": (discrete(60, "a", k), discrete(60, "b", k)),
            "continuous": (normals(60, 3, key="a", seed=k), normals(60, 3, key="b", seed=k)),
            "on a line": (normals(60, 1, key="a", seed=k), normals(90, 1, key="b", seed=k)),
            "narrow in wide": (
                normals(60, 2, key="a", seed=k),
                0.05 * normals(60, 2, key="b", seed=k),
            ),
        }
        for name, (x, y) in pairs.items():
            told[name] += why(x, y) is not None
    assert all(count <= 5 for count in told.values()), told  # P(more) = 0.0005 at 1 %


def test_pairs_are_counted_by_hand() -> None:
    # Equal pairs: 1 across, 2 within A; 3 occurs three times.
    pairs = duplicates.equal_pairs(torch.tensor([1, 2, 2, 3, 3, 4]), torch.tensor([1, 3, 5, 6]))
    assert (pairs.across, pairs.within) == (1, 1)
    assert pairs.chance == pytest.approx(2 * 6 * 4 / (10 * 9))
    c = pairs.chance
    assert pairs.p_value == pytest.approx(1 - (1 - c) ** 2)
    x = torch.tensor([[0.0], [10.0], [10.2], [20.0], [30.0]])
    found = duplicates.near_pairs(x, torch.tensor([[0.1], [21.0], [24.5], [40.0]]))
    assert (found.across, found.within) == (1 + 1, 1)  # 20 and 21, with 24.5 the next


def test_a_reference_is_halved_by_content() -> None:
    own = torch.tensor([0, 0, 0, 1, 2, 3, 4, 5, 6, 7])
    first, second = duplicates.halves(own, stream(0))
    assert sorted([*first.tolist(), *second.tolist()]) == list(range(10))
    assert not set(own[first].tolist()) & set(own[second].tolist())
    assert 3 <= len(first) <= 5


# Whether two sets differ


def test_a_shift_is_seen_and_equal_laws_are_not_told_apart() -> None:
    found = compare(near(0, "a"), near(0.8, "b"))
    assert found.verdict.word == "different" and not found.differences
    assert "energy distance (p = " in found.verdict.text
    equal = compare(near(0, "a"), near(0, "b"))
    assert equal.verdict.word == "not distinguishable"
    assert "would have been seen in 80 %" in equal.verdict.text
    row = equal.tables[0]["W2² exact"]
    assert row.interval[0] < row.floor < row.interval[1]
    assert compare(near(0, "a"), near(0, "b")).to_json() == equal.to_json()


def test_the_shift_that_would_have_been_seen_is_seen_as_often_as_said() -> None:
    n, d = 60, 3
    shifts = [
        detectable_shift(normals(n, d, seed=k), normals(n, d, key="y", seed=k), 0.05, stream(k))
        for k in range(5)
    ]
    seen = 0
    for k in range(100):
        y = normals(n, d, key="v", seed=k)[0]
        moved = normals(n, d, key="m", seed=k) + np.mean(shifts) * y / y.norm()
        test = energy_test(moved, normals(n, d, key="w", seed=k), stream(k), permutations=200)
        seen += test.p_value <= 0.05
    assert 65 <= seen <= 95


# Labels and features


def test_labels_are_compared_where_all_sets_have_them() -> None:
    def labelled(x: Tensor, wrong: bool = False) -> Labelled:
        label = (x[:, 0] > 0).long()
        return Labelled(x, 1 - label if wrong else label)

    a, b, real = near(0, "a"), near(0, "b"), near(0, "r", 240)
    found = compare(labelled(a, wrong=True), labelled(b), labelled(real))
    told = {d.name: d for d in found.differences}
    assert told["label agreement"].closer_among_all == "B" and found.verdict.word == "B"
    assert found.tables[0]["label agreement"].value < 0.2
    alone = compare(labelled(a, wrong=True), labelled(b))
    assert alone.verdict.word == "different" and "label agreement" in alone.verdict.text
    some = compare(labelled(a), b, labelled(real))
    assert "labels are not compared: not all sets have them" in some.notes


def test_p_value_of_label_shares_is_that_of_fishers_test() -> None:
    from scipy.stats import fisher_exact

    view = spaces.one_hot(2)
    counts = [[36, 24], [24, 36]]
    x, y = (
        view(spaces.Given(torch.zeros(60, 1), (torch.arange(60) >= k).long())) for k, _ in counts
    )
    (head,) = spaces.label_shares().heads
    assert head.p_value is not None
    expected = float(fisher_exact(counts)[1])  # type: ignore[arg-type]
    assert head.p_value(x, y, stream(0)) == pytest.approx(expected, abs=0.02)


def test_images_are_compared_in_the_features_of_a_network() -> None:
    torch.manual_seed(0)
    network = FeatureNetwork(
        "lenet5", LeNet5().eval(), 1, (28,), ("0", "1"), {"weights": "sha256 none"}
    )
    dark, light, real = (
        (0.3 * torch.rand(40 * (2 if k == 2 else 1), 1, 28, 28, generator=stream(k)) + c)
        for k, c in enumerate((-1.0, 0.5, -1.0))
    )
    found = compare(dark, light, real, network=network, n=40)
    assert found.tables[0]["Frechet distance (lenet5)"].protocol["weights"] == "sha256 none"
    told = {d.name: d for d in found.differences}
    assert told["Frechet distance (lenet5)"].closer == "A"


def test_a_new_comparison_appears_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    head = Head("mean gap", lambda value, stderr, n: student(value, stderr), "lower")

    def extended(d: int, seed: int, scale: float, judges: Judges) -> tuple[Comparison, ...]:
        def gap(x: Tensor, y: Tensor) -> tuple[float, ...]:
            return (float((x.mean(0) - y.mean(0)).norm()),)

        return (*comparisons(d, seed, scale, judges), Comparison(gap, (head,), {}))

    monkeypatch.setattr(module, "comparisons", extended)
    found = compare(near(0, "a"), near(1.0, "b"), near(0, "r", 240), n=60)
    assert found.differences[-1].name == "mean gap" and found.differences[-1].closer == "A"


# Bad input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: compare(x, x, n=10), "n of at least 20, not 10"),
        (lambda x: compare(x, torch.cat([x, x], 1)), "A: 2 numbers per example, but B: 4"),
        (lambda x: compare(x, x[:12]), "B: 12 examples are too few"),
        (lambda x: compare(x, x, x[:30]), "half of the reference has 15 examples: 20 are needed"),
        (lambda x: compare(x, x, rest=x), "needs the reference itself"),
        (lambda x: compare(x, x / 0), "B: 120 of 120 examples hold NaN or infinite"),
        (lambda x: compare(Labelled(x, x[:, 0]), x), "labels of A: expected 120 whole numbers"),
    ],
)
def test_bad_input_is_named(call: Callable[[Tensor], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        call(near(0, "a"))


# How often it is right: measured


Laws = Callable[[int, int, int], tuple[Tensor, Tensor, Tensor, Tensor]]


def laws(case: str) -> Laws:
    """Draws of A, B, the reference and its rest, all of one size."""

    def draw(n: int, d: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        a, b, real, rest = (normals(n, d, key=f"{case} {k}", seed=seed) for k in range(4))
        shift = torch.zeros(d, dtype=torch.float64)
        shift[0] = 0.5
        match case:
            case "one generator":
                a, b = 0.8 * a + shift, 0.8 * b + shift
            case "equally far":
                a, b = a + shift, b - shift
            case "one closer":
                a, b = a + shift, b + 4 * shift
        return a, b, real, rest

    return draw


def measured(
    listed: tuple[Comparison, ...], case: str, n: int, d: int, repetitions: int
) -> tuple[dict[str, float], float]:
    """For each metric how often its interval holds the mean difference; how often it is said that
    A is closer (one closer), or that any set is (the others)."""
    values, ends, said = [], [], 0
    for k in range(repetitions):
        a, b, real, rest = laws(case)(n, d, k)
        found = []
        for comparison in map(remembered, listed):
            first, second = (Draws(x, real, ((rest, real),), {"rest": rest}, {}) for x in (a, b))
            if comparison.jackknifed:
                found += differences(comparison, first, second, k)
            else:
                rows = zip(comparison.rows(first, k), comparison.rows(second, k), strict=True)
                found += [of_intervals(*pair) for pair in rows]
        told = with_holm(found)
        values.append([x.value for x in told])
        ends.append([x.interval for x in told])
        verdict = closer(told, n, same=False)
        said += verdict.word == "A" if case == "one closer" else verdict.differs
        names = [x.name for x in told]
    value, end = np.asarray(values), np.asarray(ends)
    mean = value.mean(0) if case == "one closer" else np.zeros(value.shape[1])
    covered = ((end[..., 0] <= mean) & (mean <= end[..., 1])).mean(0)
    return dict(zip(names, covered.tolist(), strict=True)), said / repetitions


@pytest.mark.parametrize("case", ["one generator", "one closer"])
def test_intervals_of_differences_cover_quickly(case: str) -> None:
    named = {"energy distance", "variance ratio"}
    listed = tuple(c for c in comparisons(2, 0, 1.0) if c.heads[0].name in named)
    covered, said = measured(listed, case, 60, 2, 60)
    assert min(covered.values()) >= 0.95 - 3 * 0.0281
    assert said >= 0.8 if case == "one closer" else said <= 0.05 + 3 * 0.0281


@pytest.mark.slow
@pytest.mark.parametrize("case", ["equal", "one generator", "equally far", "one closer"])
def test_intervals_of_differences_cover_and_verdicts_are_right(case: str) -> None:
    covered, said = measured(comparisons(4, 0, 1.0), case, 100, 4, 200)
    print(case, covered, said)
    assert min(covered.values()) >= 0.95 - 3 * 0.0154
    assert said >= 0.8 if case == "one closer" else said <= 0.05 + 3 * 0.0154


@pytest.mark.slow
def test_equal_laws_are_told_apart_in_at_most_one_of_twenty_comparisons() -> None:
    pairs = [[normals(60, 2, key=side, seed=k) for side in "ab"] for k in range(300)]
    words = [compare(*pair, seed=k) for k, pair in enumerate(pairs)]
    # Two permutation tests are exact, each alone; the other two may reject more rarely.
    exact = {"energy distance": True, "MMD²": True, "C2ST AUC": False, WORST: False}
    for name in exact:
        told = sum((found.tables[0][name].p_value or 0.0) < 0.05 for found in words) / 300
        print(name, told)
        assert told <= 0.05 + 3 * 0.0126 and (not exact[name] or told >= 0.05 - 3 * 0.0126), name
    alarms = sum(found.verdict.differs for found in words) / 300
    print("false alarms", alarms)
    assert alarms <= 0.05 + 3 * 0.0126
