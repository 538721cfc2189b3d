"""The benchmarks, one after another, and one table at the end: ``python -m benchmarks``.

About twenty minutes on two cores. Left out are those that take longer: `benchmarks.defaults`,
`benchmarks.exact_w2 --large` and `benchmarks.time_to_quality --mnist ... --lenet ...`.
"""

from __future__ import annotations

import importlib

from benchmarks.measure import Rows, machine, parser, show, table

NAMES = (
    "loop_overhead",
    "training_step",
    "coupling",
    "sampling",
    "exact_w2",
    "latent_cache",
    "time_to_quality",
)


def main() -> None:
    made = parser(__doc__)
    made.add_argument("names", nargs="*", help=f"of {', '.join(NAMES)}; all unless given")
    given = made.parse_args()
    unknown = set(given.names) - set(NAMES)
    if unknown:
        made.error(f"unknown: {', '.join(unknown)}; known: {', '.join(NAMES)}")
    rows: Rows = {}
    for name in given.names or NAMES:
        found = importlib.import_module(f"benchmarks.{name}").run(given.rounds)
        show(name, found)
        rows |= {f"{name}: {what}": row for what, row in found.items()}
    print(machine())
    print(table(rows))


if __name__ == "__main__":
    main()
