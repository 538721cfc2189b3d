"""The summary of row densities: by hand."""

from __future__ import annotations

import math

import pytest
import torch

from monge.evaluation.row_density import RowDensities


def test_the_summary_has_the_means_and_errors_of_the_rows() -> None:
    found = RowDensities(
        torch.tensor([4, 7, 9]),
        value=torch.tensor([1.0, 2.0, 6.0]),
        stderr=torch.tensor([0.3, math.nan, 0.4]),  # all probes of the second row agree
        change=torch.tensor([0.1, 0.2, 0.6]),
        units="in nats",
        protocol={"trace": "by 4 probes", "solver": "heun", "steps": 5},
    )
    summary = found.summary
    assert summary["n"] == 3 and summary["mean"] == pytest.approx(3.0)
    # Deviations -2, -1 and 3: their squares sum to 14.
    assert summary["stderr"] == pytest.approx(math.sqrt(14 / 2 / 3))
    assert summary["trace_stderr_rms"] == pytest.approx(math.sqrt((0.09 + 0.16) / 2))
    assert summary["solver_change_mean"] == pytest.approx(0.3)
    assert summary["solver_change_largest"] == pytest.approx(0.6)
    assert "mean 3.0000 ± 1.5275 nats" in found.lines()[0]
    assert found.lines()[0].endswith("lowest 1.0000 in row 4")
    assert "move a row by 0.3 on average, at most 0.6" in found.lines()[1]
