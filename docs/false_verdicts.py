"""How often `compare` calls two sets of one law different: the rate that should be at most 5 %.

    python docs/false_verdicts.py [--pairs 50] [--n 100,300,800] [--only WORD] [--noise 0] [--json]

Each pair is two disjoint random sets of n examples of one source. The tests of the verdict are made
as `compare` makes them; where one rejects, the whole comparison is run and its own verdict counts.
(The verdict asks in addition that the interval excludes the floor, so it can only be rarer.) The
exit code is 1 where the binomial interval of all pairs of one n lies above 5 %.

With --noise 0.15 the first set of each pair of a table is no honest one: each of its columns of
measurements has noise of 0.15 of its deviation. The rate is then the power.

Tables of the user stand in the folder that the environment variable MONGE_DATA names:
tables/power_plant.csv and tables/magic.csv; absent ones are skipped, and said to be. --table FILE
measures that table alone.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from monge.data import sources
from monge.data.reading import Reading
from monge.data.tables.compared_columns import as_columns, as_matrices
from monge.metrics import spaces
from monge.metrics.column_rows import WORST, column_report
from monge.metrics.columns import Columns
from monge.metrics.compare import compare, in_each_space
from monge.metrics.differences import LEVEL, holm
from monge.metrics.intervals import wilson
from monge.metrics.spaces import Given
from monge.tensors import stream

SOURCES = {
    "power plant": "{data}/tables/power_plant.csv",
    "MAGIC": "{data}/tables/magic.csv",
    "digits": "digits",
    "mixture": "target:mixture:dim=3,modes=5",
}


@dataclass(frozen=True)
class Law:
    """All examples of one source: images or rows (N, ...), or a table."""

    x: torch.Tensor
    table: pa.Table | None = None

    def pair(
        self, n: int, *key: str | int, noise: float = 0.0
    ) -> tuple[Given, Given, Columns | None]:
        """Two disjoint sets of n examples, and what their columns are.

        Args:
            noise: in the columns of the first set of a table, over their deviation.
        """
        known = len(self.x) if self.table is None else len(self.table)
        order = torch.randperm(known, generator=stream(0, "honest pair", *key))
        sides = order[:n], order[n : 2 * n]
        if self.table is None:
            first, second = (Given(self.x[rows], None) for rows in sides)
            if self.x.ndim > 2:
                return first, second, None
            first, second = (replace(z, columns=z.x.double()) for z in (first, second))
            return first, second, Columns.plain(self.x.shape[1])
        parts = [
            (name, self.table.take(pa.array(rows.numpy())))
            for name, rows in zip("AB", sides, strict=True)
        ]
        if noise:
            parts[0] = "A", noisy(parts[0][1], noise, stream(0, "noise", *key))
        numbers, _ = as_matrices(parts, Reading())
        plain, names, codes = as_columns(parts, Reading())
        deviation = torch.cat(numbers).std(0)
        scale = torch.where(deviation > 0, deviation, 1.0)
        first, second = (Given(z / scale, None, own) for z, own in zip(numbers, plain, strict=True))
        return first, second, Columns(tuple(names), tuple(codes))


def noisy(table: pa.Table, part: float, rng: torch.Generator) -> pa.Table:
    """The same rows with noise in each column of measurements, of a part of its deviation."""
    for j, name in enumerate(table.column_names):
        if pa.types.is_floating(table.schema.field(name).type):
            values = torch.tensor(table[name].to_numpy())
            moved = values + part * values.std() * torch.randn(len(values), generator=rng)
            table = table.set_column(j, name, pa.array(moved.numpy()))
    return table


def law(text: str) -> Law | None:
    """The examples that a text names; None where the user's file is absent."""
    home = os.environ.get("MONGE_DATA", "")
    path = text.format(data=home)
    if text != path and not Path(path).is_file():
        return None
    data = sources.load(path, Reading(), lambda line: None)
    return Law(torch.cat([data.train[:], data.heldout[:]]), data.table)


def p_values(a: Given, b: Given, columns: Columns | None, seed: int) -> dict[str, float]:
    """Of the tests of the verdict, by name, as `compare` makes them."""
    chosen = spaces.choose(a, b, (), max(len(a), len(b)), seed)
    [part] = in_each_space(chosen, columns)
    found: dict[str, float | None] = {}
    for comparison in part.listed:
        draws = comparison.draws(part.drawn[0], seed)
        for head in comparison.heads:
            if head.test is not None:
                test = head.test(draws.samples, draws.real, stream(seed, "test", head.name))
                found[head.name] = test.p_value
        if comparison.heads[0].name == "C2ST AUC":
            rng = stream(seed, "interval")
            ends = comparison.intervals(draws.samples, draws.real, rng, seed)
            for head, interval in zip(comparison.heads, ends, strict=True):
                found[head.name] = interval.p_value
    if columns is not None:
        report = column_report(part.drawn[0].seen("columns", any_size=True), columns, "", seed)
        found[WORST] = report and report.row.p_value
    return {k: p for k, p in found.items() if p is not None and not math.isnan(p)}


def told_apart(a: Given, b: Given, columns: Columns | None, seed: int) -> tuple[bool, str]:
    """Whether `compare` says that the sets differ, and by which test the p-value is least."""
    found = p_values(a, b, columns, seed)
    least = min(found, key=lambda name: found[name])
    if min(holm(list(found.values()))) >= LEVEL:
        return False, least
    table = None
    if a.columns is not None and b.columns is not None:
        table = {"a": a.columns, "b": b.columns}
    result = compare(a.x, b.x, table=table, columns=columns, n=len(a), seed=seed)
    again = {row.name: row.p_value for row in result.tables[0] if row.p_value is not None}
    if again != found:
        raise AssertionError(f"compare has other tests: {again}, not {found}")
    return result.verdict.differs, least


def measured(
    texts: Mapping[str, str], pairs: int, sizes: list[int], noise: float = 0.0
) -> Iterator[dict[str, Any]]:
    """For each source and n the pairs, and how many were told apart."""
    for name, text in texts.items():
        examples = law(text)
        if examples is None:
            print(f"SKIP {name}: needs {text.format(data='MONGE_DATA')}", file=sys.stderr)
            continue
        for n in sizes:
            made = [
                told_apart(*examples.pair(n, name, n, k, noise=noise), seed=k) for k in range(pairs)
            ]
            by = [least for told, least in made if told]
            yield {"source": name, "n": n, "pairs": pairs, "told apart": len(by), "by": by}


def rate(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The rate of several rows together, with Wilson's 95 % interval."""
    told, pairs = (sum(row[key] for row in rows) for key in ("told apart", "pairs"))
    interval = wilson(told / pairs, pairs)
    return {
        "pairs": pairs,
        "told apart": told,
        "rate": told / pairs,
        "interval": [interval.low, interval.high],
    }


def main() -> int:
    made = argparse.ArgumentParser(description=__doc__.split("\n")[0])  # type: ignore[union-attr]
    made.add_argument("--pairs", type=int, default=50, help="of each source and n")
    made.add_argument("--n", default="100,300,800", help="examples of each set")
    made.add_argument("--only", default="", help="sources whose name holds this word")
    made.add_argument("--table", type=Path, help="a table instead of the sources")
    made.add_argument("--noise", type=float, default=0.0, help="planted in the first set of tables")
    made.add_argument("--json", action="store_true", help="print JSON instead of a table")
    given = made.parse_args()
    rows: list[dict[str, Any]] = []
    sizes = [int(n) for n in given.n.split(",")]
    texts = {name: text for name, text in SOURCES.items() if given.only in name}
    if given.table is not None:
        if not given.table.is_file():
            made.error(f"--table: no file {given.table}")
        texts = {given.table.stem: str(given.table)}
    for row in measured(texts, given.pairs, sizes, given.noise):
        rows.append(row)
        print("{source:12} n = {n:4}: {told apart} of {pairs} {by}".format(**row), file=sys.stderr)
    together = {n: rate([row for row in rows if row["n"] == n]) for n in {r["n"] for r in rows}}
    if given.json:
        print(json.dumps({"rows": rows, "by n": {str(n): r for n, r in together.items()}}))
    else:
        kind = "noisy" if given.noise else "honest"
        for n, r in sorted(together.items()):
            low, high = (100 * end for end in r["interval"])
            print(
                f"n = {n}: {r['told apart']} of {r['pairs']} {kind} pairs told apart, "
                f"{100 * r['rate']:.1f} % [{low:.1f}, {high:.1f}]"
            )
    return int(not given.noise and any(r["interval"][0] > LEVEL for r in together.values()))


if __name__ == "__main__":
    raise SystemExit(main())
