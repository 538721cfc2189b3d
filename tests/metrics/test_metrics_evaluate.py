"""The whole evaluation: what is in the table, that it tells good from bad, and that it repeats."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor

from monge.errors import UserError
from monge.metrics.evaluate import Evaluation, evaluate
from monge.metrics.table import Table
from monge.tensors import stream

D = 4


def modes(n: int, *key: int | str, spread: float = 0.3) -> tuple[Tensor, Tensor]:
    """Examples (n, 1, 2, 2) of a mixture of three classes, and their labels."""
    rng = stream(0, *key)
    label = torch.randint(0, 3, (n,), generator=rng)
    centres = 2 * torch.eye(D)[:3]
    x = centres[label] + spread * torch.randn(n, D, generator=rng)
    return x.reshape(n, 1, 2, 2), label


TRAIN, TRAIN_LABEL = modes(400, "train")
REAL, REAL_LABEL = modes(100, "heldout")


def measured(samples: Tensor, label: Tensor | None = None, **more: object) -> Evaluation:
    baselines = {"noise": torch.randn(150, 1, 2, 2, generator=stream(0, "noise"))}
    return evaluate(
        samples,
        TRAIN,
        REAL,
        sample_labels=label,
        train_labels=TRAIN_LABEL,
        heldout_labels=REAL_LABEL,
        **{"baselines": baselines, **more},  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def good() -> Evaluation:
    return measured(*modes(150, "good"))


def test_the_table_holds_the_first_set_complete(good: Evaluation) -> None:
    names = [row.name for row in good.table]
    assert names == [
        "energy distance",
        "MMD²",
        "C2ST AUC",
        "C2ST accuracy",
        "W2² exact",
        "W2² blurred (Sinkhorn)",
        "W2² sliced, times d",
        "W2² max-sliced",
        "W2² of Gaussian fits",
        "variance ratio",
        "coverage",
        "density",
        "precision",
        "recall",
        "memorised fraction",
        "distance to training, 1 %",
        "distance to training, 5 %",
        "distance to training, 50 %",
        "label agreement",
        "label agreement, worst class",
        "classifier trained on samples",
        "within-class diversity",
    ]
    for row in good.table:
        assert row.interval[0] <= row.value <= row.interval[1], row.name
        assert {"training set"} <= set(row.baselines), row.name
        # Tests of one law take all samples; the rest compares sets of one size.
        assert row.n == (100 if row.name in names[4:14] else 150), row.name
    assert Table.from_json(good.table.to_json()) == good.table


def test_real_samples_are_at_the_floor(good: Evaluation) -> None:
    table = good.table
    assert table["energy distance"].p_value > 0.01  # type: ignore[operator]
    for row in list(table)[:14]:
        low, high = row.interval
        margin = 0.5 * (high - low)  # the floor has its own error
        assert low - margin <= row.floor <= high + margin, row.name
    assert table["label agreement"].value > 0.97
    assert table["memorised fraction"].value <= 0.03
    assert any("cannot be told from" in line for line in good.verdicts)


def test_baselines_use_the_same_estimator_on_the_same_held_out_set(good: Evaluation) -> None:
    noise = torch.randn(100, 1, 2, 2, generator=stream(0, "noise"))
    as_samples = measured(noise, baselines={"noise": noise})
    for row in as_samples.table:
        if row.name.startswith(
            ("energy", "MMD", "C2ST", "W2", "variance", "cov", "den", "prec", "rec")
        ):
            assert row.value == pytest.approx(row.baselines["noise"], rel=1e-9)
            of_one_size = row.name.startswith(("W2", "variance", "cov", "den", "prec", "rec"))
            assert not of_one_size or row.floor == good.table[row.name].floor


def test_the_floor_is_training_against_held_out() -> None:
    # Were the two of different laws, the floor would have to show it: here a shift by (2, 0, 0, 0).
    shift = 2 * torch.eye(D)[0].reshape(1, 2, 2)
    table = evaluate(REAL[:40], TRAIN + shift, REAL, max_n=60).table
    assert table["W2² of Gaussian fits"].floor == pytest.approx(4, rel=0.3)
    assert table["W2² exact"].floor > 3 > table["W2² exact"].value
    assert table["coverage"].floor < 0.5 < table["coverage"].value


def test_bad_samples_are_told_from_the_data(good: Evaluation) -> None:
    half, label = modes(150, "bad")
    keep = label < 2  # a missing mode
    bad = measured(half[keep], label[keep]).table
    assert bad["energy distance"].p_value == pytest.approx(1 / 501)  # type: ignore[operator]
    assert bad["C2ST AUC"].interval[0] > 0.5
    assert bad["coverage"].value < 0.8 * bad["coverage"].floor
    assert bad["recall"].value < good.table["recall"].value
    assert bad["MMD²"].p_value == pytest.approx(1 / 501)  # type: ignore[operator]
    for name in ("W2² exact", "W2² blurred (Sinkhorn)", "W2² sliced, times d"):
        assert bad[name].interval[0] > bad[name].floor


def test_a_memoriser_is_found_out() -> None:
    rows = torch.randperm(400, generator=stream(1))[:150]
    copied = measured(TRAIN[rows], TRAIN_LABEL[rows])
    share = copied.table["memorised fraction"]
    assert share.value == share.baselines["training set"] == 1.0 and share.floor < 0.1
    assert share.p_value < 1e-6  # type: ignore[operator]
    assert torch.equal(copied.neighbours, rows)
    assert copied.table["energy distance"].p_value > 0.01  # type: ignore[operator]
    assert any("are copies of a training example;" in line for line in copied.verdicts)


def test_ignored_labels_score_as_the_shuffled_baseline() -> None:
    samples, label = modes(300, "shuffled")
    order = torch.randperm(300, generator=stream(2))
    found = measured(samples, label[order]).table
    assert found["label agreement"].value == pytest.approx(
        found["label agreement"].baselines["shuffled labels"], abs=0.1
    )


def test_equal_seeds_give_equal_tables_and_seeds_matter(good: Evaluation) -> None:
    again = measured(*modes(150, "good"))
    assert again.table == good.table
    other = measured(*modes(150, "good"), seed=1)
    assert other.table["C2ST AUC"] != good.table["C2ST AUC"]


def test_json_for_the_run_folder_and_text(good: Evaluation) -> None:
    content = json.loads(json.dumps(good.to_json(["a", "b", "c"]), allow_nan=False))
    assert len(content["table"]["rows"]) == len(good.table)
    value, low, high = content["labels"]["agreement"]
    assert low <= value <= high and set(content["labels"]["per_class"]) == {"a", "b", "c"}
    assert "energy distance" in good.text() and good.verdicts[0] in good.text()
    assert good.neighbours.shape == (150,)


def test_without_labels_there_are_no_label_rows() -> None:
    found = evaluate(modes(30, "few")[0], TRAIN, REAL)
    assert found.labels is None and "label agreement" not in [row.name for row in found.table]
    assert found.to_json()["labels"] is None
    assert all(row.n == 30 for row in found.table)
    assert math.isnan(found.table["W2² max-sliced"].interval[0])  # halves of 15 are too few


def test_baselines_with_labels_enter_the_label_rows() -> None:
    x, label = modes(100, "labelled baseline")
    found = measured(
        *modes(100, "good"), baselines={"b": x}, baseline_labels={"b": (label + 1) % 3}
    ).table
    assert found["label agreement"].baselines["b"] < 0.1


def test_the_sinkhorn_divergence_takes_a_random_part_of_large_sets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("monge.metrics.catalogue.SINKHORN_N", 30)
    table = measured(*modes(60, "good")).table
    row = table["W2² blurred (Sinkhorn)"]
    assert row.n == 30 and table["W2² exact"].n == 60
    assert row.protocol["part"] == "30 random examples of each set"
    assert "at most 30 examples" in str(row.protocol["estimator"])


def test_rows_stand_in_groups_and_the_bandwidth_is_that_of_training_examples(
    good: Evaluation,
) -> None:
    groups = good.table.groups
    assert [len(rows) for rows in groups.values()] == [4, 5, 5, 4, 4]
    scale = good.table["MMD²"].protocol["bandwidth"]
    pairs = torch.pdist(TRAIN.flatten(1))
    assert scale == pytest.approx(float(pairs.median()), rel=0.1)
    assert good.table["W2² blurred (Sinkhorn)"].protocol["blur"] == pytest.approx(scale / 2)


def test_max_n_bounds_the_comparisons_and_progress_is_told() -> None:
    told: list[tuple[str, float]] = []
    found = measured(
        *modes(60, "good"), max_n=40, progress=lambda what, done: told.append((what, done))
    )
    assert found.table["W2² exact"].n == 40 and found.table["memorised fraction"].n == 60
    fractions = [done for _, done in told]
    assert fractions == sorted(fractions) and fractions[0] == 0 and told[-1] == ("done", 1.0)


NAN = torch.where(torch.arange(100)[:, None, None, None] == 7, torch.nan, REAL)
INF = torch.where(torch.arange(100)[:, None, None, None] == 3, torch.inf, REAL)


@pytest.mark.parametrize(
    ("samples", "more", "message"),
    [
        (torch.ones(19, 1, 2, 2), {}, "samples: 19 examples are too few, at least 20"),
        (torch.ones(50, 1, 2, 3), {}, "samples: 6 numbers per example, but held-out set: 4"),
        (NAN, {}, r"samples: 1 of 100 .*first: example 7"),
        (REAL, {"baselines": {"b": INF}}, r"baseline 'b': 1 of 100 .*first: example 3"),
        (REAL, {"baselines": {"b": REAL[:50]}}, "baseline 'b': 50 examples are too few, 100"),
        (REAL, {"label": REAL_LABEL[:50]}, "labels of the samples: expected 100"),
        (REAL, {"label": torch.full((100,), 7)}, "class 7 has no training example"),
    ],
    ids=["few", "shape", "nan", "inf", "small baseline", "label count", "unknown class"],
)
def test_bad_input_is_named(samples: Tensor, more: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        measured(samples, **more)  # type: ignore[arg-type]
