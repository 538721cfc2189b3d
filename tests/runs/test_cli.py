"""The command line in process: each verb with good and with bad input."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from monge.cli import main
from monge.errors import UserError
from monge.runs.run import Run
from monge.verbs.table import VERBS

TRAIN_TINY = [
    "target:mixture:dim=2,modes=3,seed=0",
    "--network=mlp:width=16,depth=2",
    "--steps=12",
    "--batch=32",
    "--save-every=6",
    "--grid=uniform:n=3",
]


def failure(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str]:
    """Exit code and the error message of a command that should fail cleanly."""
    code = main([str(word) for word in argv])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return code, captured.err


def test_help_names_every_verb_and_does_not_import_torch() -> None:
    code = "import sys, monge.cli; monge.cli.main(['--help']); assert 'torch' not in sys.modules"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(f"\n  {verb.name} " in shown.stdout for verb in VERBS)


@pytest.mark.parametrize("verb", [verb.name for verb in VERBS])
def test_help_of_each_verb_teaches(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    assert len(capsys.readouterr().out) > 200


def test_train_sample_evaluate_info(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    assert main(["train", *TRAIN_TINY, f"--out={folder}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["run"] == str(folder)
    for name in ("config.yaml", "model.safetensors", "ema.safetensors", "log.jsonl", "report.html"):
        assert (folder / name).stat().st_size > 0
    assert (folder / "README.md").exists()

    out = tmp_path / "samples"
    argv = [
        "sample",
        str(folder),
        "-n",
        "20",
        "--label=1",
        f"--out={out}",
        "--format=csv,parquet,npz",
    ]
    assert main([*argv, "--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert info["evaluations_per_sample"] == 6  # Heun, three steps
    lines = (out / "samples.csv").read_text().splitlines()
    assert lines[0] == "x0,x1,label" and len(lines) == 21
    archive = np.load(out / "samples.npz", allow_pickle=False)
    assert archive["arr_0"].shape == (20, 2) and set(archive["arr_1"]) == {1}

    assert main(["evaluate", str(folder), "-n", "200"]) == 0
    shown = capsys.readouterr().out
    assert "energy" in shown and "floor" in shown
    assert main(["info", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 12


def test_pictures_of_digits(digits_run: Run, tmp_path: Path) -> None:
    argv = ["sample", str(digits_run.folder), "-n", "10", "--label", "all", "--out", str(tmp_path)]
    assert main([*argv, "--format", "png,npz"]) == 0
    image = Image.open(tmp_path / "000007.png")
    assert image.size == (8, 8) and image.text["seed"] == "0" and image.text["index"] == "7"
    assert image.text["config"] == digits_run.spec.digest()
    archive = np.load(tmp_path / "samples.npz", allow_pickle=False)
    assert archive["arr_0"].shape == (10, 8, 8, 1) and archive["arr_0"].dtype == np.uint8
    assert archive["arr_1"].tolist() == list(range(10))


def test_continuing_with_other_settings_is_refused_side_by_side(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    assert main(["train", *TRAIN_TINY, f"--out={folder}"]) == 0
    before = (folder / "config.yaml").read_text()
    code, message = failure(capsys, "train", *TRAIN_TINY, f"--out={folder}", "--lr=0.5")
    assert code == 2 and "lr" in message and "0.001" in message and "0.5" in message
    assert (folder / "config.yaml").read_text() == before
    assert main(["train", *TRAIN_TINY, f"--out={folder}", "--steps=18"]) == 0
    assert "0.001" in (folder / "config.yaml").read_text()
    changes = json.loads((folder / "changes.json").read_text())
    assert changes[0]["changed"]["steps"] == {"from": 12, "to": 18}
    assert json.loads((folder / "log.jsonl").read_text().splitlines()[-1])["step"] == 18


def test_dry_run_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["train", *TRAIN_TINY, f"--out={tmp_path / 'run'}", "--dry-run", "--json"]
    assert main(argv) == 0
    assert not (tmp_path / "run").exists()
    shown = capsys.readouterr()
    assert "steps/s" in shown.err and "disk" in shown.err
    plan = json.loads(shown.out)["network"]
    assert plan["steps"] == 12 and plan["step_s"] > 0 and plan["checkpoint_bytes"] > 0


def test_recipes_and_their_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    assert "digits" in capsys.readouterr().out
    assert main(["recipes", "show", "digits"]) == 0
    assert "settings that differ" in capsys.readouterr().out
    argv = ["train", "--recipe", "mixture", "--steps", "3", "--batch", "16", "--out", str(tmp_path)]
    assert main(argv) == 0
    assert "target:mixture" in (tmp_path / "config.yaml").read_text()


BAD = [
    (["trian"], "did you mean 'train'"),
    (["train", "--lrr", "1"], "--lr"),
    (["train", "digitz"], "did you mean 'digits'"),
    (["train", "nowhere.npz"], "no such file"),
    (["train", "target:mixtur"], "did you mean 'mixture'"),
    (["train", "target:mixture:dims=3"], "did you mean 'dim'"),
    (["train", "digits", "--path", "lineer"], "did you mean 'linear'"),
    (["train", "digits", "--path", "power:kappa=0.1"], "kappa must be at least 0.5"),
    (
        ["train", "digits", "--path", "linear", "--output", "noise", "--error", "velocity"],
        "--error",
    ),
    (["train", "digits", "--output", "score", "--coupling", "ot"], "independent"),
    (["train", "digits", "--network", "exact"], "known target"),
    (["train", "digits", "--grid", "geometric:stop=1"], "stop < 1"),
    (["train", "digits", "--steps", "0"], "greater than 0"),
    (["train", "digits", "--device", "cuda:7"], "cuda:7"),
    (["train", "digits", "--threads", "0"], "threads must be at least 1"),
    (["train", "digits", "--seed", "-1"], "seed must not be negative"),
    (["train", "digits", "--guidance", "nan"], "guidance must be a finite number"),
    (["train", "digits", "--lr", "inf"], "lr must be a finite number"),
    (["train", "digits", "--minutes", "inf"], "minutes must be a finite number"),
    (["train", "digits", "--weight-decay", "-1"], "weight_decay must not be negative"),
    (["train", "digits", "--device", "cpu", "--precision", "bf16"], "needs a CUDA device"),
    (["autoencoder", "digits", "--autoencoder", "nope"], "is no folder and no component"),
    (["train", "--recipe", "digit"], "did you mean 'digits'"),
    (["train", "--config", "nowhere.yaml"], "nowhere.yaml"),
    (["sample", "nowhere"], "no such run folder"),
    (["info", "."], "is not a run folder"),
    (["recipes", "show"], "which recipe"),
    (["check", "nowhere.py:Name"], "nowhere.py"),
]


@pytest.mark.parametrize(("argv", "message"), BAD, ids=[" ".join(a) for a, _ in BAD])
def test_bad_input_exits_with_2_and_one_clear_message(
    argv: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    code, shown = failure(capsys, *argv)
    assert code == 2
    assert message in shown
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--label", "eleven"], "unknown label 'eleven'"),
        (["--solver", "huen"], "did you mean 'heun'"),
        (["-n", "0"], "at least 1"),
        (["--format", "pgn"], "did you mean 'png'"),
        (["--steps", "0"], "at least 1 step"),
    ],
)
def test_bad_sampling_is_refused(
    argv: list[str],
    message: str,
    digits_run: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, shown = failure(capsys, "sample", digits_run.folder, "--out", tmp_path / "s", *argv)
    assert code == 2 and message in shown


def test_errors_are_machine_readable_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", "nowhere", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["exit_code"] == 2


def test_none_is_a_value_where_it_is_one_and_nothing_elsewhere(
    table_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["sample", str(table_run.folder), "-n", "4", "--grid", "uniform:n=3,stop=0.5", "--json"]
    assert main([*argv, "--final", "none", "--steps", "none", "--out", str(tmp_path / "a")]) == 0
    assert json.loads(capsys.readouterr().out)["final"] == "none"
    out = f"--out={tmp_path / 'b'}"
    assert main(["train", *TRAIN_TINY, "--clip=none", "--final=none", out]) == 0
    text = (tmp_path / "b" / "config.yaml").read_text()
    assert "clip: null" in text and "final: none" in text


def test_samples_of_tables_are_csv_and_other_settings_go_elsewhere(
    table_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = []
    for steps in ("2", "3"):
        argv = ["sample", str(table_run.folder), "-n", "5", "--steps", steps, "--json"]
        assert main(argv) == 0
        files = [Path(name) for name in json.loads(capsys.readouterr().out)["files"]]
        assert [file.name for file in files] == ["grid.png", "samples.csv"]
        folders.append(files[0].parent)
    assert folders[0] != folders[1]


def test_fewer_steps_than_done_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    assert main(["train", *TRAIN_TINY, f"--out={folder}"]) == 0
    before = (folder / "config.yaml").read_text()
    code, message = failure(capsys, "train", *TRAIN_TINY, f"--out={folder}", "--steps=5")
    assert code == 2 and "has already done 12 steps" in message
    assert (folder / "config.yaml").read_text() == before
    (folder / "config.yaml").write_text(before[: len(before) // 2].rpartition("\n")[0])
    code, message = failure(capsys, "sample", folder)
    assert code == 2 and "config.yaml is damaged: it lacks" in message


def test_a_flag_replaces_the_other_limit_of_a_recipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["train", "--recipe", "mixture", "--minutes", "0.005", "--batch", "16", "--dry-run"]
    assert main(argv) == 0


def test_bad_labels_in_python_are_named(digits_run: Run) -> None:
    for label in (torch.tensor([0, 1]), torch.tensor([0, 1, 2, 10]), torch.rand(4), []):
        with pytest.raises(UserError, match="label"):
            digits_run.sample(4, label=label)
    assert digits_run.sample(4, label=np.array([1, 2, 3, 4])).label.tolist() == [1, 2, 3, 4]  # type: ignore[union-attr]
    with pytest.raises(UserError, match="finite"):
        digits_run.sample(4, guidance=float("nan"))
