"""Images: one scale for a whole source, labels from where they lie, bounded memory."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from making_images import folder_of, pixels_of, write
from making_parquet import IMAGE
from monge.data.array_data import from_arrays
from monge.data.arrays import Pixels
from monge.data.images import raw as raws
from monge.data.images.array_images import scaled
from monge.data.images.budget import Budget
from monge.data.images.folder import list_folder
from monge.data.images.image_files import MOST_PIXELS, White, read
from monge.data.reading import Reading
from monge.data.sources import load
from monge.errors import UserError
from monge.system.ownership import MANIFEST

RNG = np.random.default_rng(0)
SIGNED = RNG.uniform(-1, 1, (20, 4, 4)).round(3)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONGE_CACHE", str(tmp_path / ".cache"))


def shown(x: Any, **settings: Any) -> np.ndarray:
    """Images as they are learned, in the array's order, as numbers of [-1, 1]."""
    data = from_arrays(x, **settings)
    assert data.rows is not None
    made = np.empty((len(x), *data.shape), np.float32)
    for rows, part in zip(data.rows, (data.train, data.heldout), strict=True):
        made[rows] = part[torch.arange(len(part))].numpy()
    return made[:, 0]


ONES = RNG.integers(0, 2, (20, 4, 4))
LEVELS = RNG.integers(0, 4096, (20, 4, 4))
LEVELS[0, 0, 0] = 4095

SCALES: list[tuple[np.ndarray, np.ndarray, str]] = [
    (SIGNED, SIGNED, "-1 is black, 1 white"),
    ((SIGNED + 1) / 2, SIGNED, "0 to 1, so 0 is black and 1 is white"),
    ((SIGNED + 1).astype(np.float32) / 2, SIGNED, "none negative"),
    ((SIGNED + 1) * 127.5, SIGNED, "0 to 255"),
    (ONES > 0, 2 * ONES - 1, "truth values"),
    (ONES.astype(np.uint8), 2 * ONES - 1, "0 and 1 alone"),
    (ONES.astype(np.int64), 2 * ONES - 1, "0 and 1 alone"),
    (ONES.astype(np.uint8) * 255, 2 * ONES - 1, ""),
    (ONES.astype(np.int64) * 255, 2 * ONES - 1, "255 is white"),
    (LEVELS.astype(np.uint16), LEVELS / 2047.5 - 1, "4095 is white"),
    (np.where(LEVELS > 3000, -1, ONES).astype(np.int8), np.where(LEVELS > 3000, -1, ONES),
     "-1 is black"),
]  # fmt: skip


@pytest.mark.parametrize(("x", "right", "note"), SCALES, ids=range(len(SCALES)))
def test_the_scale_of_an_array(x: np.ndarray, right: np.ndarray, note: str) -> None:
    np.testing.assert_allclose(shown(x), right, atol=1.01 / 255)
    data = from_arrays(x)
    assert (note in "\n".join(data.report["notes"])) and (note or not data.report["notes"])
    assert set(data.report["notes"]) <= set(data.summary)


def test_training_and_held_out_images_have_one_scale() -> None:
    train, held = (SIGNED + 1) / 2, np.clip(SIGNED[:5], 0, 1)
    both = from_arrays(train, heldout=held)
    np.testing.assert_allclose(both.heldout[:, 0], 2 * held - 1, atol=1e-6)
    dark = from_arrays(LEVELS.astype(np.uint16), heldout=LEVELS[:5].astype(np.uint16) // 64)
    assert isinstance(dark.heldout, Pixels)
    assert float(dark.heldout[:].max()) < -0.9
    with pytest.raises(UserError, match="no known scale"):
        scaled([np.array([[-5.0, 300.0]])], "the examples")


LABELS = [
    (np.arange(20)[:, None] % 2, ("0", "1"), 0),
    (np.where(np.arange(20) < 4, np.nan, np.arange(20) % 2), ("0.0", "1.0"), 4),
    (np.where(np.arange(20) < 4, "?", "cat"), ("cat",), 4),
    (np.where(np.arange(20) < 4, "nan", np.where(np.arange(20) < 9, "a", "b")), ("a", "b"), 4),
    (np.where(np.arange(20) < 4, b"cat", b"dog"), ("cat", "dog"), 0),
]


@pytest.mark.parametrize(("label", "names", "missing"), LABELS, ids=range(len(LABELS)))
def test_labels_of_arrays(label: np.ndarray, names: tuple[str, ...], missing: int) -> None:
    data = from_arrays(SIGNED, label)
    assert data.label_names == names and data.report["unlabelled"] == missing
    assert data.train_label is not None and data.heldout_label is not None
    none = sum(int((part < 0).sum()) for part in (data.train_label, data.heldout_label))
    assert none == missing
    assert bool(missing) == any("labels are missing" in n for n in data.report["notes"])


def test_minus_one_is_said_to_be_a_class() -> None:
    data = from_arrays(SIGNED, np.where(np.arange(20) < 4, -1, 1))
    assert data.label_names == ("-1", "1") and "a class of its own" in data.report["notes"][1]


# Image files


def deep(folder: Path, values: np.ndarray, name: str) -> None:
    folder.mkdir(exist_ok=True)
    Image.fromarray(values).save(folder / name)


WHITES = [(200, 255), (1000, 1023), (4000, 4095), (4096, 16383), (60000, 65535)]


@pytest.mark.parametrize(("greatest", "white"), WHITES)
def test_the_white_of_deep_images(tmp_path: Path, greatest: int, white: int) -> None:
    """Of all files, also of those that the first look does not see."""
    ramp = np.arange(64).reshape(8, 8)
    for k in range(12):
        deep(tmp_path / "x", (ramp + k).astype(np.uint16), f"{k:02d}.png")
    bright = np.where(ramp == 63, greatest, ramp).astype(np.uint16)
    deep(tmp_path / "x", bright, "05.png")
    data = load(str(tmp_path / "x"))
    assert isinstance(data.train, Pixels)
    assert int(data.train.shards.parts[0].max()) == round(255 * greatest / white)
    told = "\n".join(data.summary)
    assert f"{white} is taken for white" in told


def test_a_bright_file_behind_the_first_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monge.data.images.decoding.LOOKED_AT", 2)
    monkeypatch.setattr("monge.data.images.decoding.BLOCK_BYTES", 64 * 16)
    for k in range(40):
        values = np.full((8, 8), 3000 if k == 37 else 10 + k, np.uint16)
        deep(tmp_path / "x", values, f"{k:02d}.png")
    data = load(str(tmp_path / "x"))
    assert isinstance(data.train, Pixels)
    levels = {int(v) for part in data.train.shards.parts for v in part.max((1, 2, 3))}
    assert max(levels) == round(3000 * 255 / 4095)
    assert levels - {max(levels)} == {round(v * 255 / 4095) for v in range(10, 50) if v != 47}


def test_floats_are_on_one_scale(tmp_path: Path) -> None:
    for k in range(12):
        deep(tmp_path / "x", np.full((4, 4), 0.5 + k / 100, np.float32), f"{k:02d}.tif")
    assert "1 is taken for white" in "\n".join(load(str(tmp_path / "x")).summary)
    deep(tmp_path / "x", np.full((4, 4), 200, np.float32), "50.tif")
    data = load(str(tmp_path / "x"))
    assert "255 is taken for white" in "\n".join(data.summary)
    assert isinstance(data.train, Pixels) and sorted(
        {int(v) for v in data.train.shards.parts[0].max((1, 2, 3))}
    ) == [0, 1, 200]


def test_dark_sources_are_warned_of(tmp_path: Path) -> None:
    for k in range(12):
        deep(tmp_path / "x", np.full((4, 4), k, np.uint8), f"{k:02d}.png")
    assert "no pixel is brighter than 11 of 255" in "\n".join(load(str(tmp_path / "x")).summary)


@pytest.mark.parametrize("mode", ["I;16", "RGBA", "P", "CMYK", "L"])
def test_strips_do_not_show(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    rng = np.random.default_rng(3)
    if mode == "I;16":
        image = Image.fromarray(rng.integers(0, 65536, (40, 30)).astype(np.uint16))
    else:
        image = Image.fromarray(rng.integers(0, 255, (40, 30, 4)).astype(np.uint8), "RGBA")
        image = image if mode == "RGBA" else image.convert("RGB").convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, "TIFF" if mode == "CMYK" else "PNG")
    whole = read(buffer.getvalue(), (20, 15), 3, white=White())[0]
    monkeypatch.setattr("monge.data.images.image_files.STRIP", 70)
    assert np.array_equal(read(buffer.getvalue(), (20, 15), 3, white=White())[0], whole)


def test_the_budget_is_never_exceeded() -> None:
    budget, held, most = Budget(10), [0], [0]
    mark = threading.Lock()

    def work(amount: int) -> None:
        with budget.holding(amount):
            with mark:
                held[0] += min(amount, 10)
                most[0] = max(most[0], held[0])
            time.sleep(0.002)
            with mark:
                held[0] -= min(amount, 10)

    threads = [threading.Thread(target=work, args=(n,)) for n in (3, 4, 50, 1, 9, 2, 10, 0) * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert held[0] == 0 and 7 <= most[0] <= 10
    assert MOST_PIXELS <= 2**27


# Folders and lists


def listed(root: Path) -> tuple[list[str] | None, str]:
    found = list_folder(root, Reading())
    return found.labels, "\n".join(found.notes)


SPELLINGS = ["{k:04d}.png", "{k:04d}", "x/{k:04d}.png", "x\\{k:04d}.png", "x\\{k:04d}",
             "{k:04d}.PNG", " {k:04d}.png ", "./x/{k:04d}.png"]  # fmt: skip


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_how_a_list_may_name_images(tmp_path: Path, spelling: str) -> None:
    folder_of(tmp_path / "x", 6)
    rows = [f"{spelling.format(k=k)},{'uv'[k % 2]}" for k in range(6)]
    (tmp_path / "labels.csv").write_text("id,breed\n" + "\n".join(rows))
    assert listed(tmp_path)[0] == ["u", "v"] * 3


def test_a_name_that_fits_two_images_means_neither(tmp_path: Path) -> None:
    folder_of(tmp_path / "x", 6)
    folder_of(tmp_path / "y", 6)
    rows = [f"{k:04d},{'uv'[k % 2]}" for k in range(6)] + ["x/0001.png,u", "y/0002,v"]
    (tmp_path / "labels.csv").write_text("id,breed\n" + "\n".join(rows))
    found = list_folder(tmp_path, Reading())
    assert found.paths == ["x/0001.png", "y/0002.png"] and len(found.missing) == 6


def test_a_list_in_each_split(tmp_path: Path) -> None:
    for split, n in (("train", 6), ("test", 4)):
        folder_of(tmp_path / split, n)
        rows = [f"{k:04d}.png,{'uv'[k % 2]}" for k in range(n)]
        (tmp_path / split / "Metadata.csv").write_text("file_name,label\n" + "\n".join(rows))
    found = list_folder(tmp_path, Reading())
    assert found.heldout == [True] * 4 + [False] * 6
    assert found.labels == ["u", "v"] * 5 and not found.notes
    (tmp_path / "test" / "Metadata.csv").unlink()
    labels, notes = listed(tmp_path)
    assert labels is None and "lists of labels that are not used: train/Metadata.csv" in notes


def test_missing_labels_in_a_list_are_no_class(tmp_path: Path) -> None:
    folder_of(tmp_path, 6)
    rows = [f"{k:04d}.png,{['u', 'v', 'nan', '?', '', 'NA'][k]}" for k in range(6)]
    (tmp_path / "labels.csv").write_text("file,label\n" + "\n".join(rows))
    labels, notes = listed(tmp_path)
    assert labels == ["u", "v"] and "4 rows of labels.csv have no label" in notes


def test_pictures_of_the_program_are_no_examples(tmp_path: Path) -> None:
    folder_of(tmp_path / "x", 12)
    write(tmp_path / "x" / "grid.png", pixels_of(0, 64))
    assert len(list_folder(tmp_path / "x", Reading()).paths) == 13
    (tmp_path / "x" / MANIFEST).write_text("{}")
    found = list_folder(tmp_path / "x", Reading())
    assert len(found.paths) == 12 and "grid.png is the picture of the samples" in found.notes[0]
    run = folder_of(tmp_path / "x" / "run", 3)
    for name in ("config.yaml", "environment.json"):
        (run / name).write_text("")
    found = list_folder(tmp_path / "x", Reading())
    assert len(found.paths) == 12 and any("run is a run folder" in n for n in found.notes)


# Bounds


def test_files_too_large_or_endless_are_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = folder_of(tmp_path / "x", 200)
    with open(root / "zz.png", "wb") as file:
        file.truncate(50 * 2**30)
    data = load(str(root))
    assert data.report["unreadable_files"]["zz.png"] == "a file of 50.0 GB: too large for an image"
    os.mkfifo(tmp_path / "pipe.png")
    for path in ("/dev/zero", str(tmp_path / "pipe.png")):
        rows: list[Any] = [(tmp_path / "x" / f"{k:04d}.png").read_bytes() for k in range(150)]
        structs = [*({"bytes": r, "path": None} for r in rows), {"bytes": None, "path": path}]
        where = tmp_path / "p.parquet"
        parquet.write_table(pa.table({"image": pa.array(structs, IMAGE)}), where)
        found = load(str(where))
        assert found.report["unreadable"] == 1
        assert "a pipe or a device" in next(iter(found.report["unreadable_files"].values()))
    monkeypatch.setattr(raws, "MOST_BYTES", 10)
    with pytest.raises(UserError, match="none of its 401 images can be read"):
        load(str(folder_of(root, 200, ("new",)).parent / "x"))


def test_paths_that_lead_out_of_the_folder_are_told(tmp_path: Path) -> None:
    other = folder_of(tmp_path / "other", 12)
    structs = [{"bytes": None, "path": f"../other/{p.name}"} for p in sorted(other.iterdir())]
    (tmp_path / "x").mkdir()
    where = tmp_path / "x" / "p.parquet"
    parquet.write_table(pa.table({"image": pa.array(structs, IMAGE)}), where)
    told = "\n".join(load(str(where)).summary)
    assert "12 rows name files outside of the folder, the first ../other/0000.png" in told
