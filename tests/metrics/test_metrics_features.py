"""Feature networks: their published accuracies and distances, refusals, and rows of the table."""

from __future__ import annotations

import hashlib
import io
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pyarrow import parquet
from safetensors.torch import save_file
from torch import Tensor

from monge.data.arrays import Pixels, Shards
from monge.errors import UserError
from monge.metrics.feature_networks import BasicBlock, LeNet5, ResNet20
from monge.metrics.feature_rows import feature_rows
from monge.metrics.feature_sources import CIFAR10, Inception, load_network
from monge.metrics.features import FeatureNetwork, FeatureSet
from monge.metrics.frechet import frechet_distance, frechet_floor
from monge.metrics.table import Table
from monge.tensors import stream

# Real data and weights


@cache
def mnist(folder: Path) -> Mapping[str, np.ndarray]:
    return dict(np.load(folder / "mnist.npz"))


@cache
def cifar(folder: Path, split: str, n: int) -> tuple[Tensor, Tensor]:
    """The first n images of CIFAR-10 (JPEG Q75) in [-1, 1], and their labels."""
    file = parquet.ParquetFile(folder / "cifar10" / f"{split}-00000-of-00001.parquet")
    images, labels = [], []
    for batch in file.iter_batches(batch_size=1000):
        for row in batch.to_pylist():
            images.append(np.asarray(Image.open(io.BytesIO(row["img"]["bytes"]))))
            labels.append(row["label"])
        if len(images) >= n:
            break
    x = torch.from_numpy(np.stack(images[:n])).permute(0, 3, 1, 2).float() / 127.5 - 1
    return x, torch.tensor(labels[:n])


def grey(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).float()[:, None] / 127.5 - 1


def test_lenet_has_its_published_accuracy_and_distance(shared_data: Path) -> None:
    network = load_network(f"lenet5:{shared_data}/weights/lenet_mnist.safetensors")
    data = mnist(shared_data)
    test = network.features(grey(data["x_test"]))
    train = network.features(grey(data["x_train"][:10_000]))
    right = test.predicted == torch.from_numpy(data["y_test"])
    assert float(right.double().mean()) == pytest.approx(0.9908, abs=2e-4)
    assert test.x.shape == (10_000, 84)
    assert (test.x >= 0).all()
    assert frechet_distance(train.x, test.x) == pytest.approx(1.21, abs=0.01)
    same = network.features(grey(data["x_test"][:300]), chunk=7)
    torch.testing.assert_close(same.x, test.x[:300])


def resnet_distances(folder: Path, n: int) -> tuple[float, float, float, float]:
    """Accuracy; distances of n test images from training and from noisy ones; the floor."""
    network = load_network(f"resnet20:{folder}/weights/resnet20_cifar10.safetensors")
    x, label = cifar(folder, "test", n)
    noise = torch.randn(x.shape, generator=stream(0, "noise"))
    test = network.features(x)
    noisy = network.features((x + 2 * 12 / 255 * noise).clamp(-1, 1))
    train = network.features(cifar(folder, "train", n)[0])
    return (
        float((test.predicted == label).double().mean()),
        frechet_distance(train.x, test.x),
        frechet_distance(noisy.x, test.x),
        frechet_floor(test.x, n),
    )


@pytest.mark.slow
def test_resnet_has_its_published_accuracy_and_distances(shared_data: Path) -> None:
    accuracy, from_train, from_noise, floor = resnet_distances(shared_data, 1500)
    assert accuracy == pytest.approx(0.810, abs=3 * (0.81 * 0.19 / 1500) ** 0.5)
    assert 0.7 * floor < from_train < 1.5 * floor
    assert from_noise == pytest.approx(8.2, abs=0.6)


@pytest.mark.slow
def test_resnet_at_its_published_size(shared_data: Path) -> None:
    accuracy, from_train, from_noise, _ = resnet_distances(shared_data, 4000)
    assert accuracy == pytest.approx(0.810, abs=3 * (0.81 * 0.19 / 4000) ** 0.5)
    assert from_train == pytest.approx(0.050, abs=1e-3)
    assert from_noise == pytest.approx(8.2, abs=0.2)


# Networks and their files


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of random weights, by the name of the network."""
    folder, files = tmp_path_factory.mktemp("weights"), {}
    for name, build in {"lenet5": LeNet5, "resnet20": ResNet20}.items():
        torch.manual_seed(0)
        files[name] = folder / f"{name}.safetensors"
        save_file(build().state_dict(), files[name])
    return files


@pytest.fixture(scope="module")
def lenet(weights: dict[str, Path]) -> FeatureNetwork:
    return load_network(f"lenet5:{weights['lenet5']}")


def test_the_shortcut_takes_every_other_pixel_and_adds_channels_of_zeros() -> None:
    block = BasicBlock(2, 4).eval()
    for parameter in block.parameters():
        torch.nn.init.zeros_(parameter)
    x = torch.arange(32.0).reshape(1, 2, 4, 4) - 4
    expected = torch.zeros(1, 4, 2, 2)
    expected[0, 1] = torch.tensor([[0, 0], [4, 6]])  # of rows -4..-1 and 4..7, after the ReLU
    expected[0, 2] = torch.tensor([[12, 14], [20, 22]])
    assert torch.equal(block(x), expected)


def test_28_pixels_are_enlarged_and_32_are_taken_as_they_are(lenet: FeatureNetwork) -> None:
    small = 2 * torch.rand(3, 1, 28, 28, generator=stream(0)) - 1
    large = torch.nn.functional.interpolate(small, size=32, mode="bilinear")
    torch.testing.assert_close(lenet.features(small).x, lenet.features(large).x)
    padded = torch.nn.functional.pad(small, (2, 2, 2, 2), value=-1)
    assert (lenet.features(padded).x - lenet.features(small).x).abs().max() > 1e-3


def test_images_on_disk_give_the_features_of_images_in_memory(lenet: FeatureNetwork) -> None:
    raw = np.random.default_rng(0).integers(0, 256, (50, 1, 28, 28), dtype=np.uint8)
    pixels, images = Pixels(Shards([raw[:20], raw[20:]])), torch.from_numpy(raw).float() / 127.5 - 1
    expected = lenet.features(images)
    found = lenet.features(pixels, chunk=8)
    torch.testing.assert_close(found.x, expected.x)
    assert torch.equal(found.predicted, expected.predicted)
    rows = torch.tensor([40, 3, 3, 11])
    for given in (pixels, images):
        torch.testing.assert_close(lenet.features(given, rows, chunk=3).x, expected.x[rows])


def test_the_network_says_which_weights_it_has(weights: dict[str, Path]) -> None:
    for name, file in weights.items():
        network = load_network(f"{name}:{file}")
        digest = hashlib.sha256(file.read_bytes()).hexdigest()[:12]
        assert network.settings == {"weights": f"sha256 {digest}", "images": "in [-1, 1]"}
        assert not network.module.training


def test_labels_are_matched_by_name_or_by_number(weights: dict[str, Path]) -> None:
    network = load_network(f"resnet20:{weights['resnet20']}")
    bare = FeatureSet(torch.zeros(4, 64), torch.zeros(4, dtype=torch.int64))

    def matched(names: tuple[str, ...]) -> list[int] | None:
        label = torch.tensor([0, 1, -1, 1])
        found = network.labelled(bare, label, names).label
        return None if found is None else found.tolist()

    assert matched(("cat", "airplane")) == [3, 0, -1, 0]
    assert matched(("7", "2")) == [7, 2, -1, 2]
    assert matched(tuple(reversed(CIFAR10))) == [9, 8, -1, 8]
    assert matched(("cat", "zebra")) is None
    assert matched(("10", "2")) is None
    assert matched(()) is None
    assert network.labelled(bare, None, CIFAR10).label is None


def test_refusals_of_files(weights: dict[str, Path], tmp_path: Path) -> None:
    def refused(text: str, message: str) -> None:
        with pytest.raises(UserError, match=message):
            load_network(text)

    file = weights["lenet5"]
    refused(f"lenet:{file}", "no feature network 'lenet' .* did you mean 'lenet5'")
    refused("lenet5", "lenet5:FILE.safetensors")
    refused(f"lenet5:{tmp_path / 'a.safetensors'}", "cannot read .*a.safetensors: No such file")
    refused("lenet5:model.pt", "model.pt is no .safetensors file")
    (tmp_path / "bad.safetensors").write_bytes(b"nothing of the kind")
    refused(f"lenet5:{tmp_path / 'bad.safetensors'}", "bad.safetensors is damaged")
    refused(
        f"lenet5:{weights['resnet20']}",
        "does not hold the weights of lenet5: 10 of 10 tensors are missing, .* are unknown",
    )
    tensors = LeNet5().state_dict()
    save_file({**tensors, "fc.f7.weight": torch.zeros(9, 84)}, tmp_path / "nine.safetensors")
    refused(
        f"lenet5:{tmp_path / 'nine.safetensors'}",
        re.escape("fc.f7.weight has shape (9, 84), expected (10, 84)"),
    )


def test_refusals_of_images(weights: dict[str, Path], lenet: FeatureNetwork) -> None:
    def refused(network: FeatureNetwork, shape: tuple[int, ...], message: str) -> None:
        with pytest.raises(UserError, match=message):
            network.features(torch.zeros(2, *shape))

    resnet = load_network(f"resnet20:{weights['resnet20']}")
    refused(lenet, (3, 32, 32), "lenet5 takes grey images .* 28 x 28 or 32 x 32 .* these are RGB")
    refused(resnet, (1, 32, 32), "resnet20 takes RGB images .* 3 channels; these are grey")
    refused(resnet, (4, 32, 32), "these are of 4 channels")
    refused(resnet, (3, 64, 64), "of 32 x 32 pixels; these have 64 x 64")
    refused(lenet, (1, 28, 32), "these have 28 x 32")
    refused(lenet, (8,), "these examples have shape .* they are none")


# Rows


def seen(n: int, *key: int | str, shift: float = 0.0, right: int | None = None) -> FeatureSet:
    """White features of 5 dimensions; the first `right` of n labels are predicted."""
    x = torch.randn(n, 5, generator=stream(0, *key)) + shift
    label = torch.arange(n) % 3
    predicted = label.clone()
    if right is not None:
        predicted[right:] = (label[right:] + 1) % 3
    return FeatureSet(x, predicted, label)


@pytest.fixture(scope="module")
def table(lenet: FeatureNetwork) -> Table:
    baselines = {"far": seen(200, "far", shift=2.0), "training set": seen(900, "train", right=890)}
    rows = feature_rows(
        lenet,
        seen(300, "samples", shift=0.5, right=240),
        seen(900, "train"),
        seen(200, "heldout", right=190),
        {**baselines, "unlabelled": replace(seen(200, "unlabelled"), label=None)},
    )
    return Table(rows)


def test_rows_hold_value_interval_floor_baselines_and_protocol(
    table: Table, lenet: FeatureNetwork
) -> None:
    distance, limit, kernel, agreed, *memory = table
    assert {row.group for row in table} == {"In the features of lenet5"}
    assert [row.name for row in memory] == [
        "memorised fraction (lenet5)",
        *(f"distance to training, {q} % (lenet5)" for q in (1, 5, 50)),
    ]
    assert kernel.name == "kernel distance (lenet5)"
    assert kernel.interval[0] < kernel.value < kernel.interval[1]
    assert abs(kernel.floor) < kernel.interval[1] - kernel.value
    assert kernel.baselines["far"] > 3 * kernel.value > 3 * kernel.floor
    assert distance.name == "Frechet distance (lenet5)"
    assert limit.name == "Frechet distance (lenet5), n → ∞"
    assert agreed.name == "label agreement (lenet5)"
    white = 25 / 200  # (d (d + 1) / 2 + 2 d) / n
    for row, floor in ((distance, white), (limit, 0.0)):
        assert row.n == 200
        assert row.interval[0] < row.value < row.interval[1]
        assert row.interval[0] < 5 * 0.25 + floor < row.interval[1]
        assert row.floor == pytest.approx(floor, abs=0.07)
        assert row.baselines["far"] == pytest.approx(5 * 4 + floor, abs=1.5)
        assert row.baselines["training set"] == pytest.approx(floor, abs=0.12)
        assert row.protocol["network"] == "lenet5"
        assert row.protocol["weights"] == lenet.settings["weights"]
        assert row.protocol["compared with"] == "200 held-out examples"
        assert row.protocol["analytic floor at n"] == pytest.approx(white, rel=0.2)
    assert limit.value < distance.value


def test_agreement_counts_every_sample(table: Table) -> None:
    row = table["label agreement (lenet5)"]
    assert row.value == pytest.approx(240 / 300)
    assert row.floor == pytest.approx(190 / 200)
    assert row.n == 300
    assert row.interval_method == "Wilson"
    assert row.interval == pytest.approx((0.751, 0.841), abs=1e-3)
    assert row.baselines["training set"] == pytest.approx(890 / 900)
    assert row.baselines["shuffled labels"] == pytest.approx(1 / 3, abs=1e-6)
    assert "unlabelled" not in row.baselines


def test_sets_are_cut_to_one_size(lenet: FeatureNetwork) -> None:
    train = seen(600, "train")
    sets = lenet, seen(90, "a"), train, seen(200, "b"), {"training set": train}
    rows = feature_rows(*sets, max_n=64)
    assert rows[0].n == 64
    assert rows == feature_rows(*sets, max_n=64)
    with pytest.raises(UserError, match="baseline 'few': 10 examples are too few, 90 needed"):
        feature_rows(lenet, seen(90, "a"), train, seen(200, "b"), {"few": seen(10, "c")})


def test_no_limit_is_claimed_from_batches_smaller_than_the_features(lenet: FeatureNetwork) -> None:
    def names(n: int) -> list[str]:
        wide = FeatureSet(
            torch.randn(n, 30, generator=stream(0, n)), torch.zeros(n, dtype=torch.int64)
        )
        return [row.name for row in feature_rows(lenet, wide, wide, wide, {"itself": wide})]

    assert names(119)[:2] == ["Frechet distance (lenet5)", "kernel distance (lenet5)"]
    assert names(120)[:2] == ["Frechet distance (lenet5)", "Frechet distance (lenet5), n → ∞"]


def test_copies_are_found_in_features(lenet: FeatureNetwork) -> None:
    train, heldout = seen(500, "train"), seen(200, "heldout")
    copies = FeatureSet(torch.cat([train.x[:40] + 1e-3, seen(60, "new").x]), None)
    table = Table(feature_rows(lenet, copies, train, heldout, {"training set": train}))
    share = table["memorised fraction (lenet5)"]
    # In five dimensions a few fresh examples lie near one example alone, too: the floor.
    assert share.value >= 0.4 and share.floor < 0.1 and share.p_value is not None
    assert share.p_value < 1e-6 and share.protocol["training examples"] == 500
    assert share.protocol["network"] == "lenet5" and share.baselines == {"training set": 1.0}
    assert table["distance to training, 1 % (lenet5)"].unit == "feature units"
    assert not any("agreement" in row.name for row in table)


# Networks of one's own

OWN = """
import torch
from torch import nn

class Halves(nn.Module):
    classes = ("dark", "light")

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        features = self.drop(self.scale * x.mean((1, 2)).unflatten(1, (2, -1)).mean(2))
        return features, torch.stack([-features.sum(1), features.sum(1)], 1)

def bare():
    return nn.Sequential(nn.AdaptiveAvgPool2d(1))

def number():
    return 3

def broken():
    return nn.Linear(7, 2)

def raising():
    raise RuntimeError("no weights here")

def triple():
    return Triple()

class Triple(nn.Module):
    def forward(self, x):
        return x, x, x

ready = bare()
seven = 7
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("own") / "mine.py"
    file.write_text(OWN)
    save_file({"scale": torch.tensor([2.0, 3.0])}, file.parent / "scale.safetensors")
    return file


def test_a_network_from_a_python_file(own: Path) -> None:
    images = 2 * torch.rand(9, 3, 4, 6, generator=stream(0)) - 1
    expected = torch.stack([images[..., :3].mean((1, 2, 3)), images[..., 3:].mean((1, 2, 3))], 1)
    network = load_network(f"{own}:Halves")
    assert network.name == "mine.py:Halves" and network.classes == ("dark", "light")
    found = network.features(images, chunk=4)
    torch.testing.assert_close(found.x, expected)  # in evaluation mode, so nothing is dropped
    assert found.predicted is not None
    assert torch.equal(found.predicted, (expected.sum(1) > 0).long())
    named = network.labelled(found, torch.zeros(9, dtype=torch.int64), ("light",)).label
    assert named is not None and named.tolist() == [1] * 9

    weighted = load_network(f"{own}:Halves:{own.parent / 'scale.safetensors'}")
    scale = torch.tensor([2.0, 3.0])
    torch.testing.assert_close(weighted.features(images).x, scale * expected)
    digest = hashlib.sha256((own.parent / "scale.safetensors").read_bytes()).hexdigest()[:12]
    assert weighted.settings["weights"] == f"sha256 {digest}"
    assert network.settings["weights"] != weighted.settings["weights"]


def test_features_alone_have_no_classes_and_are_flattened(own: Path) -> None:
    for name in ("bare", "ready"):
        found = load_network(f"{own}:{name}").features(torch.ones(5, 3, 4, 4))
        assert found.x.shape == (5, 3) and found.predicted is None


def test_refusals_of_networks_of_ones_own(own: Path) -> None:
    def refused(text: str, message: str) -> None:
        with pytest.raises(UserError, match=message):
            load_network(text).require((3, 8, 8))

    refused(f"{own}", r"write .*mine.py:FACTORY, or .*FILE.safetensors")
    refused(f"{own}:bare:", "write .*FACTORY")
    refused(f"{own.parent}/none.py:bare", "no such file")
    refused(f"{own}:bear", "has no 'bear'.* did you mean 'bare'")
    refused(f"{own}:number", r"number\(\) returns no nn.Module but int")
    refused(f"{own}:seven", "seven is neither a function nor a module")
    refused(f"{own}:raising", "fails: RuntimeError: no weights here")
    refused(f"{own}:broken", r"mine.py:broken fails on images of shape \(3, 8, 8\)")
    refused(f"{own}:triple", r"returned \[.*\] for 2 images: it should return features \(2, d\)")
    refused(f"{own}:Halves:{own.parent}/w.pt", "w.pt is no .safetensors file")
    refused("net.pt2", r"unpickles .* MODULE.py:FACTORY:FILE.safetensors")
    refused("nothing", "no feature network 'nothing' .*, or MODULE.py:FACTORY")
    with pytest.raises(UserError, match=r"these examples have shape \(8,\): they are none"):
        load_network(f"{own}:bare").require((8,))


# Inception


def test_fid_names_its_extra_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(UserError, match=r"'torch-fidelity': pip install 'monge\[fid\]'") as told:
        load_network("fid")
    assert "\n" not in str(told.value)
    with pytest.raises(UserError, match="takes no file, not 'a"):
        load_network("fid:a.pt")


def test_inception_sees_whole_numbers_in_three_channels() -> None:
    given: list[Tensor] = []

    class Extractor(torch.nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor]:
            given.append(x)
            return (x.float().flatten(1),)

    grey = torch.tensor([-1.0, 0.0, 1.0, 1 / 127.5]).reshape(1, 1, 2, 2)
    features = Inception(Extractor())(grey)
    assert given[0].dtype == torch.uint8 and given[0].shape == (1, 3, 2, 2)
    assert given[0][0].flatten(1).tolist() == [[0, 128, 255, 128]] * 3
    assert features.shape == (1, 12)
    colour = torch.rand(2, 3, 4, 4, generator=stream(0)) * 2 - 1
    Inception(Extractor())(colour)
    torch.testing.assert_close(given[1].float() / 127.5 - 1, colour, atol=0.5 / 127, rtol=0)
