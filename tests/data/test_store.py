"""Prepared images: pixels, labels and rows as in the files, reports that count, honest splits."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from making_images import encoded, folder_of, pixels_of, write
from monge.data.base import Data
from monge.data.images import decoding, folder, store
from monge.data.images.folder import list_folder
from monge.data.reading import Reading
from monge.data.sources import load
from monge.errors import UserError
from monge.system.progress import quiet


def prepared(root: Path, **reading: object) -> store.Store:
    settings = Reading(**reading)  # type: ignore[arg-type]
    return store.prepare(list_folder(root, settings), settings, quiet)


def as_uint8(x: torch.Tensor) -> np.ndarray:
    return ((x + 1) * 127.5).round().byte().numpy()


def shards_of(found: store.Store) -> list[Path]:
    return sorted(found.folder.glob("pixels-*"))


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "BLOCK_BYTES", 1)  # so 16 images


def test_pixels_are_those_of_the_files(tmp_path: Path, small_blocks: None) -> None:
    found = prepared(folder_of(tmp_path / "many shards", 50, ("a", "b", "c")))
    assert len(shards_of(found)) == 4 and found.shards.shape == (3, 8, 8)
    order = [int(Path(p).stem) for p in list_folder(tmp_path / "many shards", Reading()).paths]
    expected = np.stack([pixels_of(i).transpose(2, 0, 1) for i in order])
    assert np.array_equal(found.shards.take(np.arange(50)), expected)
    assert found.rows.tolist() == list(range(50))
    assert [found.label_names[k] for k in found.labels] == ["abc"[i % 3] for i in order]
    assert len(set(found.digests.tolist())) == 50


def test_block_sizes_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folder_of(tmp_path / "x", 50, ("b", "a"))
    (root / "a" / "0005.png").write_bytes(b"broken")
    whole = prepared(root, allow_bad=True)
    monkeypatch.setattr(decoding, "BLOCK_BYTES", 1)
    monkeypatch.setenv("MONGE_CACHE", str(tmp_path / "cache"))
    parts = prepared(root, allow_bad=True)
    assert len(shards_of(whole)) == 1 and len(shards_of(parts)) == 4
    assert whole.report == parts.report
    for name in ("digests", "rows", "labels", "heldout", "label_names"):
        assert np.array_equal(getattr(whole, name), getattr(parts, name)), name


def test_numbers_as_labels_are_in_their_order(tmp_path: Path) -> None:
    found = prepared(folder_of(tmp_path, 24, ("10", "9", "2", "zebra", "ape", "²")))
    assert found.label_names == ("2", "9", "10", "ape", "zebra", "²")


def test_the_size(tmp_path: Path) -> None:
    assert prepared(folder_of(tmp_path / "own", 12, side=20)).shards.shape == (3, 20, 20)
    assert prepared(folder_of(tmp_path / "large", 12, side=130)).shards.shape == (3, 64, 64)
    assert prepared(tmp_path / "own", image_size=5).shards.shape == (3, 5, 5)
    mixed = folder_of(tmp_path / "mixed", 12, side=20)
    for i in range(3):
        write(mixed / f"wide{i}.png", pixels_of(i, 100)[:40])
    found = prepared(mixed)
    assert found.shards.shape == (3, 20, 20)
    assert found.report["sizes"] == {"20x20": 12, "100x40": 3}
    assert found.report["smaller_than_target"] == 0
    assert found.report["size_because"] == "12 of 15 images have it"
    grey = prepared(folder_of(tmp_path / "grey", 12, channels=1))
    assert grey.shards.shape == (1, 8, 8)
    assert np.array_equal(grey.shards.take(np.array([3]))[0, 0], pixels_of(3, channels=1))


def test_photographs_taken_sideways_keep_their_proportions(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for i in range(12):
        Image.fromarray(pixels_of(i, 40)[:20]).save(tmp_path / f"{i}.jpg", exif=exif)
    found = prepared(tmp_path)
    assert found.shards.shape == (3, 40, 20) and found.report["sizes"] == {"20x40": 12}
    assert found.report["smaller_than_target"] == 0


def test_the_report(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "photos", 200, ("cat", "dog"))
    for i in range(5):
        write(root / "cat" / f"jpeg{i}.jpg", pixels_of(500 + i), "JPEG")
        write(root / "dog" / f"copy{i}.png", pixels_of(2 * i))  # also in cat/
    write(root / "dog" / "small.png", pixels_of(900, 4, channels=1))
    (root / "cat" / "zero.png").write_bytes(b"")
    (root / "dog" / "text.jpg").write_text("hello")
    (root / "read.me").write_text("hello")
    lines: list[str] = []
    data = load(str(root), Reading(image_size=8), lines.append)
    report = dict(data.report)
    assert report["images"] == 211 and report["prepared_to"] == [3, 8, 8]
    assert report["formats"] == {"PNG": 206, "JPEG": 5}
    assert report["modes"] == {"RGB": 210, "L": 1}
    assert report["sizes"] == {"8x8": 210, "4x4": 1} and report["smaller_than_target"] == 1
    assert report["exact_duplicates"] == 5
    assert report["unreadable"] == 2
    assert report["unreadable_files"] == {
        "cat/zero.png": "the file is empty",
        "dog/text.jpg": "no image of a known format",
    }
    assert report["labels"] == {"cat": 105, "dog": 106}
    assert report["ignored_files"] == {".me": 1}
    assert report["training"] + report["held_out"] == 211
    text = "\n".join(data.summary)
    for part in ("211 images (206 PNG, 5 JPEG; modes 210 RGB, 1 L)", "105 cat, 106 dog",
                 "5 exact duplicates", "1 smaller", "2 unreadable", "zero.png (the file is empty)",
                 "1 .me", "training images are few"):  # fmt: skip
        assert part in text, part
    json.dumps(report)


def test_more_than_one_in_a_hundred_bad_is_refused(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "x", 199)
    (root / "bad0.png").write_bytes(b"")
    (root / "bad1.png").write_bytes(b"no")
    assert prepared(root).report["unreadable"] == 2  # of 201
    (root / "bad2.png").write_bytes(encoded(pixels_of(0))[:50])
    with pytest.raises(UserError) as caught:
        prepared(root)
    for part in ("3 of 202", "bad0.png: the file is empty", "bad1.png", "bad2.png", "--allow-bad"):
        assert part in str(caught.value), part
    found = prepared(root, allow_bad=True)
    assert len(found.shards) == 199 and found.rows.tolist() == list(range(199))
    (root / "bad2.png").unlink()  # repaired: read again without a word of the cache
    assert prepared(root).report["unreadable"] == 2


def test_many_bad_files_are_counted_and_twenty_named(tmp_path: Path) -> None:
    for i in range(30):
        (tmp_path / f"{i:02d}.png").write_bytes(b"")
    with pytest.raises(UserError, match="none of its 30 images can be read") as caught:
        prepared(tmp_path)
    assert "19.png" in str(caught.value) and "20.png" not in str(caught.value)
    assert "and 10 more" in str(caught.value)


def test_what_is_gone_from_the_folder_is_not_held_against_it(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "x", 20)
    (root / "dangling.png").symlink_to(root / "nowhere")
    with pytest.raises(UserError, match=r"dangling\.png: No such file"):
        prepared(root)
    (root / "dangling.png").unlink()
    assert prepared(root).report["unreadable"] == 0


def test_files_that_could_not_be_opened_are_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_blocks: None
) -> None:
    """No permission, a network that is away: neither size nor time tell when that is over."""
    root = folder_of(tmp_path / "x", 50)

    def refuse(path: Path) -> bytes:
        if path.name == "0020.png":
            raise PermissionError(13, "Permission denied", str(path))
        return path.read_bytes()

    with monkeypatch.context() as patch:
        patch.setattr(folder, "content_of_file", refuse)
        with pytest.raises(UserError, match=r"0020\.png: Permission denied"):
            prepared(root)
        found = prepared(root, allow_bad=True)
        assert len(found.shards) == 49 and 20 not in found.rows.tolist()
    times = [p.stat().st_mtime_ns for p in shards_of(found)]
    found = prepared(root)
    assert found.rows.tolist() == list(range(50))
    assert np.array_equal(found.shards.take(np.array([20]))[0], pixels_of(20).transpose(2, 0, 1))
    again = [p.stat().st_mtime_ns for p in shards_of(found)]
    assert [a == b for a, b in zip(times, again, strict=True)] == [True, False, True, True]
    prepared(root)
    assert [p.stat().st_mtime_ns for p in shards_of(found)] == again


@pytest.mark.parametrize("n_grey", [599, 40])
def test_late_colour_is_found(tmp_path: Path, small_blocks: None, n_grey: int) -> None:
    root = folder_of(tmp_path / "x", n_grey, channels=1)
    late = write(root / "z.png", pixels_of(1))
    lines: list[str] = []
    found = store.prepare(list_folder(root, Reading()), Reading(), lines.append)
    assert found.shards.shape == (3, 8, 8) and len(found.shards) == n_grey + 1
    if n_grey > decoding.LOOKED_AT:
        assert any("colour" in line for line in lines)
    expected = pixels_of(17, channels=1)
    assert np.array_equal(found.shards.take(np.array([17]))[0], np.stack([expected] * 3))
    assert np.array_equal(found.shards.take(np.array([n_grey]))[0], pixels_of(1).transpose(2, 0, 1))
    assert found.rows.tolist() == list(range(n_grey + 1)) and late.exists()


def sides(data: Data) -> tuple[set[bytes], set[bytes]]:
    train, heldout = (
        {x.tobytes() for x in as_uint8(side[:])} for side in (data.train, data.heldout)
    )
    return train, heldout


def test_duplicates_never_straddle(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "x", 60, ("a", "b"))
    for i in range(30):
        write(root / "a" / f"copy{i}.bmp", pixels_of(i), "BMP")  # other bytes, equal pixels
    data = load(str(root))
    train, heldout = sides(data)
    assert not train & heldout and len(train | heldout) == 60
    assert len(data.train) + len(data.heldout) == 90
    assert data.report["split"] == "by content" and data.report["exact_duplicates"] == 30


def test_the_split_is_by_content_alone(tmp_path: Path) -> None:
    one = load(str(folder_of(tmp_path / "one", 60)))
    (tmp_path / "two").mkdir()
    for i in range(60):
        name = f"{(i * 7) % 60:02d}{i}.bmp"
        write(tmp_path / "two" / name, pixels_of(i), "BMP")
    assert sides(load(str(tmp_path / "two"))) == sides(one)


def test_a_split_of_its_own_is_kept_and_copies_across_it_told(tmp_path: Path) -> None:
    folder_of(tmp_path / "train", 30, ("a", "b"))
    for i in range(25, 35):
        write(tmp_path / "test" / "ab"[i % 2] / f"{i}.png", pixels_of(i))
    data = load(str(tmp_path))
    train, heldout = sides(data)
    assert train == {pixels_of(i).transpose(2, 0, 1).tobytes() for i in range(30)}
    assert heldout == {pixels_of(i).transpose(2, 0, 1).tobytes() for i in range(25, 35)}
    assert data.report["split"] == "the source's own"
    assert any("5 held-out images are exact copies" in w for w in data.report["warnings"])


def test_a_split_without_a_readable_side_is_none(tmp_path: Path) -> None:
    folder_of(tmp_path / "train", 30)
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "x.png").write_bytes(b"")
    data = load(str(tmp_path), Reading(allow_bad=True))
    assert data.report["split"] == "by content" and len(data.heldout) == 6


def test_rows_lead_back_to_the_files(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "x", 60, ("a", "b", "c"))
    (root / "b" / "0031.png").write_bytes(b"broken")
    reading = Reading(allow_bad=True)
    data = load(str(root), reading)
    paths = list_folder(root, reading).paths
    assert data.rows is not None and data.train_label is not None
    assert sorted(torch.cat(data.rows).tolist()) == [
        i for i, p in enumerate(paths) if "0031" not in p
    ]
    for side, rows in zip((data.train, data.heldout), data.rows, strict=True):
        for x, row in zip(as_uint8(side[:]), rows.tolist(), strict=True):
            expected = np.asarray(Image.open(root / paths[row])).transpose(2, 0, 1)
            assert np.array_equal(x, expected)
    for label, row in zip(data.train_label.tolist(), data.rows[0].tolist(), strict=True):
        assert paths[row].startswith(data.label_names[label])


def test_too_few(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="1 images are too few; at least 10"):
        load(str(folder_of(tmp_path / "one", 1)))
    for i in range(12):
        write(tmp_path / "same" / f"{i}.png", pixels_of(0))
    with pytest.raises(UserError, match="all 12 examples are identical"):
        load(str(tmp_path / "same"))


def test_a_folder_that_goes_away_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_blocks: None
) -> None:
    root = folder_of(tmp_path / "x", 60)
    source = list_folder(root, Reading())
    looks: list[str] = []

    def vanish(path: Path) -> bytes:
        looks.append(path.name)
        if looks.count("0030.png") == 2:  # the first was for a look at its header
            for file in root.iterdir():
                file.unlink(missing_ok=True)
        return path.read_bytes()

    with monkeypatch.context() as patch:
        patch.setattr(folder, "content_of_file", vanish)
        patch.setattr(os, "cpu_count", lambda: 1)
        with pytest.raises(UserError, match="cannot be read, more than 1 %") as caught:
            store.prepare(source, Reading(), quiet)
    assert "0030.png: No such file or directory" in str(caught.value)
    folder_of(root, 60)  # it is back
    assert len(prepared(root).shards) == 60


def test_describe_says_pad(tmp_path: Path) -> None:
    data = load(str(folder_of(tmp_path, 12, side=10)), Reading(image_size=8, image_fit="pad"))
    assert "RGB 8 x 8 (pad)" in data.summary[0]
