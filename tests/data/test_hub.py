"""Data sets by the `datasets` library: local folders as the hub has them; names out of reach."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from forked import kill_when, start
from making_images import encoded, folder_of, pixels_of, write
from making_parquet import images, write_parquet
from monge.data import cache
from monge.data.images import decoding, hub, store
from monge.data.images.hub import open_hub
from monge.data.reading import Reading
from monge.data.sources import load
from monge.errors import UserError
from monge.system.progress import quiet

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Caches of each test's own, with shards of 16 images."""
    monkeypatch.setattr(decoding, "BLOCK_BYTES", 1)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    monkeypatch.setattr(datasets.config, "HF_MODULES_CACHE", tmp_path / "modules")
    monkeypatch.setenv("MONGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def prepared(repo: Path, **settings: object) -> store.Store:
    reading = Reading(**settings)  # type: ignore[arg-type]
    return store.prepare(open_hub(str(repo), reading), reading, quiet)


def pixels(found: store.Store) -> np.ndarray:
    return found.shards.take(np.arange(len(found.shards))).transpose(0, 2, 3, 1)


def expected(*seeds: int) -> np.ndarray:
    return np.stack([pixels_of(seed) for seed in seeds])


def names_of(found: store.Store) -> list[str]:
    return [found.label_names[k] if k >= 0 else "" for k in found.labels]


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """A data set as it is uploaded: parquet files of two splits, with named labels."""
    root = tmp_path / "org" / "digits"
    names = ("two", "one")
    for k in range(2):
        path = root / "data" / f"train-0000{k}-of-00002.parquet"
        contents = images(30, first=30 * k)
        write_parquet(path, contents, [i % 2 for i in range(30)], names)
    write_parquet(root / "data" / "test-00000-of-00001.parquet", images(15, first=90), [-1] * 15)
    return root


def test_parquet_files_of_two_splits(digits: Path) -> None:
    found = prepared(digits)
    assert np.array_equal(pixels(found), expected(*range(60), *range(90, 105)))
    assert found.heldout.tolist() == [0] * 60 + [1] * 15
    assert found.label_names == ("two", "one")
    assert names_of(found) == [("two", "one")[i % 2] for i in range(60)] + [""] * 15
    data = load(f"hf:{digits}")
    assert (data.name, data.text) == ("digits", f"hf:{digits}")
    assert (len(data.train), len(data.heldout)) == (60, 15)
    assert data.report["split"] == "the source's own"


def test_one_split_and_a_limit(digits: Path) -> None:
    found = prepared(digits, split="test")
    assert np.array_equal(pixels(found), expected(*range(90, 105)))
    assert set(found.heldout.tolist()) == {-1}
    assert np.array_equal(pixels(prepared(digits, limit=40)), expected(*range(40)))
    with pytest.raises(UserError, match=r"digits has no split 'tes': did you mean 'test'\?"):
        open_hub(str(digits), Reading(split="tes"))


@pytest.mark.parametrize("start_row", [0, 1, 29, 30, 59, 60, 74])
def test_rows_from_anywhere(digits: Path, start_row: int) -> None:
    rows = list(open_hub(str(digits), Reading()).rows(start_row))
    contents = [encoded(pixels_of(i)) for i in [*range(60), *range(90, 105)]]
    assert [row.load() for row in rows] == contents[start_row:]
    assert rows[-1].name == "test, row 14"
    limited = list(open_hub(str(digits), Reading(limit=70)).rows(start_row))
    assert [row.load() for row in limited] == contents[start_row:70]


def test_killed_it_goes_on(digits: Path, home: Path) -> None:
    def some() -> bool:
        return len(list(home.rglob("pixels-*"))) > 1

    open_hub(str(digits), Reading())  # so that what the library keeps is there
    assert kill_when(start(lambda: prepared(digits)), some) == -9
    (entry,) = (home / "images").iterdir()
    done = {p: p.stat().st_mtime_ns for p in entry.glob("pixels-*")}
    assert done and not (entry / cache.ENTRY).exists()
    assert np.array_equal(pixels(prepared(digits)), expected(*range(60), *range(90, 105)))
    assert all(p.stat().st_mtime_ns == when for p, when in done.items())


def test_a_folder_of_images(tmp_path: Path) -> None:
    """Classes by folder; a file that is no image is counted, with its row."""
    root = folder_of(tmp_path / "animals", 40, ("dog", "cat"))
    (root / "cat" / "0041.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"1 of 41 .*\n  train, row \d+: the file is empty"):
        prepared(root)
    found = prepared(root, allow_bad=True)
    assert found.label_names == ("cat", "dog") and len(found.shards) == 40
    by_label = {name: pixels_of(i) for i, name in ((0, "dog"), (1, "cat"))}
    for name, image in by_label.items():
        at = next(k for k, p in enumerate(pixels(found)) if np.array_equal(p, image))
        assert names_of(found)[at] == name


def test_a_folder_with_a_table(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "photos", 20)
    lines = ["file_name,species", *(f"{i:04d}.png,{'ab'[i % 2]}" for i in range(20))]
    (root / "metadata.csv").write_text("\n".join(lines))
    found = prepared(root)
    assert names_of(found) == ["a", "b"] * 10
    assert np.array_equal(pixels(found), expected(*range(20)))


def test_changed_images_are_read_again(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "photos", 20)
    first = prepared(root)
    assert prepared(root).folder == first.folder
    write(root / "0003.png", pixels_of(77))
    os.utime(root / "0003.png", (1, 1))
    found = prepared(root)
    assert np.array_equal(pixels(found)[3], pixels_of(77))


def test_subsets(tmp_path: Path) -> None:
    root = tmp_path / "sets"
    write_parquet(root / "small.parquet", images(12))
    write_parquet(root / "large.parquet", images(24, first=12))
    (root / "README.md").write_text(
        "---\nconfigs:\n- config_name: small\n  data_files: small.parquet\n"
        "- config_name: large\n  data_files: large.parquet\n---\n"
    )
    assert np.array_equal(pixels(prepared(root, subset="large")), expected(*range(12, 36)))
    assert np.array_equal(pixels(prepared(root, subset="small")), expected(*range(12)))
    with pytest.raises(UserError, match=r"(small.*large|large.*small).*--subset"):
        open_hub(str(root), Reading())
    with pytest.raises(UserError, match="middle"):
        open_hub(str(root), Reading(subset="middle"))


def test_columns(tmp_path: Path) -> None:
    root = tmp_path / "two"
    features = datasets.Features({"a": datasets.Image(), "b": datasets.Image()})
    rows = {
        name: [{"bytes": c, "path": None} for c in images(12, first=first)]
        for name, first in (("a", 0), ("b", 20))
    }
    root.mkdir()
    datasets.Dataset.from_dict(rows, features=features).to_parquet(root / "train.parquet")
    with pytest.raises(UserError, match=r"has 2 columns of images: columns: a, b; .*image-column"):
        open_hub(str(root), Reading())
    assert np.array_equal(pixels(prepared(root, image_column="b")), expected(*range(20, 32)))
    with pytest.raises(UserError, match=r"has no column 'c'"):
        open_hub(str(root), Reading(image_column="c"))
    with pytest.raises(UserError, match=r"no column 'lable'"):
        open_hub(str(root), Reading(image_column="a", label_column="lable"))
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "train.csv").write_text("text,label\n" + "a,1\n" * 20)
    with pytest.raises(UserError, match="has 0 columns of images: columns: text, label"):
        open_hub(str(tmp_path / "words"), Reading())
    with pytest.raises(UserError, match=r"column 'text' of .* holds no images"):
        open_hub(str(tmp_path / "words"), Reading(image_column="text"))


def test_a_file_that_breaks(digits: Path, home: Path) -> None:
    """What is read until then is kept, and nothing is taken for whole."""
    victim = digits / "data" / "train-00001-of-00002.parquet"
    sound = victim.read_bytes()
    victim.write_bytes(sound[: len(sound) // 2])
    with pytest.raises(UserError, match=r"hf:.*digits.*run the command again|cannot read"):
        prepared(digits)
    assert not list(home.rglob(cache.ENTRY))
    victim.write_bytes(sound)
    assert len(prepared(digits).shards) == 75


@pytest.mark.parametrize("repo", ["", "a b/c", "org/name/more", "-", "\0", "\udcff"])
def test_names_that_are_none(repo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"cannot read the hub data set .*hf:ORG/NAME"):
        open_hub(repo, Reading())


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"cannot read the hub data set '.*empty'"):
        open_hub(str(tmp_path / "empty"), Reading())


def test_a_name_out_of_reach(tmp_path: Path) -> None:
    """In a process of its own, since the library reads its settings when it is imported."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "monge", "train", "hf:org/name", "--out", str(tmp_path / "r")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 2 and done.stdout == ""
    assert "error: cannot read the hub data set 'org/name': " in done.stderr
    assert "HF_HUB_OFFLINE" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "r").exists()


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"pip install 'monge\[data\]'"):
        hub.open_hub("org/name", Reading())
