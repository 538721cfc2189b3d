"""Sources: known data in one range and layout, fixed splits, and messages for what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from monge.data.array_data import from_arrays, from_dataset
from monge.data.base import Data
from monge.data.sources import load
from monge.errors import UserError

RNG = np.random.default_rng(0)


def together(data: Data) -> torch.Tensor:
    return torch.cat([data.train[:], data.heldout[:]])


def rows_of(x: torch.Tensor) -> set[bytes]:
    return {row.numpy().tobytes() for row in x}


@pytest.fixture(scope="module")
def digits() -> Data:
    return load("digits")


def test_digits(digits: Data) -> None:
    assert (digits.name, digits.text, digits.kind) == ("digits", "digits", "image")
    assert digits.shape == (1, 8, 8)
    assert len(digits.train) == 1438 and len(digits.heldout) == 359
    assert digits.train.dtype == torch.float32
    assert float(together(digits).min()) == -1.0 and float(together(digits).max()) == 1.0
    assert digits.label_names == tuple("0123456789")
    assert digits.train_label is not None and digits.heldout_label is not None
    counts = torch.cat([digits.train_label, digits.heldout_label]).bincount()
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_the_split_is_disjoint_and_fixed(digits: Data) -> None:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    known = {
        row.tobytes(): label for row, label in zip(np.float32(pixels / 8 - 1), labels, strict=True)
    }
    assert len(known) == 1797
    train, heldout = rows_of(digits.train), rows_of(digits.heldout)
    assert not train & heldout and train | heldout == set(known)
    for x, y in ((digits.train, digits.train_label), (digits.heldout, digits.heldout_label)):
        assert y is not None
        assert [known[row.numpy().tobytes()] for row in x] == y.tolist()
    again = load("digits")
    assert torch.equal(again.heldout, digits.heldout) and again.fingerprint == digits.fingerprint


def test_golden_split(digits: Data) -> None:
    """Runs are compared against these held-out examples: they must never change."""
    assert digits.fingerprint == FINGERPRINT


FINGERPRINT = "49ae76c1af5a76db"


def test_fingerprints_tell_data_apart(digits: Data) -> None:
    import dataclasses

    changed = digits.train.clone()
    changed[700, 0, 3, 3] += 1e-6
    assert digits.train_label is not None
    labels = digits.train_label.clone()
    labels[3] += 1
    others = [
        dataclasses.replace(digits, train=changed),
        dataclasses.replace(digits, train_label=labels),
        dataclasses.replace(digits, train_label=None),
        dataclasses.replace(digits, heldout=digits.heldout[1:]),
        dataclasses.replace(digits, train=digits.train.reshape(-1, 1, 4, 16)),
    ]
    assert len({digits.fingerprint, *(other.fingerprint for other in others)}) == 6
    assert dataclasses.replace(digits, name="other").fingerprint == digits.fingerprint


@pytest.mark.parametrize("text", ["target:gaussian:dim=3", "target:mixture:dim=2,modes=4"])
def test_targets(text: str) -> None:
    data = load(text)
    assert data.kind == "table" and data.text == text and data.target is not None
    assert len(data.train) == 20_000 and len(data.heldout) == 5_000
    assert data.train.dtype == torch.float32
    error = (data.train.double().mean(0) - data.target.mean).abs()
    assert float((error / (data.target.covariance.diagonal() / 20_000).sqrt()).max()) < 4.5
    assert (data.train_label is None) == ("gaussian" in text)
    if data.train_label is not None:
        assert data.label_names == ("0", "1", "2", "3")
    assert load(text).fingerprint == data.fingerprint
    assert not rows_of(data.train[:500]) & rows_of(data.heldout)


IMAGES = RNG.integers(0, 256, (20, 6, 5, 3), dtype=np.uint8)

LABELS = np.arange(20) % 3


@pytest.mark.parametrize("layout", ["NHWC", "NCHW", "grey", "float"])
def test_images_come_in_one_layout_and_range(layout: str) -> None:
    given = {
        "NHWC": IMAGES,
        "NCHW": IMAGES.transpose(0, 3, 1, 2),
        "grey": IMAGES[..., 0],
        "float": (IMAGES / 127.5 - 1).transpose(0, 3, 1, 2),
    }[layout]
    data = from_arrays(given, LABELS)
    expected = torch.from_numpy(np.float32(IMAGES).transpose(0, 3, 1, 2) / 127.5 - 1)
    expected = expected[:, :1] if layout == "grey" else expected
    assert data.kind == "image" and data.shape == expected.shape[1:]
    assert len(data.heldout) == 4
    found = together(data)
    order = torch.cdist(found.flatten(1), expected.flatten(1)).argmin(1)
    torch.testing.assert_close(found, expected[order])
    assert sorted(order.tolist()) == list(range(20))
    assert data.train_label is not None and data.heldout_label is not None
    labels = torch.cat([data.train_label, data.heldout_label])
    assert torch.equal(labels, torch.from_numpy(LABELS)[order])


def test_files(tmp_path: Path) -> None:
    table = RNG.normal(size=(30, 4)).astype(np.float32)
    names = np.array(["cat", "dog", "ant"])[np.arange(30) % 3]
    np.save(tmp_path / "table.npy", table)
    np.savez(tmp_path / "table.npz", x=table, y=names)
    np.savez(tmp_path / "split.npz", x_train=table[:20], y_train=names[:20], x_test=table[20:],
             y_test=names[20:])  # fmt: skip
    plain, labelled, split = (load(str(tmp_path / n)) for n in
                              ("table.npy", "table.npz", "split.npz"))  # fmt: skip
    assert plain.kind == "table" and plain.name == "table" and plain.train_label is None
    assert plain.rows is not None and labelled.rows is not None and split.rows is not None
    for data in (plain, labelled, split):
        assert data.rows is not None and data.codec is not None
        values = data.codec.natural(data.train).numpy()
        np.testing.assert_allclose(values, table[data.rows[0]], rtol=1e-5, atol=1e-6)
        assert sorted(torch.cat(data.rows).tolist()) == list(range(30))
    assert labelled.label_names == ("ant", "cat", "dog")
    assert labelled.train_label is not None
    expected = [labelled.label_names.index(names[i]) for i in labelled.rows[0]]
    assert labelled.train_label.tolist() == expected
    # A split that the file brings is kept.
    assert split.rows[1].tolist() == list(range(20, 30))
    assert split.heldout_label is not None
    assert [split.label_names[k] for k in split.heldout_label] == names[20:].tolist()


def test_labels_are_ordered_by_value() -> None:
    data = from_arrays(RNG.normal(size=(12, 2)), np.array([10, 2, 33] * 4))
    assert data.label_names == ("2", "10", "33")


def test_datasets() -> None:
    x = torch.from_numpy(RNG.normal(size=(15, 3)))
    plain = from_dataset([row for row in x])
    labelled = from_dataset(TensorDataset(x, torch.arange(15) % 2))
    assert torch.equal(plain.train, labelled.train) and plain.train.dtype == torch.float32
    assert labelled.label_names == ("0", "1")
    with pytest.raises(UserError, match="the dataset is empty"):
        from_dataset([])


GOOD = np.zeros((20, 3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((20,)),), "shape (20,): images have 3 or 4 axes, tables 2"),
        ((np.zeros((2, 2, 2, 2, 2)),), "images have 3 or 4 axes, tables 2"),
        ((np.zeros((0, 3)),), "there is nothing in them"),
        ((np.zeros((20, 0, 4)),), "there is nothing in them"),
        ((np.zeros((9, 3)),), "9 examples are too few; at least 10 are needed"),
        ((np.full((20, 3), "a"),), "numbers are needed"),
        ((np.zeros((20, 3), dtype=complex),), "numbers are needed"),
        ((np.where(np.arange(60).reshape(20, 3) == 31, np.nan, 0),), "the first is example 10"),
        ((np.where(np.arange(60).reshape(20, 3) < 5, np.inf, 0),), "2 of 20 hold NaN or infinite"),
        ((np.full((20, 4, 4), 256.5),), "give uint8, or floats in [-1, 1], [0, 1] or [0, 255]"),
        ((np.full((20, 4, 4), 1.5),), "images in [1.5, 1.5], which is no known scale"),
        ((IMAGES.astype(np.int64) - 9,), "which is no known scale"),
        ((GOOD, np.zeros(19)), "labels have shape (19,); 20 examples need (20,)"),
        ((GOOD, np.eye(20)), "labels have shape (20, 20); 20 examples need (20,): one-hot rows"),
        ((GOOD, None, np.zeros((5, 4))), "held-out examples have shape (4,)"),
        ((GOOD, np.arange(20) % 2, GOOD, np.arange(20) % 3), "labels ['2'] do not occur"),
    ],
)
def test_arrays_that_are_no_data(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(UserError) as raised:
        from_arrays(*arguments)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("digit", "no such file or source 'digit': did you mean 'digits'?"),
        ("digits:3", "source 'digits' takes no settings"),
        ("target:mixtur:dim=2", "unknown target 'mixtur': did you mean 'mixture'?"),
        ("target:mixture:dims=2", "did you mean 'dim'?"),
        ("{folder}/nowhere.npz", "no such file: {folder}/nowhere.npz"),
        ("{folder}/photos", "holds no images"),
        ("{folder}/notes.txt", "give a folder of images"),
        ("{folder}/empty.npz", "cannot read {folder}/empty.npz: No data left in file"),
        ("{folder}/text.npy", "cannot read {folder}/text.npy"),
        ("{folder}/zip.npz", "cannot read {folder}/zip.npz: File is not a zip file"),
        ("{folder}/cut.npz", "cannot read"),
        ("{folder}/damaged.npz", "cannot read 'x' in {folder}/damaged.npz"),
        ("{folder}/pickled.npy", "Object arrays cannot be loaded"),
        ("{folder}/named.npz", "holds ['pixels']: the examples should be one of"),
        ("{folder}/photos.npy", "cannot read {folder}/photos.npy"),
    ],
)
def test_files_that_are_no_data(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos.npy").mkdir()
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "text.npy").write_text("these are no numbers")
    (tmp_path / "zip.npz").write_bytes(b"PK\x03\x04 and nothing more")
    np.savez(tmp_path / "whole.npz", x=RNG.normal(size=(50, 40)))
    content = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(content[: len(content) // 2])
    middle = len(content) // 2
    (tmp_path / "damaged.npz").write_bytes(
        content[:middle] + bytes(255 - b for b in content[middle : middle + 40])
        + content[middle + 40 :]
    )  # fmt: skip
    np.save(tmp_path / "pickled.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "named.npz", pixels=GOOD)
    with pytest.raises(UserError) as raised:
        load(text.format(folder=tmp_path))
    assert message.format(folder=tmp_path) in str(raised.value)
