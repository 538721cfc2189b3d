"""Pictures of samples: grids of images, and scatter plots of tables.

Every function takes tensors and returns a Pillow image or an array; `png_of` returns the content
of a file, and only `save_png` writes.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from monge.data.columns.schema import TableCodec
from monge.data.images.raw import shown_lines
from monge.errors import UserError
from monge.system.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

TILE = 56
"""Approximate side of an image in a grid, in pixels."""

WIDE = 14
"""Images in a row of a wide picture."""

GREY = 128
"""Grey level between the images of a grid."""

PART = 3
"""Width of the space between separate parts of a grid, in gaps."""

MOST_POINTS = 2000
"""Most points of each set in a scatter plot."""

MOST_COORDINATES = 4
"""Most coordinates in a scatter plot."""

COLOURS = {"real": "#4a7ebb", "generated": "#c2410c"}


def to_uint8(images: Tensor) -> np.ndarray:
    """Images (N, C, H, W) in [-1, 1] as (N, H, W, C) bytes, the layout of ADM's npz files.

    Values outside are clipped; NaN becomes black.

    Raises:
        UserError: the tensor does not have four axes.
    """
    if images.ndim != 4:
        raise UserError(f"images have shape (N, C, H, W), not {tuple(images.shape)}")
    values = images.detach().float().nan_to_num(nan=-1.0).clamp(-1, 1)
    return ((values + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def grid(images: Tensor, columns: int, scale: int | None = None, gap: int | None = None) -> Image:
    """Images side by side, row by row.

    Args:
        images: (N, C, H, W) in [-1, 1]: grey, RGB or RGBA; of two channels the first is shown,
            of more than four the first three as RGB.
        columns: images per row; an incomplete last row is filled with grey.
        scale: integer enlargement of each pixel; none: images of about `TILE` pixels.
        gap: pixels between the images; none: about a fourteenth of an image.

    Raises:
        UserError: no images, or no columns.
    """
    _require_images(images, columns)
    tiles = _tiles(images, scale)
    gap = _gap(tiles, gap)
    return _as_image(_joined(_rows(tiles, columns, gap), gap, axis=0))


def reconstruction_grid(
    x: Tensor, y: Tensor, columns: int = 8, scale: int | None = None, gap: int | None = None
) -> Image:
    """Originals above their reconstructions, both (N, C, H, W) in [-1, 1]; pairs of rows.

    Raises:
        UserError: no images, or the shapes differ.
    """
    _require_images(x, columns)
    if x.shape != y.shape:
        raise UserError(
            f"originals {tuple(x.shape)} and reconstructions {tuple(y.shape)} differ in shape"
        )
    originals, copies = _tiles(x, scale), _tiles(y, scale)
    gap = _gap(originals, gap)
    above, below = _rows(originals, columns, gap), _rows(copies, columns, gap)
    pairs = [_joined(pair, gap, axis=0) for pair in zip(above, below, strict=True)]
    return _as_image(_joined(pairs, PART * gap, axis=0))


def neighbour_grid(
    samples: Tensor,
    neighbours: Tensor,
    columns: int | None = None,
    scale: int | None = None,
    gap: int | None = None,
) -> Image:
    """Each sample, then its k nearest training examples.

    Args:
        samples: (N, C, H, W) in [-1, 1].
        neighbours: (N, k, C, H, W), the nearest first.
        columns: groups in a row; none: about `WIDE` images in all.
        scale, gap: as in `grid`.

    Raises:
        UserError: no images, or the shapes do not match.
    """
    _require_images(samples, 1 if columns is None else columns)
    if neighbours.ndim != 5 or neighbours[:, 0].shape != samples.shape:
        raise UserError(
            f"neighbours of samples {tuple(samples.shape)} have one more axis after the first, "
            f"not shape {tuple(neighbours.shape)}"
        )
    if columns is None:
        columns = max(1, WIDE // (neighbours.shape[1] + 2))  # sample, neighbours, space
    tiles = _tiles(samples, scale)
    gap = _gap(tiles, gap)
    near = _rows(_tiles(neighbours.flatten(0, 1), scale), neighbours.shape[1], gap)
    pairs = zip(tiles, near, strict=True)
    groups = np.stack([_joined(pair, PART * gap, axis=1) for pair in pairs])
    rows = _rows(groups, columns, PART**2 * gap)
    return _as_image(_joined(rows, gap, axis=0))


def table_plot(
    samples: Tensor,
    real: Tensor | None = None,
    names: Sequence[str] | None = None,
    titles: tuple[str, str] = ("real", "generated"),
) -> Image:
    """Generated and real rows of a table: histograms, and scatter plots of pairs of columns.

    At most `MOST_COORDINATES` columns and `MOST_POINTS` rows of each set are shown; the axes cover
    the central 99.8 % of the values.

    Args:
        samples: (N, D).
        real: (M, D); none: only the samples are shown.
        names: a name for each column; none: x0, x1, ...
        titles: of the real rows and of the samples.

    Raises:
        UserError: no rows, or the tables differ in their columns.
    """
    from matplotlib.figure import Figure

    below, above = titles
    clouds = {above: samples} if real is None else {below: real, above: samples}
    size = min(samples.shape[-1], MOST_COORDINATES)
    for cloud in clouds.values():
        if cloud.ndim != 2 or not cloud.numel() or cloud.shape[1] != samples.shape[1]:
            raise UserError(
                "a plot of a table needs rows (N, D) of equal columns, not "
                + " and ".join(str(tuple(c.shape)) for c in clouds.values())
            )
    points = {name: _points(cloud, size) for name, cloud in clouds.items()}
    names = list(names) if names else [f"x{j}" for j in range(size)]
    ranges = [_range([rows[:, j] for rows in points.values()]) for j in range(size)]
    side = 1.9 * size + 0.8
    figure = Figure((6.4, 4.0) if size == 1 else (side, side), dpi=100, layout="constrained")
    axes = figure.subplots(size, size, squeeze=False, sharex="col")
    for i in range(size):
        for j in range(size):
            ax = axes[i, j]
            if j > i:
                ax.set_axis_off()
                continue
            _draw_pair(ax, points, above, (j, i), ranges)
            ax.set_ylabel("density" if i == j else names[i], size=9, parse_math=False)
            if i == size - 1:
                ax.set_xlabel(names[j], size=9, parse_math=False)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="upper right", frameon=False)
    if samples.shape[1] > size:
        figure.suptitle(f"{size} of {samples.shape[1]} columns", size=10)
    return _drawn(figure)


def _draw_pair(
    ax: Any,
    points: Mapping[str, np.ndarray],
    above: str,
    pair: tuple[int, int],
    ranges: Sequence[tuple[float, float]],
) -> None:
    """One panel: a histogram of a column, or one column against another."""
    j, i = pair
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8, length=2)
    ax.set_xlim(ranges[j])
    if i != j:
        ax.set_ylim(ranges[i])
    for name, rows in points.items():
        color = COLOURS["generated" if name == above else "real"]
        if i != j:
            ax.scatter(rows[:, j], rows[:, i], s=4, color=color, alpha=0.45, lw=0)
            continue
        style = {"histtype": "step", "lw": 1.6} if name == above else {"alpha": 0.45}
        ax.hist(rows[:, j], 40, ranges[j], density=True, color=color, label=name, **style)


def rows_plot(codec: TableCodec | None, samples: Tensor, real: Tensor | None) -> Image:
    """`table_plot` of coordinates, in the columns' units and with their names, if known.

    Numbers come first: pairs of the zeros and ones of a category show little.
    """
    if codec is None:
        return table_plot(samples, real)
    names = codec.coordinate_names
    numbers = {c.name for c in codec.columns if c.role == "number"}
    order = sorted(range(len(names)), key=lambda j: names[j] not in numbers)
    shown = None if real is None else codec.natural(real)[:, order]
    return table_plot(codec.natural(samples)[:, order], shown, [names[j] for j in order])


def save_png(image: Image, path: Path, text: Mapping[str, object] | None = None) -> Path:
    """Write a PNG atomically, with text chunks such as seed, index, run and config hash.

    Raises:
        UserError: the file cannot be written.
    """
    return write_atomic(Path(path), png_of(image, text))


def png_of(image: Image, text: Mapping[str, object] | None = None) -> bytes:
    """The content of a PNG file, with text chunks."""
    from PIL.PngImagePlugin import PngInfo

    chunks = PngInfo()
    for key, value in (text or {}).items():
        chunks.add_text(key, shown_lines(str(value)))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", pnginfo=chunks)
    return buffer.getvalue()


def _require_images(images: Tensor, columns: int) -> None:
    if images.ndim != 4 or not images.numel() or columns < 1:
        raise UserError(
            f"a grid needs images (N, C, H, W) and columns, not shape {tuple(images.shape)} "
            f"and {columns} columns"
        )


def _tiles(images: Tensor, scale: int | None) -> np.ndarray:
    """Images as (N, H, W, 1 | 3 | 4) bytes, each pixel enlarged to a square of `scale` pixels."""
    tiles = to_uint8(images)
    channels = tiles.shape[3]
    if channels not in (1, 3, 4):
        tiles = tiles[..., :1] if channels == 2 else tiles[..., :3]
    scale = scale or max(1, round(TILE / max(tiles.shape[1:3])))
    return tiles.repeat(scale, axis=1).repeat(scale, axis=2)


def _gap(tiles: np.ndarray, gap: int | None) -> int:
    return max(2, max(tiles.shape[1:3]) // 14) if gap is None else gap


def _rows(tiles: np.ndarray, columns: int, gap: int) -> list[np.ndarray]:
    """Tiles (N, H, W, C) as rows of equal width; the last one is filled with grey."""
    columns = min(columns, len(tiles))
    missing = -len(tiles) % columns
    tiles = np.concatenate((tiles, *[_space(tiles[:1], 1, axis=0)] * missing))
    return [_joined(tiles[i : i + columns], gap, 1) for i in range(0, len(tiles), columns)]


def _joined(parts: Iterable[np.ndarray], gap: int, axis: int) -> np.ndarray:
    """Arrays (H, W, C) joined along an axis, with grey between them."""
    first, *others = parts
    pieces = [first]
    for part in others:
        pieces += [_space(part, gap, axis), part]
    return np.concatenate(pieces, axis=axis)


def _space(like: np.ndarray, size: int, axis: int) -> np.ndarray:
    """Opaque grey, shaped like an array but of the given size along an axis."""
    shape = list(like.shape)
    shape[axis] = size
    space = np.full(shape, GREY, np.uint8)
    space[..., 3:] = 255
    return space


def _as_image(sheet: np.ndarray) -> Image:
    from PIL import Image

    return Image.fromarray(sheet[..., 0] if sheet.shape[2] == 1 else sheet)


def _range(columns: list[np.ndarray]) -> tuple[float, float]:
    """The central 99.8 % of the first column, widened to hold most of the others."""
    ends = np.stack([np.quantile(column, (0.001, 0.999)) for column in columns if column.size])
    low, high = float(ends[:, 0].min()), float(ends[:, 1].max())
    # For large numbers close together: the edges of a histogram's bins must differ.
    least = 200 * float(np.spacing(max(abs(low), abs(high))))
    margin = max(0.05 * (high - low) or 0.5, (least - (high - low)) / 2)
    return low - margin, high + margin


def _points(table: Tensor, columns: int) -> np.ndarray:
    rows = table[:MOST_POINTS, :columns].detach().double().cpu().numpy()
    return rows[np.isfinite(rows).all(1)]


def _drawn(figure: Figure) -> Image:
    from PIL import Image

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    buffer.seek(0)
    return Image.open(buffer).convert("RGB")
