"""`Samples` in data space: shows them, and writes them in common formats."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from torch import Tensor

from monge.data.columns.schema import TableCodec
from monge.data.tables import table_files
from monge.errors import UserError, nearest
from monge.sampling import images
from monge.sampling.class_rows import by_class, worth_rows
from monge.sampling.known_columns import Given
from monge.system import ownership
from monge.system.progress import survived

LIST = "labels.csv"
"""The file of labels beside png files, which `monge train` reads."""

WIDEST = 10
"""Least number of columns of a grid with classes in rows."""


@dataclass(frozen=True)
class Origin:
    """The facts of a generator that its samples record.

    Attributes:
        name: of the generator or run; `digest`: of its specification.
        kind: image or table.
        label_names: of the classes.
        codec: of the columns of a table.
        reference: held-out examples to show beside the samples, if available.
    """

    name: str
    digest: str
    kind: str
    label_names: tuple[str, ...]
    codec: TableCodec | None
    reference: Callable[[], Tensor | None]

    def check_formats(self, formats: Sequence[str] | None) -> list[str]:
        """The formats in which to write samples, checked; by default pictures or csv.

        Raises:
            UserError: an unknown format, with the nearest name.
        """
        known = ["png", "npz"] if self.kind == "image" else ["csv", "npz", "parquet"]
        if "npz" in (formats or ()) and self.codec is not None and self.codec.words:
            raise UserError(
                f"npz holds numbers, but the columns {', '.join(map(repr, self.codec.words))} do "
                "not: write csv or parquet"
            )
        chosen = [formats] if isinstance(formats, str) else formats
        for form in chosen or []:
            if form not in known:
                raise UserError(
                    f"cannot write samples of this run as {form!r}: {nearest(form, known)}"
                )
        return known[:1] if chosen is None else list(chosen)


@dataclass(repr=False)
class Samples:
    """Samples in data space, with their origin.

    Attributes:
        x: (N, C, H, W) in [-1, 1] or (N, D).
        z: the latents, standardised.
        label: (N,) or None.
        origin: facts of the generator.
        info: solver, steps, seed, evaluations, ...
        condition: (N, K) in the condition columns' units, float64, or None.
        source: the name of the file from which each was encoded, or None.
        known: cells that were given, of a model of all columns given some; or None.
    """

    x: Tensor
    z: Tensor
    label: Tensor | None
    origin: Origin
    info: dict[str, Any] = field(default_factory=dict)
    condition: Tensor | None = None
    source: tuple[str, ...] | None = None
    known: Given | None = None

    def __repr__(self) -> str:
        shape = tuple(self.x.shape)
        return f"Samples({shape} of {self.origin.name}, {self.info.get('solver')})"

    def __len__(self) -> int:
        return len(self.x)

    def grid(self, columns: int | None = None) -> Any:
        """The samples in one PIL image; several classes are in rows by class, with their names."""
        if self.origin.kind != "image":
            return images.rows_plot(self.origin.codec, self.x, self.origin.reference())
        across = columns or round(len(self.x) ** 0.5)
        names = self.origin.label_names
        if self.label is not None and worth_rows(self.label, names):
            return by_class(self.x, self.label, names, columns or max(across, WIDEST))
        return images.grid(self.x, across)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.grid().save(buffer, format="PNG")
        return buffer.getvalue()

    def save(
        self,
        folder: str | Path,
        formats: Sequence[str] | None = None,
        more: Mapping[str, bytes] | None = None,
    ) -> list[Path]:
        """Write grid.png, and per format: single png files, samples.npz, .csv or .parquet.

        If png files have labels or were encoded from named files, labels.csv lists the label and
        the source of each. The .npz of images has the layout of ADM's evaluation: arr_0 uint8
        (N, H, W, C), arr_1 labels; and label_names, source. The .npz of a table has the rows in
        arr_0, the labels in arr_1 and the names in columns.

        The folder is new or empty, or holds only earlier samples, which are removed; see
        `ownership`.

        Args:
            more: further files for the folder, by name.

        Raises:
            UserError: the folder holds other files, and is left unchanged; or is not writable.
        """
        folder, formats = Path(folder), self.origin.check_formats(formats)
        ownership.refuse_foreign(folder)
        contents = dict(more or {})
        with survived("grid.png was not drawn"):
            contents = {"grid.png": self.grid_png(), **contents}
        for form in formats:
            contents |= self._contents(form)
        return ownership.write(folder, contents)

    def grid_png(self) -> bytes:
        """The samples in one PNG, with their origin in its text."""
        return images.png_of(self.grid(), self._text("all"))

    def _contents(self, form: str) -> dict[str, bytes]:
        """The files of one format, by name."""
        is_image = self.origin.kind == "image"
        match form:
            case "png" if is_image:
                pictures = {
                    f"{i:06d}.png": images.png_of(
                        images.grid(self.x[i : i + 1], 1, scale=1, gap=0), self._text(str(i))
                    )
                    for i in range(len(self.x))
                }
                return pictures | self._list(list(pictures))
            case "npz":
                return {"samples.npz": self._npz(is_image)}
            case "csv" | "parquet" if not is_image:
                return {f"samples.{form}": self._table(form)}
        raise AssertionError(form)  # refused by check_formats

    @property
    def labels(self) -> list[str] | None:
        """The name of each sample's label; None for samples without labels."""
        if self.label is None or not self.origin.label_names:
            return None
        return [self.origin.label_names[k] for k in self.label.tolist()]

    def _list(self, files: Sequence[str]) -> dict[str, bytes]:
        """labels.csv: the label and the source of each file, as far as known."""
        columns = {"file": files, "label": self.labels, "source": self.source}
        known = {name: values for name, values in columns.items() if values is not None}
        if len(known) == 1:
            return {}
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(known)
        writer.writerows(zip(*known.values(), strict=True))
        return {LIST: text.getvalue().encode("utf-8", "backslashreplace")}

    def _npz(self, is_image: bool) -> bytes:
        import numpy as np

        if is_image or self.origin.codec is None:
            arrays = {"arr_0": images.to_uint8(self.x) if is_image else self.x.numpy()}
            if self.label is not None:
                arrays["arr_1"] = self.label.numpy()
                if self.origin.label_names:
                    arrays["label_names"] = np.asarray(self.origin.label_names)
            if self.source is not None:
                arrays["source"] = np.asarray(self.source)
        else:
            label = self.origin.codec.label
            arrays = table_files.arrays_of(self.table(), label and label.name)
        buffer = io.BytesIO()
        # Without allow_pickle, which numpy before 2.1 would store as an array; these are numbers.
        np.savez(buffer, **arrays)  # type: ignore[arg-type]
        return buffer.getvalue()

    def table(self) -> pa.Table:
        """The rows as a table with the columns, types and units of the run's data, or x0, x1, ...

        Raises:
            UserError: the samples are images.
        """
        if self.origin.kind == "image":
            raise UserError("these samples are images, not rows of a table")
        if self.origin.codec is not None:
            made = self.origin.codec.decode(self.x, self.label, self.condition)
            return made if self.known is None else self.known.exact(made)
        columns: dict[str, Any] = {f"x{i}": c.numpy() for i, c in enumerate(self.x.unbind(1))}
        if self.label is not None:
            names = self.origin.label_names
            columns["label"] = [names[k] for k in self.label.tolist()]
        return pa.table(columns)

    def _table(self, form: str) -> bytes:
        if form == "csv":
            return table_files.csv_of(self.table()).encode()
        return table_files.parquet_of(self.table())

    def _text(self, index: str) -> dict[str, str]:
        facts = {
            "seed": self.info["seed"],
            "index": index,
            "run": self.origin.name,
            "config": self.origin.digest,
            "steps": self.info["steps"],
            "solver": self.info["solver"],
            "guidance": self.info["guidance"],
        }
        if index != "all" and (labels := self.labels):
            facts["label"] = labels[int(index)]
        if index != "all" and self.source is not None:
            facts["source"] = self.source[int(index)]
        return {k: str(v) for k, v in facts.items()}
