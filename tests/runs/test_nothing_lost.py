"""Nothing of the user's is lost: every verb that writes or deletes, against hostile places."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from monge.cli import main
from monge.data import cache
from monge.errors import UserError
from monge.fitting.autoencoding import keep_autoencoder_of
from monge.runs import sharing
from monge.runs.run import Run
from monge.system import files, lock, ownership

PRECIOUS = b"precious"
SMALL = ["--network", "mlp:width=16,depth=1", "--steps", "4", "--batch", "16", "--threads", "1"]
SMALL += ["--grid", "uniform:n=2", "--device", "cpu"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table, a run of it, what the run encodes, and a component."""
    home = tmp_path_factory.mktemp("made")
    np.save(home / "x.npy", np.random.default_rng(0).normal(size=(120, 2)).astype("float32"))
    (home / "field.py").write_text("def field(x, t):\n    return -x\n")
    assert main(["train", f"{home}/x.npy", *SMALL, "--out", f"{home}/run"]) == 0
    assert main(["encode", f"{home}/run", f"{home}/x.npy", "--out", f"{home}/noise.npz"]) == 0
    return home


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy of the run, as from somebody else."""
    return Path(shutil.copytree(made / "run", tmp_path / "run"))


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """The user's own file and folder."""
    (tmp_path / "mine" / "photos").mkdir(parents=True)
    (tmp_path / "mine" / "file.txt").write_bytes(PRECIOUS)
    for name in ("000000.png", "grid.png", "samples.csv", "comparison.json", "verify.json", "lock"):
        (tmp_path / "mine" / "photos" / name).write_bytes(PRECIOUS)
    return tmp_path / "mine"


def content(folder: Path) -> dict[str, bytes | str]:
    """All that is in a folder, without following links."""
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        if stat.S_ISREG(mode):
            found[str(path.relative_to(folder))] = path.read_bytes()
        else:
            link = os.readlink(path) if stat.S_ISLNK(mode) else ""
            found[str(path.relative_to(folder))] = f"{stat.S_IFMT(mode):o} {link}"
    return found


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command says that ends with exit code 2."""
    capsys.readouterr()
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "error: " in said and "Traceback" not in said
    return said


VERBS: dict[str, Callable[[Path], list[str]]] = {
    "train": lambda m: ["train", f"{m}/x.npy", *SMALL],
    "distil": lambda m: ["distil", f"{m}/run", "--steps", "4", "--threads", "1"],
    "autoencoder": lambda m: ["autoencoder", f"{m}/x.npy", "--autoencoder", "pca:dim=1"],
    "sample": lambda m: ["sample", f"{m}/run", "-n", "4", "--format", "csv,npz"],
    "encode": lambda m: ["encode", f"{m}/run", f"{m}/x.npy"],
    "decode": lambda m: ["decode", f"{m}/run", f"{m}/noise.npz"],
    "export pt2": lambda m: ["export", f"{m}/run"],
    "export diffusers": lambda m: ["export", f"{m}/run", "--format", "diffusers"],
    "compare": lambda m: ["compare", f"{m}/x.npy", f"{m}/x.npy", "-n", "40"],
    "verify": lambda m: ["verify", f"{m}/x.npy", "--component", f"{m}/field.py:field"],
}
"""Every verb with an --out."""


def link_to_a_file(mine: Path, at: Path) -> Path:
    at.symlink_to(mine / "file.txt")
    return at


def link_to_a_full_folder(mine: Path, at: Path) -> Path:
    at.symlink_to(mine / "photos")
    return at


def link_to_nothing(mine: Path, at: Path) -> Path:
    at.symlink_to("/nonexistent/folder/file")
    return at


def folder_of_others(mine: Path, at: Path) -> Path:
    return mine / "photos"


def file_of_others(mine: Path, at: Path) -> Path:
    return mine / "file.txt"


def pipe(mine: Path, at: Path) -> Path:
    os.mkfifo(at)
    return at


def process_folder(mine: Path, at: Path) -> Path:
    return Path("/proc/1")


def under_the_processes(mine: Path, at: Path) -> Path:
    return Path("/proc/nothing")


def device(mine: Path, at: Path) -> Path:
    return Path("/dev/null")


def root(mine: Path, at: Path) -> Path:
    return Path("/")


def long_name(mine: Path, at: Path) -> Path:
    return at.with_name("x" * 300)


PLACES = (
    link_to_a_file,
    link_to_a_full_folder,
    link_to_nothing,
    folder_of_others,
    file_of_others,
    pipe,
    process_folder,
    under_the_processes,
    device,
    root,
    long_name,
)


@pytest.mark.parametrize("place", PLACES, ids=lambda p: p.__name__)
@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_writes_where_something_else_is(
    verb: str,
    place: Callable[[Path, Path], Path],
    made: Path,
    mine: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = place(mine, tmp_path / "out")
    before = content(tmp_path)
    refused([*VERBS[verb](made), "--out", str(out)], capsys)
    assert content(tmp_path) == before


@pytest.mark.parametrize("verb", ["sample", "compare", "train"])
def test_a_link_that_the_user_names_may_lead_to_an_empty_folder(
    verb: str, made: Path, tmp_path: Path
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "there")
    for _ in range(2):
        assert main([*VERBS[verb](made), "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out").is_symlink() and len(list((tmp_path / "there").iterdir())) > 2


WRITERS: dict[str, Callable[[Path, Path], list[str]]] = {
    "train": lambda r, m: ["train", f"{m}/x.npy", *SMALL, "--steps", "8", "--out", str(r)],
    "sample": lambda r, m: ["sample", str(r), "-n", "4"],
    "evaluate": lambda r, m: ["evaluate", str(r), "-n", "20"],
    "verify": lambda r, m: ["verify", str(r), "--quick"],
    "encode": lambda r, m: ["encode", str(r), f"{m}/x.npy"],
    "decode": lambda r, m: ["decode", str(r), f"{m}/noise.npz"],
    "export": lambda r, m: ["export", str(r)],
}
"""Every verb that writes into a run."""


@pytest.mark.parametrize("name", ["evaluation", "samples", "state", "encoded", "autoencoder"])
@pytest.mark.parametrize("verb", WRITERS)
def test_a_linked_folder_in_a_run_is_refused_by_name(
    verb: str, name: str, run: Path, made: Path, mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if (run / name).exists():
        shutil.copytree(run / name, mine / "photos", dirs_exist_ok=True)
        shutil.rmtree(run / name)
    (run / name).symlink_to(mine / "photos")
    before = content(mine)
    assert str(run / name) in refused(WRITERS[verb](run, made), capsys)
    assert content(mine) == before


@pytest.mark.parametrize("verb", WRITERS)
def test_a_pipe_in_a_run_is_refused_by_name(
    verb: str, run: Path, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "config.yaml").unlink()
    os.mkfifo(run / "config.yaml")
    assert str(run / "config.yaml") in refused(WRITERS[verb](run, made), capsys)


@pytest.mark.parametrize("place", [link_to_a_file, link_to_a_full_folder, link_to_nothing, pipe])
def test_a_lock_that_is_no_file_is_left(
    place: Callable[[Path, Path], Path],
    run: Path,
    made: Path,
    mine: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place(mine, run / "lock")
    before, own = content(mine), content(run)
    assert f"{run / 'lock'} is " in refused(WRITERS["train"](run, made), capsys)
    assert content(mine) == before and content(run) == own


def test_a_lock_of_others_is_left(run: Path, mine: Path) -> None:
    (run / "lock").write_bytes(PRECIOUS)
    with pytest.raises(UserError, match="did not write"), lock.hold(run):
        pass
    (run / "lock").unlink()
    os.link(mine / "file.txt", run / "lock")
    (mine / "file.txt").write_bytes(b"")  # a second name of it, with nothing in it
    with pytest.raises(UserError, match="did not write"), lock.hold(run):
        pass
    assert (run / "lock").exists()


def test_a_lock_that_cannot_be_made_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot lock the folder /proc/1: No such file"):
        lock._lock(Path("/proc/1/lock"))


@pytest.mark.parametrize("verb", ["train", "evaluate"])
def test_links_to_files_are_not_written_through(
    verb: str, run: Path, made: Path, mine: Path
) -> None:
    for name in ("README.md", "log.jsonl", "report.html", "cost.json", ".tmp-log.jsonl"):
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(mine / "file.txt")
    (mine / "file.txt").write_bytes(b"")
    before = content(mine)
    if verb == "train":
        (run / "cost.json").unlink()
    main(WRITERS[verb](run, made))
    assert content(mine) == before


@pytest.mark.parametrize("name", ["README.md", "autoencoder/autoencoder.json", "autoencoder"])
def test_links_are_not_copied_out(name: str, run: Path, mine: Path, tmp_path: Path) -> None:
    loaded = Run.load(run, "cpu")
    (mine / "autoencoder.json").write_bytes((run / "autoencoder/autoencoder.json").read_bytes())
    files.remove(run / name)
    (run / name).symlink_to(mine if name == "autoencoder" else mine / "file.txt")
    with pytest.raises(UserError, match="link"):
        loaded.save_pretrained(tmp_path / "copy")
    if name != "README.md":
        (tmp_path / "new").mkdir()
        with pytest.raises(UserError, match="link"):
            keep_autoencoder_of(run, tmp_path / "new")


def test_the_hubs_own_links_are_copied_out(run: Path, mine: Path, tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "model" / "blobs", tmp_path / "model" / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    for k, path in enumerate(sorted(p for p in run.rglob("*") if p.is_file())):
        shutil.copyfile(path, blobs / str(k))
        link = snapshot / path.relative_to(run)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blobs / str(k))
    copy = Run.load(snapshot, "cpu").save_pretrained(tmp_path / "copy")
    assert (copy / "ema.safetensors").read_bytes() == (run / "ema.safetensors").read_bytes()
    files.remove(snapshot / "README.md")
    (snapshot / "README.md").symlink_to(mine / "file.txt")
    with pytest.raises(UserError, match="link"):
        sharing.save(snapshot, tmp_path / "other")


@pytest.mark.parametrize("change", ["added", "changed", "folder", "link", "manifest", "outside"])
def test_only_what_is_proven_to_be_ours_is_replaced(
    change: str, made: Path, mine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = [*VERBS["sample"](made), "--out", str(out)]
    assert main(words) == 0
    manifest = out / ownership.MANIFEST
    if change == "added":
        (out / "notes.txt").write_bytes(PRECIOUS)
    elif change == "changed":
        (out / "samples.csv").write_bytes(PRECIOUS)
    elif change == "folder":
        (out / "mine").mkdir()
    elif change == "link":
        shutil.copyfile(out / "samples.csv", mine / "file.txt")
        (out / "samples.csv").unlink()
        (out / "samples.csv").symlink_to(mine / "file.txt")
    elif change == "manifest":
        manifest.write_bytes(b"[" * 100_000)
    else:
        listed = json.loads(manifest.read_text())
        listed["files"]["../mine/file.txt"] = listed["files"]["samples.csv"]
        manifest.write_text(json.dumps(listed))
    before = content(tmp_path)
    refused(words, capsys)
    assert content(tmp_path) == before


def test_manifests_name_no_files_elsewhere(
    run: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (manifest,) = (run / "state").glob("step-*/manifest.json")
    found = json.loads(manifest.read_text())
    shutil.copyfile(run / "ema.safetensors", tmp_path / "ema.safetensors")
    found["files"]["../../../ema.safetensors"] = (run / "ema.safetensors").stat().st_size
    manifest.write_text(json.dumps(found))
    assert "names files elsewhere" in refused(WRITERS["train"](run, made), capsys)
    cache.write_entry(tmp_path / "entry", {"n": 1, "shards": {"../ema.safetensors": ""}})
    with pytest.raises(UserError, match="names files elsewhere"):
        cache.read_entry(tmp_path / "entry")


def test_samples_of_two_commands_are_not_mixed(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["sample", f"{made}/run", "--out", str(out), "--format"]
    assert main([*words, "csv,parquet", "-n", "12"]) == 0
    (out / ".tmp-samples.csv-0123abcd").write_bytes(b"half")  # of a command that was killed
    assert main([*words, "csv", "-n", "5", "--seed", "1"]) == 0
    assert sorted(content(out)) == [ownership.MANIFEST, "grid.png", "samples.csv"]
    assert len((out / "samples.csv").read_text().splitlines()) == 6


def test_samples_of_an_older_version_are_kept_and_new_ones_lie_beside_them(run: Path) -> None:
    words = ["sample", str(run), "-n", "5"]
    assert main(words) == 0
    (old,) = (run / "samples").glob("seed-*")
    (old / ownership.MANIFEST).unlink()  # as versions without manifests left it
    (old / "samples.csv").write_bytes(PRECIOUS)
    kept = content(old)
    for _ in range(2):  # the second time what lies beside it is replaced
        assert main(words) == 0
        assert content(old) == kept
        new = old.with_name(f"{old.name}-2")
        assert sorted(content(new)) == [ownership.MANIFEST, "grid.png", "samples.csv"]
        assert set((run / "samples").glob("seed-*")) == {old, new}


@pytest.mark.parametrize("n_written", [0, 1, 2, 3])
def test_a_command_stopped_between_its_files_can_be_given_again(
    n_written: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, real = [], files.write_atomic

    def stopped(path: Path, content: bytes | str) -> Path:
        if len(written) == n_written:
            raise KeyboardInterrupt
        written.append(path)
        return real(path, content)

    for name in ("old", "older"):
        ownership.write(tmp_path / "out", {"a": name.encode(), name: b""})
    with monkeypatch.context() as patched:
        patched.setattr(files, "write_atomic", stopped)
        with pytest.raises(KeyboardInterrupt):
            ownership.write(tmp_path / "out", {"a": b"1", "b": b"2", "c": b"3"})
    ownership.write(tmp_path / "out", {"a": b"4"})
    assert content(tmp_path / "out").keys() == {ownership.MANIFEST, "a"}


def test_a_run_stopped_before_its_configuration_goes_on(made: Path, tmp_path: Path) -> None:
    (tmp_path / "run" / "samples").mkdir(parents=True)
    (tmp_path / "run" / "samples").rmdir()
    (tmp_path / "run" / "lock").write_text("")
    (tmp_path / "run" / ".tmp-config.yaml-1a2b3c4d").write_text("data: x")
    words = [*VERBS["train"](made), "--out", str(tmp_path / "run")]
    assert main(words) == 0
    (tmp_path / "run" / "samples" / ".tmp-a.png-00000000").write_text("")
    assert main(words) == 0
    assert not list((tmp_path / "run").rglob(".tmp-*"))


@pytest.mark.parametrize("kind", cache.KINDS)
def test_the_cache_keeps_what_is_not_ours_and_names_it(
    kind: str,
    mine: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MONGE_CACHE", str(tmp_path / "cache"))
    home = tmp_path / "cache" / kind
    (home / "cats").mkdir(parents=True)
    (home / "cats" / "a.jpg").write_bytes(PRECIOUS)
    (home / "file").write_bytes(PRECIOUS)
    (home / "linked-0123456789ab").symlink_to(mine / "photos")
    mixed = cache.folder_for(kind, "mixed", {})
    cache.write_entry(mixed, {"n": 1, "shards": {}})
    (mixed / "thesis.txt").write_bytes(PRECIOUS)
    before = content(tmp_path)
    whole = cache.folder_for(kind, "whole", {"a": 1})
    cache.write_entry(whole, {"n": 1, "shards": {}})
    left = home / f".cleared-1-{whole.name}"  # by a command that was killed
    cache.write_entry(left, {"n": 1, "shards": {}})
    assert [e.name for e in cache.entries()] == [whole.name]
    assert main(["cache", "clear"]) == 0
    said = capsys.readouterr().out
    assert "removed 1 entries" in said
    assert all(name in said for name in ("cats", "file", "linked-0123456789ab", mixed.name))
    assert content(tmp_path) == before
    for name in ("cats", mixed.name, "linked-0123456789ab", "../cats", "x" * 300):
        refused(["cache", "clear", name], capsys)
    assert content(tmp_path) == before


def test_the_cache_is_not_cleared_through_a_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MONGE_CACHE", str(tmp_path / "other"))
    cache.write_entry(cache.folder_for("images", "whole", {}), {"n": 1, "shards": {}})
    monkeypatch.setenv("MONGE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "images").symlink_to(tmp_path / "other" / "images")
    before = content(tmp_path)
    assert main(["cache", "clear"]) == 0
    assert "left, it is not monge's: images: it is a link" in capsys.readouterr().out
    assert content(tmp_path) == before


def test_temporary_names_are_short_and_not_known_beforehand(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 255)
    assert files.write_atomic(path, "a").read_text() == "a"
    names = {files.temporary_for(path).name for _ in range(20)}
    assert len(names) == 20 and max(map(len, names)) < 255
    with pytest.raises(UserError, match="File name too long"):
        files.write_atomic(tmp_path / ("x" * 256), "a")


def test_a_temporary_file_that_is_cleared_away_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = files._create, []

    def cleared(path: Path, data: bytes) -> None:
        real(path, data)
        calls.append(path)
        if len(calls) == 1:
            files.remove_temporaries(tmp_path)

    monkeypatch.setattr(files, "_create", cleared)
    files.write_atomic(tmp_path / "a", "b")
    assert len(calls) == 2 and content(tmp_path) == {"a": b"b"}
