"""Folders of images: labels, splits and lists as they are found in the wild."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from making_images import encoded, folder_of, pixels_of, write
from monge.data.images.folder import Folder, list_folder
from monge.data.reading import Reading
from monge.errors import UserError


def listed(root: Path, **reading: object) -> Folder:
    return list_folder(root, Reading(**reading))  # type: ignore[arg-type]


def test_classes_by_folder(tmp_path: Path) -> None:
    folder_of(tmp_path, 6, ("cat", "dog"))
    write(tmp_path / "dog" / "deeper" / "x.PNG", pixels_of(9))
    (tmp_path / "cat" / "notes.txt").write_text("not a picture")
    found = listed(tmp_path)
    assert found.paths[:2] == ["cat/0000.png", "cat/0002.png"] and found.paths[-1].endswith("x.PNG")
    assert found.labels == ["cat"] * 3 + ["dog"] * 4 and found.heldout is None
    assert dict(found.ignored) == {".txt": 1}
    raws = list(found.rows(0))
    assert raws[0].load() == encoded(pixels_of(0)) and raws[0].label == "cat"
    assert [r.name for r in found.rows(5)] == found.paths[5:]


def test_flat_one_class_and_loose(tmp_path: Path) -> None:
    assert listed(folder_of(tmp_path / "flat", 3)).labels is None
    one = listed(folder_of(tmp_path / "one", 3, ("only",)))
    assert one.labels is None and "one folder, only" in one.notes[0]
    write(folder_of(tmp_path / "loose", 4, ("a", "b")) / "beside.png", pixels_of(7))
    loose = listed(tmp_path / "loose")
    assert loose.labels == ["a", "a", "b", "b"] and "left out (beside.png)" in loose.notes[0]
    write(tmp_path / "loose" / "another.png", pixels_of(8))
    loose = listed(tmp_path / "loose")
    assert loose.labels is None and "2 of 6 images lie beside" in loose.notes[0]


@pytest.mark.parametrize("test", ["test", "val", "Validation", "held-out"])
def test_split_folders(tmp_path: Path, test: str) -> None:
    folder_of(tmp_path / "train", 4, ("a", "b"))
    folder_of(tmp_path / test, 2, ("a", "b"))
    found = listed(tmp_path)
    assert found.heldout is not None and sum(found.heldout) == 2
    assert all(p.startswith(test) == h for p, h in zip(found.paths, found.heldout, strict=True))
    assert found.labels is not None and found.labels.count("b") == 3
    # A third folder at the top: these are three classes.
    folder_of(tmp_path / "other", 2)
    assert listed(tmp_path).heldout is None and set(listed(tmp_path).labels or ()) == {
        "train",
        test,
        "other",
    }


LISTS = {
    "labels.csv": "file_name,label\n0000.png,x\n0001.png,y\n0002.png,x\n",
    "with BOM": "\ufefffile_name,label\n0000.png,x\n0001.png,y\n0002.png,x\n",
    "semicolons": "file_name;label\n0000.png;x\n0001.png;y\n0002.png;x\n",
    "tabs and CRLF": "file_name\tlabel\r\n0000.png\tx\r\n0001.png\ty\r\n0002.png\tx\r\n",
    "other order": "id_number,label,file_name\n1,x,0000.png\n2,y,0001.png\n3,x,0002.png\n",
    "spaces": "file_name, label\n0000.png, x\n 0001.png,y \n0002.png,x\n",
    "capitals": "Filename,Label\n0000.png,x\n0001.png,y\n0002.png,x\n",
    "quotes": '"file_name","label"\n"0000.png","x"\n"0001.png","y"\n"0002.png","x"\n',
    "any two": "picture,animal\n0000.png,x\n0001.png,y\n0002.png,x\n",
    "other paths": "path,class\n./0000.png,x\nROOT/0001.png,y\na/../0002.png,x\n",
    "same twice": "file_name,label\n0000.png,x\n0001.png,y\n0002.png,x\n./0000.png,x\n",
}


@pytest.mark.parametrize("name", LISTS)
def test_lists_of_labels(tmp_path: Path, name: str) -> None:
    folder_of(tmp_path, 3)
    text = LISTS[name].replace("ROOT", str(tmp_path))
    (tmp_path / "labels.csv").write_bytes(text.encode())
    found = listed(tmp_path)
    assert found.labels == ["x", "y", "x"] and not found.missing and not found.notes


def test_metadata_of_a_folder_named_in_another_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_of(tmp_path / "photos", 3, ("p", "q"))
    rows = "q/0001.png,no\np/0000.png,yes\np/0002.png,no\n"
    (tmp_path / "photos" / "metadata.csv").write_text("file_name,good\n" + rows)
    monkeypatch.chdir(tmp_path)
    found = listed(Path("photos"))
    assert found.paths == ["p/0000.png", "p/0002.png", "q/0001.png"]
    assert found.labels == ["yes", "no", "no"]  # the list comes before the folders
    assert found.text == str(tmp_path / "photos")


def test_lists_with_holes(tmp_path: Path) -> None:
    folder_of(tmp_path, 6)
    (tmp_path / "labels.csv").write_text(
        "file_name,label\n0000.png,x\n0001.png,y\ngone.png,y\n0003.png,\n0004.png,x\n0004.png,y\n"
        "short row\n"
    )
    found = listed(tmp_path)
    assert found.paths == ["0000.png", "0001.png", "0004.png"] and found.labels == ["x", "y", "x"]
    assert [name for name, _ in found.missing] == ["gone.png", "short row"]
    assert found.notes[0] == "1 rows of labels.csv have no label (empty, NA, nan, ?)"
    assert found.notes[1].startswith("3 images that labels.csv gives no label")
    assert "several labels" in found.notes[2] and "0004.png" in found.notes[2]


def test_the_list_and_the_split_together(tmp_path: Path) -> None:
    folder_of(tmp_path / "train", 3)
    folder_of(tmp_path / "test", 2)
    rows = [f"train/{i:04d}.png,{'ab'[i % 2]}" for i in range(3)] + ["test/0001.png,b"]
    (tmp_path / "labels.csv").write_text("\n".join(["file_name,label", *rows]))
    found = listed(tmp_path)
    assert found.paths[0] == "test/0001.png" and found.heldout == [True, False, False, False]
    assert found.labels == ["b", "a", "b", "a"]


BAD_LISTS = {
    "empty": (b"", "header and two columns"),
    "no rows": (b"file_name,label\n", "header and two columns"),
    "one column": (b"file_name\n0000.png\n", "header and two columns"),
    "one name twice": (b"label,label\n0000.png,x\n", "header and two columns"),
    "latin-1": (b"file_name,label\n0000.png,\xe4\n", "no table of file names"),
    "other files": (b"file_name,label\nx.png,1\n", "names none of the images"),
    "ambiguous": (b"file_name,a,b\n0000.png,1,2\n", "--label-column"),
    "huge field": (b"file_name,label\n0000.png," + b"x" * 200_000, "no table of file names"),
}


@pytest.mark.parametrize("name", BAD_LISTS)
def test_bad_lists(tmp_path: Path, name: str) -> None:
    folder_of(tmp_path, 2)
    content, message = BAD_LISTS[name]
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        listed(tmp_path)
    assert "labels.csv" in str(caught.value)


def test_the_label_column_is_chosen(tmp_path: Path) -> None:
    folder_of(tmp_path, 2)
    (tmp_path / "labels.csv").write_text("file_name,a,b\n0000.png,1,2\n0001.png,3,4\n")
    assert listed(tmp_path, label_column="b").labels == ["2", "4"]
    with pytest.raises(UserError, match="no column 'c'"):
        listed(tmp_path, label_column="c")
    (tmp_path / "labels.csv").unlink()
    with pytest.raises(UserError, match=r"needs a labels\.csv or metadata\.csv"):
        listed(tmp_path, label_column="b")


def test_limit_is_spread_over_the_folder(tmp_path: Path) -> None:
    folder_of(tmp_path, 20, ("a", "b"))
    found = listed(tmp_path, limit=4)
    assert len(found.paths) == 4 and found.labels == ["a", "a", "b", "b"]
    assert len(listed(tmp_path, limit=100).paths) == 20


def test_links_loops_and_pipes(tmp_path: Path) -> None:
    folder_of(tmp_path / "x", 3)
    elsewhere = folder_of(tmp_path / "elsewhere", 2)
    root = tmp_path / "x"
    (root / "loop").symlink_to(root)
    (root / "self.png").symlink_to(root / "self.png")
    (root / "dangling.png").symlink_to(root / "nowhere")
    (root / "linked").symlink_to(elsewhere)
    (root / "link.png").symlink_to(root / "0000.png")
    os.mkfifo(root / "pipe.png")
    (root / "named.png").mkdir()
    write(root / "named.png" / "in.png", pixels_of(8))
    found = listed(root)
    assert found.paths == [
        *("0000.png", "0001.png", "0002.png", "link.png"),
        *("linked/0000.png", "linked/0001.png", "named.png/in.png"),
    ]
    assert [name for name, _ in found.missing] == ["dangling.png", "pipe.png", "self.png"]
    assert "leads back" in found.notes[0]


def test_deeply_nested(tmp_path: Path) -> None:
    """Deeper than Python's calls may be, and deeper than a path may be long."""
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1100):
        os.mkdir("d", dir_fd=here)
        here, above = os.open("d", os.O_RDONLY, dir_fd=here), here
        os.close(above)
    out = os.open("deep.png", os.O_WRONLY | os.O_CREAT, dir_fd=here)
    os.write(out, encoded(pixels_of(0)))
    os.close(out)
    os.close(here)
    found = listed(tmp_path)
    subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)  # too deep for Python's rmtree
    assert len(found.paths) == 1 and found.paths[0].count("d/") == 1100


def test_names_of_any_kind(tmp_path: Path) -> None:
    names = [
        "a b.png",
        "q'\"uote.png",
        "naïve 模型 🙂.png",
        "two\nlines.png",
        "tab\t.png",
        "-rf.png",
    ]
    for i, name in enumerate(names):
        write(tmp_path / name, pixels_of(i))
    raw = os.fsencode(tmp_path) + b"/bad\xff\xfe.png"
    with open(raw, "wb") as file:
        file.write(encoded(pixels_of(99)))
    raws = list(listed(tmp_path).rows(0))
    assert len(raws) == 7
    assert sorted(r.load() for r in raws) == sorted(encoded(pixels_of(i)) for i in [*range(6), 99])
    assert all(r.name.isprintable() and r.name.encode() for r in raws)
    assert r"bad\xff\xfe.png" in [r.name for r in raws]
    assert r"two\nlines.png" in [r.name for r in raws]


def test_empty_folders(tmp_path: Path) -> None:
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    with pytest.raises(UserError, match="it is empty"):
        listed(tmp_path)
    (tmp_path / "a" / "table.xlsx").write_bytes(b"x")
    with pytest.raises(UserError, match=r"it holds 1 \.xlsx"):
        listed(tmp_path)
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"cannot be read: dangling\.png"):
        listed(tmp_path)


def test_hidden_files_are_left_out(tmp_path: Path) -> None:
    folder_of(tmp_path, 2)
    for name in (".hidden.png", ".thumbs/a.png", "__MACOSX/b.png"):
        write(tmp_path / name, pixels_of(5))
    assert listed(tmp_path).paths == ["0000.png", "0001.png"]
    assert listed(tmp_path).labels is None


def test_facts_follow_the_files(tmp_path: Path) -> None:
    folder_of(tmp_path, 3)
    before = listed(tmp_path).facts
    assert listed(tmp_path).facts == before
    os.utime(tmp_path / "0001.png", ns=(1, 1))
    assert listed(tmp_path).facts != before
