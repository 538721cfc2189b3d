"""What compiling takes, and what a compiled training step takes, over an eager one.

The networks and the step of `training_step`. The first compilation finds what torch has kept from
earlier ones: set TORCHINDUCTOR_CACHE_DIR to an empty folder to time it from nothing. Run with
`python -m benchmarks.compiling`; about four minutes on one core.
"""

from __future__ import annotations

import time

from accelerate import Accelerator

from benchmarks.measure import Row, Rows, interleave, parser, ratio, show, timed
from benchmarks.training_step import SIZES, Size, batch_of, ours
from monge.objectives.flow_matching import FlowMatching
from monge.training.compiling import compile_loss
from monge.training.engine import Engine
from monge.training.spec import LoopSpec


def engine_of(size: Size) -> Engine:
    loss = FlowMatching().loss
    spec = LoopSpec(steps=1)
    return Engine(Accelerator(cpu=True), ours(size).train(), loss, size.rows, spec)


def run(rounds: int) -> Rows:
    rows: Rows = {}
    for size in SIZES:
        batch = batch_of(size, FlowMatching())
        eager, compiled = engine_of(size), engine_of(size)
        for engine in (eager, compiled):
            engine.prepare(batch)
        start = time.process_time()
        wall_s = compile_loss(compiled, batch)
        if wall_s is None:
            rows[f"{size}"] = Row(None, note="; ".join(compiled.taken_notes()))
            continue
        note = f"{time.process_time() - start:.0f} s of them Python's own"
        rows[f"compiling, {size}"] = Row(wall_s, unit="s", note=note)
        steppers = {
            name: timed(lambda e=engine, b=batch: e.step(0, 1e-3, b), size.steps)
            for name, engine in (("eager", eager), ("compiled", compiled))
        }
        for stepper in steppers.values():
            stepper()
        seconds = interleave(steppers, rounds)
        rows[f"eager / compiled, {size}"] = ratio(seconds["eager"], seconds["compiled"])
    return rows


if __name__ == "__main__":
    show("compiled training steps", run(parser(__doc__).parse_args().rounds))
