"""Samples in data space: shown, and written in the formats that others read."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from monge.files import write_atomic
from monge.runs import images

if TYPE_CHECKING:
    from monge.runs.run import Run


@dataclass(repr=False)
class Samples:
    """Samples in data space, with what they came from.

    Attributes:
        x: (N, C, H, W) in [-1, 1] or (N, D).
        z: the latents, standardised.
        label: (N,) or None.
        info: solver, steps, seed, evaluations, ...
    """

    x: Tensor
    z: Tensor
    label: Tensor | None
    run: Run = field(repr=False)
    info: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        shape = tuple(self.x.shape)
        return f"Samples({shape} of {self.run.folder}, {self.info.get('solver')})"

    def __len__(self) -> int:
        return len(self.x)

    def grid(self, columns: int | None = None) -> Any:
        """The samples in one PIL image."""
        if self.run.facts["kind"] != "image":
            return images.table_plot(self.x, self.run.reference())
        return images.grid(self.x, columns or round(len(self.x) ** 0.5))

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.grid().save(buffer, format="PNG")
        return buffer.getvalue()

    def save(self, folder: str | Path, formats: Sequence[str] | None = None) -> list[Path]:
        """Write grid.png, and per format: single png files, samples.npz, .csv or .parquet.

        The .npz has the layout of ADM's evaluation: arr_0 uint8 (N, H, W, C), arr_1 labels.
        """
        folder, formats = Path(folder), self.run.check_formats(formats)
        written = [images.save_png(self.grid(), folder / "grid.png", self._text("all"))]
        for form in formats:
            written += self._save(folder, form)
        return written

    def _save(self, folder: Path, form: str) -> list[Path]:
        is_image = self.run.facts["kind"] == "image"
        match form:
            case "png" if is_image:
                return [
                    images.save_png(
                        images.grid(self.x[i : i + 1], 1, scale=1, gap=0),
                        folder / f"{i:06d}.png",
                        self._text(str(i)),
                    )
                    for i in range(len(self.x))
                ]
            case "npz":
                return [write_atomic(folder / "samples.npz", self._npz(is_image))]
            case "csv" | "parquet" if not is_image:
                return [write_atomic(folder / f"samples.{form}", self._table(form))]
        raise AssertionError(form)  # refused by check_formats

    def _npz(self, is_image: bool) -> bytes:
        import numpy as np

        arrays = {"arr_0": images.to_uint8(self.x) if is_image else self.x.numpy()}
        if self.label is not None:
            arrays["arr_1"] = self.label.numpy()
        buffer = io.BytesIO()
        # No allow_pickle here: numpy before 2.1 would store it as an array; these are numbers.
        np.savez(buffer, **arrays)  # type: ignore[arg-type]
        return buffer.getvalue()

    def _table(self, form: str) -> bytes:
        import pyarrow as pa
        from pyarrow import csv, parquet

        columns: dict[str, Any] = {f"x{i}": c.numpy() for i, c in enumerate(self.x.unbind(1))}
        if self.label is not None:
            names = self.run.label_names
            columns["label"] = [names[k] for k in self.label.tolist()]
        table = pa.table(columns)
        sink = io.BytesIO()
        (csv.write_csv if form == "csv" else parquet.write_table)(table, sink)
        return sink.getvalue()

    def _text(self, index: str) -> dict[str, str]:
        facts = {
            "seed": self.info["seed"],
            "index": index,
            "run": self.run.folder.name,
            "config": self.run.spec.digest(),
            "steps": self.info["steps"],
            "solver": self.info["solver"],
            "guidance": self.info["guidance"],
        }
        return {k: str(v) for k, v in facts.items()}
