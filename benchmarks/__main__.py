"""All benchmarks, one after another: ``python -m benchmarks``."""

import runpy

for name in ("loop_overhead",):
    runpy.run_module(f"benchmarks.{name}", run_name="__main__")
