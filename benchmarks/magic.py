"""A public table by the protocol of its literature: MAGIC gamma telescope, 19,019 rows.

The split is that of a public benchmark (tabpc, arXiv 2603.23016), whose loader drops the first row:
the index is shuffled by numpy with seed 1234, nine tenths are for training and a tenth is for
tests. monge is trained on the former (of which it holds out a fifth itself) and draws as many rows.
Shape, Trend and the two classifiers compare these with the training rows; TSTR is the area under
the ROC curve of boosted trees that learn the class from the samples, on the tenth; DCR is the share
of samples nearer to training rows than to as many of the tenth. Boosted trees are scikit-learn's,
in the place of XGBoost.

Beside each run stand the floor (one random half of the training rows against the other), columns
that are drawn independently, and a Gaussian copula. Equal steps are equal work; seconds are of the
processor.

    python -m benchmarks.magic magic.csv --steps 2000 --marginals none quantile --seeds 3

`--rows` draws fewer samples than there are training rows, in less time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from pyarrow import csv

import monge
from benchmarks.measure import machine
from monge.metrics import tabular
from monge.metrics.closest_records import closest
from monge.metrics.columns import Columns
from monge.metrics.table_baselines import gaussian_copula, independent_columns
from monge.metrics.tabular import Table
from monge.metrics.utility import utility

SPLIT_SEED = 1234
TARGET = "class"


def split(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows for training and for tests among the n of the file, the first of which is dropped."""
    index = np.arange(1, n)
    np.random.RandomState(SPLIT_SEED).shuffle(index)
    size = int(0.9 * len(index))
    return index[:size], index[size:]


def matrix(table: pa.Table, values: Sequence[str]) -> Table:
    """A table as numbers (n, d); the target as its position among `values`."""
    columns = []
    for name in table.column_names:
        if name == TARGET:
            columns.append([values.index(v) for v in table[name].to_pylist()])
        else:
            columns.append(table[name].to_numpy())
    return torch.from_numpy(np.stack([np.asarray(c, np.float64) for c in columns], 1))


def measured(x: Table, train: Table, test: Table, columns: Columns, seed: int) -> dict[str, float]:
    """The six numbers of samples x: TSTR on the rows for tests, all others with training rows."""
    target = columns.names.index(TARGET)
    tests = {
        f"{name} C2ST": tabular.detection(x, train, columns, seed, trees).score
        for name, trees in (("logistic", False), ("boosted-tree", True))
    }
    return {
        "Shape": tabular.shape(x, train, columns).value,
        "Trend": tabular.trend(x, train, columns).value,
        **tests,
        "TSTR AUROC": utility(x, test, columns, target).value,
        "DCR": closest(x, train, test, columns, seed).share,
    }


def trained(path: Path, n: int, seed: int, settings: dict[str, Any]) -> tuple[pa.Table, float, int]:
    """Rows drawn by a run that was trained on a file, the processor's seconds, and its steps."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        run = monge.train(str(path), out=f"{folder}/run", seed=seed, threads=1, **settings)
        seconds = time.process_time() - start
        return run.sample(n, seed=seed).table(), seconds, int(run.spec.steps or 0)


def rows_of(
    path: Path,
    choices: Sequence[str],
    seeds: int,
    length: dict[str, Any],
    given: Sequence[Path],
    size: int | None = None,
) -> dict[str, list[dict[str, float]]]:
    """The numbers of every row of the benchmark, one entry a seed.

    Args:
        size: samples; as many as training rows if None.
    """
    table = csv.read_csv(path)
    train, test = split(table.num_rows)
    values = sorted(set(table[TARGET].to_pylist()))
    real, held = (matrix(table.take(rows), values) for rows in (train, test))
    columns = Columns(
        tuple(table.column_names), tuple(name == TARGET for name in table.column_names)
    )
    n = len(real) if size is None else size
    halves = torch.randperm(len(real), generator=torch.Generator().manual_seed(0)).chunk(2)
    found = {
        "floor (halves of the real rows)": [
            measured(real[halves[0][:n]], real[halves[1]], held, columns, 0)
        ],
        "columns independent": [measured(independent_columns(real, n, 0), real, held, columns, 0)],
        "Gaussian copula": [measured(gaussian_copula(real, n, 0), real, held, columns, 0)],
    }
    for file in given:
        rows = matrix(csv.read_csv(file).select(table.column_names), values)
        found[str(file)] = [measured(rows, real, held, columns, 0)]
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / "train.csv"
        csv.write_csv(table.take(train), part)
        for seed in range(seeds):
            for choice in choices:
                drawn, seconds, steps = trained(part, n, seed, {"marginals": choice, **length})
                row = measured(matrix(drawn, values), real, held, columns, seed)
                row |= {"seconds": seconds, "steps": float(steps)}
                found.setdefault(f"monge, marginals {choice}", []).append(row)
                print(json.dumps({"marginals": choice, "seed": seed, **row}), flush=True)
    return found


def text(found: dict[str, list[dict[str, float]]]) -> str:
    """One line a row: the mean, and the standard error where there are several seeds."""
    names = list(dict.fromkeys(name for rows in found.values() for r in rows for name in r))
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for what, rows in found.items():
        cells = []
        for name in names:
            known = [r[name] for r in rows if name in r]
            cell = f"{statistics.fmean(known):.4g}" if known else ""
            if len(known) > 1:
                cell += f" ± {statistics.stdev(known) / len(known) ** 0.5:.1g}"
            cells.append(cell)
        lines.append(f"| {what} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("table", type=Path, help="magic.csv")
    made.add_argument("--marginals", nargs="*", default=["none", "quantile"])
    made.add_argument("--minutes", type=float)
    made.add_argument("--steps", type=int, help="in place of minutes: equal work for all")
    made.add_argument("--seeds", type=int, default=1)
    made.add_argument("--samples", type=Path, nargs="*", default=[], help="csv files to measure")
    made.add_argument("--rows", type=int, help="samples; as many as training rows if not given")
    given = made.parse_args()
    length = {"steps": given.steps} if given.steps else {"minutes": given.minutes or 5.0}
    torch.set_num_threads(1)
    found = rows_of(given.table, given.marginals, given.seeds, length, given.samples, given.rows)
    print(json.dumps(machine()))
    print(text(found))


if __name__ == "__main__":
    main()
