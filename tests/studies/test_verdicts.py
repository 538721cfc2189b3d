"""Verdicts: a bound is refuted by a shallower slope alone, a rate by any other one."""

from __future__ import annotations

import math
from typing import Any

import pytest

from monge.studies.claims import Ceiling, Equal, Slope
from monge.studies.verdicts import judge

H = (0.4, 0.2, 0.1, 0.05)
N = (4.0, 8.0, 16.0, 32.0)


def slope(kind: Any, predicted: float, towards: Any, **more: Any) -> Slope:
    return Slope("claim", "y", "x", predicted, kind, "derived", towards, ("group",), **more)


def rows(power: float, xs: tuple[float, ...] = H, **more: Any) -> list[dict[str, Any]]:
    return [{"x": x, "y": 3 * x**power, "group": "g", **more} for x in xs]


@pytest.mark.parametrize(
    ("kind", "predicted", "towards", "measured", "word"),
    [
        ("rate", 2, "zero", 2.0, "consistent"),
        ("rate", 2, "zero", 1.0, "refutes"),
        ("rate", 2, "zero", 3.0, "steeper"),
        ("bound", 0.5, "zero", 0.5, "consistent"),
        ("bound", 0.5, "zero", 1.0, "steeper"),
        ("bound", 0.5, "zero", 0.3, "refutes"),
        ("rate", -1, "infinity", -1.0, "consistent"),
        ("rate", -1, "infinity", -0.5, "refutes"),
        ("bound", -1, "infinity", -2.0, "steeper"),
        ("bound", -1, "infinity", -0.5, "refutes"),
        ("bound", 0.75, "infinity", 0.5, "steeper"),
        ("bound", 0.75, "infinity", 1.0, "refutes"),
    ],
)
def test_words(kind: str, predicted: float, towards: str, measured: float, word: str) -> None:
    xs = H if towards == "zero" else N
    (verdict,) = judge([slope(kind, predicted, towards)], rows(measured, xs))
    assert verdict.word == word
    assert f"slope {measured:.3g}" in verdict.sentence
    assert ("upper bound" in verdict.sentence) == (kind == "bound")


def test_the_words_know_a_bound_from_a_rate() -> None:
    (bound,) = judge([slope("bound", 0.5, "zero")], rows(1.0))
    assert bound.sentence.endswith(
        "steeper than the upper bound 0.5, which holds and is not attained"
    )
    (rate,) = judge([slope("rate", 0.5, "zero")], rows(1.0))
    assert rate.sentence.endswith("steeper than the rate 0.5, which is not the rate here")
    (growth,) = judge([slope("bound", 0.75, "infinity")], rows(0.5, N))
    assert "grows more slowly than the upper bound 0.75" in growth.sentence
    (flat,) = judge([slope("rate", 0, "infinity")], rows(0.5, N))
    assert flat.word == "refutes" and "grows faster than the rate 0" in flat.sentence


def test_an_interval_that_is_too_wide_decides_nothing() -> None:
    noisy = [{**row, "y": row["y"] * 2 ** (-1) ** i} for i, row in enumerate(rows(1.0))]
    (verdict,) = judge([slope("rate", 1, "zero")], noisy)
    assert verdict.word == "undecided" and "too wide" in verdict.sentence


def test_a_wide_interval_still_excludes_what_is_outside_of_it() -> None:
    noisy = [{**row, "y": row["y"] * 2 ** (-1) ** i} for i, row in enumerate(rows(9.0))]
    (verdict,) = judge([slope("rate", 1, "zero")], noisy)
    assert verdict.line is not None and verdict.line.fit is not None
    assert verdict.line.fit.half > 0.25 and verdict.line.fit.low > 2
    assert verdict.word == "steeper"
    (verdict,) = judge([slope("bound", 20, "zero")], noisy)
    assert verdict.word == "refutes"


def test_a_floor_is_no_part_of_the_slope() -> None:
    # A fourth order over a floor: fitted with the floor's points it would be of order one.
    floored = [{"x": x, "y": x**4 + 1e-3, "floor": 1e-3, "group": "g"} for x in (0.8, *H)]
    (seen,) = judge([slope("rate", 4, "zero", floor="floor", tolerance=0.3)], floored)
    (blind,) = judge([slope("rate", 4, "zero", tolerance=0.3)], floored)
    # 3e-3 is exceeded from x^4 = 2e-3 on: by 0.4 and 0.8 alone of the halved abscissae.
    assert seen.line is not None and [p.x for p in seen.line.fitted] == [0.4, 0.8]
    assert [p.excluded for p in seen.line.points] == ["floor", "floor", "floor", "", ""]
    assert seen.word == "undecided"
    assert blind.word != "consistent"


def test_stiff_points_are_left_out_and_counted() -> None:
    coarse = [{"x": x, "y": y, "group": "g"} for x, y in ((0.8, 100.0), (1.6, 1.0))]
    stiff = [*rows(1.0), *coarse]
    for row in stiff:
        row["hl"] = row["x"]
    (verdict,) = judge([slope("rate", 1, "zero", stiffness="hl")], stiff)
    assert verdict.word == "consistent"
    assert verdict.line is not None and len(verdict.line.fitted) == 4
    (few,) = judge([slope("rate", 1, "zero", stiffness="hl")], stiff[2:])
    assert few.word == "undecided" and "2 with h L above 1/2" in few.sentence


def test_the_finest_points_are_those_nearest_to_the_limit() -> None:
    mixed = [{"x": x, "y": x if x < 3 else 7.0, "group": "g"} for x in (0.5, 1.0, 2.0, 4.0, 8.0)]
    (small,) = judge([slope("rate", 1, "zero", finest=3)], mixed)
    (large,) = judge([slope("rate", 1, "infinity", finest=3)], mixed)
    assert small.word == "consistent" and large.word != "consistent"


def test_repetitions_are_geometric_means() -> None:
    repeated = [{**r, "y": r["y"] * f, "seed": s} for r in rows(2.0) for s, f in ((0, 2), (1, 0.5))]
    (verdict,) = judge([slope("rate", 2, "zero")], repeated, "seed")
    assert verdict.line is not None
    assert [p.y for p in verdict.line.points] == pytest.approx(sorted(r["y"] for r in rows(2.0)))


def test_a_ceiling_and_a_value() -> None:
    ceiling = Ceiling("c", "y", "most", "derived", ("group",))
    table = [{"y": 1.0, "most": 2.0, "group": "a"}, {"y": 3.0, "most": 2.0, "group": "b"}]
    assert [v.word for v in judge([ceiling], table)] == ["consistent", "refutes"]
    value = Equal("v", "y", "most", "derived", (), tolerance=0.01)
    assert judge([value], [{"y": 1.0, "most": 1.005}])[0].word == "consistent"
    assert judge([value], [{"y": 1.0, "most": 1.02}])[0].word == "refutes"


@pytest.mark.parametrize("claim", [Ceiling("c", "y", "z", "", ()), Equal("e", "y", "z", "", ())])
def test_not_a_number_holds_nothing(claim: Any) -> None:
    table = [{"y": 1.0, "z": 1.0}, {"y": math.nan, "z": 1.0}]
    assert judge([claim], table)[0].word == "refutes"


def test_a_claim_is_about_the_rows_it_names() -> None:
    claim = slope("rate", 1, "zero", where={"group": ("g",)})
    table = rows(1.0) + [{**row, "group": "other"} for row in rows(5.0)] + [{"x": 1.0}]
    assert [v.group for v in judge([claim], table)] == [{"group": "g"}]
