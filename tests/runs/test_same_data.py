"""`train` goes on with the data of its run only: names, order, types and content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from making_images import encoded, pixels_of
from monge.errors import UserError
from monge.fitting.train import train
from monge.runs.run import Run
from monge.runs.spec import TrainSpec

SMALL = {
    "network": "mlp:width=8,depth=1",
    "batch": 8,
    "grid": "uniform:n=1",
    "threads": 1,
    "sample_every": 100,
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONGE_CACHE", str(tmp_path / ".cache"))


def table(path: Path, change: Callable[[dict[str, list[Any]]], Any] = lambda c: None) -> Path:
    rng = np.random.default_rng(0)
    columns: dict[str, list[Any]] = {
        "a": [f"{v:.3f}" for v in rng.normal(size=40)],
        "b": [f"{v:.3f}" for v in rng.normal(5, 1, 40)],
        "kind": ["uvw"[k % 3] for k in range(40)],
        "y": ["cat", "dog"] * 20,
    }
    columns = change(columns) or columns
    lines = [",".join(columns), *map(",".join, zip(*columns.values(), strict=True))]
    path.write_text("\n".join(lines))
    return path


def spec_of(path: Path, steps: int, **settings: Any) -> TrainSpec:
    return TrainSpec(data=str(path), steps=steps, label_column="y", **{**SMALL, **settings})


def content(folder: Path) -> dict[str, str]:
    files = [p for p in folder.rglob("*") if p.is_file() and p.name != "lock"]
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def renamed(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {{"a": "b", "b": "a"}.get(k, k): v for k, v in columns.items()}


def swapped(columns: dict[str, list[Any]], name: str, old: str, new: str) -> None:
    columns[name] = [{old: new, new: old}.get(v, v) for v in columns[name]]


CHANGES: list[tuple[str, Callable[[dict[str, list[Any]]], Any], str]] = [
    ("a column renamed", lambda c: {"z": c.pop("a"), **c}, "columns that are gone: 'a'"),
    ("two columns swapped", renamed, "columns stand in another order"),
    ("a column more", lambda c: c.update(new=["0.1", "0.2"] * 20), "columns that are new: 'new'"),
    ("a column less", lambda c: c.pop("b") and c, "columns that are gone: 'b'"),
    ("another type", lambda c: c.update(b=["7", "8", "9", "5"] * 10), "column 'b' had type double"),
    ("a category more", lambda c: c["kind"].__setitem__(slice(0, 3), ["t"] * 3), "are new: 't'"),
    ("a class renamed", lambda c: c.update(y=["cat", "fox"] * 20), "values of column 'y' that are"),
    ("one number", lambda c: c["a"].__setitem__(3, "9.000"), "their content differs: fingerprint"),
    ("a row less", lambda c: {k: v[:-1] for k, v in c.items()}, "held-out examples, and are now"),
]  # fmt: skip


def test_a_table_that_changes_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    path, folder = table(tmp_path / "t.csv"), tmp_path / "run"
    train(spec_of(path, 2), out=folder)
    before, run = content(folder), Run.load(folder)
    for what, change, message in CHANGES:
        table(path, change)
        with pytest.raises(UserError) as raised:
            train(spec_of(path, 4), out=folder)
        text = str(raised.value)
        assert f"the data have changed since {folder} was trained" in text, what
        assert message in text or (what == "a row less" and "examples, and are now" in text), text
        assert content(folder) == before, what
        with pytest.raises(UserError, match="has changed since the run was trained"):
            run.data()
    table(path)
    run.data()  # as it was


def test_with_the_flag_other_examples_are_learned_in_the_coordinates_of_the_run(
    tmp_path: Path,
) -> None:
    path, folder = table(tmp_path / "t.csv"), tmp_path / "run"
    train(spec_of(path, 2), out=folder)
    kept = json.loads((folder / "table.json").read_text())
    old = json.loads((folder / "data.json").read_text())["fingerprint"]
    table(path, lambda c: c.update(a=[f"{float(v) + 3:.3f}" for v in c["a"]]))
    train(spec_of(path, 4, changed_data=True), out=folder)
    assert json.loads((folder / "table.json").read_text()) == kept
    new = json.loads((folder / "data.json").read_text())["fingerprint"]
    journal = json.loads((folder / "changes.json").read_text())
    told = journal[-1]["changed"]
    assert told["data"]["from"].startswith(old) and told["data"]["to"].startswith(new) != old
    assert told["changed_data"] == {"from": False, "to": True}
    for what, change, _ in CHANGES[1:7:2]:  # another form is refused even so
        table(path, change)
        with pytest.raises(UserError, match="have changed since"):
            train(spec_of(path, 6, changed_data=True), out=folder)
        assert what


def test_images_and_classes_that_change_are_refused(tmp_path: Path) -> None:
    root, folder = tmp_path / "photos", tmp_path / "run"
    for k in range(24):
        home = root / ("cat" if k % 2 else "dog")
        home.mkdir(parents=True, exist_ok=True)
        (home / f"{k:02d}.png").write_bytes(encoded(pixels_of(k, 8)))
    settings = {**SMALL, "autoencoder": "pca:dim=3", "flip": "no"}
    train(TrainSpec(data=str(root), steps=2, **settings), out=folder)
    before = content(folder)
    again = TrainSpec(data=str(root), steps=4, **settings)
    (root / "cat").rename(root / "x")
    with pytest.raises(UserError, match=r"classes that are gone: 'cat'\n.*that are new: 'x'"):
        train(again, out=folder)
    (root / "x").rename(root / "zebra")
    (root / "dog").rename(root / "cat")
    (root / "zebra").rename(root / "dog")  # names swapped
    with pytest.raises(UserError, match="their content differs: fingerprint"):
        train(again, out=folder)
    (root / "cat").rename(root / "zebra")
    (root / "dog").rename(root / "cat")
    (root / "zebra").rename(root / "dog")
    one = root / "dog" / "00.png"
    kept = one.read_bytes()
    one.write_bytes(encoded(pixels_of(99, 8)))
    with pytest.raises(UserError, match="their content differs: fingerprint"):
        train(again, out=folder)
    assert content(folder) == before
    one.write_bytes(kept)
    train(again, out=folder)
