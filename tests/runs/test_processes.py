"""Several processes do together, to the bit, what one does; and they end together."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

import ranks
from monge.cli import main
from monge.errors import UserError
from monge.evaluation import evaluate as evaluation
from monge.evaluation.baselines import baselines, gaussian_latents
from monge.latents import cache as latent_cache
from monge.runs.run import Run
from monge.system import processes, row_sharing
from monge.system.files import read_json


def copy_of(run: Run, to: Path) -> Path:
    shutil.copytree(run.folder, to)
    return to


@pytest.mark.parametrize("size", [2, 3])
def test_samples_are_the_same_to_the_bit(digits_run: Run, tmp_path: Path, size: int) -> None:
    command = ["sample", str(digits_run.folder), "-n=700", "--format=npz", "--threads=1"]
    ended = ranks.run(size, [*command, f"--out={tmp_path / 'many'}"], tmp_path / "said")
    assert [e.code for e in ended] == [0] * size
    assert "700 samples" in ended[0].out
    assert not any(e.out + e.err for e in ended[1:])
    assert main([*command, f"--out={tmp_path / 'one'}"]) == 0
    many, one = ((tmp_path / name / "samples.npz").read_bytes() for name in ("many", "one"))
    assert many == one


def test_the_shared_parts_of_an_evaluation_are_the_same_to_the_bit(
    table_run: Run, tmp_path: Path
) -> None:
    """Samples by an adaptive solver, log-density and baselines."""

    def parts(file: Path) -> int:
        run = Run.load(table_run.folder, "cpu")
        with processes.together(), row_sharing.lead(*run.tasks()) as leading:
            if leading:
                data = run.data()
                samples = run.sample(600, solver="dopri5:rtol=1e-2,atol=1e-2")
                density = run.log_density(data.heldout[:600], data.heldout_label[:600], probes=2)
                found = {"x": samples.x, "value": density.value, "stderr": density.stderr}
                save_file(
                    {
                        **found,
                        **baselines(run, data, gaussian_latents(run, data, 600, seed=0), seed=0),
                    },
                    file,
                )
                print(samples.info["evaluations_per_sample"])
        return 0

    said = tmp_path / "said"
    one, three = tmp_path / "one", tmp_path / "three"
    (alone,) = ranks.wait(ranks.start(1, lambda: parts(one), said), said)
    ended = ranks.wait(ranks.start(3, lambda: parts(three), tmp_path), tmp_path)
    assert [e.code for e in ended] == [0] * 3, ended
    assert alone.out == ended[0].out
    assert one.read_bytes() == three.read_bytes()


@pytest.mark.slow
def test_an_evaluation_is_the_same_to_the_bit(table_run: Run, tmp_path: Path) -> None:
    folders = [copy_of(table_run, tmp_path / name) for name in ("one", "two")]
    settings = ["-n=300", "--threads=1", "--solver=dopri5:rtol=1e-2,atol=1e-2"]
    assert main(["evaluate", str(folders[0]), *settings]) == 0
    ended = ranks.run(2, ["evaluate", str(folders[1]), *settings], tmp_path / "said")
    assert [e.code for e in ended] == [0, 0], ended
    assert ended[1].out == ended[1].err == ""
    one, two = (read_json(f / "evaluation" / "evaluation.json") for f in folders)
    assert one.pop("card") != two.pop("card")  # which names the folder
    for found, folder in ((one, folders[0]), (two, folders[1])):
        for step in found["next"]:  # so do the commands
            step["command"] = step["command"].replace(str(folder), "RUN")
    assert one == two


def failing_in_a_helper(error: BaseException) -> None:
    """Make sampling fail in the second process alone."""

    def fail(*_: object) -> None:
        raise error

    if os.environ["RANK"] == "1":
        Run.draw_rows = fail  # type: ignore[method-assign]
        fail.__name__ = "draw_rows"


def test_what_all_processes_refuse_is_told_once(tmp_path: Path) -> None:
    ended = ranks.run(2, ["train", "nowhere.npz", f"--out={tmp_path / 'run'}"], tmp_path)
    assert [e.code for e in ended] == [2, 2]
    assert "".join(e.err for e in ended) == "error: no such file: nowhere.npz\n"
    assert ranks.run(2, ["train", "--nonsense"], tmp_path / "args")[1].err == ""


def test_what_one_refuses_ends_all(table_run: Run, tmp_path: Path) -> None:
    def work() -> int:
        failing_in_a_helper(UserError("the second process cannot go on"))
        return main(["sample", str(table_run.folder), "-n=2000"])

    ended = ranks.wait(ranks.start(3, work, tmp_path), tmp_path)
    assert [e.code for e in ended] == [2, 2, 2]
    assert [e.err for e in ended] == ["", "error: the second process cannot go on\n", ""]


def test_a_defect_in_one_is_shown_once_and_ends_all(table_run: Run, tmp_path: Path) -> None:
    def work() -> int:
        failing_in_a_helper(ZeroDivisionError("a defect"))
        return main(["sample", str(table_run.folder), "-n=2000"])

    ended = ranks.wait(ranks.start(2, work, tmp_path), tmp_path)
    assert [e.code for e in ended] == [1, 1]
    assert "a defect" in ended[1].err and ended[0].err == ""


def test_a_killed_process_ends_the_others(table_run: Run, tmp_path: Path) -> None:
    def work() -> int:
        if os.environ["RANK"] == "1":
            Run.draw_rows = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore
            Run.draw_rows.__name__ = "draw_rows"
        return main(["sample", str(table_run.folder), "-n=2000"])

    ended = ranks.wait(ranks.start(2, work, tmp_path), tmp_path)
    assert [e.code for e in ended] == [2, -signal.SIGKILL]
    assert ended[0].err.startswith("error: another process of this command has ended")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_all(table_run: Run, tmp_path: Path, number: signal.Signals) -> None:
    """The main process measures, the other waits for it: each is reached, wherever it waits."""
    begun = tmp_path / "begun"

    def work() -> int:
        def measure(*_: object, **__: object) -> None:
            begun.touch()
            time.sleep(60)

        evaluation.evaluate_run = measure  # type: ignore[assignment]
        return main(["evaluate", str(table_run.folder)])

    pids = ranks.start(2, work, tmp_path)
    deadline = time.monotonic() + 60
    while not begun.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for pid in pids:
        os.kill(pid, number)
    ended = ranks.wait(pids, tmp_path)
    assert [e.code for e in ended] == [130, 130]
    # Whoever hears of it first tells, and that alone: the two signals are sent one after the other.
    assert sorted(e.err.count("stopped") for e in ended) == [0, 1]
    assert not any("Traceback" in e.err for e in ended)


def test_processes_encode_shards_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each shard once, into the cache that they share; then one process finds all of it there."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (100, 16, 16, 3), dtype=np.uint8)
    for i, image in enumerate(pixels):
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / "photos" / f"{i}.png")
    monkeypatch.setattr(latent_cache, "CHUNK", 8)
    monkeypatch.setattr(latent_cache, "BLOCK_BYTES", 1)  # a shard for each chunk
    command = ["train", str(tmp_path / "photos"), "--autoencoder=pca:dim=4", "--network=mlp"]
    command += ["--steps=1", "--flip=no", "--threads=1"]
    latents = {}
    for name, size in {"one": 1, "three": 3}.items():
        cached = tmp_path / f"cache-{name}"
        encoded = tmp_path / f"encoded-{name}"
        encoded.mkdir()

        def work(encoded: Path = encoded, name: str = name) -> int:
            write = latent_cache.write_atomic

            def counted(path: Path, content: bytes) -> Path:
                mark = encoded / path.name
                mark.write_text(mark.read_text() + "x" if mark.exists() else os.environ["RANK"])
                return write(path, content)

            latent_cache.write_atomic = counted
            return main([*command, f"--out={tmp_path / name}"])

        said = tmp_path / f"said-{name}"
        pids = ranks.start(size, work, said, {"MONGE_CACHE": [str(cached)] * size})
        assert [e.code for e in ranks.wait(pids, said)] == [0] * size
        marks = {p.name: p.read_text() for p in encoded.iterdir()}
        assert len(marks) == 10  # of 80 training images
        assert set(marks.values()) == {str(rank) for rank in range(size)}
        (entry,) = (cached / "latents").iterdir()
        latents[name] = {p.name: p.read_bytes() for p in entry.iterdir() if p.name != "lock"}
    assert latents["one"] == latents["three"]


def test_a_cache_of_each_machine_is_filled_on_each(tmp_path: Path) -> None:
    """Two machines that share the run folder, and no cache: each decodes and encodes all."""
    (tmp_path / "photos").mkdir()
    for i in range(30):
        Image.new("L", (8, 8), i).save(tmp_path / "photos" / f"{i}.png")
    caches = [tmp_path / "a", tmp_path / "b"]
    command = ["train", str(tmp_path / "photos"), "--autoencoder=pca:dim=1", "--network=mlp"]
    command += ["--steps=1", "--threads=1", f"--out={tmp_path / 'run'}"]
    ended = ranks.run(2, command, tmp_path / "said", {"MONGE_CACHE": list(map(str, caches))})
    assert [e.code for e in ended] == [0, 0], ended
    for kind in ("images", "latents"):
        files = [{p.name: p.read_bytes() for p in (c / kind).glob("*/*")} for c in caches]
        assert files[0] == files[1] and len(files[0]) >= 2


def test_a_run_folder_of_each_machine_is_refused(tmp_path: Path) -> None:
    def work() -> int:
        home = tmp_path / f"machine-{os.environ['RANK']}"
        home.mkdir()
        os.chdir(home)
        return main(["train", "target:mixture:dim=2,modes=3,seed=0", "--steps=1", "--out=run"])

    ended = ranks.wait(ranks.start(2, work, tmp_path), tmp_path)
    assert [e.code for e in ended] == [2, 2]
    assert sum("is not one folder for all processes" in e.err for e in ended) == 1
