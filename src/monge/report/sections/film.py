"""A film inside a page: points that move, with axes, a slider, a button and keys."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from typing import Any

from monge.report.page import escaped

SIDE = 840
"""Pixels of the canvas along each side."""

Points = Sequence[Sequence[float]]


def film(
    times: Sequence[float],
    walks: Sequence[Points],
    real: Points,
    names: tuple[str, str],
    label: str,
    box: Sequence[Sequence[float]] | None = None,
    at: Points = (),
    arrows: Sequence[Points] | None = None,
) -> str:
    """A canvas that shows points at each time, real ones behind them; HTML.

    The range input has the arrow keys, page up and down, home and end; space plays and pauses.

    Args:
        times: one a frame.
        walks: (T, n, 2).
        names: of the axes.
        label: what is shown, for those who do not see it.
        box: ends of the axes, (2, 2); None: what holds all points.
        at, arrows: where arrows start, (m, 2), and the vectors there, (T, m, 2), in any unit: the
            longest is drawn as long as two arrows are apart.
    """
    if box is None:
        every = [p for frame in (*walks, real) for p in frame] or [(0.0, 0.0)]
        most = 1.05 * max(max(abs(p[0]), abs(p[1])) for p in every) or 1.0
        box = [[-most, most], [-most, most]]
    value: dict[str, Any] = {
        "t": times, "p": walks, "z": real, "names": names, "x": box[0], "y": box[1],
        "ticks": [ticks(*ends) for ends in box],
    }  # fmt: skip
    if arrows is not None:
        value |= {"at": at, "arrows": _scaled(arrows, at)}
    # No "<" may stand in a script element, whatever the names are.
    data = json.dumps(value, ensure_ascii=False).replace("<", "\\u003c")
    last = len(times) - 1
    return (
        f"<div class='film'><canvas width='{SIDE}' height='{SIDE}' role='img' "
        f"aria-label='{escaped(label)}'></canvas><div class='turn'>"
        f"<button type='button'>Play</button><label>time t <input type='range' min='0' "
        f"max='{last}' value='{last}' aria-label='time t: 0 is noise, 1 is data'></label>"
        f"<output>{times[-1]:.2f}</output></div>"
        f"<script type='application/json'>{data}</script></div>"
    )


def ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers between two ends.

    >>> ticks(-1.3, 2.2), ticks(0.0, 0.04)
    ([-1.0, 0.0, 1.0, 2.0], [0.0, 0.01, 0.02, 0.03, 0.04])
    >>> ticks(420.0, 1000.0)
    [500.0, 600.0, 700.0, 800.0, 900.0, 1000.0]
    """
    span = high - low
    if not span > 0 or not math.isfinite(span):
        return []
    power = 10.0 ** math.floor(math.log10(span / 3))
    step = max(m * power for m in (1, 2, 5) if m * power <= span / 3 * 1.0000001)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{k * step:.6g}") + 0.0 for k in range(first, last + 1)]


def _scaled(arrows: Sequence[Points], at: Points) -> list[list[list[float]]]:
    """Arrows of which the longest is as long as two of them are apart."""
    xs = sorted({p[0] for p in at})
    apart = min((b - a for a, b in itertools.pairwise(xs)), default=1.0)
    most = max((math.hypot(*v) for frame in arrows for v in frame), default=0.0) or 1.0
    return [[[float(f"{apart * c / most:.3g}") for c in v] for v in frame] for frame in arrows]
