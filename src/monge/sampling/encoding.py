"""Encodes data to latents or noise by the autoencoder and the reversed flow, and decodes.

References:
    | Encoding by the probability-flow ODE (Song et al., 2021), Sec. 4.3
    | -- https://arxiv.org/abs/2011.13456
    | Spherical interpolation of noise (White, 2016), Sec. 2 -- https://arxiv.org/abs/1609.04468
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from monge.errors import UserError
from monge.fields import final_map
from monge.flows import Walk
from monge.learned.base import Draw
from monge.sampling.encoded import Encoded, Kind, fitted, labels_of, load
from monge.sampling.inputs import read
from monge.sampling.labels import asked_labels
from monge.sampling.model import GenerativeModel
from monge.sampling.samples import Samples
from monge.system.progress import Say, quiet
from monge.tensors import CHUNK, expand

CHECKED = 64
"""Rows that are carried back to measure the error of the round trip."""


# There


@torch.no_grad()
def encode(
    generator: GenerativeModel,
    source: str | Path | Tensor,
    to: Kind = "noise",
    *,
    label: str | int | Tensor | None = None,
    limit: int | None = None,
    say: Say = quiet,
    **flow: Any,
) -> Encoded:
    """The latents of data (the posterior's mean), or the noise from which the flow makes them.

    The noise is the end of the flow backwards from t = 1. A flow that ends at T < 1 starts
    backwards from alpha_T times the latent.

    Args:
        source: a source as for training, with all examples in its order; or examples (N, *shape).
        label: in place of the source's labels: a name or an index for all rows, or (N,) indices.
        limit: most examples.
        flow: steps, solver, grid, guidance; by default the generator's.

    Raises:
        UserError: data of another shape, unknown labels, or a map that was not trained backwards.
    """
    if to not in ("noise", "latent"):
        raise UserError(f"data is encoded to noise or to latent, not {to!r}")
    if limit is not None and limit < 1:
        raise UserError(f"limit must be at least 1, not {limit}")
    walk = None if to == "latent" else _backwards(generator, flow)
    rows = read(generator, source, limit, say)
    n = len(rows)
    if label is not None:
        own = asked_labels(label, generator.facts, n, 0)
    else:
        own = labels_of(generator, rows.label, rows.names, n)
    known = tuple(generator.label_names)
    found = Encoded(to, torch.empty(0), own, known, rows.vector, source=rows.sources)
    latents, ends = [], []
    for at, x in rows.chunks():
        z = generator.autoencoder.encode(x.to(generator.device)).mean
        latents.append(z.float().cpu())
        if walk is not None:
            lo, hi = walk.domain
            start = _scale(generator, hi) * z.to(generator.dtype)
            ends.append(walk(start, hi, lo, _cond(generator, found, at)).float().cpu())
    z = torch.cat(latents)[rows.order]
    info = {"data": rows.name, "run": generator.name, "of": generator.digest}
    if walk is not None:
        noise = torch.cat(ends)[rows.order]
        info |= generator.describe_sampling(walk, guidance=flow.get("guidance"))
        found = dataclasses.replace(found, z=noise, info=info)
        again = _forwards(generator, found[:CHECKED], flow)
        error = (again - z[:CHECKED]).square().mean().sqrt()
        return dataclasses.replace(found, info={**info, "round_trip_rms": float(error)})
    return dataclasses.replace(found, z=z, info=info)


def _backwards(generator: GenerativeModel, flow: Mapping[str, Any]) -> Walk:
    walk = generator.flow(**flow)
    if reason := generator.learned.without_inverse(walk):
        raise UserError(reason)
    return walk


def _scale(generator: GenerativeModel, t: float) -> float:
    """The data scale alpha at a time."""
    return float(generator.path.scales(torch.tensor(t, dtype=torch.float64))[0])


def _cond(
    generator: GenerativeModel, found: Encoded, rows: Tensor | slice
) -> dict[str, Tensor] | None:
    given = {"label": found.label, "vector": found.vector}
    return {k: c[rows].to(generator.device) for k, c in given.items() if c is not None} or None


# And back


@torch.no_grad()
def decode(
    generator: GenerativeModel,
    encoded: Encoded | Tensor | str | Path,
    kind: Kind = "noise",
    *,
    label: str | int | Tensor | None = None,
    final: str | None = None,
    **flow: Any,
) -> Samples:
    """The data of noise, by the flow and decoder, or of latents, by the decoder alone.

    Args:
        encoded: a result of `encode`, its file, or a tensor (N, *latent_shape).
        kind: of a tensor: noise or latent.
        label: in place of the encoding's: a name or an index for all rows, or (N,) indices.
        final, flow: as for `Generator.sample`; by default the guidance of the encoding.

    Raises:
        UserError: an encoding that does not fit the generator, or settings of a flow for latents.
    """
    found = _given(generator, encoded, kind, label)
    info: dict[str, Any] = {"seed": "none", "steps": 0, "solver": "none", "guidance": 1.0}
    z = found.z
    if found.kind == "latent":
        for name, value in {"final": final, **flow}.items():
            if value is not None:
                raise UserError(f"latents go to the decoder alone: leave out {name}")
    else:
        if flow.get("guidance") is None:
            flow["guidance"] = found.info.get("guidance")
        z = _forwards(generator, found, flow, final)
        info |= generator.describe_sampling(generator.flow(**flow), final, flow.get("guidance"))
    info |= {"n": len(z), "decoded": found.kind}
    x = torch.cat(
        [generator.autoencoder.decode(part.to(generator.device)).cpu() for part in z.split(CHUNK)]
    )
    x = generator.hardened(x)
    known = found.vector is not None and generator.codec is not None
    condition = generator.codec.condition_of(found.vector) if known else None  # type: ignore
    # Either all samples have labels or none; one row without a label removes the labels of all.
    labelled = found.label is not None and bool((found.label >= 0).all())
    label = found.label if labelled else None
    return Samples(x, z, label, generator.origin, info, condition, found.source)


def _given(
    generator: GenerativeModel, encoded: Encoded | Tensor | str | Path, kind: Kind, label: Any
) -> Encoded:
    if isinstance(encoded, (str, Path)):
        found = load(encoded, generator)
    else:
        found = Encoded(kind, encoded.float().cpu()) if isinstance(encoded, Tensor) else encoded
        found = fitted(found, generator)
    if label is not None:
        own = asked_labels(label, generator.facts, len(found), 0)
        found = dataclasses.replace(found, label=own)
    return found


def _forwards(
    generator: GenerativeModel, found: Encoded, flow: Mapping[str, Any], final: str | None = None
) -> Tensor:
    """The latents of noise, by the flow."""
    walk = generator.flow(**flow)
    hi = walk.domain[1]
    finish = final_map(generator.final(walk, final), walk.field, generator.path, hi)
    made = []
    for start in range(0, len(found), CHUNK):
        rows = slice(start, start + CHUNK)
        x, cond = found.z[rows].to(generator.device, generator.dtype), _cond(generator, found, rows)
        draw = Draw(0, start, start + len(x), tuple(generator.autoencoder.latent_shape))
        end = generator.learned.carried(walk, x, draw, cond)
        made.append(finish(end, hi, cond).float().cpu())
    return torch.cat(made)


def interpolate(
    generator: GenerativeModel,
    encoded: Encoded | Tensor | str | Path,
    frames: int = 8,
    kind: Kind = "noise",
    *,
    label: str | int | Tensor | None = None,
    **settings: Any,
) -> list[Samples]:
    """Decode `frames` interpolated examples between each row and the next, ends included.

    Noise is interpolated on the sphere, latents on a line. A frame has the label of the nearer
    end; for a continuous path both ends need the same label, or none.

    Args:
        encoded, kind, label, settings: as for `decode`.

    Raises:
        UserError: one row, fewer than 2 frames, or an encoding that does not fit the generator.
    """
    if frames < 2:
        raise UserError(f"an interpolation has at least 2 frames, its ends, not {frames}")
    found = _given(generator, encoded, kind, label)
    if len(found) < 2:
        raise UserError("an interpolation needs at least two rows; there is one")
    at = torch.linspace(0, 1, frames)
    between: Callable[[Tensor, Tensor, Tensor], Tensor] = (
        spherical if found.kind == "noise" else linear
    )
    a, b = found.z[:-1], found.z[1:]
    z = torch.stack([between(a, b, u) for u in at], 1).flatten(0, 1)
    nearer = torch.arange(len(a))[:, None] + (at > 0.5)

    def spread(rows: Tensor | None) -> Tensor | None:
        return None if rows is None else rows[nearer.flatten()]

    own = {"label": spread(found.label), "vector": spread(found.vector), "source": None}
    whole = dataclasses.replace(found, z=z, **own)
    drawn = decode(generator, whole, **settings)
    parts = zip(
        drawn.x.split(frames),
        drawn.z.split(frames),
        [None] * len(a) if drawn.label is None else drawn.label.split(frames),
        [None] * len(a) if drawn.condition is None else drawn.condition.split(frames),
        strict=True,
    )
    return [Samples(x, z, own, drawn.origin, drawn.info, given) for x, z, own, given in parts]


def linear(a: Tensor, b: Tensor, u: Tensor) -> Tensor:
    """The points (1 - u) a + u b."""
    return torch.lerp(a, b, u)


def spherical(a: Tensor, b: Tensor, u: Tensor) -> Tensor:
    """Spherical interpolation of each row, from a at u = 0 to b at u = 1.

    Rows of the same or of opposite directions, which have no unique shortest arc, are
    interpolated linearly.
    """
    x, y = a.flatten(1).double(), b.flatten(1).double()
    cosine = torch.nn.functional.cosine_similarity(x, y, dim=1).clamp(-1, 1)
    angle = cosine.arccos()
    straight = (angle.sin() < 1e-4) | (angle > math.pi - 1e-4)
    sine = torch.where(straight, 1.0, angle.sin())
    first = torch.where(straight, 1 - u, ((1 - u) * angle).sin() / sine)
    second = torch.where(straight, u.double(), (u * angle).sin() / sine)
    return (expand(first, a) * a + expand(second, b) * b).to(a.dtype)
