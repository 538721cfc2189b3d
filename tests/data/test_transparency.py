"""Transparency on request: a fourth channel, the same from files and from arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from monge.data.array_data import from_arrays
from monge.data.reading import Reading
from monge.data.sources import load
from monge.runs.spec import TrainSpec

RGBA = Reading(image_mode="RGBA")


@pytest.fixture(scope="module")
def cut_outs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """Twelve images 8 x 8 whose left half is transparent, over some colour."""
    home = tmp_path_factory.mktemp("cut")
    pixels = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 4)).astype(np.uint8)
    pixels[:, :, :4, 3], pixels[:, :, 4:, 3] = 0, 200
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(home / f"{i:02d}.png")
    return home, pixels


def _bytes(x: torch.Tensor) -> np.ndarray:
    return ((x + 1) * 127.5).round().numpy().astype(np.uint8)


def test_opacity_is_the_fourth_channel_and_hidden_colours_are_white(
    cut_outs: tuple[Path, np.ndarray],
) -> None:
    home, pixels = cut_outs
    data = load(str(home), RGBA)
    assert data.shape == (4, 8, 8)
    found = np.concatenate([_bytes(data.train[:]), _bytes(data.heldout[:])])
    assert (found[:, 3, :, :4] == 0).all() and (found[:, 3, :, 4:] == 200).all()
    assert (found[:, :3, :, :4] == 255).all()
    seen = {image[:3, :, 4:].tobytes() for image in found}
    assert seen == {image[:, 4:, :3].transpose(2, 0, 1).tobytes() for image in pixels}


def test_it_is_left_out_unless_asked_for(cut_outs: tuple[Path, np.ndarray]) -> None:
    home, pixels = cut_outs
    data = load(str(home))
    assert data.shape == (3, 8, 8)
    found = np.concatenate([_bytes(data.train[:]), _bytes(data.heldout[:])])
    assert (found[..., :4] == 255).all()  # on white
    part = np.float32(200 / 255)
    expected = (pixels[:, :, 4:, :3] * part + 255 * (1 - part)).transpose(0, 3, 1, 2)
    order = [np.abs(image[:, :, 4:] - expected).max((1, 2, 3)).argmin() for image in found]
    assert sorted(order) == list(range(12))
    assert np.abs(found[..., 4:] - expected[order]).max() <= 1


def test_opaque_and_grey_images_have_full_opacity(tmp_path: Path) -> None:
    for i in range(12):
        Image.fromarray(np.full((8, 8), 10 * i, np.uint8)).save(tmp_path / f"{i}.png")
    data = load(str(tmp_path), RGBA)
    assert data.shape == (4, 8, 8) and bool((data.train[:][:, 3] == 1).all())


def test_arrays_keep_it_on_request(tmp_path: Path) -> None:
    x = np.random.default_rng(1).integers(0, 256, (12, 8, 8, 4)).astype(np.uint8)
    np.savez(tmp_path / "x.npz", x=x)
    assert load(str(tmp_path / "x.npz")).shape == (3, 8, 8)
    data = load(str(tmp_path / "x.npz"), RGBA)
    found = np.concatenate([_bytes(data.train[:]), _bytes(data.heldout[:])])
    assert {i.tobytes() for i in found} == {i.tobytes() for i in x.transpose(0, 3, 1, 2)}


LEVELS = np.arange(20 * 8 * 8 * 4).reshape(20, 8, 8, 4) % 251


@pytest.mark.parametrize(
    ("x", "mode", "channels", "told"),
    [
        (LEVELS.astype(np.uint8), "RGB", 3, "taken for transparency: on white"),
        (LEVELS.astype(np.uint8), "RGBA", 4, "transparency, which is learned"),
        (LEVELS.transpose(0, 3, 1, 2) / 250, "RGB", 4, "all of which are learned"),
        (LEVELS[..., :3].astype(np.uint8), "RGB", 3, ""),
    ],
)
def test_what_becomes_of_a_fourth_channel_is_told(
    x: np.ndarray, mode: Any, channels: int, told: str
) -> None:
    data = from_arrays(x, reading=Reading(image_mode=mode))
    notes = [line for line in data.summary if "channel" in line]
    assert data.shape == (channels, 8, 8)
    assert [told in note for note in notes] == [True] * bool(told)


def test_runs_without_the_setting_keep_their_names() -> None:
    assert TrainSpec(image_mode="RGBA").digest() != TrainSpec().digest()
    assert TrainSpec().digest() == "9e803a9a"
