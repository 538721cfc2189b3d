"""The laws of training times and of sampling grids."""

from __future__ import annotations

import itertools
import math

import torch

from monge.conformance.measuring import DoesNotApply, Outcome, gap, holds, within, worst
from monge.tensors import stream
from monge.times import Grid, TimeLaw

N = 20_000

QUARTILES = {
    "uniform": (0.25, 0.5, 0.75),
    "logit_normal": (0.33748, 0.5, 0.66252),
}
"""Of the laws under their default settings; logit-normal: 1 / (1 + e^(0.67449))."""

MIDDLE = {"uniform": 0.5, "shifted": 0.25, "geometric": 0.9}
"""The middle grid point under the default settings: 1 - 3 (1/2) / (1 + 2 (1/2)); 1 - sqrt(0.01)."""


def law_times_lie_in_the_domain(law: TimeLaw) -> Outcome:
    """Times are float32, (n,), and lie in the domain that is trained, without being clamped."""
    unit = law.unit(N, stream(0, "times"))
    excess = max(-float(unit.min()), float(unit.max()) - 1, 0.0)
    found = [within("distance from [0, 1]", excess, 0.0)]
    for domain in ((0.0, 1.0), (0.001, 0.999), (0.3, 0.4)):
        t = law.draw(N, domain, stream(0, "times"))
        holds(t.shape == (N,) and t.dtype == torch.float32, f"got {tuple(t.shape)} {t.dtype}")
        holds(not bool(t.isnan().any()), "some times are NaN")
        excess = max(domain[0] - float(t.min()), float(t.max()) - domain[1], 0.0)
        found.append(within(f"distance from the domain {domain}", excess, 1e-7))
    return worst(*found)


def law_domain_scales_times(law: TimeLaw) -> Outcome:
    """Times of a domain are those of [0, 1], scaled."""
    unit = law.draw(N, (0.0, 1.0), stream(0, "times"))
    scaled = law.draw(N, (0.2, 0.6), stream(0, "times"))
    return within("difference", gap(scaled, 0.2 + 0.4 * unit), 1e-6)


def law_generator_decides(law: TimeLaw) -> Outcome:
    """Equal generators give equal times, others different ones."""
    first, again, other = (law.draw(N, (0.0, 1.0), stream(seed, "times")) for seed in (0, 0, 1))
    holds(not torch.equal(first, other), "generators with different seeds give the same times")
    holds(len(first.unique()) > 1, f"all times are {float(first[0]):g}")
    return within("difference of two draws by equal generators", gap(first, again), 0.0)


def law_quartiles(law: TimeLaw) -> Outcome:
    """Under its default settings, a law of monge's has the printed quartiles."""
    if repr(law) not in QUARTILES:
        return DoesNotApply("no quartiles are printed for it")
    t = law.draw(N, (0.0, 1.0), stream(0, "times")).double()
    golden = torch.tensor(QUARTILES[repr(law)], dtype=torch.float64)
    below = (t[:, None] <= golden).double().mean(0)
    error = (below - torch.tensor([0.25, 0.5, 0.75])) * math.sqrt(N)
    return within("sqrt(n) error of the quartiles", error, 2.2)


def law_grid_increases(grid: Grid) -> Outcome:
    """A grid has n + 1 points, from exactly 0 to exactly `stop`, each after the one before."""
    points = grid.points()
    holds(len(points) == grid.n + 1, f"{len(points)} points for {grid.n} steps")
    ends = (points[0], points[-1])
    holds(ends == (0.0, grid.stop), f"it goes from {ends[0]:g} to {ends[1]:g}, not {grid.stop:g}")
    least = min(b - a for a, b in itertools.pairwise(points))
    return holds(least > 0, f"a step is {least:g}")


def law_warp_maps_the_unit_interval(grid: Grid) -> Outcome:
    """The warp keeps 0 and 1, increases, and places the points on [0, stop]."""
    u = torch.linspace(0, 1, 101, dtype=torch.float64)
    warped = grid.warp(u)
    holds(bool((warped.diff() > 0).all()), "the warp does not increase")
    ends = within("distance of the warped ends from 0 and 1", warped[[0, -1]] - u[[0, -1]], 1e-12)
    points = torch.tensor(grid.points(), dtype=torch.float64)
    steps = grid.stop * grid.warp(torch.linspace(0, 1, grid.n + 1, dtype=torch.float64))
    return worst(ends, within("distance of the points from stop * warp", points - steps, 1e-12))


def law_golden_point(grid: Grid) -> Outcome:
    """Under its default settings, a grid of monge's has the printed point in the middle."""
    if repr(grid) not in MIDDLE:
        return DoesNotApply("no point is printed for it")
    error = grid.points()[grid.n // 2] - MIDDLE[repr(grid)]
    return within(f"distance of the middle from {MIDDLE[repr(grid)]}", error, 1e-12)
