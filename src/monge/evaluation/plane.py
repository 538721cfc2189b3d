"""A model of two numbers as the report draws it: its velocity, its walks and its density."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from monge.data.base import Data
from monge.errors import UserError
from monge.evaluation import known_target
from monge.sampling.model import GenerativeModel
from monge.tensors import noise
from monge.types import Cond

ARROWS = 15
"""Arrows along each axis."""

CELLS = 48
"""Cells of the density along each axis."""

TIMES = 21
"""Frames."""

MOST_LABELS = 10
"""Labels over which a density is mixed, at most: it takes time."""

WALKS = 300
"""Noises that walk, and real rows behind them."""


def is_plane(run: GenerativeModel, data: Data) -> bool:
    """Whether examples are two numbers, learned as they are or by an affine bijection."""
    numbers = run.codec is None or not run.codec.categories
    affine = run.autoencoder.log_abs_det is not None
    two = tuple(data.shape) == (2,) and tuple(run.autoencoder.latent_shape) == (2,)
    return two and numbers and affine


@torch.no_grad()
def shown_plane(run: GenerativeModel, data: Data, names: list[str], seed: int) -> dict[str, Any]:
    """What ``plane.json`` holds, in coordinates of the examples.

    Velocities are those of the model without a label, where it has labels; they are left out
    where it was not trained without one, or has conditions or no velocity.
    """
    n = min(WALKS, len(data.heldout))
    labels, given = run.draw_conditions(n, None, None, seed)
    cond = run.cond_of(run.condition(labels, given) or {})
    flow = run.flow()
    lo, hi = flow.domain
    times = [lo + (hi - lo) * k / (TIMES - 1) for k in range(TIMES)]
    x0 = noise(seed, 0, n, (2,), "plane").to(run.device, run.dtype)
    walks = [run.autoencoder.decode(z.float()).cpu() for z in flow.states(x0, times, cond)]
    real = torch.as_tensor(data.heldout[:n])
    box = _box(torch.cat([walks[0], walks[-1], real]))
    offset = torch.zeros(2).double() if run.codec is None else _offset(run)
    wide = box[:, 1] - box[:, 0]
    free = not run.facts.n_vector
    found: dict[str, Any] = {
        "format_version": 1,
        "names": names,
        "t": [round(t, 4) for t in times],
        "box": (box + offset[:, None]).tolist(),
        "walks": [_placed(w, offset, wide) for w in walks],
        "real": _placed(real, offset, wide),
        "labels": labels is not None,
        "arrows": None,
        "density": None,
    }
    if free and (labels is None or _without_labels(run)):
        at = _grid(box, ARROWS)
        found["at"] = _placed(at, offset, wide)
        found["arrows"] = _arrows(run, at, times)
    if free and len(run.label_names) <= MOST_LABELS:
        found["density"] = _densities(run, data, _grid(box, CELLS))
    return found


def _without_labels(run: GenerativeModel) -> bool:
    spec = getattr(run, "spec", None)
    return spec is not None and spec.label_drop > 0


def _offset(run: GenerativeModel) -> Tensor:
    """What is added to coordinates to have the table's numbers."""
    assert run.codec is not None
    return torch.as_tensor(run.codec.natural(torch.zeros(1, 2))[0]).double()


def _box(x: Tensor) -> Tensor:
    """The ends of each axis, (2, 2): the central 99 % of the rows and a margin."""
    ends = torch.quantile(x.float(), torch.tensor([0.005, 0.995]), dim=0).T
    margin = 0.1 * (ends[:, 1] - ends[:, 0]).clamp_min(1e-6)
    return torch.stack([ends[:, 0] - margin, ends[:, 1] + margin], 1)


def _grid(box: Tensor, n: int) -> Tensor:
    """The middles of n x n cells, (n * n, 2); rows of the picture from below."""
    middles = (torch.arange(n) + 0.5) / n
    x, y = (lo + (hi - lo) * middles for lo, hi in box)
    return torch.stack([x.repeat(n), y.repeat_interleave(n)], 1)


def _arrows(run: GenerativeModel, at: Tensor, times: list[float]) -> list[list[list[float]]] | None:
    """Velocities (times, arrows, 2) in the data's units; None where the model has none."""
    try:
        field = run.field
    except UserError:
        return None
    z = run.autoencoder.encode(at.to(run.device)).mean.to(run.dtype)
    zero = run.autoencoder.decode(torch.zeros_like(z[:1]).float())
    cond = _no_label(run, len(z))
    found = []
    for t in times:
        v = field(z, t, cond)
        found.append(_rounded((run.autoencoder.decode(v.float()) - zero).cpu()))
    return found


def _no_label(run: GenerativeModel, n: int) -> Cond:
    if not run.label_names:
        return None
    return {"label": torch.full((n,), -1, device=run.device)}


def _densities(run: GenerativeModel, data: Data, at: Tensor) -> dict[str, Any] | None:
    """The log-density of the model on a grid, and the true one where the law is known."""
    if run.without_density() is not None:
        return None
    truth, law = None, data.target
    if law is not None and law.smooth:
        truth = known_target.exact(law, at.double())
    found = known_target.log_density(run, at.double())
    return {
        "cells": CELLS,
        "model": _flat(found),
        "truth": None if truth is None else _flat(truth),
    }


def _flat(values: Tensor) -> list[float | None]:
    """Logarithms for JSON; None for that of zero."""
    return [round(v, 3) if math.isfinite(v) else None for v in values.double().tolist()]


def _placed(x: Tensor, offset: Tensor, wide: Tensor) -> list[list[float]]:
    """Points in the units of the data, to 1e-4 of the picture's width."""
    digits = [4 - math.floor(math.log10(float(w))) for w in wide]
    rows = (x.double() + offset).tolist()
    return [[round(v, k) for v, k in zip(row, digits, strict=True)] for row in rows]


def _rounded(x: Tensor) -> list[list[float]]:
    return [[float(f"{v:.4g}") for v in row] for row in x.tolist()]
