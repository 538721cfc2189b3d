"""`Encoded`: data as noise or latents of a generator, checked, saved and loaded."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor

from monge.errors import UserError, nearest, reason
from monge.sampling.model import GenerativeModel
from monge.system.files import refuse_existing, write_atomic

Kind = Literal["noise", "latent"]

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Encoded:
    """Data as noise or latents of a generator.

    Attributes:
        kind: noise or latent; latents are standardised.
        z: (N, *latent_shape).
        label: (N,) indices into `label_names`, -1 for no label; or None.
        vector: (N, K) standardised conditions of a table, or None.
        info: its origin: data, solver, steps, ...
        source: the file name of each row, or None.
    """

    kind: Kind
    z: Tensor
    label: Tensor | None = None
    label_names: tuple[str, ...] = ()
    vector: Tensor | None = None
    info: Mapping[str, Any] = field(default_factory=dict)
    source: tuple[str, ...] | None = None

    def __repr__(self) -> str:
        where = self.info.get("data", "a tensor")
        return f"Encoded({self.kind} {tuple(self.z.shape)} of {where})"

    def __len__(self) -> int:
        return len(self.z)

    def __getitem__(self, rows: slice) -> Encoded:
        label = None if self.label is None else self.label[rows]
        vector = None if self.vector is None else self.vector[rows]
        source = None if self.source is None else self.source[rows]
        own = {"label": label, "vector": vector, "source": source}
        return dataclasses.replace(self, z=self.z[rows], **own)

    def save(self, path: str | Path) -> Path:
        """Write an .npz with the array noise or latent, and label, names, vector, source, info.

        Raises:
            UserError: the file exists.
        """
        path = Path(path)
        refuse_existing(path)
        arrays: dict[str, np.ndarray] = {self.kind: self.z.numpy()}
        if self.label is not None:
            arrays |= {"label": self.label.numpy(), "names": np.asarray(self.label_names)}
        if self.vector is not None:
            arrays["vector"] = self.vector.numpy()
        if self.source is not None:
            arrays["source"] = np.asarray(self.source)
        facts = {"format_version": FORMAT_VERSION, **self.info}
        buffer = io.BytesIO()
        # Only numbers and text, which numpy writes without pickle.
        np.savez(buffer, **arrays, info=np.asarray(json.dumps(facts)))  # type: ignore[arg-type]
        return write_atomic(path, buffer.getvalue())


def load(path: str | Path, generator: GenerativeModel) -> Encoded:
    """Load a file of `Encoded.save`, or another .npz with an array noise or latent.

    Labels are matched to those of the generator by name.

    Raises:
        UserError: no such file or array, another shape, or labels that the generator lacks.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it is no .npz file")
            arrays = {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise UserError(f"no such file: {path}") from None
    except Exception as error:  # zip and array readers raise many kinds for damaged files
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
    vector, source = arrays.get("vector"), arrays.get("source")
    found = Encoded(
        kind,
        torch.from_numpy(_numbers(arrays[kind], kind, path)),
        None if label is None else _label_array(label, path),
        names,
        None if vector is None else torch.from_numpy(_numbers(vector, "vector", path)),
        {**_info(arrays.get("info"), path), "file": path.name},
        None if source is None else tuple(str(name) for name in np.atleast_1d(source)),
    )
    return fitted(found, generator, str(path))


def _info(text: np.ndarray | None, path: Path) -> dict[str, Any]:
    """The recorded information of the file."""
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


def fitted(found: Encoded, generator: GenerativeModel, where: str = "this encoding") -> Encoded:
    """An encoding with its labels as those of the generator.

    Raises:
        UserError: the encoding does not fit the generator.
    """
    shape = tuple(generator.autoencoder.latent_shape)
    if not len(found) or tuple(found.z.shape[1:]) != shape:
        raise UserError(
            f"{where}: {found.kind} has shape {tuple(found.z.shape)}; this run takes "
            f"(N, {', '.join(map(str, shape))}), N at least 1"
        )
    n = len(found)
    given = {"label": found.label, "vector": found.vector, "source": found.source}
    for name, array in given.items():
        if array is not None and len(array) != n:
            raise UserError(f"{where}: {len(array)} rows of {name} for {n} of {found.kind}")
    k = generator.facts.n_vector
    if found.vector is not None and tuple(found.vector.shape[1:]) != (k,):
        raise UserError(f"{where}: vector should have {k} numbers a row for this run")
    label = labels_of(generator, found.label, found.label_names or tuple(generator.label_names), n)
    return dataclasses.replace(found, label=label, label_names=tuple(generator.label_names))


def labels_of(
    generator: GenerativeModel, label: Tensor | None, names: tuple[str, ...], n: int
) -> Tensor | None:
    """Indices into names converted to indices into the generator's labels; None without labels.

    Raises:
        UserError: a label that the generator lacks.
    """
    known = generator.label_names
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
