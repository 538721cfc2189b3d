"""Lines through logarithms of errors: exact powers, their intervals, and points left out."""

from __future__ import annotations

import math

import numpy as np
import pytest

from monge.studies.fitting import Point, fit


def test_a_power_law_is_recovered() -> None:
    line = fit([Point(x, (5 * x**-1.5,)) for x in (1.0, 2.0, 7.0, 30.0)])
    assert line is not None
    assert line.slope == pytest.approx(-1.5) and math.exp(line.intercept) == pytest.approx(5)
    assert line.half < 1e-9


def test_an_exponential_is_a_line_in_the_abscissa_itself() -> None:
    line = fit([Point(x, (math.exp(1 - x / 4),)) for x in (1.0, 4.0, 9.0)], semilog=True)
    assert line is not None
    assert line.slope == pytest.approx(-0.25) and line.intercept == pytest.approx(1)


def test_the_interval_of_least_squares_by_hand() -> None:
    # Logarithms x = 0, 1, 2 and y = 0, 1, 0: slope 0, residuals (-1, 2, -1)/3, their squares 2/3,
    # divided by n - 2 = 1 and sum of squares 2: 1/3. Student's quantile of 1 degree is 12.7062.
    line = fit([Point(math.e**k, (math.e ** (k % 2),)) for k in range(3)])
    assert line is not None
    assert line.slope == pytest.approx(0, abs=1e-12)
    assert line.half == pytest.approx(12.7062 * math.sqrt(1 / 3), rel=1e-4)


def test_the_interval_covers_at_its_level() -> None:
    rng = np.random.default_rng(0)
    x = 2.0 ** np.arange(6)
    inside = 0
    for _ in range(400):
        points = [Point(v, (v**-2 * math.exp(0.1 * rng.standard_normal()),)) for v in x]
        line = fit(points)
        assert line is not None
        inside += line.low <= -2 <= line.high
    assert 0.92 <= inside / 400 <= 0.98  # 0.95 +- 2.7 standard errors


def test_noise_that_the_points_share_is_seen_by_the_repetitions() -> None:
    # Three repetitions on exact lines of slopes 1, 2 and 3: least squares of the mean sees none.
    points = [Point(x, (x, x**2, x**3)) for x in (1.0, 2.0, 4.0, 8.0)]
    line = fit(points)
    assert line is not None
    assert line.slope == pytest.approx(2)
    assert line.half == pytest.approx(4.3027 / math.sqrt(3), rel=1e-4)  # sd 1, 2 degrees


def test_points_outside_the_range_say_why() -> None:
    assert Point(1, (3.1,), floor=1).excluded == ""
    assert Point(1, (2.9,), floor=1).excluded == "floor"
    assert Point(1, (1.0,), stiffness=0.49).excluded == ""
    assert Point(1, (1.0,), stiffness=0.5).excluded == "stiff"
    assert Point(1, (1.0, 0.0)).excluded == "not finite"
    assert Point(1, (math.inf,)).excluded == "not finite"


def test_two_points_are_no_fit() -> None:
    assert fit([Point(1, (1.0,)), Point(2, (2.0,))]) is None
