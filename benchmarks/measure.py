"""What the benchmarks share: interleaved rounds, rows with quartiles, and the machine's limit.

Each benchmark is one file with a function ``run(rounds) -> Rows``. It prints one JSON object,
``python -m benchmarks.NAME --rounds 9``; ``python -m benchmarks`` runs them all and ends with one
table.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

ROUNDS = 9
"""Interleaved rounds; fewer cannot tell a few per cent from noise."""


@dataclass(frozen=True)
class Row:
    """One measured number.

    Attributes:
        value: the median over rounds (or a mean, where `unit` says so); None: not measured.
        low, high: the quartiles over rounds (or the value less and plus a standard error).
        unit: of the value; "ratio" where it has none.
        n: rounds (or seeds) behind it.
        aim: what it should be, as text such as ">= 1.05"; empty for none.
        note: what else a reader needs.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    unit: str = "ratio"
    n: int = 1
    aim: str = ""
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the aim is met; None without one."""
        if not self.aim or self.value is None:
            return None
        sign, limit = self.aim.split()
        return self.value >= float(limit) if sign == ">=" else self.value <= float(limit)


Rows: TypeAlias = dict[str, Row]
"""The rows of a benchmark by what they say."""


def clock() -> float:
    """Seconds by which contestants are timed: of the wall, or with one thread of the processor.

    On a quiet machine the two are the same for one thread; on a busy one the processor's is the
    one that means something (``OMP_NUM_THREADS=1``).
    """
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def interleave(
    contestants: Mapping[str, Callable[[], float]], rounds: int = ROUNDS
) -> dict[str, list[float]]:
    """Seconds of each contestant in each round; every round runs all, in alternating order."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for k in range(rounds):
        order = list(contestants)[:: 1 if k % 2 == 0 else -1]
        for name in order:
            seconds[name].append(contestants[name]())
    return seconds


def median(values: Sequence[float], unit: str, aim: str = "", note: str = "") -> Row:
    """Median and quartiles of the values."""
    if len(values) < 2:
        return Row(values[0], unit=unit, aim=aim, note=note)
    low, middle, high = (float(f"{q:.4g}") for q in statistics.quantiles(values, n=4))
    return Row(middle, low, high, unit, len(values), aim, note)


def ratio(over: list[float], under: list[float], aim: str = "", note: str = "") -> Row:
    """Median and quartiles over rounds of over / under."""
    return median([a / b for a, b in zip(over, under, strict=True)], "ratio", aim, note)


def mean(values: Sequence[float], unit: str, aim: str = "", note: str = "") -> Row:
    """Mean, and the mean less and plus its standard error."""
    middle = statistics.fmean(values)
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return Row(middle, middle - error, middle + error, unit, len(values), aim, note)


def timed(f: Callable[[], Any], repeats: int = 1) -> Callable[[], float]:
    """A contestant for `interleave`: the seconds of one call of f, the mean of `repeats` calls."""

    def seconds() -> float:
        start = clock()
        for _ in range(repeats):
            f()
        return (clock() - start) / repeats

    return seconds


def installed(*packages: str) -> bool:
    """Whether all of the packages can be imported."""
    return all(importlib.util.find_spec(package) for package in packages)


def skipped(package: str) -> Row:
    """The row of a contestant that is not installed, with the way to install it.

    torchcfm and azula ask for torchvision, which must not come along (a CPU torch then fails to
    import diffusers), hence ``--no-deps``.
    """
    alone = package in ("azula", "torchcfm")
    name = f"--no-deps {package} einops" if alone else package
    return Row(None, note=f"skipped, not installed: pip install {name}")


def sgemm_gflops(size: int = 1024, repeats: int = 20) -> float:
    """The machine's speed at multiplying float32 matrices, in GFLOP/s: the limit of the rest."""
    a = torch.randn(size, size)
    for _ in range(3):
        torch.mm(a, a)
    start = clock()
    for _ in range(repeats):
        torch.mm(a, a)
    return 2 * size**3 * repeats / (clock() - start) / 1e9


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
        "clock": "processor" if torch.get_num_threads() == 1 else "wall",
        "torch": torch.__version__,
        "sgemm_gflops": round(sgemm_gflops(), 1),
    }


def show(name: str, rows: Rows) -> None:
    """Print a benchmark's rows as JSON, with the machine."""
    as_json = {k: {**dataclasses.asdict(row), "met": row.met} for k, row in rows.items()}
    print(json.dumps({"benchmark": name, **machine(), "rows": as_json}, indent=1), flush=True)


def table(rows: Rows) -> str:
    """The rows as lines of a Markdown table."""
    lines = ["| | value | quartiles | rounds | aim | |", "|---|---|---|---|---|---|"]
    for what, row in rows.items():
        verdict = {None: "", True: "met", False: "missed"}[row.met]
        value = "-" if row.value is None else f"{row.value:.3g} {row.unit}"
        spread = "" if row.low is None else f"{row.low:.3g} to {row.high:.3g}"
        aim = f"{row.aim} {verdict}".strip()
        lines.append(f"| {what} | {value} | {spread} | {row.n} | {aim} | {row.note} |")
    return "\n".join(lines)


def parser(doc: str | None) -> argparse.ArgumentParser:
    """The command line that every benchmark has."""
    made = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--rounds", type=int, default=ROUNDS, help="interleaved rounds (or seeds)")
    return made
