"""Small tables by the protocol of ForestDiffusion: iris, wine and breast cancer of scikit-learn.

Three splits into 80 % for training and 20 % for tests; five generations of as many rows as there
are for training; the Wasserstein distance of the numbers, scaled to [0, 1] by the training rows,
with the sum of absolute differences as its cost. The class is learned with them, and left out of
the distance. Training rows in the samples' place are what a model that copies would have: on so few
rows they are hard to beat, and no aim. The distance of the generations to the training rows stands
beside it. monge holds out a fifth of the rows for training itself, which it is not given back.

    python -m benchmarks.small_tables --steps 600

References:
    | Generating and imputing tabular data via diffusion and flow-based gradient-boosted trees
      (Jolicoeur-Martineau et al., 2024), Sec. 5 -- https://arxiv.org/abs/2309.09968
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import ot
import pyarrow as pa
import torch
from scipy.spatial.distance import cdist
from sklearn import datasets
from sklearn.model_selection import train_test_split

import monge
from benchmarks.measure import machine
from monge.metrics.table_baselines import gaussian_copula, independent_columns

SPLITS = 3
GENERATIONS = 5
TARGET = "class"
TABLES = {
    "iris": datasets.load_iris,
    "wine": datasets.load_wine,
    "breast cancer": datasets.load_breast_cancer,
}


def scaled(rows: np.ndarray, train: np.ndarray) -> np.ndarray:
    """The numbers of rows (n, d + 1), without the class, in [0, 1] of the training rows."""
    low, high = train[:, :-1].min(0), train[:, :-1].max(0)
    return (rows[:, :-1] - low) / np.where(high > low, high - low, 1)


def distance(x: np.ndarray, y: np.ndarray) -> float:
    """W1 with the sum of absolute differences as its cost, exactly."""
    costs = cdist(x, y, "cityblock")
    found, log = ot.emd2([], [], costs, numItermax=10**7, log=True)
    assert log["warning"] is None
    return float(found)


def table_of(rows: np.ndarray, names: list[str]) -> pa.Table:
    columns = {name: rows[:, j] for j, name in enumerate(names)}
    return pa.table({**columns, TARGET: [f"c{int(k)}" for k in rows[:, -1]]})


def rows_of(table: pa.Table, names: list[str]) -> np.ndarray:
    classes = [float(text[1:]) for text in table[TARGET].to_pylist()]
    return np.stack([*(table[name].to_numpy() for name in names), np.array(classes)], 1)


def generators(
    train: np.ndarray, names: list[str], seed: int, steps: int, choices: list[str]
) -> dict[str, Callable[[int], np.ndarray]]:
    """What draws as many rows as the training rows, by name, from a seed."""
    n, known = len(train), torch.from_numpy(train)
    found: dict[str, Callable[[int], np.ndarray]] = {
        "training rows": lambda k: train,
        "columns independent": lambda k: independent_columns(known, n, k).numpy(),
        "Gaussian copula": lambda k: gaussian_copula(known, n, k).numpy(),
    }
    for choice in choices:
        run = monge.train(
            table_of(train, names),
            out=tempfile.mkdtemp() + "/run",
            seed=seed,
            threads=1,
            steps=steps,
            marginals=choice,  # type: ignore[arg-type]
            verbose=False,
        )
        found[f"monge, marginals {choice}"] = lambda k, run=run: rows_of(
            run.sample(n, seed=k).table(), names
        )
    return found


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--steps", type=int, default=600)
    made.add_argument("--marginals", nargs="*", default=["none", "quantile"])
    made.add_argument("--tables", nargs="*", default=list(TABLES))
    given = made.parse_args()
    torch.set_num_threads(1)
    print(json.dumps(machine()))
    print("| | | W1 to test rows | W1 to training rows |\n|---|---|---|---|")
    for name in given.tables:
        bunch: Any = TABLES[name]()
        rows = np.c_[bunch.data, bunch.target].astype(float)
        names = [f"x{j}" for j in range(bunch.data.shape[1])]
        found: dict[str, list[tuple[float, float]]] = {}
        for split in range(SPLITS):
            train, test = map(np.asarray, train_test_split(rows, test_size=0.2, random_state=split))
            real, held = (scaled(z, train) for z in (train, test))
            drawn = generators(train, names, split, given.steps, given.marginals)
            for what, draw in drawn.items():
                parts = [scaled(draw(k), train) for k in range(GENERATIONS)]
                each = [(distance(x, held), distance(x, real)) for x in parts]
                mean = tuple(statistics.fmean(e[i] for e in each) for i in range(2))
                found.setdefault(what, []).append(mean)  # type: ignore[arg-type]
        for what, values in found.items():
            cells = []
            for i in range(2):
                over = [v[i] for v in values]
                cells.append(
                    f"{statistics.fmean(over):.3f} ± {statistics.stdev(over) / SPLITS**0.5:.3f}"
                )
            print(f"| {name} | {what} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
