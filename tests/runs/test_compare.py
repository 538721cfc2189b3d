"""`monge compare` from files of every kind to the page, and the command that repeats a number."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from monge.cli import main
from monge.data import sources
from monge.runs.run import Run
from monge.system.files import read_json

N = ["-n", "40"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits as folders of png with labels and as npz, half of them with noise; tables."""
    folder: Path = tmp_path_factory.mktemp("sets")
    data = sources.load("digits")
    assert data.train_label is not None
    pixels = ((data.train[:240] + 1) * 127.5).byte().numpy()
    labels = data.train_label[:240].numpy()
    rng = np.random.default_rng(0)
    noisy = np.clip(pixels + rng.normal(0, 60, pixels.shape), 0, 255).astype(np.uint8)
    for name, x, rows in (
        ("clean", pixels, slice(0, 60)),
        ("noisy", noisy, slice(60, 120)),
        ("real", pixels, slice(120, 240)),
    ):
        np.savez(folder / f"{name}.npz", x=x[rows, 0], y=labels[rows])
        for i, (image, label) in enumerate(zip(x[rows], labels[rows], strict=True)):
            (folder / name / str(label)).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[0]).save(folder / name / str(label) / f"{i}.png")
    x, y = rng.normal(size=(2, 80, 3)) * [1, 100, 0.1]
    (folder / "a.csv").write_text(as_csv(x, "uvw", ","))
    (folder / "b.tsv").write_text(as_csv(y[:, [2, 0, 1]] + [0.2, 0, 0], "wuv", "\t"))
    (folder / "short.csv").write_text(as_csv(x[:, :2], "uv", ","))
    columns = {name: y[:, j] for j, name in enumerate("uvw")}
    parquet.write_table(pa.table(columns), folder / "b.parquet")
    np.savez(folder / "b.npz", x=y, columns=np.array(list("uvw")))
    np.save(folder / "c.npy", x)
    return folder


def as_csv(rows: np.ndarray, names: str, comma: str) -> str:
    lines = [comma.join(names), *(comma.join(f"{v:.17g}" for v in row) for row in rows)]
    return "\n".join(lines) + "\n"


def compared(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["compare", *map(str, words), "--json"]) == code
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    return compared(capsys, *words, code=2)["error"]


def values(found: dict[str, Any]) -> dict[str, float]:
    return {row["name"]: row["value"] for row in found["table"]["rows"]}


# Images


def test_folders_of_images_against_a_reference_fill_a_page(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = [home / "clean", home / "noisy", "--reference", home / "real"]
    found = compared(capsys, *words, *N, "--out", out, "--fail-if-different", code=3)
    assert found["verdict"]["word"] == "A"
    told = {d["name"]: d["closer_among_all"] for d in found["differences"]}
    assert {"C2ST AUC", "label shares", "label agreement"} <= told.keys()
    assert set(told.values()) == {"A", None}
    sets = found["card"]["sets"]
    assert sets["A"]["taken"] == "all 60 examples"
    assert sets["reference"]["taken"] == "all 120 examples"
    assert found["n"] == 40
    kept = read_json(out / "comparison.json")
    assert kept == {k: v for k, v in found.items() if k != "exit_code"}
    page = (out / "comparison.html").read_text()
    assert "A is closer" in page and page.count("data:image/png") == 3
    assert found["card"]["command"].replace("'", "&#x27;") in page
    assert "http" not in page.replace("http://www.w3.org", "")


def test_the_printed_command_gives_the_same_numbers_to_the_bit(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [home / "clean.npz", home / "noisy.npz", "--reference", home / "real.npz"]
    found = compared(capsys, *words, "-n", "30", "--seed", "3", "--image-size", "8")
    command = shlex.split(found["card"]["command"])
    assert command[0] == "monge"
    again = subprocess.run(
        [sys.executable, "-m", *command, "--json"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert json.loads(again.stdout) == found


def test_npz_and_folder_of_the_same_images_are_the_same(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = compared(capsys, home / "clean", home / "clean.npz", *N)
    assert found["verdict"]["word"] == "same examples"
    assert "A and B hold the same examples" in found["notes"]
    assert main(["compare", *map(str, (home / "clean", home / "clean")), *N]) == 0
    assert "A and B hold the same examples" in capsys.readouterr().out


def test_images_of_other_sizes_are_refused_with_both_shapes_and_can_be_brought_together(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    large = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
    np.savez(tmp_path / "large.npz", x=large[..., 0])
    np.savez(tmp_path / "colour.npz", x=large)
    message = refused(capsys, home / "clean", tmp_path / "large.npz", *N)
    assert "grey images of 8 x 8" in message and "grey images of 16 x 16" in message
    assert "--image-size" in message
    words = [home / "clean", tmp_path / "large.npz", "--image-size", "8"]
    assert compared(capsys, *words, *N)["verdict"]["word"] == "different"
    assert "only images of the same channels" in refused(
        capsys, tmp_path / "colour.npz", tmp_path / "large.npz", *N
    )
    assert "is a table" in refused(capsys, home / "clean", home / "a.csv", *N)


# Tables


def test_tables_are_matched_by_name_whatever_their_order_and_file(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["-n", "20"]
    first = compared(capsys, home / "a.csv", home / "b.parquet", *few)
    second = compared(capsys, home / "a.csv", home / "b.npz", *few)
    assert values(first) == values(second)
    found = compared(capsys, home / "a.csv", home / "b.tsv", *N, "--out", tmp_path / "out")
    # w is moved by 0.2, which is two of its deviations: units do not matter.
    assert found["verdict"]["word"] == "different"
    assert (tmp_path / "out" / "a.png").exists()


def test_columns_that_differ_are_named(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, home / "a.csv", home / "short.csv", *N)
    assert "B lacks 'w'" in message and "--columns u,v" in message
    found = compared(capsys, home / "a.csv", home / "short.csv", *N, "--columns", "u,v")
    assert found["verdict"]["word"] == "same examples"
    message = refused(capsys, home / "a.csv", home / "c.npy", *N)
    assert "A lacks 'x0', 'x1', 'x2'" in message and "no column in common" in message


# Runs and known laws


def test_a_run_is_compared_with_the_data_that_it_has_not_seen(
    digits_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    found = compared(capsys, digits_run.folder, "digits", *N)
    sets = found["card"]["sets"]
    assert sets["A"]["taken"] == "40 samples of the run" and sets["A"]["sampling"]["seed"] == 0
    assert len(sets["A"]["run"]["weights"]["sha256"]) == 64
    assert sets["B"]["taken"] == "all 359 held-out examples"
    held = compared(capsys, digits_run.folder, f"heldout:{digits_run.folder}", *N)
    assert values(held) == values(found)
    against = compared(
        capsys, digits_run.folder, "train:digits", "--reference", digits_run.folder, *N
    )
    assert against["verdict"]["word"] == "B"
    taken = {name: known["taken"] for name, known in against["card"]["sets"].items()}
    assert taken["reference"] == "all 359 held-out examples"
    assert taken["rest of the reference"] == "all 1,438 training examples"
    assert any("of the 1438 examples of B occur in" in note or "hold the same" in note
               for note in against["notes"])  # fmt: skip


def test_two_draws_of_one_run_are_independent_and_known_laws_have_columns(
    table_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    found = compared(capsys, table_run.folder, table_run.folder, *N)
    assert found["verdict"]["word"] == "not distinguishable" and not found["notes"]
    law = "target:mixture:dim=2,modes=3,seed=0"
    assert compared(capsys, table_run.folder, law, *N)["card"]["sets"]["B"]["taken"] == (
        "all 5,000 held-out examples"
    )


@pytest.mark.slow
def test_an_evaluation_repeats_by_its_card(
    digits_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    words = ["evaluate", str(digits_run.folder), "-n", "30", "--steps", "2", "--seed", "5"]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    card = found["card"]
    assert card["run"]["weights"]["file"] == "ema.safetensors"
    assert card["data"]["fingerprint"] == digits_run.facts.fingerprint
    assert {"monge", "torch", "threads", "seed"} <= card.keys()
    report = (digits_run.folder / "report.html").read_text()
    assert "How to repeat this" in report and card["command"] in report
    assert main([*shlex.split(card["command"])[1:], "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found


# Bad input


def test_bad_input_is_refused_before_the_work(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "at least 20, not 5" in refused(capsys, "digits", "digits", "-n", "5")
    assert "no such file or source" in refused(capsys, "digits", tmp_path / "nowhere")
    assert "no feature network" in refused(capsys, "digits", "digits", "--features", "vgg:x")
    (tmp_path / "notes.txt").write_text("mine")
    message = refused(capsys, "digits", "digits", "--out", tmp_path)
    assert "holds files that monge did not write" in message
    assert "takes grey images of 28 x 28" in refused(
        capsys, "digits", "digits", "--features", f"lenet5:{weights(tmp_path)}"
    )


def weights(folder: Path) -> Path:
    from safetensors.torch import save_file

    from monge.metrics.feature_networks import LeNet5

    save_file(LeNet5().state_dict(), folder / "w.safetensors")
    return folder / "w.safetensors"
