"""A study of a user's own: axes and one function."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from monge.studies.claims import Slope
from monge.studies.study import Axis, Cell, Row, Study


def cell(at: Cell) -> Iterator[Row]:
    """The error of a mean of n draws; a factor that the coordinates determine."""
    noise = float(torch.rand((), generator=at.stream("factor")))
    for n in at["n"]:
        yield {"n": n, "error": (1 + 0.01 * noise) * at["scale"] * n**-0.5}


STUDY = Study(
    name="mine",
    title="The error of a mean",
    question="Does it fall like n^{-1/2}?",
    axes=(
        Axis("scale", (1.0, 2.0), (1.0,), "of the errors"),
        Axis("seed", (0, 1, 2), (0,), "repetition"),
        Axis("n", (4, 16, 64, 256), (4, 16, 64), "draws", together=True),
    ),
    cell=cell,
    claims=(
        Slope("like n^{-1/2}", "error", "n", -0.5, "rate", "the central limit theorem",
              "infinity", ("scale",)),
    ),
    repeats="seed",
    minutes=0.1,
)  # fmt: skip
