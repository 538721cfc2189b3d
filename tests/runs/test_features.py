"""An evaluation in the features of a network, from the command line to the report."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from monge.cli import main
from monge.errors import UserError
from monge.evaluation.evaluate import evaluate_run
from monge.fitting.train import train
from monge.metrics.feature_networks import LeNet5
from monge.metrics.table import Row, Table
from monge.runs.run import Run
from monge.runs.spec import TrainSpec

TINY = TrainSpec(
    autoencoder="pca:dim=8",
    network="mlp:width=32,depth=2",
    steps=20,
    batch=32,
    save_every=20,
    sample_every=20,
    grid="uniform:n=4",
)


def run_on(arrays: dict[str, np.ndarray], folder: Path) -> Run:
    np.savez(folder / "images.npz", **arrays)  # type: ignore[arg-type]
    return train(replace(TINY, data=str(folder / "images.npz")), out=folder / "run")


def evaluated(
    run: Run, weights: Path, capsys: pytest.CaptureFixture[str], n: int
) -> tuple[Table, str]:
    """The table and the report after `monge evaluate --features`."""
    words = ["evaluate", str(run.folder), "-n", str(n), "--features", f"lenet5:{weights}", "--json"]
    capsys.readouterr()
    assert main(words) == 0
    printed = json.loads(capsys.readouterr().out)
    return Table.from_json(json.dumps(printed["table"])), (run.folder / "report.html").read_text()


def check(table: Table, report: str, n: int, samples: int) -> tuple[Row, Row]:
    distance, agreed = table["Frechet distance (lenet5)"], table["label agreement (lenet5)"]
    names = [row.name for row in table]
    assert names[0] == "energy distance"
    start = names.index(distance.name)
    assert names[start + 1 : start + 3] == ["kernel distance (lenet5)", agreed.name]
    assert names[start + 3 :] == [
        "memorised fraction (lenet5)",
        *(f"distance to training, {q} % (lenet5)" for q in (1, 5, 50)),
    ]
    assert {"gaussian without labels", "reconstructions", "training set"} == set(distance.baselines)
    assert {"training set", "shuffled labels"} == set(agreed.baselines)
    assert distance.n == n and agreed.n == samples
    assert f"<th scope='row'>{distance.name}<small>" in report
    assert f"<th scope='row'>{agreed.name}<small>" in report
    assert f"weights {distance.protocol['weights']}" in report
    return distance, agreed


@pytest.mark.slow
def test_mnist_in_the_features_of_lenet(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = np.load(shared_data / "mnist.npz")
    sizes = {"x_train": 400, "y_train": 400, "x_test": 200, "y_test": 200}
    run = run_on({name: data[name][:size] for name, size in sizes.items()}, tmp_path)
    table, report = evaluated(run, shared_data / "weights" / "lenet_mnist.safetensors", capsys, 120)
    distance, agreed = check(table, report, n=120, samples=120)
    assert agreed.floor > 0.97  # held-out digits are recognised
    assert agreed.baselines["training set"] > 0.97
    assert agreed.value < 0.6  # what was trained for 20 steps is not
    assert distance.floor < 0.5 * distance.baselines["reconstructions"]  # by 8 components
    assert distance.baselines["training set"] < 2 * distance.floor
    assert distance.value > 3 * distance.floor
    assert distance.interval[0] > distance.floor
    assert distance.protocol["compared with"] == "120 held-out examples"


@pytest.fixture
def random_weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_file(LeNet5().state_dict(), tmp_path / "random.safetensors")
    return tmp_path / "random.safetensors"


def test_any_grey_images_of_28_pixels(
    random_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (200, 28, 28), dtype=np.uint8)
    run = run_on({"x": images, "y": np.arange(200) % 10}, tmp_path)
    distance, agreed = check(*evaluated(run, random_weights, capsys, 80), n=40, samples=80)
    assert math.isnan(distance.value)  # 84 features of 40 examples
    assert "withheld: 40 examples" in distance.note
    _, again = check(*evaluated(run, random_weights, capsys, 80), n=40, samples=80)
    assert again == agreed


def test_refusals_come_before_the_work(
    digits_run: Run,
    table_run: Run,
    random_weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def sampled(*_: object, **__: object) -> None:
        raise AssertionError("sampled before the refusal")

    monkeypatch.setattr(Run, "sample", sampled)
    with pytest.raises(UserError, match="28 x 28 or 32 x 32 pixels; these have 8 x 8"):
        evaluate_run(digits_run, features=f"lenet5:{random_weights}")
    with pytest.raises(UserError, match=r"these examples have shape \(2,\): they are none"):
        evaluate_run(table_run, features=f"lenet5:{random_weights}")
    (tmp_path / "own.py").write_text("import torch\nnet = torch.nn.Linear(3, 3)\n")
    with pytest.raises(UserError, match=r"own.py:net fails on images of shape \(1, 8, 8\)"):
        evaluate_run(digits_run, features=f"{tmp_path / 'own.py'}:net")
    with pytest.raises(UserError, match="no feature network 'inception'"):
        evaluate_run(digits_run, features="inception:weights.safetensors")
