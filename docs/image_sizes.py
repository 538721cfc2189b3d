"""Training steps a second by image size, in docs/your-images.md: python docs/image_sizes.py

Of the autoencoder and the network that `monge train FOLDER --image-size SIDE` chooses. A step is
loss, gradient and AdamW's update of a batch; the images are noise, whose values cost nothing. Time
is the processor's, of one thread, so that a busy machine does not count; sizes take turns, and the
error is that of the mean over the turns.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from monge.components import build
from monge.data.base import Data
from monge.fitting.objective import make_matching
from monge.fitting.resolve import resolve
from monge.runs.spec import TrainSpec
from monge.tensors import stream

SIDES = (28, 32, 33, 30, 50, 64, 100, 96)
TURNS, STEPS = 4, 2
COUNT = 5000
"""Images that the defaults are chosen for: not few."""


def data_of(side: int) -> Data:
    x = torch.zeros(1, 3, side, side).expand(COUNT, 3, side, side)
    return Data("noise", "noise", "image", train=x, heldout=x[:1])


def stepping(module: nn.Module, loss: Callable[[], torch.Tensor]) -> Callable[[], float]:
    """A step, as a function to the seconds of the processor that it took."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4, fused=True)

    def step() -> float:
        begun = time.process_time()
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        return time.process_time() - begun

    return step


def of_size(side: int) -> tuple[TrainSpec, tuple[int, ...], list[Callable[[], float]]]:
    """The chosen settings, the latent shape, and the steps of autoencoder and network."""
    data = data_of(side)
    spec = resolve(TrainSpec(data="noise"), data)
    component = build("autoencoder", spec.autoencoder)
    bare: Any = component.build(data.shape)
    x = torch.rand(component.batch, *data.shape, generator=stream(0, "image sizes")) * 2 - 1
    drawn = component.draw({"x": x}, stream(0, "image sizes"))
    shape = tuple(bare.latent_shape)
    network = build("network", spec.network).build(shape, None, 0)
    matching = make_matching(spec, data)
    z = torch.randn(spec.batch, *shape, generator=stream(0, "image sizes"))
    batch = matching.draw({"x1": z}, stream(0, "image sizes"))
    return spec, shape, [
        stepping(bare, lambda: component.loss(bare, drawn).per_example.mean()),
        stepping(network, lambda: matching.loss(network, batch).per_example.mean()),
    ]  # fmt: skip


def main() -> None:
    torch.set_num_threads(1)
    sides = [int(word) for word in sys.argv[1:]] or list(SIDES)
    made = {side: of_size(side) for side in sides}
    taken: dict[int, list[list[float]]] = {side: [[], []] for side in sides}
    for turn in range(TURNS + 1):
        for side, (_, _, steps) in made.items():
            for which, step in enumerate(steps):
                seconds = statistics.mean(step() for _ in range(STEPS))
                if turn:  # the first warms up
                    taken[side][which].append(seconds)
    print("| image size | autoencoder | latent | its steps a second | the network's |")
    print("|---|---|---|---|---|")
    for side, (spec, shape, _) in made.items():
        cells = []
        for found in taken[side]:
            mean = statistics.mean(found)
            error = statistics.stdev(found) / math.sqrt(len(found)) / mean
            cells.append(f"{1 / mean:.3g} +- {error / mean:.2g}")
        latent = " x ".join(map(str, shape))
        print(f"| {side} | `{spec.autoencoder}` | {latent} | {cells[0]} | {cells[1]} |")


if __name__ == "__main__":
    main()
