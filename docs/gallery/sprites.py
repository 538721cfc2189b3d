"""Draw sprites of 16 x 16 pixels in three classes: ``python docs/gallery/sprites.py FOLDER``.

A sprite is a random mask, mirrored, filled with two shades of a colour and outlined. The classes
differ in colour and outline: creatures are green and round, ships are blue and pointed, and robots
are red and square.
"""

from __future__ import annotations

import colorsys
import sys
from pathlib import Path

import numpy as np
from PIL import Image

SIDE, EACH = 16, 700
HUES = {"creature": 0.33, "ship": 0.58, "robot": 0.02}


def body(kind: str, rng: np.random.Generator) -> np.ndarray:
    """The filled pixels, (14, 14)."""
    y, x = np.mgrid[0:14, 0:7]
    if kind == "creature":
        inside = ((x - 6.5) / rng.uniform(4, 6.5)) ** 2 + ((y - 6.5) / rng.uniform(4, 6.5)) ** 2 < 1
    elif kind == "ship":
        inside = (6.5 - x) < (y + 1) * rng.uniform(0.35, 0.55)
    else:
        inside = (6.5 - x < rng.integers(4, 7)) & (abs(y - 6.5) < rng.integers(4, 7))
    half = inside & (rng.random((14, 7)) < 0.85)
    return np.concatenate([half, half[:, ::-1]], 1)


def sprite(kind: str, rng: np.random.Generator) -> np.ndarray:
    """An image (16, 16, 3)."""
    filled = np.pad(body(kind, rng), 1)
    shade = np.pad(rng.random((14, 7)) < 0.3, ((1, 1), (1, 0)))
    shade = np.concatenate([shade, shade[:, ::-1]], 1)
    near = filled.copy()
    for axis in (0, 1):
        for step in (-1, 1):
            near |= np.roll(filled, step, axis)
    hue = HUES[kind] + rng.normal(0, 0.03)
    light, dark = (np.array(colorsys.hsv_to_rgb(hue % 1, 0.7, v)) for v in (0.95, 0.6))
    image = np.ones((SIDE, SIDE, 3))
    image[near] = 0.12
    image[filled] = light
    image[filled & shade] = dark
    eye = rng.integers(4, 8)
    for x in (5, 10):
        image[eye, x] = 1.0 if filled[eye, x] else image[eye, x]
    return (255 * image).round().astype(np.uint8)


def main(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for kind in HUES:
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for k in range(EACH):
            Image.fromarray(sprite(kind, rng)).save(folder / kind / f"{k:04d}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
