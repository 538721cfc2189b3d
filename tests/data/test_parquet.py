"""Images in parquet files: pixels and names as they were written, whatever else is in there."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from forked import kill_when, open_to_all, start, wait
from making_images import encoded, folder_of, pixels_of
from making_parquet import IMAGE, images, write_parquet
from monge.data import cache
from monge.data.images import decoding, store
from monge.data.images.parquet import has_images, open_parquet
from monge.data.reading import Reading
from monge.data.sources import load
from monge.errors import UserError
from monge.system.progress import quiet

PARQUET_ROW = r"x\.parquet, row 7"


def prepared(path: Path, **settings: object) -> store.Store:
    reading = Reading(**settings)  # type: ignore[arg-type]
    return store.prepare(open_parquet(path, reading), reading, quiet)


def pixels(found: store.Store) -> np.ndarray:
    return found.shards.take(np.arange(len(found.shards))).transpose(0, 2, 3, 1)


def expected(n: int, first: int = 0) -> np.ndarray:
    return np.stack([pixels_of(first + i) for i in range(n)])


def names_of(found: store.Store) -> list[str]:
    return [found.label_names[k] if k >= 0 else "" for k in found.labels]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of each test's own, with shards of 16 images."""
    monkeypatch.setattr(decoding, "BLOCK_BYTES", 1)
    monkeypatch.setenv("MONGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("embedded", [True, False])
def test_a_file_of_the_datasets_library(tmp_path: Path, embedded: bool) -> None:
    """Written by the library itself: its image column, its numbered labels and their names.

    It embeds the images when it uploads, and leaves paths in local files.
    """
    datasets = pytest.importorskip("datasets")
    files = folder_of(tmp_path / "files", 40)
    features = datasets.Features(
        {
            "picture": datasets.Image(),
            "id": datasets.Value("int64"),
            "label": datasets.ClassLabel(names=["zebra", "ant", "cat"]),
        }
    )
    rows = {
        "picture": [
            {"bytes": (files / f"{i:04d}.png").read_bytes(), "path": f"{i}.png"}
            if embedded
            else str(files / f"{i:04d}.png")
            for i in range(40)
        ],
        "id": list(range(40)),
        "label": [i % 3 if i else -1 for i in range(40)],  # -1: a hidden label
    }
    path = tmp_path / "x.parquet"
    datasets.Dataset.from_dict(rows, features=features).to_parquet(path, batch_size=7)
    found = prepared(path)
    assert np.array_equal(pixels(found), expected(40))
    assert found.label_names == ("zebra", "ant", "cat"), "in the data set's own order"
    assert names_of(found) == ["", *(["zebra", "ant", "cat"][i % 3] for i in range(1, 40))]
    data = load(str(path))
    assert data.label_names == ("zebra", "ant", "cat") and data.name == "x"
    assert data.train_label is not None and len(data.train) + len(data.heldout) == 40


@pytest.mark.parametrize(
    "labels, names",
    [
        (["b", "a"] * 10, ("a", "b")),
        ([10, 9] * 10, ("9", "10")),
        (pa.array(["b", "a"] * 10).dictionary_encode(), ("a", "b")),
        ([True, False] * 10, ("False", "True")),
        ([0.5, 1.5] * 10, ("0.5", "1.5")),
        (["a", None] * 10, ("a",)),
    ],
    ids=["words", "numbers", "dictionary", "truth", "floats", "missing"],
)
def test_labels_of_any_type(tmp_path: Path, labels: list[object], names: tuple[str, ...]) -> None:
    found = prepared(write_parquet(tmp_path / "x.parquet", images(20), labels))
    assert found.label_names == names
    given = labels.to_pylist() if isinstance(labels, pa.Array) else labels
    assert names_of(found) == ["" if v is None else str(v) for v in given]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()], ids=str)
def test_bytes_without_a_struct(tmp_path: Path, kind: pa.DataType) -> None:
    table = pa.table({"my.image": pa.array(images(12), kind), "n": list(range(12))})
    parquet.write_table(table, tmp_path / "x.parquet")
    assert np.array_equal(pixels(prepared(tmp_path / "x.parquet")), expected(12))


def test_one_of_several_image_columns(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    columns = {
        name: pa.array([{"bytes": c, "path": None} for c in images(12, first=first)], IMAGE)
        for name, first in (("before", 0), ("after", 50))
    }
    columns["count"] = pa.array([{"bytes": 3}] * 12)  # a struct of that field, and no image
    parquet.write_table(pa.table(columns), path)
    with pytest.raises(UserError, match=r"several: before, after; choose one by --image-column"):
        open_parquet(path, Reading())
    assert np.array_equal(pixels(prepared(path, image_column="after")), expected(12, 50))
    assert np.array_equal(pixels(prepared(path, image_column="before")), expected(12))
    with pytest.raises(UserError, match=r"no column 'befor': did you mean 'before'\?"):
        open_parquet(path, Reading(image_column="befor"))
    with pytest.raises(UserError, match=r"column 'count' of .*x\.parquet holds no images"):
        open_parquet(path, Reading(image_column="count"))
    with pytest.raises(UserError, match=r"no column 'lable'"):
        open_parquet(path, Reading(image_column="after", label_column="lable"))


def test_columns_of_one_name(tmp_path: Path) -> None:
    table = pa.table([pa.array(images(12)), list(range(12)), ["a"] * 12], ["image", "x", "x"])
    parquet.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(UserError, match=r"x\.parquet has several columns 'x'"):
        load(str(tmp_path / "x.parquet"))


def test_a_folder_of_files(tmp_path: Path) -> None:
    """In the order of their names, training before the rest; the split is in the names."""
    root = tmp_path / "sets"
    write_parquet(root / "deep" / "test-00000-of-00001.parquet", images(10), [0] * 10, "ab")
    write_parquet(root / "train-00001-of-00002.parquet", images(20, first=40), [1] * 20, "ab")
    write_parquet(root / "train-00000-of-00002.parquet", images(30, first=10), [0] * 30, "ab")
    write_parquet(root / ".hidden" / "train.parquet", images(10))
    (root / "._train-00000.parquet").write_bytes(b"Mac OS X")
    (root / "README.md").write_text("images")
    found = prepared(root)
    order = [*range(10, 60), *range(10)]
    assert np.array_equal(pixels(found), np.stack([pixels_of(i) for i in order]))
    assert found.heldout.tolist() == [0] * 50 + [1] * 10
    data = load(str(root))
    assert (len(data.train), len(data.heldout)) == (50, 10)
    assert data.report["split"] == "the source's own"
    # The first rows are of training, so a limit does not learn the test images alone.
    assert np.array_equal(pixels(prepared(root, limit=35)), expected(35, 10))


def test_a_folder_of_parts_as_spark_writes_it(tmp_path: Path) -> None:
    root = tmp_path / "x.parquet"
    for k in range(2):
        write_parquet(root / f"part-0000{k}.parquet", images(10, first=10 * k))
    (root / "_SUCCESS").write_bytes(b"")
    assert np.array_equal(pixels(prepared(root)), expected(20))
    assert len(load(str(tmp_path)).train) == 16, "the folder x.parquet is no file"
    for part in root.glob("part-*"):
        part.unlink()
    with pytest.raises(UserError, match=r"x\.parquet holds no parquet files"):
        load(str(root))
    with pytest.raises(UserError, match=r"x\.parquet holds no parquet files"):
        has_images(root, Reading())


def test_files_that_do_not_fit_together(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", images(10))
    write_parquet(tmp_path / "b.parquet", images(10), column="photo")
    with pytest.raises(UserError, match=r"b\.parquet has other columns than .*a\.parquet"):
        load(str(tmp_path))


def test_only_some_files_name_a_split(tmp_path: Path) -> None:
    write_parquet(tmp_path / "part.parquet", images(20))
    write_parquet(tmp_path / "test.parquet", images(20, first=20))
    data = load(str(tmp_path))
    assert data.report["split"] == "by content"
    assert any("some parquet files name a split" in text for text in data.report["warnings"])


@pytest.mark.parametrize("row_group_size", [1, 5, 1000])
@pytest.mark.parametrize("start", [0, 1, 31, 32, 33, 69, 70, 99])
def test_rows_from_anywhere(tmp_path: Path, row_group_size: int, start: int) -> None:
    """So that an interrupted reading goes on: batches, files and row groups do not matter."""
    contents = [str(i).encode() for i in range(100)]
    write_parquet(tmp_path / "a.parquet", contents[:70], row_group_size=row_group_size)
    write_parquet(tmp_path / "b.parquet", contents[70:], row_group_size=row_group_size)
    rows = list(open_parquet(tmp_path, Reading()).rows(start))
    assert [row.load() for row in rows] == contents[start:]
    last = "b.parquet, row 29"
    assert rows[-1].name == last
    limited = list(open_parquet(tmp_path, Reading(limit=80)).rows(start))
    assert [row.load() for row in limited] == contents[start:80]
    assert open_parquet(tmp_path, Reading(limit=80)).total == 80
    # One by one, for each may be a photograph of megabytes.
    assert next(open_parquet(tmp_path, Reading()).sample(256)).load() == contents[0]


def test_rows_without_images_are_counted(tmp_path: Path) -> None:
    contents: list[bytes | None] = [*images(20)]
    contents[7], contents[11], contents[13] = None, b"", b"GIF89a"
    path = write_parquet(tmp_path / "x.parquet", contents)
    with pytest.raises(UserError, match="3 of 20 images cannot be read") as caught:
        prepared(path)
    assert re.search(PARQUET_ROW + ": the row holds no image", str(caught.value))
    assert "row 11: the file is empty" in str(caught.value) and "row 13: " in str(caught.value)
    found = prepared(path, allow_bad=True)
    assert found.rows.tolist() == [i for i in range(20) if i not in (7, 11, 13)]
    assert found.report["unreadable"] == 3


def test_paths_without_bytes(tmp_path: Path) -> None:
    """From the parquet file's folder; a file that is not there is tried again the next time."""
    folder_of(tmp_path / "files", 20)
    paths = [f"files/{i:04d}.png" for i in range(19)] + [f"{tmp_path}/files/0019.png"]
    table = pa.table({"image": pa.array([{"bytes": None, "path": p} for p in paths], IMAGE)})
    parquet.write_table(table, tmp_path / "x.parquet")
    (tmp_path / "files" / "0003.png").rename(tmp_path / "away.png")
    with pytest.raises(UserError, match=r"x\.parquet, row 3: No such file or directory"):
        prepared(tmp_path / "x.parquet")
    (tmp_path / "away.png").rename(tmp_path / "files" / "0003.png")
    assert np.array_equal(pixels(prepared(tmp_path / "x.parquet")), expected(20))


def test_without_images(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"x": [1.0] * 20, "y": ["a"] * 20}), tmp_path / "x.parquet")
    with pytest.raises(UserError, match=r"x\.parquet has no column of images"):
        open_parquet(tmp_path / "x.parquet", Reading())


def test_without_rows(tmp_path: Path) -> None:
    write_parquet(tmp_path / "x.parquet", [])
    with pytest.raises(UserError, match=r"x\.parquet: there are no images in it"):
        load(str(tmp_path / "x.parquet"))


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: encoded(pixels_of(0)),
        lambda content: b"PAR1" + bytes(100) + b"PAR1",
        lambda content: content[:-8] + b"\xff\xff\xff\x7fPAR1",
        lambda content: content[:-8] + b"\xff\xff\xff\xffPAR1",
    ],
    ids=["a byte", "half", "empty", "png", "zeros", "long footer", "negative footer"],
)
def test_a_damaged_file(
    tmp_path: Path, home: Path, damage: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_parquet(tmp_path / "x.parquet", images(40))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=r"cannot read .*x\.parquet as parquet"):
        open_parquet(path, Reading())
    assert not home.exists()
    sound = write_parquet(tmp_path / "folder" / "a.parquet", images(10))
    path.rename(sound.with_name("b.parquet"))
    with pytest.raises(UserError, match=r"cannot read .*b\.parquet as parquet"):
        load(str(tmp_path / "folder"))


@pytest.mark.parametrize("content", [images(20), list(range(20))], ids=["images", "table"])
def test_text_that_is_none(tmp_path: Path, content: list[object]) -> None:
    """Words that are no UTF-8, which Arrow hands on as they are."""
    words = pa.array([b"a", b"\x80"] * 10).view(pa.string())
    parquet.write_table(pa.table({"x": content, "label": words}), tmp_path / "x.parquet")
    with pytest.raises(UserError, match=r"x\.parquet as parquet: .*UTF8"):
        load(str(tmp_path / "x.parquet"), Reading(label_column="label"))


def test_a_page_that_breaks_after_many(tmp_path: Path, home: Path) -> None:
    """The images before it are kept, but there is no entry; the mended file is read afresh."""
    options = {"row_group_size": 10, "compression": "snappy", "use_dictionary": False}
    path = write_parquet(tmp_path / "x.parquet", images(320), **options)
    sound = path.read_bytes()
    at = parquet.read_metadata(path).row_group(30).column(0).data_page_offset
    path.write_bytes(sound[:at] + b"\xff" * 64 + sound[at + 64 :])
    with pytest.raises(UserError, match=r"cannot read .*x\.parquet as parquet: \S+"):
        prepared(path)
    (entry,) = (home / "images").iterdir()
    assert list(entry.glob("pixels-*")) and not (entry / cache.ENTRY).exists()
    path.write_bytes(sound)
    assert np.array_equal(pixels(prepared(path)), expected(320))


def test_killed_it_goes_on(tmp_path: Path, home: Path) -> None:
    path = write_parquet(tmp_path / "x.parquet", images(200), [i % 2 for i in range(200)], "ab")

    def some() -> bool:
        return len(list(home.rglob("pixels-*"))) > 3

    assert kill_when(start(lambda: prepared(path)), some) == -9
    (entry,) = (home / "images").iterdir()
    done = {p: p.stat().st_mtime_ns for p in entry.glob("pixels-*")}
    assert done and not (entry / cache.ENTRY).exists()
    found = prepared(path)
    assert np.array_equal(pixels(found), expected(200)) and names_of(found) == ["a", "b"] * 100
    assert all(p.stat().st_mtime_ns == when for p, when in done.items())


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "x.parquet", images(20))
    first = prepared(path).folder
    assert prepared(path).folder == first
    assert prepared(path, limit=12).folder != first
    write_parquet(path, images(20, first=30))
    assert np.array_equal(pixels(prepared(path)), expected(20, 30))


def test_damaged_names_of_labels_are_not_used(tmp_path: Path) -> None:
    labels = [i % 2 for i in range(20)]
    for metadata in (b"\xff", b"[]", b'{"info": {"features": null}}', json.dumps({"info": 3})):
        table = pa.table({"image": images(20), "label": labels})
        parquet.write_table(
            table.replace_schema_metadata({"huggingface": metadata}), tmp_path / "x.parquet"
        )
        assert prepared(tmp_path / "x.parquet").label_names == ("0", "1")


@pytest.mark.skipif(os.geteuid() != 0, reason="changes the user, which only root may")
def test_without_permission(tmp_path: Path) -> None:
    open_to_all(tmp_path)
    path = write_parquet(tmp_path / "x" / "x.parquet", images(20))
    os.chmod(path, 0)

    def nobody() -> None:
        os.setegid(65534)
        os.seteuid(65534)
        for given in (path, path.parent):
            with pytest.raises(UserError, match=r"cannot read .*x\.parquet.*Permission denied"):
                load(str(given))

    assert wait(start(nobody)) == 0
