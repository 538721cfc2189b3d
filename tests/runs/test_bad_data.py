"""Bad data on the command line: exit 2 and what to do, or a counted warning; never a traceback."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from forked import open_to_all, start, wait
from making_images import bomb, encoded, folder_of, pixels_of, write
from making_parquet import images, write_parquet
from monge.cli import main

TINY = (
    *("--autoencoder", "identity", "--network", "transformer:width=8,depth=1,heads=1,patch=4"),
    *("--steps", "1", "--batch", "4", "--sample-every", "1", "--grid", "uniform:n=1"),
    *("--flip", "no", "--threads", "1"),
)
"""A run that takes the whole way in a blink."""

HOSTILE = (
    'two\nlines "quoted" it\'s \u00e9\u4e2d\U0001f600 \u202e [bold] %s {0} $HOME `x` \\n & \udcff'
)
"""A name with all that a file name may hold."""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MONGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


def empty(root: Path) -> None:
    (root / "deep" / "deeper").mkdir(parents=True)


def hidden(root: Path) -> None:
    folder_of(root / ".thumbnails", 20)


def other_files(root: Path) -> None:
    root.mkdir()
    for name in ("a.pdf", "b.pdf", "c.heic"):
        (root / name).write_bytes(b"x")


def zero_bytes(root: Path) -> None:
    folder_of(root, 50)
    (root / "0007.png").write_bytes(b"")


def cut_short(root: Path) -> None:
    folder_of(root, 50)
    path = root / "0007.png"
    path.write_bytes(path.read_bytes()[:-60])


def text(root: Path) -> None:
    folder_of(root, 50)
    (root / "0007.png").write_text("404: Not Found\n")


def folders_of_damage(root: Path) -> None:
    folder_of(root, 50, ("a", "b"))
    for name in ("0001", "0003", "0005"):
        (root / "b" / f"{name}.png").write_bytes(b"\x89PNG\r\n\x1a\n")


def with_bomb(root: Path) -> None:
    folder_of(root, 50)
    (root / "0007.png").write_bytes(bomb(20_000))


def one_image(root: Path) -> None:
    folder_of(root, 1)


def all_bad(root: Path) -> None:
    root.mkdir()
    for i in range(30):
        (root / f"{i:02d}.jpg").write_bytes(b"x")


def dangling(root: Path) -> None:
    folder_of(root, 50)
    (root / "0007.png").unlink()
    (root / "0007.png").symlink_to("/nowhere/at/all.png")


def pipe(root: Path) -> None:
    folder_of(root, 50)
    os.mkfifo(root / "zz.png")


def unnamed_labels(root: Path) -> None:
    folder_of(root, 20)
    (root / "labels.csv").write_text("a\x1b[31m,b,c\n1,2,3\n")


def labels_elsewhere(root: Path) -> None:
    folder_of(root, 20)
    (root / "labels.csv").write_text("file_name,label\nx.png,cat\n")


def labels_in_latin(root: Path) -> None:
    folder_of(root, 20)
    (root / "labels.csv").write_bytes("file_name,label\n0000.png,cané\n".encode("latin-1"))


def array_of(values: np.ndarray) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        np.savez(path, x=values)

    return make


def floats(at: float) -> np.ndarray:
    values = np.random.default_rng(0).uniform(-1, 1, (20, 3, 8, 8)).astype(np.float32)
    values[7, 0, 1, 2] = at
    return values


def without_arrays(path: Path) -> None:
    np.savez(path, weights=np.zeros((20, 3)))


def objects(path: Path) -> None:
    np.savez(path, x=np.array([{}] * 20))


def renamed(path: Path) -> None:
    path.write_bytes(encoded(pixels_of(0)))


def cut_archive(path: Path) -> None:
    np.savez(path, x=floats(0))
    path.write_bytes(path.read_bytes()[:-100])


def words(path: Path) -> None:
    parquet.write_table(pa.table({"text": [f"word {i}" for i in range(40)]}), path)


def empty_parquet(path: Path) -> None:
    write_parquet(path, [])


def cut_parquet(path: Path) -> None:
    write_parquet(path, images(20))
    path.write_bytes(path.read_bytes()[:-100])


def damaged_rows(path: Path) -> None:
    write_parquet(path, [*images(48), b"", None])


def two_image_columns(path: Path) -> None:
    parquet.write_table(pa.table({"a": images(20), "b": images(20)}), path)


REFUSED: list[tuple[Callable[[Path], None], str, tuple[str, ...]]] = [
    (empty, "photos", ("photos holds no images", "it is empty")),
    (hidden, "photos", ("photos holds no images",)),
    (other_files, "photos", ("photos holds no images", "2 .pdf, 1 .heic", r"\.png, \.jpg")),
    (zero_bytes, "photos", ("1 of 50", r"0007\.png: the file is empty", "--allow-bad")),
    (cut_short, "photos", ("1 of 50", r"0007\.png: ", "repair or remove", "--allow-bad")),
    (text, "photos", ("1 of 50", r"0007\.png: no image of a known format", "--allow-bad")),
    (folders_of_damage, "photos", ("3 of 50", r"b/0001\.png: ", r"b/0005\.png: ", "--allow-bad")),
    (
        with_bomb,
        "photos",
        (
            "1 of 50",
            r"0007\.png: too large to be decoded safely",
        ),
    ),
    (one_image, "photos", ("1 images are too few", "at least 10")),
    (all_bad, "photos", ("none of its 30 images", r"00\.jpg: ", "and 10 more")),
    (dangling, "photos", (r"1 of 50", r"0007\.png: No such file")),
    (pipe, "photos", (r"1 of 51", r"zz\.png: no file, but a pipe")),
    (unnamed_labels, "photos", (r"labels\.csv", r"a\\x1b\[31m", "--label-column")),
    (labels_elsewhere, "photos", (r"labels\.csv names none of the images", r"0000\.png")),
    (labels_in_latin, "photos", (r"labels\.csv is no table", "utf-8")),
    (array_of(floats(np.nan)), "x.npz", ("1 of 20 hold NaN or infinite", "example 7")),
    (array_of(floats(np.inf)), "x.npz", ("1 of 20 hold NaN or infinite", "example 7")),
    (array_of(floats(200)), "x.npz", (r"images in \[-.*, 200\]", "uint8, or floats in")),
    (array_of(floats(0)[:4]), "x.npz", ("4 examples are too few",)),
    (array_of(floats(0)[:0]), "x.npz", (r"shape \(0, 3, 8, 8\)", "nothing")),
    (array_of(np.array(["a"] * 20)), "x.npz", ("type <U1", "numbers are needed")),
    (array_of(np.zeros((20, 2, 2, 2, 2))), "x.npz", ("images have 3 or 4 axes",)),
    (without_arrays, "x.npz", (r"x\.npz holds \['weights'\]", "should be one of")),
    (objects, "x.npz", (r"cannot read 'x' in .*x\.npz",)),
    (renamed, "x.npz", (r"cannot read .*x\.npz", "no array file")),
    (renamed, "x.npy", (r"cannot read .*x\.npy", "no array file")),
    (renamed, "x.parquet", (r"cannot read .*x\.parquet as parquet",)),
    (renamed, "x.csv", (r"x\.csv, line 1", "not UTF-8")),
    (renamed, "x.png", ("x.png' as data: give a folder of images",)),
    (cut_archive, "x.npz", (r"cannot read .*x\.npz",)),
    (words, "x.parquet", ("text", "--categorical|--drop")),
    (empty_parquet, "x.parquet", (r"x\.parquet: there are no images in it",)),
    (cut_parquet, "x.parquet", (r"cannot read .*x\.parquet as parquet",)),
    (damaged_rows, "x.parquet", ("2 of 50", r"x\.parquet, row 48: the file is empty", "row 49")),
    (two_image_columns, "x.parquet", ("a, b", "--image-column")),
]


@pytest.mark.parametrize("make, name, told", REFUSED)
def test_what_is_refused(
    make: Callable[[Path], None],
    name: str,
    told: tuple[str, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit 2, the file's name and what to do on standard error, and no run folder."""
    make(tmp_path / name)
    assert main(["train", name, *TINY, "--out", "run"]) == 2
    out, error = capsys.readouterr()
    assert out == "" and "error: " in error
    for pattern in told:
        assert re.search(pattern, error), (pattern, error)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "source, told",
    [
        ("nowhere", "no such file or source 'nowhere'"),
        ("digit", "did you mean 'digits'"),
        ("", "no such file or source ''|holds no images|as data"),
        ("nowhere.npz", "no such file: nowhere.npz"),
        ("nowhere.parquet", "nowhere.parquet"),
        ("nowhere.csv", "no such file or source 'nowhere.csv'"),
        ("x" * 5000, "no such file or source"),
        ("/proc/self/mem", "cannot read '/proc/self/mem' as data"),
        ("digits:x=1", "takes no settings"),
        ("target:nonsense", "nonsense"),
    ],
)
def test_what_is_not_there(
    source: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", source, *TINY, "--out", "run"]) == 2
    assert re.search(told, capsys.readouterr().err)
    assert not (tmp_path / "run").exists()


def class_of_one(root: Path) -> None:
    folder_of(root, 20, ("only",))


def hardly_any_bad(root: Path) -> None:
    folder_of(root, 200)
    (root / "0007.png").write_bytes(b"")


def loop(root: Path) -> None:
    folder_of(root, 20, ("a", "b"))
    (root / "a" / "back").symlink_to(root)
    (root / "b" / "itself").symlink_to(root / "b" / "itself")


def mixed(root: Path) -> None:
    """Grey, palette, transparent, 16-bit, CMYK, all sizes and formats."""
    folder_of(root, 20, side=8)
    for i, mode in enumerate(("1", "L", "LA", "P", "RGBA", "CMYK", "I;16")):
        pixels = pixels_of(i, 6 + 3 * i, 1)
        image = Image.fromarray(pixels.astype(np.uint16) * 257 if mode == "I;16" else pixels)
        image = image if mode == "I;16" else image.convert(mode)
        image.save(root / f"{mode.replace(';', '')}.tif")


def duplicates(root: Path) -> None:
    folder_of(root, 20)
    for i in range(10):
        write(root / f"copy {i}.png", pixels_of(i))


def wrong_suffix(root: Path) -> None:
    folder_of(root, 20)
    for path in root.glob("000*.png"):
        path.rename(path.with_suffix(".JPG"))


WARNED: list[tuple[Callable[[Path], None], tuple[str, ...]]] = [
    (class_of_one, ("all images lie in one folder, only: learned without labels",)),
    (hardly_any_bad, ("1 unreadable", r"left out: 0007\.png \(the file is empty\)")),
    (loop, ("a/back leads back to a folder already read", "20 images", "10 a, 10 b")),
    (mixed, ("27 images", "7 TIFF", "1 CMYK", "as RGB 64 x 64")),
    (duplicates, ("10 exact duplicates",)),
    (wrong_suffix, ("20 images", "20 PNG")),
]


@pytest.mark.parametrize("make, told", WARNED)
def test_what_is_warned_of(
    make: Callable[[Path], None],
    told: tuple[str, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Trained on, and told of, on standard error and in the run's report."""
    make(tmp_path / "photos")
    size = ("--image-size", "64") if make is mixed else ()
    patch = [word.replace("patch=4", "patch=16") for word in TINY] if make is mixed else TINY
    assert main(["train", "photos", *patch, *size, "--out", "run"]) == 0
    error = capsys.readouterr().err
    for pattern in told:
        assert re.search(pattern, error), (pattern, error)
    report = json.loads((tmp_path / "run" / "data_report.json").read_text())
    assert report["training"] + report["held_out"] == report["images"]


def test_bad_files_can_be_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders_of_damage(tmp_path / "photos")
    assert main(["train", "photos", *TINY, "--allow-bad", "--out", "run"]) == 0
    error = capsys.readouterr().err
    assert "3 unreadable" in error and "left out: b/0001.png (" in error
    report = json.loads((tmp_path / "run" / "data_report.json").read_text())
    assert (report["images"], report["unreadable"], len(report["unreadable_files"])) == (47, 3, 3)


def test_names_of_any_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the source, of its classes and files, from reading to the report and back again."""
    root, run = tmp_path / HOSTILE, f"run {HOSTILE[:-1]}"  # safetensors wants paths in UTF-8
    for i in range(20):
        write(root / f"{HOSTILE} {i % 2}" / f"{i} {HOSTILE}.png", pixels_of(i))
    (root / f"{HOSTILE} 0" / f"x {HOSTILE}.png").write_bytes(b"")
    assert main(["train", HOSTILE, *TINY, "--out", "run"]) == 2
    out, error = capsys.readouterr()
    lines = [line for line in error.splitlines() if "the file is empty" in line]
    assert len(lines) == 1 and "two\\nlines" in lines[0] and "\\xff.png: " in lines[0]
    assert main(["train", HOSTILE, *TINY, "--allow-bad", "--out", run]) == 0
    out, error = capsys.readouterr()
    assert "next     monge sample" in out and "\u202e" not in out + error
    assert main(["train", HOSTILE, *TINY, "--allow-bad", "--out", run]) == 0
    assert main(["info", run]) == 0
    assert main(["sample", run, "-n", "4", "--out", "drawn " + run]) == 0
    assert main(["cache", "list"]) == 0
    html = (tmp_path / run / "report.html").read_bytes().decode()
    assert "[bold]" in html and 'it\'s "quoted"' not in html
    for written in (tmp_path / run).rglob("*.json"):
        json.loads(written.read_bytes().decode())
    given = f"{HOSTILE[:-1]}.parquet"
    write_parquet(tmp_path / given, images(20), [HOSTILE[:-1]] * 10 + ["b"] * 10)
    assert main(["train", given, *TINY, "--out", "other"]) == 0
    (tmp_path / given).rename(tmp_path / f"{HOSTILE}.parquet")
    capsys.readouterr()
    assert main(["train", f"{HOSTILE}.parquet", *TINY, "--out", "third"]) == 2
    assert "as parquet: its path is not UTF-8: rename it" in capsys.readouterr().err


def test_errors_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    zero_bytes(tmp_path / HOSTILE)
    assert main(["train", HOSTILE, *TINY, "--json"]) == 2
    told = json.loads(capsys.readouterr().out)
    assert told["exit_code"] == 2 and "0007.png: the file is empty" in told["error"]


def test_a_damaged_cache_is_found_and_cleared(
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pixels and latents; what the message says to do mends it."""
    folder_of(tmp_path / "photos", 20)
    command = ["train", "photos", *TINY, "--check-cache", "--out", "run"]
    assert main(command) == 0
    for kind in ("images", "latents"):
        (shard,) = (home / kind).glob("*/*.safetensors")
        content = bytearray(shard.read_bytes())
        content[-1] ^= 1
        shard.write_bytes(content)
        assert main([*command[:-2], "--steps", "2", "--out", "run"]) == 2
        error = capsys.readouterr().err
        assert str(shard) in error
        clear = re.search(r"monge (cache clear [\w.-]+)", error)
        assert clear is not None and main(clear[1].split()) == 0
    assert main([*command[:-2], "--steps", "2", "--out", "run"]) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="changes the user, which only root may")
def test_without_permission(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    open_to_all(tmp_path)
    (tmp_path / "cache").mkdir()
    os.chmod(tmp_path / "cache", 0o777)
    closed = folder_of(tmp_path / "closed", 20)
    inside = folder_of(tmp_path / "inside", 20, ("a", "b"))
    write_parquet(closed / "x.parquet", images(20))
    np.savez(tmp_path / "x.npz", x=floats(0))
    (tmp_path / "x.csv").write_text("a,b\n" + "1,2\n" * 20)
    write_parquet(tmp_path / "x.parquet", images(20))
    for path in (closed, inside / "a", *tmp_path.glob("x.*")):
        os.chmod(path, 0)

    def nobody() -> None:
        os.setegid(65534)
        os.seteuid(65534)
        for source in ("closed", "inside", "x.npz", "x.csv", "x.parquet"):
            assert main(["train", source, *TINY, "--out", "run"]) == 2
        for source in ("closed/x.parquet", "closed/x.csv", "closed/x.npz", "closed/deeper"):
            assert main(["train", source, *TINY, "--out", "run"]) == 2

    assert wait(start(nobody)) == 0
    error = capfd.readouterr().err
    assert error.count("error: ") == 9 and error.count("Permission denied") >= 5
    for name in ("closed", "a", "x.npz", "x.csv", "x.parquet"):
        assert re.search(rf"{re.escape(name)}\b.*Permission denied", error), name
