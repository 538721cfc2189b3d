"""The observed order of each solver on exact targets, as JSON: ``python docs/orders.py``.

The slope of the median distance to a reference solution over 32, 64 and 128 steps, in float64,
from t = 0.1 to 0.9 under the trigonometric path. (Under the linear path the midpoint rule shows
order 3 on Gaussians: its leading error term vanishes there.)
"""

from __future__ import annotations

import json
import math
from typing import Any

import torch

from monge.components import build
from monge.flows import Integrated
from monge.paths import Trigonometric
from monge.tensors import stream

TARGETS = {
    "gaussian": "gaussian:dim=4,seed=1",
    "mixture": "mixture:dim=3,modes=4,covariance=full,seed=2",
}
SOLVERS = ("euler", "midpoint", "heun", "rk3", "rk4")
START, END = 0.1, 0.9


STEPS = (32, 64, 128)


def solve(solver: str, field: Any, x: torch.Tensor, steps: int) -> torch.Tensor:
    return Integrated(field, build("solver", solver), per_span=steps)(x, START, END)


def observed_order(solver: str, field: Any, x: torch.Tensor, reference: torch.Tensor) -> float:
    """Minus the least-squares slope of log error over log steps."""
    errors = []
    for n in STEPS:
        end = solve(solver, field, x, n)
        errors.append(float((end - reference).norm(dim=1).median()))
    logs = torch.tensor([[math.log(n), math.log(e)] for n, e in zip(STEPS, errors, strict=True)])
    centered = logs - logs.mean(0)
    return -float((centered[:, 0] * centered[:, 1]).sum() / centered[:, 0].square().sum())


def main() -> None:
    orders: dict[str, dict[str, float]] = {}
    for name, text in TARGETS.items():
        target = build("target", text).build()
        path = Trigonometric()
        rng = stream(0, "orders")
        x1 = target.sample(200, rng)
        x0 = torch.randn(x1.shape, generator=rng, dtype=x1.dtype)
        x, _ = path.interpolate(x0, x1, START)
        field = target.field(path)
        reference = solve("rk4", field, x, 512)
        orders[name] = {
            solver: round(observed_order(solver, field, x, reference), 3) for solver in SOLVERS
        }
    print(json.dumps(orders, indent=1))


if __name__ == "__main__":
    main()
