"""The cache: whole or absent, never half; made once; found out when it is damaged."""

from __future__ import annotations

import json
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forked import kill_when, open_to_all, start, wait
from making_images import folder_of, pixels_of, write
from monge.cli import main
from monge.data import cache
from monge.data.images import decoding, folder, store
from monge.data.images.folder import list_folder
from monge.data.reading import Reading
from monge.data.sources import load
from monge.errors import UserError
from monge.system import lock
from monge.system.progress import Say, quiet

N = 300


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of each test's own, with shards of 16 images."""
    monkeypatch.setattr(decoding, "BLOCK_BYTES", 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setenv("MONGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(tmp_path_factory.mktemp("photos"), N, ("a", "b", "c"))


def prepare(root: Path, say: Say = quiet) -> store.Store:
    return store.prepare(list_folder(root, Reading()), Reading(), say)


def contents(entry: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(entry.iterdir())}


def only_entry(home: Path) -> Path:
    (found,) = (home / "images").iterdir()
    return found


def test_killed_many_times_it_ends_as_if_it_had_not_been(photos: Path, home: Path) -> None:
    whole = contents(prepare(photos).folder)
    assert len(whole) == -(-N // 16) + 2
    for left in home.rglob("*"):
        if left.is_file():
            left.unlink()
    entry = only_entry(home)

    def shards() -> int:
        return len(list(entry.glob("pixels-*")))

    kills, before = 0, []
    for target in (1, 4, 5, 9, 14, 18):
        status = kill_when(start(lambda: prepare(photos)), lambda t=target: shards() >= t)
        kills += status == -9
        kept = {p: p.stat().st_mtime_ns for p in entry.glob("pixels-*")}
        assert all(kept[p] == when for p, when in before), "what was done is not done again"
        before = list(kept.items())
        assert status == 0 or not (entry / cache.ENTRY).exists()
    assert kills >= 4
    (entry / ".tmp-123-pixels-00003.safetensors").write_bytes(b"half a shard")
    assert wait(start(lambda: prepare(photos))) == 0
    assert contents(entry) == whole


def test_a_kill_between_the_last_shard_and_the_entry(photos: Path) -> None:
    entry = prepare(photos).folder
    whole = contents(entry)
    (entry / cache.ENTRY).unlink()
    times = {p: p.stat().st_mtime_ns for p in entry.glob("pixels-*")}
    assert contents(prepare(photos).folder) == whole
    assert times == {p: p.stat().st_mtime_ns for p in entry.glob("pixels-*")}


def test_a_kill_while_colour_starts_over(tmp_path: Path, home: Path) -> None:
    root = folder_of(tmp_path / "x", 599, channels=1)
    write(root / "z.png", pixels_of(1))
    entry = prepare(root).folder
    whole = contents(entry)
    for k in (0, 3):  # shards are being removed, in any order
        (entry / cache.ENTRY).unlink()
        plan = json.loads((entry / decoding.PLAN).read_text())
        (entry / decoding.PLAN).write_text(json.dumps({**plan, "channels": 1, "block": 16}))
        for path in entry.glob("pixels-*"):
            path.unlink()
        for path in write_grey_shards(root, entry):
            if path.name == decoding.shard(k):
                path.unlink()
        assert contents(prepare(root).folder) == whole


@pytest.mark.parametrize(
    "change",
    [
        [],
        {"block": 0},
        {"size": [0, 0]},
        {"size": [8, 8, 8]},
        {"channels": "3"},
        {"fit": "stretch"},
        {"white": None},
        {"white": [0, 1]},
    ],
)
def test_a_damaged_plan_is_told(photos: Path, home: Path, change: Any) -> None:
    entry = prepare(photos).folder
    path = entry / decoding.PLAN
    plan = json.loads(path.read_text())
    for shard in (*entry.glob("pixels-*"), entry / cache.ENTRY):
        shard.unlink()
    path.write_text(json.dumps({**plan, **change} if change else change))
    with pytest.raises(UserError, match=r"plan.json is damaged.*monge cache clear"):
        prepare(photos)


def write_grey_shards(root: Path, entry: Path) -> list[Path]:
    """What had been written before the image in colour was met."""
    source = list_folder(root, Reading())
    plan = decoding._planned(source, Reading(), entry)
    assert plan.channels == 1
    with pytest.raises(decoding._Colour):
        decoding._write_blocks(source, plan, entry, quiet, ())
    return list(entry.glob("pixels-*"))


def test_two_processes_make_it_once(
    photos: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[[Path], bytes] = folder.content_of_file

    def counted(path: Path) -> bytes:
        with open(tmp_path / f"reads-{os.getpid()}", "a") as file:
            file.write("x")
        return real(path)

    def work() -> None:
        def say(line: str) -> None:
            with open(tmp_path / f"said-{os.getpid()}", "a") as file:
                file.write(line + "\n")

        found = prepare(photos, say)
        assert np.array_equal(found.shards.take(np.array([0]))[0], pixels_of(0).transpose(2, 0, 1))

    monkeypatch.setattr(folder, "content_of_file", counted)
    pids = [start(work), start(work)]
    assert [wait(pid) for pid in pids] == [0, 0]
    reads = {pid: tmp_path / f"reads-{pid}" for pid in pids}
    makers = [pid for pid, path in reads.items() if path.exists()]
    assert len(makers) == 1, "one has read the images, the other none of them"
    sampled = list(list_folder(photos, Reading()).sample(256))
    assert len(reads[makers[0]].read_text()) == N + len(sampled)
    (waiter,) = set(pids) - set(makers)
    said = tmp_path / f"said-{waiter}"
    if said.exists():  # unless it came so late that all was done
        assert f"waiting for process {makers[0]}" in said.read_text()


def test_the_second_process_says_that_it_waits(photos: Path, home: Path, tmp_path: Path) -> None:
    entry = prepare(photos).folder
    (entry / cache.ENTRY).unlink()
    go = tmp_path / "go"

    def holder() -> None:
        with lock.hold(entry):
            go.touch()
            while go.exists():
                time.sleep(0.01)

    pid = start(holder)
    while not go.exists():
        time.sleep(0.01)
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        go.unlink(missing_ok=True)

    prepare(photos, say)
    assert wait(pid) == 0
    assert lines[0].startswith(f"waiting for process {pid} on ") and str(entry) in lines[0]


def test_a_waiting_process_takes_over_from_a_killed_one(photos: Path, home: Path) -> None:
    first = start(lambda: prepare(photos))
    while not list(home.rglob("pixels-*")):
        time.sleep(0.001)
    second = start(lambda: prepare(photos))
    time.sleep(0.02)
    os.kill(first, 9)
    assert wait(first) in (-9, 0) and wait(second) == 0
    entry = only_entry(home)
    assert (entry / cache.ENTRY).exists() and not (entry / lock.NAME).exists()


def test_changed_files_are_read_again(tmp_path: Path, home: Path) -> None:
    root = folder_of(tmp_path / "x", 20)
    before = prepare(root)
    assert prepare(root).folder == before.folder
    write(root / "0003.png", pixels_of(77))
    after = prepare(root)
    assert after.folder != before.folder
    assert np.array_equal(after.shards.take(np.array([3]))[0], pixels_of(77).transpose(2, 0, 1))


def test_a_change_behind_restored_times_is_found_on_request(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "x", 40)
    (root / "0001.png").write_bytes(b"")
    reading = Reading(allow_bad=True)
    load(str(root), reading, check_cache=True)
    victim = root / "0013.png"
    status, content = victim.stat(), bytearray(victim.read_bytes())
    content[-20] ^= 1
    victim.write_bytes(content)
    os.utime(victim, ns=(status.st_atime_ns, status.st_mtime_ns))
    load(str(root), reading)  # not looked for
    with pytest.raises(UserError, match=r"1 files .* the first is 0013\.png: monge cache clear"):
        load(str(root), reading, check_cache=True)


def test_a_flipped_byte_in_a_shard_is_found_on_request(photos: Path, home: Path) -> None:
    lines: list[str] = []
    load(str(photos), say=lines.append, check_cache=True)
    assert any("source's files are unchanged" in line for line in lines)
    shard = only_entry(home) / decoding.shard(4)
    content = bytearray(shard.read_bytes())
    content[-100] ^= 4
    shard.write_bytes(content)
    with pytest.raises(UserError) as caught:
        load(str(photos), check_cache=True)
    assert str(shard) in str(caught.value)
    assert f"monge cache clear {shard.parent.name}" in str(caught.value)
    assert main(["cache", "clear", shard.parent.name]) == 0
    load(str(photos), check_cache=True)


@pytest.mark.parametrize(
    "damage", ["cut", "cut header", "empty", "gone", "noise", "entry", "entry is a list"]
)
def test_damage_is_told_with_its_remedy(photos: Path, home: Path, damage: str) -> None:
    entry = prepare(photos).folder
    shard = entry / decoding.shard(2)
    content = shard.read_bytes()
    if damage == "entry":
        (entry / cache.ENTRY).write_text('{"n": 3')
    elif damage == "entry is a list":
        (entry / cache.ENTRY).write_text("[]")
    elif damage == "gone":
        shard.unlink()
    else:
        kept = {"cut": content[:-1], "cut header": content[:40], "empty": b"", "noise": bytes(500)}
        shard.write_bytes(kept[damage])
    with pytest.raises(UserError) as caught:
        prepare(photos)
    assert str(entry) in str(caught.value)
    assert f"monge cache clear {entry.name}" in str(caught.value)
    assert main(["cache", "list"]) == 0 and main(["cache", "clear", entry.name]) == 0
    assert len(prepare(photos).shards) == N


def test_list_and_clear(
    photos: Path, tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(photos)
    other = prepare(folder_of(tmp_path / "other one", 20)).folder
    assert main(["cache", "list", "--json"]) == 0
    listed = {e["name"]: e for e in json.loads(capsys.readouterr().out)}
    assert listed[other.name]["n"] == 20 and listed[other.name]["whole"]
    assert listed[other.name]["bytes"] == sum(p.stat().st_size for p in other.iterdir())
    assert listed[other.name]["source"] == str(tmp_path / "other one")
    assert main(["cache", "clear", other.name, "nonsense"]) == 2
    assert "no cache entry 'nonsense'" in capsys.readouterr().err and other.exists()
    assert main(["cache", "clear", other.name]) == 0
    assert not other.exists() and len(cache.entries()) == 1
    assert main(["cache", "clear"]) == 0
    assert cache.entries() == [] and list((home / "images").iterdir()) == []


def test_entries_in_use_are_left(photos: Path, tmp_path: Path, home: Path) -> None:
    """By a process that has opened one, and by one that is making it."""
    opened = prepare(photos).folder
    made = cache.folder_for("images", "unfinished", {})
    stop = tmp_path / "stop"

    def user() -> None:
        prepare(photos)
        with lock.hold(made):
            (tmp_path / "ready").touch()
            while not stop.exists():
                time.sleep(0.01)

    pid = start(user)
    while not (tmp_path / "ready").exists():
        time.sleep(0.01)
    free = prepare(folder_of(tmp_path / "free", 12)).folder
    removed, busy = cache.clear()
    assert removed == [free.name] and sorted(busy) == sorted([opened.name, made.name])
    assert opened.exists() and made.exists()
    stop.touch()
    assert wait(pid) == 0
    removed, busy = cache.clear()
    assert sorted(removed) == sorted([opened.name, made.name]) and not busy


def test_what_is_cleared_under_a_reader_stays_readable(photos: Path) -> None:
    found = prepare(photos)
    cache.clear()
    order = [int(Path(p).stem) for p in list_folder(photos, Reading()).paths]
    last = found.shards.take(np.array([N - 1]))[0]
    assert np.array_equal(last, pixels_of(order[-1]).transpose(2, 0, 1))


def test_a_full_disk(photos: Path, home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """By a limit on the size of files, which fails as a full disk does."""

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))  # of a shard of 4 kB
        assert main(["train", str(photos), "--out", str(home / "run")]) == 2

    assert wait(start(work)) == 0
    error = capfd.readouterr().err
    assert "error: cannot write" in error and "make room" in error and "Traceback" not in error
    entry = only_entry(home)
    assert sorted(p.name for p in entry.iterdir()) == [decoding.PLAN]
    assert not (home / "run").exists()
    assert len(prepare(photos).shards) == N


def test_a_cache_that_cannot_be_made(
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MONGE_CACHE", str(tmp_path / "file" / "cache"))
    assert main(["train", str(photos)]) == 2
    assert f"cannot write to the folder {tmp_path}/file/cache" in capsys.readouterr().err


def as_nobody(work: Callable[[], None]) -> int:
    def limited() -> None:
        os.setegid(65534)
        os.seteuid(65534)
        work()

    return wait(start(limited))


@pytest.mark.skipif(os.geteuid() != 0, reason="changes the user, which only root may")
def test_without_permission(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_to_all(tmp_path)
    root = folder_of(tmp_path / "x", 40)

    def unwritable() -> None:
        with pytest.raises(UserError, match=r"cannot write to the folder .* Permission denied"):
            prepare(root)

    home.mkdir()
    os.chmod(home, 0o555)
    assert as_nobody(unwritable) == 0

    def read_only() -> None:
        assert len(prepare(root).shards) == 40
        with pytest.raises(UserError, match="cannot"):
            cache.clear()

    os.chmod(home, 0o755)
    entry = prepare(root).folder
    assert as_nobody(read_only) == 0, "a cache of others can be used"
    assert (entry / cache.ENTRY).exists()

    def unreadable() -> None:
        os.environ["MONGE_CACHE"] = str(mine)
        with pytest.raises(UserError, match=r"0007\.png: Permission denied"):
            prepare(root)
        os.environ["MONGE_CACHE"] = str(mine)
        with pytest.raises(UserError, match=r"cannot be read: \. Permission denied"):
            list_folder(tmp_path / "closed", Reading())

    mine = tmp_path / "mine"
    mine.mkdir()
    os.chmod(mine, 0o777)
    os.chmod(root / "0007.png", 0)
    folder_of(tmp_path / "closed", 3)
    os.chmod(tmp_path / "closed", 0)
    assert as_nobody(unreadable) == 0


def test_clearing_does_not_take_what_another_has_just_begun(home: Path, tmp_path: Path) -> None:
    """A process waits for an entry that is being cleared: then it makes it anew."""
    root = folder_of(tmp_path / "x", 40)
    entry = prepare(root).folder
    (entry / cache.ENTRY).unlink()
    pids: list[int] = []
    with lock.hold(entry):
        pids += [start(lambda: prepare(root)) for _ in range(3)]
        time.sleep(0.3)
        entry.rename(entry.with_name(".cleared"))  # as `clear` does
    assert [wait(pid) for pid in pids] == [0, 0, 0]
    assert len(prepare(root).shards) == 40


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MONGE_CACHE", "~/elsewhere")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.root() == tmp_path / "elsewhere"
    monkeypatch.delenv("MONGE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.root() == tmp_path / "xdg" / "monge"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.root() == tmp_path / ".cache" / "monge"
    name = cache.folder_for("images", "../../etc: my \udcff photos", {"a": "\udcff"}).name
    assert name.startswith("etc_my_photos-") and name.isascii()
