"""Pictures with a row of images for each class, and its name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from monge.data.images.raw import shown
from monge.sampling import images

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_CLASSES = 40
"""Most classes that get rows of their own."""

LONGEST = 20
"""Most characters of a name."""


def across_classes(label: Tensor | None, most: int) -> Tensor:
    """Row numbers of up to `most` examples, from every class in turn; without labels the first.

    Args:
        label: (N,) class indices, -1 for none; or None.

    >>> across_classes(torch.tensor([0, 0, 0, 1, 2, 1]), 4).tolist()
    [0, 3, 4, 1]
    """
    if label is None:
        return torch.arange(most)
    rank = torch.zeros_like(label)
    for k in label.unique():
        own = label == k
        rank[own] = torch.arange(int(own.sum()))
    order = rank * (int(label.max()) + 2) + label  # by rank, then by class
    return order.argsort(stable=True)[:most]


def worth_rows(label: Tensor | None, names: Sequence[str]) -> bool:
    """Whether examples with these labels are arranged in rows by class."""
    if label is None or not names or bool((label < 0).any()):
        return False
    return 1 < len(label.unique()) <= MOST_CLASSES


def by_class(x: Tensor, label: Tensor, names: Sequence[str], columns: int) -> Image:
    """Images (N, C, H, W) in [-1, 1] in rows by class, each class's name beside its first row.

    Args:
        label: (N,) indices into the names.
        columns: images in a row, at most.
    """
    from PIL import Image, ImageDraw

    classes = sorted(int(k) for k in label.unique())
    rows = [x[label == k].split(columns) for k in classes]
    width = min(columns, max(len(part) for parts in rows for part in parts))
    # An incomplete row is filled with the grey between the images.
    grey = torch.full_like(x[:1], images.GREY / 127.5 - 1)
    grey[:, 3:] = 1.0  # opaque
    filled = [torch.cat([part, *[grey] * (width - len(part))]) for parts in rows for part in parts]
    picture = images.grid(torch.cat(filled), width)
    height = (picture.height + 1) // len(filled)  # of a row, with the gap below it
    font, written = _font(min(max(height // 4, 9), 18)), [_short(names[k]) for k in classes]
    margin = 10 + max(round(font.getlength(name)) for name in written)
    white = 255 if picture.mode == "L" else (255,) * len(picture.getbands())
    black = 0 if picture.mode == "L" else (*(0, 0, 0), 255)[: len(picture.getbands())]
    sheet = Image.new(picture.mode, (picture.width + margin, picture.height), white)
    sheet.paste(picture, (margin, 0))
    draw, line = ImageDraw.Draw(sheet), 0
    for name, parts in zip(written, rows, strict=True):
        top = round(line * (picture.height + _gap_of(x)) / len(filled))
        draw.text((margin - 6, top + height / 2), name, fill=black, font=font, anchor="rm")
        line += len(parts)
    return sheet


def _gap_of(x: Tensor) -> int:
    """Pixels between the rows of a grid."""
    side = max(x.shape[2:]) * max(1, round(images.TILE / max(x.shape[2:])))
    return max(2, side // 14)


def _short(name: str) -> str:
    plain = shown(name)
    return plain if len(plain) <= LONGEST else plain[: LONGEST - 1] + "…"


def _font(size: int) -> Any:
    """A font with most alphabets, from matplotlib."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)
