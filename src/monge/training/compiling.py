"""Whether a loss is compiled: where that clearly saves more time than it takes.

What a compiled step computes differs from an eager one in rounding. A run keeps to what it began
with, so an interrupted one is the same to the bit.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from torch import Tensor

from monge.objectives.base import Batch
from monge.training.engine import Engine

COST_S = 60.0
"""Seconds that compiling takes where nothing is in torch's cache: 51 to 78 for transformers of
width 128 and 384 on one core."""

GAIN = 1.05
"""An eager step over a compiled one, at least: 1.13 to 1.16 and 1.05 to 1.07 for the same."""

CLEARLY = 1.5
"""Compiling pays where what it is expected to save is so many times what it costs."""

DEVICES = ("cpu", "cuda")
"""Where compiling is tried without being asked for."""

FASTER = 1.02
"""A compiled step is kept where an eager one takes at least so many times as long."""

PAIRS = 5
"""Eager and compiled steps that are timed in turns."""

DIFFERS = 0.05
"""A compiled loss or gradient that is off by this part is not that of the network."""

SAME = 1e-3
"""A network whose numbers differ by less between two seeds draws none of its own."""


def pays(left_s: float, device: str) -> bool:
    """Whether compiling clearly pays for eager steps that take so many seconds in all.

    >>> pays(60 * 31.0, "cpu"), pays(60 * 32.0, "cpu"), pays(1e6, "mps")
    (False, True, False)
    """
    return device in DEVICES and left_s * (1 - 1 / GAIN) >= CLEARLY * COST_S


def compile_loss(engine: Engine, batch: Batch) -> float | None:
    """Compile the loss, in all processes or in none; the seconds that it took.

    None, with a note that says why, where it fails or where the loss or the gradient of the batch
    is not that of the network. A network that draws numbers of its own (dropout) draws others when
    it is compiled, and is not compared.
    """
    start, why, micro_batch = time.perf_counter(), "", engine.micro_batch
    eager, other = engine.sizes(batch, 0), engine.sizes(batch, 1)
    engine.loss.compiled = True
    try:
        found = engine.sizes(batch, 0)
        if _alike(eager, other, SAME) and not _alike(eager, found, DIFFERS):
            why = "its loss or gradient is another one"
        elif engine.micro_batch < micro_batch:
            why = "it takes more memory"
    except Exception as error:  # whatever the compiler or somebody's network raises
        first = (str(error).strip().splitlines() or [""])[0]
        why = f"{type(error).__name__}: {first}"
    engine.micro_batch = micro_batch
    if why:
        engine.note(f"not compiled, {why}")
    [failed] = engine.anywhere(bool(why))
    if failed:
        engine.loss.compiled = False
        return None
    return engine.agreed(time.perf_counter() - start)


def keep_if_faster(engine: Engine, took_s: float, timed: Callable[[], float]) -> float:
    """Compare compiled steps with eager ones, in turns, keep what is faster, and note it.

    Args:
        took_s: compiling.
        timed: takes a step that moves nothing; its seconds, the same in every process.

    Returns:
        The seconds of a step of the kind that is kept.
    """
    eager, compiled = [], []
    for _ in range(PAIRS):
        compiled.append(timed())
        with engine.loss.eagerly():
            eager.append(timed())
    slow, fast = statistics.median(eager), statistics.median(compiled)
    text = f"compiled in {took_s:.0f} s: a step takes {fast:.3g} s, an eager one {slow:.3g} s"
    if slow >= FASTER * fast:
        engine.note(text)
        return fast
    engine.note(f"{text}; going on eagerly")
    engine.loss.compiled = False
    return slow


def _alike(sizes: Tensor, others: Tensor, part: float) -> bool:
    """Whether losses and norms differ by less than a part; what is not finite is no difference."""
    scale = sizes.abs() + 0.01 * sizes[1:].norm()
    return sizes.shape == others.shape and not bool(((sizes - others).abs() > part * scale).any())
