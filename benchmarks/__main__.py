"""The benchmarks, one after another, and one table at the end: ``python -m benchmarks``.

About twenty minutes on two cores. Those that take longer run only when they are asked for:
``python -m benchmarks defaults --rounds 3``, ``python -m benchmarks compiling``,
``python -m benchmarks.exact_w2 --large`` and
``python -m benchmarks.time_to_quality --mnist ... --lenet ...``.
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
SLOW = ("compiling", "defaults")


def main() -> None:
    made = parser(__doc__)
    known = (*NAMES, *SLOW)
    names = f"of {', '.join(known)}; all but {', '.join(SLOW)} unless given"
    made.add_argument("names", nargs="*", help=names)
    given = made.parse_args()
    unknown = set(given.names) - set(known)
    if unknown:
        made.error(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
    rows: Rows = {}
    for name in given.names or NAMES:
        found = importlib.import_module(f"benchmarks.{name}").run(given.rounds)
        show(name, found)
        rows |= {f"{name}: {what}": row for what, row in found.items()}
    print(machine())
    print(table(rows))


if __name__ == "__main__":
    main()
