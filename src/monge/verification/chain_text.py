"""The certificates of a chain as lines for people."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def text(report: Mapping[str, Any]) -> str:
    """A table of the blocks, then what holds of the whole chain."""
    known = report["truth_known"]
    kl = "KL to noise" if known else "KL above last"
    names = ("W2 moved", kl, "exact", "log-density", "ratio", "bound", "E[T] defect", "dilation")
    head = _row("block", "size", *names, "xi", "back again")
    lines = [head]
    before = report["kl_before"]["value"] if known else None
    for k, block in enumerate(report["blocks"], 1):
        found = block["kl"] if known else block["above_last"]
        ratio = bound = ""
        if before is not None:
            ratio = f"{found['value'] / before:.3f}" if before > 0 else ""
            before = found["value"]
        if block["mean"] is not None:
            bound = f"{(1 + block['size']) ** -2:.3f}"
        size = "free" if block["size"] is None else f"{block['size']:.3g}"
        xi = "" if block["residual"] is None else f"{block['residual']['value']:.3g}"
        exact = report["exact_kl"]
        cells = (
            f"{block['moved']:.4f}",
            _pm(found),
            "" if exact is None else f"{exact[k - 1]:.4f}",
            _pm(block["log_density"]),
            ratio,
            bound,
            _pm(block["mean"]),
            _pm(block["dilation"]),
        )
        lines.append(_row(str(k), size, *cells, xi, f"{block['round_trip']:.2g}"))
    lines += _split(report) + _of_whole(report)
    return "\n".join(line.rstrip() for line in lines)


WIDTHS = (5, 6, 8, 17, 7, 17, 6, 6, 17, 17, 7, 10)


def _row(*cells: str) -> str:
    return "  ".join(cell.rjust(width) for cell, width in zip(cells, WIDTHS, strict=True))


def _pm(found: Mapping[str, float] | None) -> str:
    if found is None:
        return ""
    return f"{found['value']:.4f} ± {found['stderr']:.4f}"


def _split(report: Mapping[str, Any]) -> list[str]:
    """The objective of each block, in nats: E|Tx|^2/2 - E log|det| + E|Tx - x|^2/(2 gamma)."""
    lines = ["objective, in nats: potential - log|det| + transport; descent against standing still"]
    for k, block in enumerate(report["blocks"], 1):
        transport = block["transport"]
        moved = "none" if transport is None else _pm(transport)
        lines.append(
            f"{k:>5}  {_pm(block['energy'])}   {_pm(block['volume'])}   {moved}   "
            f"descent {_pm(block['descent'])}"
        )
    return lines


def _of_whole(report: Mapping[str, Any]) -> list[str]:
    lines = []
    if diffusion := report["diffusion"]["time"]:
        lines.append(
            f"the chain has learned data diffused for a time of {diffusion:g}: W2 at most "
            f"{report['diffusion']['moved_at_most']:.3g} from the data, in latent units"
        )
    if report["truth_known"]:
        last = report["blocks"][-1]["kl"]
        most = math.sqrt(max(0.0, last["value"]) / 2)
        lines.append(
            f"KL(data || chain) {_pm(last)} nats, total variation at most {most:.3g}; with computed"
            f" inverses, within W2 {report['round_trip'] * math.sqrt(report['dim']):.2g} of that"
        )
    lines.append(f"data to noise and back: {report['round_trip']:.2g} rms per coordinate")
    for way in report["solvers"]:
        steps = "" if way["steps"] is None else f", {way['steps']} steps a block"
        own = " (its own)" if way["own"] else ""
        lines.append(
            f"log-density by {way['solver']}{steps}{own}: {_pm(way)}, back again "
            f"{way['round_trip']:.2g}"
        )
    if (needed := report["steps_needed"]) is not None:
        lines.append(
            f"with a residual of {needed['residual']:.3g} theory asks for {needed['steps']} steps "
            f"and leaves W2^2 at most {needed['squared_distance']:.3g}"
        )
    lines.append(f"n = {report['n']}, trace {report['trace']}, seed {report['seed']}")
    return lines
