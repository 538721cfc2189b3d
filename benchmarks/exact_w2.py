"""Exact W2 between two samples, ours beside POT's `emd2`: time and memory.

Each measurement is a process of its own, so that its peak of memory is its own: what the process
takes at most beyond what it held before. Two samples of ten clusters each. Up to 8 dimensions
ours *is* POT's network simplex, above it is shortest augmenting paths (lapjv). Run with
`python -m benchmarks.exact_w2`; with n = 10,000 (`--large`) it takes an hour.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys

import torch
from torch import Tensor

from benchmarks.measure import (
    Rows,
    clock,
    installed,
    interleave,
    median,
    parser,
    ratio,
    show,
    skipped,
)
from monge.metrics.wasserstein import exact_w2_squared
from monge.tensors import stream

SIZES = (1000, 2000)
LARGE = (5000, 10000)
DIMS = (2, 16, 64)
FEW = 3
"""Rounds, at most, of what takes tens of seconds."""


def clusters(n: int, d: int, seed: int) -> Tensor:
    """n points around ten centres, which all seeds share."""
    centres = 2 * torch.randn(10, d, generator=stream(0, "centres"))
    return centres[torch.arange(n) % 10] + torch.randn(n, d, generator=stream(seed, "points"))


def once(solver: str, n: int, d: int) -> tuple[float, float]:
    """Seconds and the peak of memory in MB, measured in this process."""
    x, y = clusters(n, d, 1), clusters(n, d, 2)
    distance = exact_w2_squared if solver == "monge" else pot_w2_squared
    distance(clusters(8, d, 1), clusters(8, d, 2))  # imports
    before, start = peak_mb(), clock()
    distance(x, y)
    return clock() - start, peak_mb() - before


def pot_w2_squared(x: Tensor, y: Tensor) -> object:
    """POT's, as one would call it, but for its limit of iterations, too low from n = 1,000."""
    import ot

    cost = ot.dist(x.double().numpy(), y.double().numpy())
    return ot.emd2([], [], cost, numItermax=10**7)


def peak_mb() -> float:
    """The most memory that this process has held."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def fresh(solver: str, n: int, d: int, megabytes: dict[str, float]) -> float:
    """The same in a fresh process; keeps its memory, returns its seconds."""
    command = [sys.executable, "-m", "benchmarks.exact_w2", "--one", solver, str(n), str(d)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, megabytes[solver] = json.loads(done.stdout)
    return seconds


def run(rounds: int, sizes: tuple[int, ...] = SIZES) -> Rows:
    if not installed("ot"):
        return {"POT": skipped("POT")}
    rows: Rows = {}
    for n in sizes:
        for d in DIMS:
            used: dict[str, float] = {}
            contestants = {
                name: lambda name=name, n=n, d=d, used=used: fresh(name, n, d, used)
                for name in ("monge", "POT")
            }
            seconds = interleave(contestants, min(rounds, FEW) if n in LARGE else rounds)
            note = f"peak memory {used['monge']:.0f} MB, POT {used['POT']:.0f} MB"
            rows[f"exact W2, n = {n}, d = {d}"] = median(seconds["monge"], "s", note=note)
            row = ratio(seconds["POT"], seconds["monge"])
            rows[f"POT / monge, n = {n}, d = {d}"] = row
    return rows


def arguments() -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="sizes of the samples")
    made.add_argument("--large", action="store_true", help="n = 5,000 and 10,000 too")
    made.add_argument("--one", nargs=3, metavar=("SOLVER", "N", "D"), help=argparse.SUPPRESS)
    return made.parse_args()


if __name__ == "__main__":
    given = arguments()
    if given.one:
        solver, n, d = given.one
        print(json.dumps(once(solver, int(n), int(d))))
    else:
        sizes = (*given.sizes, *(LARGE if given.large else ()))
        show("exact W2 beside POT", run(given.rounds, sizes))
