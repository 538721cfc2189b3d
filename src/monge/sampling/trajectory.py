"""An animated GIF of samples on their trajectories from noise to data."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from monge.errors import UserError
from monge.sampling import images, known_columns
from monge.tensors import CHUNK, noise

if TYPE_CHECKING:
    from PIL.Image import Image

    from monge.sampling.model import GenerativeModel

FRAMES = 24
"""Number of times shown, from noise to data, both ends included."""

FRAME_MS = 80
LAST_MS = 1600
"""Duration of the last frame, the samples, in milliseconds."""

MOST_IMAGES = 64
"""Most images in an animation."""


@torch.no_grad()
def trajectory(
    run: GenerativeModel,
    n: int = 64,
    label: Any = None,
    *,
    condition: Any = None,
    frames: int = FRAMES,
    seed: int = 0,
    **sampling: Any,
) -> tuple[list[float], Tensor]:
    """The decoded states of samples at equally spaced times; the last states are the samples.

    Sample i is that of ``run.sample`` with the same settings: the same noise, carried along the
    flow, and the final map at the end. A learned map jumps from the noise to each time, and to the
    samples by its own jumps.

    Args:
        n, label, condition, seed, sampling: as for `GenerativeModel.sample`.
        frames: number of times, both ends included.

    Returns:
        The times, and the states (frames, n, *shape).

    Raises:
        UserError: fewer than two frames, or settings that `sample` refuses.
    """
    if frames < 2:
        raise UserError(f"an animation needs at least 2 frames, not {frames}")
    samples = run.sample(n, label, condition=condition, seed=seed, **sampling)
    rows = run.condition(samples.label, samples.condition) or {}
    cells = known_columns.given_to(run, n, condition)
    rows |= cells.rows if cells else {}
    flow = run.flow(**{k: v for k, v in sampling.items() if k != "final"})
    lo, hi = flow.domain
    times = [lo + (hi - lo) * k / (frames - 1) for k in range(frames)]
    shape = tuple(run.autoencoder.latent_shape)
    parts: list[list[Tensor]] = [[] for _ in times]
    for first in range(0, n, CHUNK):
        last = min(first + CHUNK, n)
        cond = run.cond_of({k: v[first:last] for k, v in rows.items()})
        x0 = noise(seed, first, last, shape, "sample").to(run.device, run.dtype)
        for part, z in zip(parts, flow.states(x0, times, cond), strict=True):
            part.append(run.hardened(run.autoencoder.decode(z.float()).cpu()))
    states = torch.stack([torch.cat(part) for part in parts])
    states[-1] = samples.x
    return times, states


def gif(run: GenerativeModel, times: Sequence[float], states: Tensor) -> bytes:
    """States of `trajectory` as a repeating GIF: grids of images, or scatter plots of the first
    two columns.

    Raises:
        UserError: rows of one column.
    """
    if run.facts.kind == "image":
        shown = states[:, :MOST_IMAGES]
        drawn = [images.grid(x, round(len(x) ** 0.5) or 1).convert("RGB") for x in shown]
    else:
        drawn = _clouds(run, times, states)
    buffer = io.BytesIO()
    durations = [FRAME_MS] * (len(drawn) - 1) + [LAST_MS]
    drawn[0].save(
        buffer, format="GIF", save_all=True, append_images=drawn[1:], duration=durations, loop=0
    )
    return buffer.getvalue()


def _clouds(run: GenerativeModel, times: Sequence[float], states: Tensor) -> list[Image]:
    """A scatter plot at each time, on the same axes, over held-out rows if available."""
    from PIL import Image

    if states.shape[2] < 2:
        raise UserError("an animation needs rows of two columns at least, or images")
    real = run.reference()
    rows, names = states[..., :2].double(), ["x0", "x1"]
    known = None if real is None else torch.as_tensor(real)[: images.MOST_POINTS, :2].double()
    if run.codec is not None:
        rows = torch.stack([run.codec.natural(x)[:, :2] for x in states])
        known = None if real is None else run.codec.natural(real[: images.MOST_POINTS])[:, :2]
        names = run.codec.coordinate_names[:2]
    from matplotlib.figure import Figure

    every = torch.cat([rows[0], rows[-1]] + ([] if known is None else [known]))
    low, high = torch.quantile(every, torch.tensor([0.002, 0.998], dtype=torch.float64), dim=0)
    margin = 0.06 * (high - low).clamp_min(1e-9)
    figure = Figure((4.8, 4.8), dpi=100, layout="constrained")
    ax = figure.subplots()
    ax.spines[["top", "right"]].set_visible(False)
    if known is not None:
        ax.scatter(*known.T.numpy(), s=4, color=images.COLOURS["real"], alpha=0.25, lw=0)
    points = ax.scatter(*rows[0].T.numpy(), s=7, color=images.COLOURS["generated"], lw=0)
    ends = zip((low - margin).tolist(), (high + margin).tolist(), strict=True)
    x_ends, y_ends = ends
    ax.set_xlim(*x_ends)
    ax.set_ylim(*y_ends)
    ax.set_xlabel(names[0], parse_math=False)
    ax.set_ylabel(names[1], parse_math=False)
    drawn = []
    for t, x in zip(times, rows, strict=True):
        points.set_offsets(x.numpy())
        ax.set_title(f"t = {t:.2f}", size=10, loc="left")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
        buffer.seek(0)
        image = Image.open(buffer).convert("RGB")
        drawn.append(image.quantize(64, method=Image.Quantize.MEDIANCUT))
    return drawn
