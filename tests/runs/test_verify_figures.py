"""The waterfall draws the errors of the lower bounds, not only of the terms."""

from __future__ import annotations

import re

import pytest

from monge.report.sections.verify_figures import waterfall


def test_a_lower_bound_is_drawn_with_its_error() -> None:
    def length(stderr: float) -> float:
        report = {
            "terms": [{"name": "velocity", "kind": "upper", "value": 0.037, "stderr": 0.002}],
            "lower_bounds": {"sliced": {"value": 0.22, "stderr": stderr}},
            "sum": {"value": 0.037, "stderr": 0.002},
            "units": "data units",
        }
        drawn = re.search(
            r'id="bound">\s*<path d="M ([\d.]+) [\d.]+ \s*L ([\d.]+)', waterfall(report)
        )
        assert drawn is not None
        return float(drawn[2]) - float(drawn[1])

    # The axis ends at 1.14 times the bound's upper end: lengths are those of 4 errors on it.
    axis = {e: 1.14 * (0.22 + 2 * e) for e in (0.03, 0.1)}
    ratio = (4 * 0.1 / axis[0.1]) / (4 * 0.03 / axis[0.03])
    assert length(0.1) / length(0.03) == pytest.approx(ratio, rel=0.05)
