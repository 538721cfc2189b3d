"""Held-out log-likelihood of a table of numbers, with and without curves to normal scores.

monge is trained on four fifths of the rows and asked for the log-density of all others, in nats and
in the units of the file; a Gaussian that is fitted to the training rows stands beside it. Equal
steps are equal work, seeds are paired: both choices see the same split and the same noise.

    python -m benchmarks.table_likelihood power_plant.csv --steps 3000 --seeds 3
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

import monge
from benchmarks.measure import machine
from monge.evaluation.density import heldout_density


def measured(path: Path, choice: str, seed: int, steps: int) -> dict[str, float]:
    """The gain over the Gaussian of one run, in nats a row, and what it is made of."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        run = monge.train(
            str(path),
            out=f"{folder}/run",
            seed=seed,
            threads=1,
            marginals=choice,  # type: ignore[arg-type]
            steps=steps,
        )
        seconds = time.process_time() - start
        data = run.data()
        found = heldout_density(run, data, seed, n=len(data.heldout))
    return {
        "log-density": found["value"],
        "its error over rows": found["stderr"],
        "above the Gaussian": found["gain"]["value"],
        "rows": float(found["n"]),
        "seconds": seconds,
    }


def text(found: dict[str, list[dict[str, float]]]) -> str:
    """One line a choice: means, and standard errors over the seeds; then the paired difference."""
    names = list(next(iter(found.values()))[0])
    lines = ["| marginals | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for choice, rows in found.items():
        lines.append(f"| {choice} | " + " | ".join(_mean([r[k] for r in rows]) for k in names))
    first, *others = found
    for choice in others:
        pairs = zip(found[choice], found[first], strict=True)
        gaps = [a["log-density"] - b["log-density"] for a, b in pairs]
        lines.append(f"{choice} less {first}, paired by seed: {_mean(gaps)} nats")
    return "\n".join(lines)


def _mean(values: list[float]) -> str:
    told = f"{statistics.fmean(values):.4g}"
    if len(values) > 1:
        told += f" ± {statistics.stdev(values) / len(values) ** 0.5:.2g}"
    return told


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("table", type=Path)
    made.add_argument("--marginals", nargs="+", default=["none", "quantile"])
    made.add_argument("--steps", type=int, default=3000)
    made.add_argument("--seeds", type=int, default=3)
    given = made.parse_args()
    torch.set_num_threads(1)
    found: dict[str, list[dict[str, float]]] = {}
    for seed in range(given.seeds):
        for choice in given.marginals:
            row = measured(given.table, choice, seed, given.steps)
            found.setdefault(choice, []).append(row)
            print(json.dumps({"marginals": choice, "seed": seed, **row}), flush=True)
    print(json.dumps(machine()))
    print(text(found))


if __name__ == "__main__":
    main()
