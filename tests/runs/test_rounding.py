"""Rounded columns: the probability of a cell in closed form."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from monge.data.columns.coordinates import Column, centred
from monge.data.columns.grids import Grid
from monge.data.columns.schema import TableCodec
from monge.evaluation.density import _rounding
from monge.evaluation.rounding import over_cells, redrawn
from monge.tensors import stream

WIDTH, SIGMA = 0.5, 1.2
GRID = Grid(0, 5, 1)
COLUMNS = (
    Column("a", "number", 3.0, grid=GRID, spread=True),
    Column("b", "number", 0.5),
    Column("c", "number", -2.0, grid=GRID, spread=True),
)
CODEC = TableCodec(COLUMNS, pa.schema([(c.name, pa.float64()) for c in COLUMNS]))


def rows(n: int) -> tuple[Tensor, np.ndarray]:
    """Coordinates (n, 3) of normal numbers, of which two columns are rounded; and these levels."""
    values = SIGMA * torch.randn(n, 3, generator=stream(0, "rows")).double().numpy()
    values[:, [0, 2]] = np.rint(values[:, [0, 2]] / WIDTH) * WIDTH
    x = np.stack([centred(values[:, j], c) for j, c in enumerate(COLUMNS)], 1)
    return torch.from_numpy(x), values


def log_density(x: Tensor) -> Tensor:
    """Of coordinates: the numbers are normal, and a coordinate is a number less its centre."""
    offsets = torch.tensor([3.0 * WIDTH, 0.5, -2.0 * WIDTH], dtype=torch.float64)
    return torch.distributions.Normal(0.0, SIGMA).log_prob(x.double() + offsets).sum(1)


def closed(values: np.ndarray) -> Tensor:
    """log of a cell's probability over its width; of the other column a density."""
    law = torch.distributions.Normal(0.0, SIGMA)
    v = torch.from_numpy(values)
    cells = law.cdf(v + WIDTH / 2) - law.cdf(v - WIDTH / 2)
    log_p = (cells / WIDTH).log()
    log_p[:, 1] = law.log_prob(v[:, 1])
    return log_p.sum(1)


def test_points_stay_in_their_cell_and_fill_it() -> None:
    x, values = rows(50)
    drawn = redrawn(CODEC, x, 400, stream(1))
    assert torch.equal(drawn[:, :, 1], x[:, 1].double().expand(400, 50))
    for j, centre in ((0, 3.0), (2, -2.0)):
        inside = (drawn[:, :, j] + centre * WIDTH - torch.from_numpy(values[:, j])) / WIDTH
        assert inside.abs().max() <= 0.5
        # One point in each of 400 parts.
        parts = ((inside + 0.5) * 400).floor().sort(0).values
        assert torch.equal(parts, torch.arange(400).double()[:, None].expand(400, 50))


def test_the_integral_over_cells_is_that_of_the_closed_form() -> None:
    x, values = rows(4000)
    found, point = over_cells(log_density, CODEC, x, 8, stream(2))
    truth = closed(values)
    error = found - truth
    assert float(error.mean().abs()) < 4 * float(error.std()) / math.sqrt(4000)
    assert float(error.mean().abs()) < 5e-4
    # Not integrating loses w^2 / (24 s^2) for each rounded column, in the leading order.
    lost = float((truth - point).mean())
    assert lost == pytest.approx(2 * WIDTH**2 / (24 * SIGMA**2), rel=0.15)
    single = log_density(x)
    assert float((truth - single).mean()) == pytest.approx(lost, abs=0.01)


def test_an_error_of_a_row_that_all_its_points_share_is_no_correction() -> None:
    """As Hutchinson's: random signs by the place of a row, each time the same.

    Of errors that differ between the points of a row, the logarithm of a mean would count half
    the variance, here .5 nats.
    """
    x, _ = rows(1000)

    def of_trace(z: Tensor) -> Tensor:
        return torch.randn(len(z), generator=stream(5, "signs")).double()

    found, point = over_cells(of_trace, CODEC, x, 8, stream(2))
    assert float((found - point).abs().max()) < 1e-12
    exact, at = over_cells(log_density, CODEC, x, 8, stream(2))
    both, beside = over_cells(lambda z: log_density(z) + of_trace(z), CODEC, x, 8, stream(2))
    torch.testing.assert_close(both - beside, exact - at, rtol=0, atol=1e-12)


class Known:
    """A run whose density is known."""

    codec = CODEC

    def log_density(self, x: Tensor, label: Tensor | None, vector: Tensor | None, **_: object):
        return SimpleNamespace(value=log_density(x))


def test_cells_are_refined_only_where_they_matter() -> None:
    """The correction is w^2 / (24 s^2) = .0072 for each of the two rounded columns."""
    x, values = rows(4000)
    truth = float((closed(values) - log_density(x)).mean())
    run = cast(Any, Known())
    small, points, cells = _rounding(run, x, None, None, 1.0, {"seed": 0})
    assert (points, cells) == (2, 64)
    assert abs(small["value"] - truth) < 0.1  # a tenth of the error over rows
    large, points, cells = _rounding(run, x, None, None, 0.003, {"seed": 0})
    assert points == 8 and 64 < cells <= 250
    assert abs(large["value"] - truth) < 4 * large["stderr"] and large["stderr"] < 0.003
    few = _rounding(run, x[:30], None, None, 0.003, {"seed": 0})
    assert few[1:] == (8, 30)
