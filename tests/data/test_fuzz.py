"""Mutated files of every format that is read: an error of ours or a counted bad file, no other.

Real files are cut, overwritten, repeated, and their lengths and numbers exaggerated. Whatever
comes of it, only `UserError` may leave a reader, a cache entry is whole or absent, and what is
read as data is data: finite, in range, with a label for each row.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pyarrow import parquet
from safetensors.numpy import save

from making_images import encoded, pixels_of
from making_parquet import images, write_parquet
from monge.data import cache
from monge.data.arrays import Pixels, map_file
from monge.data.base import Data
from monge.data.images.image_files import MOST_PIXELS, Unreadable, look, read
from monge.data.reading import Reading
from monge.data.sources import load
from monge.errors import UserError

FUZZ = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
"""The same mutations each time: a failure is one for everybody."""


@dataclass(frozen=True)
class Cut:
    """Everything from a place on is gone."""

    at: float

    def __call__(self, content: bytes) -> bytes:
        return content[: int(self.at * len(content))]


@dataclass(frozen=True)
class Put:
    """Bytes are overwritten."""

    at: float
    what: bytes

    def __call__(self, content: bytes) -> bytes:
        at = int(self.at * len(content))
        return content[:at] + self.what + content[at + len(self.what) :]


@dataclass(frozen=True)
class Move:
    """A piece is taken out, or stands once more at another place."""

    at: float
    size: int
    to: float | None

    def __call__(self, content: bytes) -> bytes:
        at = int(self.at * len(content))
        piece = content[at : at + self.size]
        if self.to is None:
            return content[:at] + content[at + self.size :]
        to = int(self.to * len(content))
        return content[:to] + piece + content[to:]


PLACES = st.one_of(
    st.floats(0, 1, exclude_max=True),
    st.floats(0, 0.1),  # headers
    st.floats(0.9, 1, exclude_max=True),  # footers
)
NUMBERS = st.sampled_from(
    [
        b"\x00" * 4,
        b"\xff" * 4,
        b"\x7f\xff\xff\xff",
        b"\xff\xff\xff\x7f",
        b"\x00" * 8,
        b"\xff" * 8,
        b"\x01",
        b"NaN,",
        b'"',
        b"1e999",
    ]
)
MUTATIONS = st.lists(
    st.one_of(
        st.builds(Cut, PLACES),
        st.builds(Put, PLACES, st.binary(min_size=1, max_size=8)),
        st.builds(Put, PLACES, NUMBERS),
        st.builds(Move, PLACES, st.integers(1, 64), st.none() | PLACES),
    ),
    min_size=1,
    max_size=4,
)


def mutated(content: bytes, mutations: list[Cut | Put | Move]) -> bytes:
    for mutation in mutations:
        content = mutation(content)
    return content


def picture(format: str, mode: str = "RGB", **options: object) -> bytes:
    """A smooth photograph of 40 x 30, with noise."""
    y, x = np.mgrid[0:30, 0:40]
    base = np.stack([4 * x + y, 5 * y, 3 * x + 3 * y], -1) + pixels_of(0, 40)[:30] / 8
    image = Image.fromarray(base.clip(0, 255).astype(np.uint8)).convert(mode)
    file = io.BytesIO()
    image.save(file, format, **options)  # type: ignore[arg-type]
    return file.getvalue()


def frames() -> bytes:
    file = io.BytesIO()
    one, two = (Image.fromarray(pixels_of(seed, 20)).quantize(16) for seed in (0, 1))
    one.save(file, "GIF", save_all=True, append_images=[two], transparency=3)
    return file.getvalue()


EXIF = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"

PICTURES = {
    "png": picture("PNG"),
    "png-palette": picture("PNG", "P", transparency=2),
    "png-16": encoded(pixels_of(0, 20, 1).astype(np.uint16) * 257),
    "png-exif": picture("PNG", "LA", exif=EXIF),
    "jpeg": picture("JPEG", exif=EXIF),
    "jpeg-progressive": picture("JPEG", "CMYK", progressive=True, quality=95),
    "webp": picture("WEBP"),
    "webp-lossless": picture("WEBP", "RGBA", lossless=True, exif=EXIF),
    "gif": frames(),
    "tiff": picture("TIFF", compression="tiff_lzw"),
    "tiff-deflate": picture("TIFF", "RGBA", compression="tiff_adobe_deflate"),
    "tiff-float": picture("TIFF", "F"),
    "tiff-jpeg": picture("TIFF", compression="jpeg"),
    "bmp": picture("BMP"),
    "bmp-palette": picture("BMP", "P"),
}


@pytest.mark.parametrize("name", PICTURES)
@FUZZ
@given(mutations=MUTATIONS)
def test_pictures(name: str, mutations: list[Cut | Put | Move]) -> None:
    """Pixels of the size and type asked for, or the reason why there are none."""
    content = mutated(PICTURES[name], mutations)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            header = look(content)
        except Unreadable as error:
            assert str(error) and "\n" not in str(error)
        else:
            assert min(header.size) >= 1 and header.size[0] * header.size[1] <= MOST_PIXELS
        for channels in (1, 3):
            try:
                pixels, _ = read(content, (12, 16), channels, "pad" if channels == 1 else "crop")
            except Unreadable as error:
                assert str(error)
            else:
                assert pixels.shape == (channels, 12, 16) and pixels.dtype == np.uint8


def array(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def archive(squeezed: bool = False, **arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    (np.savez_compressed if squeezed else np.savez)(file, **arrays)  # type: ignore[operator]
    return file.getvalue()


def parquet_of(table: pa.Table | None = None, **options: object) -> bytes:
    """A table, or images with labels."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.parquet"
        if table is None:
            write_parquet(path, images(24), [i % 3 for i in range(24)], "abc", **options)
        else:
            parquet.write_table(table, path, **options)
        return path.read_bytes()


def table() -> pa.Table:
    rng = np.random.default_rng(0)
    return pa.table(
        {
            "x": rng.normal(size=40),
            "n": rng.integers(0, 30, 40),
            "label": np.array(["cat", "dog"])[np.arange(40) % 2],
        }
    )


def csv() -> bytes:
    rows = zip(*(column.to_pylist() for column in table().columns), strict=True)
    return ("x,n,label\n" + "".join(f"{x},{n},{word}\n" for x, n, word in rows)).encode()


FLOATS = np.random.default_rng(0).uniform(-1, 1, (24, 3, 4, 4))
BYTES = np.stack([pixels_of(i, 4) for i in range(24)])
CLASSES = np.arange(24) % 3

FILES: dict[str, tuple[str, bytes]] = {
    "npy-table": ("x.npy", array(FLOATS[:, 0, 0])),
    "npy-images": ("x.npy", array(FLOATS.astype(np.float32))),
    "npy-bytes": ("x.npy", array(BYTES)),
    "npz": ("x.npz", archive(x=BYTES, y=CLASSES)),
    "npz-compressed": ("x.npz", archive(True, images=FLOATS, labels=CLASSES.astype(str))),
    "npz-split": ("x.npz", archive(x_train=BYTES, y_train=CLASSES, x_test=BYTES[:10])),
    "parquet-images": ("x.parquet", parquet_of()),
    "parquet-plain": (
        "x.parquet",
        parquet_of(compression="none", use_dictionary=False, row_group_size=7),
    ),
    "parquet-table": ("x.parquet", parquet_of(table())),
    "csv": ("x.csv", csv()),
    "tsv": ("x.tsv", csv().replace(b",", b"\t")),
    "labels.csv": (
        "photos/labels.csv",
        b"file_name,label\n" + b"".join(b"%d.png,%d\n" % (i, i % 2) for i in range(12)),
    ),
}
"""A file by its name in a folder of its own, and its content."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a cache; emptied for each example."""
    root = tmp_path_factory.mktemp("fuzz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MONGE_CACHE", str(root / "cache"))
        patch.setattr(os, "cpu_count", lambda: 1)
        yield root


def emptied(place: Path, name: str) -> Path:
    """Where a file of this name goes, with the images that it may be about."""
    for left in place.iterdir():
        shutil.rmtree(left)
    path = place / "data" / name
    path.parent.mkdir(parents=True)
    if "/" in name:
        for i, content in enumerate(images(12)):
            (path.parent / f"{i}.png").write_bytes(content)
    return path


@pytest.mark.parametrize("name", FILES)
@FUZZ
@given(mutations=MUTATIONS)
def test_files(place: Path, name: str, mutations: list[Cut | Put | Move]) -> None:
    file, content = FILES[name]
    path = emptied(place, file)
    path.write_bytes(mutated(content, mutations))
    source = path.parent if "/" in file else path
    for reading in (Reading(), Reading(allow_bad=True, missing="drop", limit=20)):
        try:
            check_data(load(str(source), reading))
        except UserError as error:
            assert 0 < len(str(error)) < 5000
        check_cache(place / "cache")


def check_data(data: Data) -> None:
    for side, labels in ((data.train, data.train_label), (data.heldout, data.heldout_label)):
        values = side[:]
        assert len(values) and values.dtype == torch.float32 and values.isfinite().all()
        assert data.kind == "table" or values.abs().max() <= 1.001
        if isinstance(side, Pixels):
            assert values.ndim == 4 and values.shape[1] in (1, 3)
        if labels is not None:
            assert len(labels) == len(values)
            assert labels.min() >= -1 and labels.max() < len(data.label_names)


def check_cache(home: Path) -> None:
    """Entries that say that they are whole are, and nothing is left beside what is written."""
    for entry in home.glob("images/*"):
        assert not list(entry.glob(".tmp-*"))
        if cache.is_whole(entry):
            facts = cache.read_entry(entry)
            assert facts["n"] == sum(
                len(map_file(entry / name)[0]["pixels"]) for name in facts["shards"]
            )


@pytest.mark.parametrize("where", ["pixels", "entry.json"])
@settings(FUZZ, max_examples=25)
@given(mutations=MUTATIONS)
def test_the_cache_itself(place: Path, where: str, mutations: list[Cut | Put | Move]) -> None:
    """A damaged shard or entry is an error that says to clear it; or it still reads as images."""
    path = emptied(place, "x.parquet")
    path.write_bytes(FILES["parquet-images"][1])
    load(str(path))
    (entry,) = (place / "cache" / "images").iterdir()
    (victim,) = entry.glob(f"{where}*")
    sound = victim.read_bytes()
    victim.write_bytes(mutated(sound, mutations))
    try:
        found = load(str(path))
        assert len(found.train) + len(found.heldout) <= 24 and found.train[:].isfinite().all()
    except UserError as error:
        assert "monge cache clear" in str(error)
    if where == "pixels" and victim.read_bytes() != sound:
        with pytest.raises(UserError, match="monge cache clear"):
            load(str(path), check_cache=True)
    cache.clear()
    assert len(load(str(path)).train) == 19


@FUZZ
@given(mutations=MUTATIONS)
def test_safetensors(tmp_path_factory: pytest.TempPathFactory, mutations: list[Cut]) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.safetensors"
    arrays = {"pixels": BYTES, "mean": FLOATS.astype(np.float32), "row": CLASSES}
    path.write_bytes(mutated(save(arrays, {"found": "{}"}), mutations))
    try:
        found, metadata = map_file(path)
    except UserError as error:
        assert str(path) in str(error)
        return
    for values in found.values():
        values.tobytes()  # every byte is there
    assert all(isinstance(v, str) for v in metadata.values())
