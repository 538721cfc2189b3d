"""What was measured, in words, for terminal and report alike."""

from __future__ import annotations

import math
from collections.abc import Mapping


def map_laws(facts: Mapping[str, float | None]) -> list[str]:
    """The facts as lines."""
    coordinates, squared = facts["coordinates"], facts["squared_error"]
    assert coordinates is not None and squared is not None

    def each(rms: float | None) -> str:
        return "none" if rms is None else f"{rms / math.sqrt(coordinates):.3g}"

    lines = [
        f"rms per latent coordinate: one jump against the flow it follows {each(squared**0.5)}, "
        f"against two half as long {each(facts['semigroup'])} (semigroup defect)"
    ]
    if facts["inverse"] is not None:
        lines[0] += f", there and back {each(facts['inverse'])} (inverse defect)"
    lines.append(
        f"squares over all {coordinates:g} coordinates: E|X^ - X|^2 = {squared:.3g}, Lagrangian "
        f"loss at s = 0 {facts['lagrangian']:.3g}, Eulerian loss at t = T {facts['eulerian']:.3g}"
    )
    lines.append(
        f"so W2 to that flow is at most {squared**0.5:.3g} by this pairing, "
        f"{facts['lagrangian_bound']:.3g} by the Lagrangian loss with the measured expansion rate "
        f"{facts['one_sided']:.3g}, {facts['eulerian_bound']:.3g} by the Eulerian one (the last "
        "two may be loose)"
    )
    return lines
