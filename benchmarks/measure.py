"""What the benchmarks share: interleaved rounds, ratios with quartiles, and the machine's limit."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

ROUNDS = 9
"""Interleaved rounds; fewer cannot tell a few per cent from noise."""


def interleave(
    contestants: Mapping[str, Callable[[], float]], rounds: int = ROUNDS
) -> dict[str, list[float]]:
    """Seconds of each contestant in each round; every round runs all, in alternating order."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for k in range(rounds):
        order = list(contestants) if k % 2 == 0 else list(reversed(contestants))
        for name in order:
            seconds[name].append(contestants[name]())
    return seconds


def ratio(ours: list[float], theirs: list[float]) -> dict[str, float]:
    """Median and quartiles over rounds of ours / theirs."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {"median": round(middle, 4), "low": round(low, 4), "high": round(high, 4)}


def sgemm_gflops(size: int = 1024, repeats: int = 20) -> float:
    """The machine's speed at multiplying float32 matrices, in GFLOP/s: the limit of the rest."""
    a = torch.randn(size, size)
    for _ in range(3):
        a @ a
    start = time.perf_counter()
    for _ in range(repeats):
        a @ a
    return 2 * size**3 * repeats / (time.perf_counter() - start) / 1e9


def machine() -> dict[str, Any]:
    """What it was measured on."""
    cpu = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            cpu = next(line.partition(":")[2].strip() for line in file if "model name" in line)
    except (OSError, StopIteration):
        pass
    return {
        "cpu": cpu,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "sgemm_gflops": round(sgemm_gflops(), 1),
    }


def show(name: str, result: Mapping[str, Any]) -> None:
    """Print a benchmark's result as JSON, with the machine."""
    print(json.dumps({"benchmark": name, **machine(), **result}, indent=1))
