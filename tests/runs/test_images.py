"""Grids by their pixels, text chunks, plots of tables."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from monge.errors import UserError
from monge.sampling import images


def levels(*values: float) -> torch.Tensor:
    """Grey images of one pixel each."""
    return torch.tensor(values).reshape(-1, 1, 1, 1)


def test_a_grid_is_exact_to_the_pixel():
    x = torch.tensor([[[[-1.0, 1.0]]], [[[1.0, -1.0]]], [[[0.0, 1.0]]]])  # three of 1 x 2
    g = images.GREY
    expected = [
        [0, 0, 255, 255, g, 255, 255, 0, 0],
        [0, 0, 255, 255, g, 255, 255, 0, 0],
        [g] * 9,
        [128, 128, 255, 255, g, g, g, g, g],
        [128, 128, 255, 255, g, g, g, g, g],
    ]
    assert np.asarray(images.grid(x, 2, scale=2, gap=1)).tolist() == expected


@pytest.mark.parametrize("size, tile", [(8, 56), (28, 56), (32, 64), (64, 64), (256, 256)])
def test_tiles_are_large_enough_to_see(size, tile):
    assert images.grid(torch.zeros(1, 1, size, size), 4).size == (tile, tile)


@pytest.mark.parametrize(
    "channels, mode", [(1, "L"), (2, "L"), (3, "RGB"), (4, "RGBA"), (5, "RGB"), (16, "RGB")]
)
def test_channels_decide_the_mode(channels, mode):
    x = torch.linspace(-1, 1, channels).reshape(1, channels, 1, 1)
    shown = images.grid(x, 1, scale=1)
    assert shown.mode == mode
    first = images.to_uint8(x)[0, 0, 0, : len(shown.getbands())]
    assert np.asarray(shown).reshape(-1).tolist() == first.tolist()


def test_the_space_of_rgba_grids_is_opaque():
    sheet = np.asarray(images.grid(torch.full((2, 4, 1, 1), -1.0), 2, scale=1, gap=1))
    assert sheet[0].tolist() == [[0] * 4, [images.GREY] * 3 + [255], [0] * 4]


def test_bytes_invert_and_clip():
    bytes_ = torch.arange(256.0)
    x = (bytes_ / 127.5 - 1).reshape(256, 1, 1, 1)
    assert images.to_uint8(x).reshape(-1).tolist() == bytes_.tolist()
    wild = images.to_uint8(levels(-7.0, 7.0, float("nan"), float("inf")))
    assert wild.shape == (4, 1, 1, 1) and wild.reshape(-1).tolist() == [0, 255, 0, 255]


def test_reconstructions_stand_below_their_originals():
    sheet = images.reconstruction_grid(
        levels(-1, 1, 1), levels(1, -1, -1), columns=2, scale=1, gap=1
    )
    g, part = images.GREY, [[images.GREY] * 3] * images.PART
    expected = [[0, g, 255], [g] * 3, [255, g, 0], *part, [255, g, g], [g] * 3, [0, g, g]]
    assert np.asarray(sheet).tolist() == expected


def test_neighbours_stand_right_of_their_sample():
    near = levels(1, -1, -1, 1, -1, -1).reshape(3, 2, 1, 1, 1)
    sheet = images.neighbour_grid(levels(-1, 1, 1), near, columns=2, scale=1, gap=1)
    g = images.GREY
    bar, apart = [g] * images.PART, [g] * images.PART**2
    top = [0, *bar, 255, g, 0, *apart, 255, *bar, 0, g, 255]
    bottom = [255, *bar, 0, g, 0] + [g] * (len(top) - len(bar) - 4)
    assert np.asarray(sheet).tolist() == [top, [g] * len(top), bottom]


def test_text_goes_with_the_picture(tmp_path):
    text = {"seed": 3, "index": "7", "run": "digits-1", "config": "8c41f0aa"}
    path = images.save_png(
        images.grid(torch.zeros(1, 1, 8, 8), 1), tmp_path / "new" / "a.png", text
    )
    with Image.open(path) as found:
        assert found.text == {key: str(value) for key, value in text.items()}
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]


@pytest.mark.parametrize("columns", [1, 2, 6])
def test_tables_are_plotted(columns):
    rng = torch.Generator().manual_seed(0)
    x, real = (torch.randn(50, columns, generator=rng) for _ in range(2))
    x[0] = float("nan")
    names = [f"$a_{j}" for j in range(columns)]  # no formulas
    both, alone = images.table_plot(x, real, names), images.table_plot(x)
    assert both.mode == "RGB" and min(both.size) > 250
    assert both.size == alone.size and both.tobytes() != alone.tobytes()


def test_only_the_range_of_most_points_is_shown():
    """One far outlier does not squeeze the picture."""
    x = torch.linspace(-1, 1, 2000)[:, None]
    assert images._range([x[:, 0].double().numpy()]) == pytest.approx((-1.1, 1.1), rel=0.01)
    x[0] = 1e6
    assert images._range([x[:, 0].double().numpy()])[1] == pytest.approx(1.1, rel=0.01)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: images.grid(torch.zeros(0, 1, 8, 8), 4),
        lambda: images.grid(torch.zeros(2, 1, 8, 8), 0),
        lambda: images.grid(torch.zeros(8, 8), 1),
        lambda: images.to_uint8(torch.zeros(8, 8)),
        lambda: images.reconstruction_grid(torch.zeros(2, 1, 8, 8), torch.zeros(1, 1, 8, 8)),
        lambda: images.neighbour_grid(torch.zeros(2, 1, 8, 8), torch.zeros(2, 1, 8, 8)),
        lambda: images.table_plot(torch.zeros(3, 2), torch.zeros(3, 4)),
        lambda: images.table_plot(torch.zeros(0, 2)),
    ],
)
def test_wrong_shapes_are_told(wrong):
    with pytest.raises(UserError, match=r"shape|images|rows"):
        wrong()
