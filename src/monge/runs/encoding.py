"""Data to latents or noise, and back: a run's autoencoder, and its flow the other way.

References:
    | Encoding by the probability-flow ODE (Song et al., 2021), Sec. 4.3
    | -- https://arxiv.org/abs/2011.13456
    | Spherical interpolation of noise (White, 2016), Sec. 2 -- https://arxiv.org/abs/1609.04468
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from torch import Tensor

from monge.autoencoders.base import Rows
from monge.data import sources, store
from monge.data.arrays import Pixels
from monge.data.folder import holds_images, list_folder
from monge.data.tables import FEWEST
from monge.errors import UserError, nearest, reason
from monge.fields import final_map
from monge.files import write_atomic
from monge.flows import Composed, Integrated
from monge.progress import Say, quiet
from monge.runs import jumps
from monge.runs.export import refuse_existing
from monge.runs.labels import asked_labels
from monge.runs.samples import Samples
from monge.tensors import expand

if TYPE_CHECKING:
    from monge.runs.run import Run

Kind = Literal["noise", "latent"]

FORMAT_VERSION = 1

CHUNK = 256
"""Examples at once; results do not depend on it."""

CHECKED = 64
"""Rows that are carried back, to say how well the flow undoes itself."""


@dataclass(frozen=True)
class Encoded:
    """Data as noise or latents of a run.

    Attributes:
        kind: what z is; latents are standardised.
        z: (N, *latent_shape).
        label: (N,) indices into `label_names`, -1 for none; or None.
        vector: (N, K) standardised conditions of a table, or None.
        info: where it came from: data, solver, steps, ...
    """

    kind: Kind
    z: Tensor
    label: Tensor | None = None
    label_names: tuple[str, ...] = ()
    vector: Tensor | None = None
    info: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.z)

    def __getitem__(self, rows: slice) -> Encoded:
        label = None if self.label is None else self.label[rows]
        vector = None if self.vector is None else self.vector[rows]
        return dataclasses.replace(self, z=self.z[rows], label=label, vector=vector)

    def save(self, path: str | Path) -> Path:
        """Write an .npz with the array noise or latent, and label, names, vector, info.

        Raises:
            UserError: the file is there already.
        """
        path = Path(path)
        refuse_existing(path)
        arrays: dict[str, np.ndarray] = {self.kind: self.z.numpy()}
        if self.label is not None:
            arrays |= {"label": self.label.numpy(), "names": np.asarray(self.label_names)}
        if self.vector is not None:
            arrays["vector"] = self.vector.numpy()
        facts = {"format_version": FORMAT_VERSION, **self.info}
        buffer = io.BytesIO()
        # Numbers and text alone: nothing here that numpy would pickle.
        np.savez(buffer, **arrays, info=np.asarray(json.dumps(facts)))  # type: ignore[arg-type]
        return write_atomic(path, buffer.getvalue())


def load(path: str | Path, run: Run) -> Encoded:
    """What `Encoded.save` wrote, or an .npz of one's own with an array noise or latent.

    Labels are those of the run, by name.

    Raises:
        UserError: no such file, no such array, another shape, or labels that the run lacks.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it is no .npz file")
            arrays = {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise UserError(f"no such file: {path}") from None
    except Exception as error:  # zip and array readers raise many kinds on damaged files
        said = "it is no .npz file" if "load it unsafely" in str(error) else reason(error)
        raise UserError(f"cannot read {path}: {said}") from None
    kinds = [kind for kind in ("noise", "latent") if kind in arrays]
    if len(kinds) != 1:
        raise UserError(
            f"{path} should hold one of the arrays noise and latent; it holds {sorted(arrays)}"
        )
    kind = cast("Kind", kinds[0])
    label = arrays.get("label")
    names = tuple(str(name) for name in arrays.get("names", ()))
    vector = arrays.get("vector")
    found = Encoded(
        kind,
        torch.from_numpy(_numbers(arrays[kind], kind, path)),
        None if label is None else _label_array(label, path),
        names,
        None if vector is None else torch.from_numpy(_numbers(vector, "vector", path)),
        {**_info(arrays.get("info"), path), "file": path.name},
    )
    return fitted(found, run, str(path))


def _info(text: np.ndarray | None, path: Path) -> dict[str, Any]:
    """What the file says of itself."""
    try:
        found = {} if text is None else json.loads(str(text))
        float(found.get("guidance", 1.0))
    except (ValueError, TypeError, AttributeError):
        raise UserError(f"{path}: info should be what monge encode wrote, or absent") from None
    return found


def _numbers(values: np.ndarray, name: str, path: Path) -> np.ndarray:
    if values.dtype.kind not in "fiu" or not values.ndim or not np.isfinite(values).all():
        raise UserError(f"{path}: {name} should be finite numbers")
    return values.astype(np.float32)


def _label_array(values: np.ndarray, path: Path) -> Tensor:
    if values.dtype.kind not in "iu" or values.ndim != 1:
        raise UserError(f"{path}: label should be whole numbers (N,)")
    return torch.from_numpy(values.astype(np.int64))


def fitted(found: Encoded, run: Run, where: str = "this encoding") -> Encoded:
    """An encoding with the run's own labels.

    Raises:
        UserError: it does not fit the run.
    """
    shape = tuple(run.autoencoder.latent_shape)
    if not len(found) or tuple(found.z.shape[1:]) != shape:
        raise UserError(
            f"{where}: {found.kind} has shape {tuple(found.z.shape)}; this run takes "
            f"(N, {', '.join(map(str, shape))}), N at least 1"
        )
    n = len(found)
    for name, array in (("label", found.label), ("vector", found.vector)):
        if array is not None and len(array) != n:
            raise UserError(f"{where}: {len(array)} rows of {name} for {n} of {found.kind}")
    k = run.facts.get("n_vector", 0)
    if found.vector is not None and tuple(found.vector.shape[1:]) != (k,):
        raise UserError(f"{where}: vector should have {k} numbers a row for this run")
    label = labels_of(run, found.label, found.label_names or tuple(run.label_names), n)
    return dataclasses.replace(found, label=label, label_names=tuple(run.label_names))


def labels_of(run: Run, label: Tensor | None, names: tuple[str, ...], n: int) -> Tensor | None:
    """Indices into names as indices into the run's labels; None for a run without any.

    Raises:
        UserError: a label that the run does not know.
    """
    known = run.label_names
    if not known:
        return None
    if label is None:
        return torch.full((n,), -1)
    if label.min() < -1 or label.max() >= len(names):
        raise UserError(f"label indices should lie in -1..{len(names) - 1}")
    for k in label.unique().tolist():
        if k >= 0 and names[k] not in known:
            raise UserError(
                f"label {names[k]!r} is none of this run's: {nearest(names[k], known)}; "
                "--label NAME gives all rows one that it knows"
            )
    own = [known.index(name) if name in known else -1 for name in names]
    return torch.tensor([*own, -1])[label]


# There


@torch.no_grad()
def encode(
    run: Run,
    source: str | Path | Tensor,
    to: Kind = "noise",
    *,
    label: str | int | Tensor | None = None,
    limit: int | None = None,
    say: Say = quiet,
    **flow: Any,
) -> Encoded:
    """The latents of data (the posterior's mean), or the noise that the run makes it of.

    Noise is where the run's flow, backwards from t = 1, ends. A flow that ends at T < 1 is
    entered at alpha_T times the latent.

    Args:
        source: as for training, all its examples in its order; or examples (N, *shape).
        label: in place of the source's labels: a name or an index for all rows, or (N,) indices.
        limit: at most so many examples.
        flow: steps, solver, grid, guidance; the run's own unless given.

    Raises:
        UserError: data of another shape, labels that the run does not know, or a map that was not
            trained backwards.
    """
    if to not in ("noise", "latent"):
        raise UserError(f"data is encoded to noise or to latent, not {to!r}")
    if limit is not None and limit < 1:
        raise UserError(f"limit must be at least 1, not {limit}")
    walk = None if to == "latent" else _backwards(run, flow)
    rows = _read(run, source, limit, say)
    n = len(rows)
    if label is not None:
        own = asked_labels(label, run.facts, n, 0)
    else:
        own = labels_of(run, rows.label, rows.names, n)
    found = Encoded(to, torch.empty(0), own, tuple(run.label_names), rows.vector)
    latents, ends = [], []
    for at, x in rows.chunks():
        z = run.autoencoder.encode(x.to(run.device)).mean
        latents.append(z.float().cpu())
        if walk is not None:
            lo, hi = walk.domain
            start = _scale(run, hi) * z.to(run._dtype)
            ends.append(walk(start, hi, lo, _cond(run, found, at)).float().cpu())
    z = torch.cat(latents)[rows.order]
    info = {"data": rows.name, "run": run.folder.name, "of": run.spec.digest()}
    if walk is not None:
        noise = torch.cat(ends)[rows.order]
        info |= run.describe_sampling(walk, guidance=flow.get("guidance"))
        found = dataclasses.replace(found, z=noise, info=info)
        again = _forwards(run, found[:CHECKED], flow)
        error = (again - z[:CHECKED]).square().mean().sqrt()
        return dataclasses.replace(found, info={**info, "round_trip_rms": float(error)})
    return dataclasses.replace(found, z=z, info=info)


def _backwards(run: Run, flow: Mapping[str, Any]) -> Integrated | Composed:
    walk = run.flow(**flow)
    if isinstance(walk, Composed) and not jumps.pairs_of(run.spec).backwards:
        raise UserError(
            "this map was trained forwards alone: train it both ways by monge distil TEACHER "
            "--pairs triangle:both=true, or integrate its velocity by --solver heun --steps 20"
        )
    return walk


def _scale(run: Run, t: float) -> float:
    """The data scale alpha at a time."""
    return float(run.path.scales(torch.tensor(t, dtype=torch.float64))[0])


def _cond(run: Run, found: Encoded, rows: Tensor | slice) -> dict[str, Tensor] | None:
    given = {"label": found.label, "vector": found.vector}
    return {k: c[rows].to(run.device) for k, c in given.items() if c is not None} or None


@dataclass(frozen=True)
class _Source:
    """Rows of examples in parts, and the order that makes them the source's.

    Attributes:
        label, names, vector: of all of them in that order, as the source has them.
    """

    name: str
    parts: Sequence[tuple[Rows, Tensor]]
    order: Tensor
    label: Tensor | None = None
    names: tuple[str, ...] = ()
    vector: Tensor | None = None

    def __len__(self) -> int:
        return len(self.order)

    def chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(where its rows are in the source, examples)."""
        place = torch.empty_like(self.order)
        place[self.order] = torch.arange(len(self))
        start = 0
        for examples, rows in self.parts:
            for some in rows.split(CHUNK) if len(rows) else ():
                yield place[start : start + len(some)], examples[some]
                start += len(some)

    @classmethod
    def whole(cls, name: str, x: Rows, *known: Any) -> _Source:
        """All of some examples, in their order."""
        rows = torch.arange(len(x))
        return cls(name, [(x, rows)], rows, *known)


def _read(run: Run, source: str | Path | Tensor, limit: int | None, say: Say) -> _Source:
    """All examples of a source, in the shape of the run's data."""
    shape = tuple(run.facts["shape"])
    if isinstance(source, Tensor):
        found = _Source.whole("tensor", source[:limit].float())
        return _checked(found, shape, "the examples")
    square = len(shape) == 3 and shape[1] == shape[2]
    side = shape[1] if square else run.spec.image_size
    # More may be read than asked for: sources refuse fewer than can be trained on.
    most = None if limit is None else max(limit, FEWEST)
    reading = dataclasses.replace(run.spec, image_size=side, limit=most)
    text, path = str(source), Path(source)
    image = run.facts["kind"] == "image" and text not in sources.BUNDLED
    if image and path.is_dir() and holds_images(path, 1):
        sources.refuse_run(path)
        # Not by `sources.load`, which refuses fewer images than can be trained on.
        reading = dataclasses.replace(reading, limit=limit)
        kept = store.prepare(list_folder(path, reading), reading, say)
        label = torch.from_numpy(kept.labels) if len(kept.label_names) > 1 else None
        name = path.resolve().name
        found = _Source.whole(name, Pixels(kept.shards), label, kept.label_names)
        return _checked(found, shape, text)
    data = sources.load(text, reading, say)
    if data.kind != run.facts["kind"]:
        kinds = {"image": "images", "table": "rows of a table"}
        raise UserError(
            f"this run takes {kinds[run.facts['kind']]}, and {text} holds {kinds[data.kind]}"
        )
    if run.codec is not None:
        if data.table is None:
            raise UserError(f"{text} has no columns, which this run's table has")
        x, label, vector = run.codec.encode(data.table.slice(0, limit))
        vector = None if vector is None else vector.float()
        names = tuple(run.label_names)
        found = _Source.whole(data.name, x, label, names, vector)
        return _checked(found, shape, text)
    n, n_train = len(data.train) + len(data.heldout), len(data.train)
    order = torch.arange(n) if data.rows is None else torch.cat(data.rows).argsort()
    order = order[:limit]
    label = None
    if data.train_label is not None and data.heldout_label is not None:
        label = torch.cat([data.train_label, data.heldout_label])[order]
    rows = order.sort().values
    parts = [
        (cast("Rows", data.train), rows[rows < n_train]),
        (cast("Rows", data.heldout), rows[rows >= n_train] - n_train),
    ]
    order = torch.searchsorted(rows, order)
    found = _Source(data.name, parts, order, label, data.label_names)
    return _checked(found, shape, text)


def _checked(found: _Source, shape: tuple[int, ...], where: str) -> _Source:
    for examples, _ in found.parts:
        has = tuple(examples[torch.zeros(0, dtype=torch.int64)].shape[1:])
        if has != shape:
            raise UserError(f"{where}: examples have shape {has}; this run takes {shape}")
    if not len(found):
        raise UserError(f"{where}: there are no examples")
    return found


# And back


@torch.no_grad()
def decode(
    run: Run,
    encoded: Encoded | Tensor | str | Path,
    kind: Kind = "noise",
    *,
    label: str | int | Tensor | None = None,
    final: str | None = None,
    **flow: Any,
) -> Samples:
    """The data of noise, by the run's flow and decoder, or of latents, by the decoder alone.

    Args:
        encoded: what `encode` made, its file, or (N, *latent_shape).
        kind: what a tensor is.
        label: in place of the encoding's: a name or an index for all rows, or (N,) indices.
        final, flow: as for `Run.sample`; the guidance is that of the way there, unless given.

    Raises:
        UserError: an encoding that does not fit the run, or a flow for latents, which need none.
    """
    found = _given(run, encoded, kind, label)
    info: dict[str, Any] = {"seed": "none", "steps": 0, "solver": "none", "guidance": 1.0}
    z = found.z
    if found.kind == "latent":
        for name, value in {"final": final, **flow}.items():
            if value is not None:
                raise UserError(f"latents go to the decoder alone: leave out {name}")
    else:
        if flow.get("guidance") is None:
            flow["guidance"] = found.info.get("guidance")
        z = _forwards(run, found, flow, final)
        info |= run.describe_sampling(run.flow(**flow), final, flow.get("guidance"))
    info |= {"n": len(z), "decoded": found.kind}
    x = torch.cat([run.autoencoder.decode(part.to(run.device)).cpu() for part in z.split(CHUNK)])
    if run.facts["kind"] == "image":
        x = x.clamp(-1, 1)
    elif run.codec is not None:
        x = run.codec.harden(x)
    known = found.vector is not None and run.codec is not None
    condition = run.codec.condition_of(found.vector) if known else None  # type: ignore
    # Samples have labels or none; a row without one among others is written without any.
    labelled = found.label is not None and bool((found.label >= 0).all())
    return Samples(x, z, found.label if labelled else None, run, info, condition)


def _given(run: Run, encoded: Encoded | Tensor | str | Path, kind: Kind, label: Any) -> Encoded:
    if isinstance(encoded, (str, Path)):
        found = load(encoded, run)
    else:
        found = Encoded(kind, encoded.float().cpu()) if isinstance(encoded, Tensor) else encoded
        found = fitted(found, run)
    if label is not None:
        own = asked_labels(label, run.facts, len(found), 0)
        found = dataclasses.replace(found, label=own)
    return found


def _forwards(
    run: Run, found: Encoded, flow: Mapping[str, Any], final: str | None = None
) -> Tensor:
    """The latents of noise."""
    walk = run.flow(**flow)
    lo, hi = walk.domain
    finish = final_map(run.final(walk, final), walk.field, run.path, hi)
    made = []
    for start in range(0, len(found), CHUNK):
        rows = slice(start, start + CHUNK)
        x, cond = found.z[rows].to(run.device, run._dtype), _cond(run, found, rows)
        if isinstance(walk, Composed) and jumps.only_to_data(run.spec):
            drawn = (0, start, start + len(x), run.autoencoder.latent_shape)
            end = jumps.renoised(walk, run.path, x, drawn, cond)
        else:
            end = walk(x, lo, hi, cond)
        made.append(finish(end, hi, cond).float().cpu())
    return torch.cat(made)


def interpolate(
    run: Run,
    encoded: Encoded | Tensor | str | Path,
    frames: int = 8,
    kind: Kind = "noise",
    *,
    label: str | int | Tensor | None = None,
    **settings: Any,
) -> list[Samples]:
    """Between each row and the next: `frames` examples, both ends included.

    Noises are interpolated on the sphere, latents on a line. A frame has the label of the nearer
    end, so give both ends one label, or none, for a path without a step.

    Args:
        encoded, kind, label, settings: as for `decode`.

    Raises:
        UserError: one row, fewer than 2 frames, or an encoding that does not fit the run.
    """
    if frames < 2:
        raise UserError(f"an interpolation has at least 2 frames, its ends, not {frames}")
    found = _given(run, encoded, kind, label)
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

    whole = dataclasses.replace(found, z=z, label=spread(found.label), vector=spread(found.vector))
    drawn = decode(run, whole, **settings)
    parts = zip(
        drawn.x.split(frames),
        drawn.z.split(frames),
        [None] * len(a) if drawn.label is None else drawn.label.split(frames),
        [None] * len(a) if drawn.condition is None else drawn.condition.split(frames),
        strict=True,
    )
    return [Samples(x, z, own, run, drawn.info, given) for x, z, own, given in parts]


def linear(a: Tensor, b: Tensor, u: Tensor) -> Tensor:
    """The points (1 - u) a + u b."""
    return torch.lerp(a, b, u)


def spherical(a: Tensor, b: Tensor, u: Tensor) -> Tensor:
    """Spherical interpolation of each row: at u = 0 it is a, at u = 1 b.

    Rows of one direction are interpolated linearly, and so are opposite ones, between which no
    arc is the shortest.
    """
    x, y = a.flatten(1).double(), b.flatten(1).double()
    cosine = torch.nn.functional.cosine_similarity(x, y, dim=1).clamp(-1, 1)
    angle = cosine.arccos()
    straight = (angle.sin() < 1e-4) | (angle > math.pi - 1e-4)
    sine = torch.where(straight, 1.0, angle.sin())
    first = torch.where(straight, 1 - u, ((1 - u) * angle).sin() / sine)
    second = torch.where(straight, u.double(), (u * angle).sin() / sine)
    return (expand(first, a) * a + expand(second, b) * b).to(a.dtype)
