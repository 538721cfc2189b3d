"""The part of a report that shows a model of two numbers: velocity, walks and density."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monge.report.page import card, read_facts
from monge.report.sections.film import film
from monge.report.style import LIGHT
from monge.runs.layout import PLANE

DEEP = 9.0
"""A density is drawn down to exp(-DEEP) of the largest."""


def field(folder: Path) -> str | None:
    """The velocity as arrows, and noise on its way along it."""
    found = read_facts(folder, PLANE)
    if found is None:
        return None
    names = (str(found["names"][0]), str(found["names"][1]))
    told = "Noise (t = 0) on its way to samples (t = 1), in orange, over held-out rows in grey."
    if found["arrows"]:
        of = "the velocity without a label" if found["labels"] else "the velocity"
        told = f"Arrows: {of} at time t, all of one scale. {told}"
    drawn = film(
        found["t"], found["walks"], found["real"], names, told, found["box"],
        found.get("at") or (), found["arrows"],
    )  # fmt: skip
    return card(f"{drawn}<p class='small'>{told}</p>", "The velocity and where it leads")


def density(folder: Path) -> str | None:
    """The density of the model, and the true one beside it."""
    found = (read_facts(folder, PLANE) or {}).get("density")
    if not found:
        return None
    sides = {"the model": found["model"], "the true law": found["truth"]}
    known = [v for side in sides.values() if side for v in side if v is not None]
    top = max(known, default=0.0)
    pictures = "".join(
        f"<figure>{_heat(side, int(found['cells']), top, name)}"
        f"<figcaption>{name}</figcaption></figure>"
        for name, side in sides.items()
        if side
    )
    told = (
        f"log-density, one scale for all: darkest at {top:.2f} nats, white {DEEP:g} nats below. "
        "By the change of variables along the flow, without smoothing."
    )
    return card(f"<div class='pair trio'>{pictures}</div><p class='small'>{told}</p>", "Density")


def _heat(values: Sequence[float | None], cells: int, top: float, name: str) -> str:
    """A picture of values on a grid, whose first row is the lowest."""
    from PIL import Image

    accent = LIGHT["accent"].lstrip("#")
    colour = [int(accent[i : i + 2], 16) for i in (0, 2, 4)]
    image = Image.new("RGB", (cells, cells))
    for k, value in enumerate(values):
        depth = DEEP if value is None or not math.isfinite(value) else top - value
        share = min(max(1 - depth / DEEP, 0.0), 1.0)
        image.putpixel((k % cells, cells - 1 - k // cells), _blend(share, colour))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    return (
        f"<img alt='density of {name}' width='{8 * cells}' height='{8 * cells}' "
        f"style='image-rendering:pixelated' src='data:image/png;base64,{data}'>"
    )


def _blend(share: float, colour: Sequence[int]) -> Any:
    """White at 0, the colour at 0.7, and darker up to 1."""
    up, down = min(share / 0.7, 1.0), max((share - 0.7) / 0.3, 0.0)
    return tuple(round((255 + up * (c - 255)) * (1 - 0.75 * down)) for c in colour)
