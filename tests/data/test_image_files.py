"""Image files as pixels: golden values for every format, mode, depth, orientation and fit."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from making_images import bomb, png
from monge.data.images.image_files import (
    FORMATS,
    MOST_PIXELS,
    Unreadable,
    White,
    look,
    read,
    resize,
)

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
QUARTERS = np.array([[RED, GREEN], [BLUE, WHITE]], np.uint8).repeat(8, 0).repeat(8, 1)
"""A 16 x 16 picture, each quarter of one colour."""


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def corners(pixels: np.ndarray) -> list[tuple[int, ...]]:
    """The middle pixels of the four quarters, row by row."""
    _, h, w = pixels.shape
    at = [(h // 4, w // 4), (h // 4, 3 * w // 4), (3 * h // 4, w // 4), (3 * h // 4, 3 * w // 4)]
    return [tuple(int(v) for v in pixels[:, y, x]) for y, x in at]


def tiff(values: np.ndarray, order: str, tags: dict[int, tuple[int, int]] | None = None) -> bytes:
    """A TIFF of one uncompressed strip, by hand, in either byte order."""
    height, width = values.shape[:2]
    bits = 8 * values.dtype.itemsize
    fields = {256: (3, width), 257: (3, height), 258: (3, bits), 259: (3, 1), 262: (3, 1)}
    fields |= {273: (4, 8), 277: (3, 1), 278: (3, height), 279: (4, values.nbytes), **(tags or {})}
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    mark = {"<": b"II*\0", ">": b"MM\0*"}[order]
    out = (
        mark
        + struct.pack(order + "I", 8 + len(data))
        + data
        + struct.pack(order + "H", len(fields))
    )
    for tag, (kind, value) in sorted(fields.items()):
        packed = (
            struct.pack(order + "HH", value, 0) if kind == 3 else struct.pack(order + "I", value)
        )
        out += struct.pack(order + "HHI", tag, kind, 1) + packed
    return out + struct.pack(order + "I", 0)


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF", "BMP", "GIF", "JPEG"])
def test_formats(format: str) -> None:
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}
    content = saved(Image.fromarray(QUARTERS), format, **options.get(format, {}))
    pixels, header = read(content, (16, 16), 3)
    assert header.format == format and format in FORMATS
    assert header.size == (16, 16) and pixels.shape == (3, 16, 16) and pixels.dtype == np.uint8
    if format == "JPEG":
        assert np.abs(pixels.astype(int) - QUARTERS.transpose(2, 0, 1)).max() <= 2
    else:
        assert np.array_equal(pixels, QUARTERS.transpose(2, 0, 1))


def test_the_first_frame_of_animations() -> None:
    frames = [Image.new("RGB", (8, 8), c) for c in (GREEN, RED, BLUE)]
    for format, options in (("GIF", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("PNG", {})):
        content = saved(frames[0], format, save_all=True, append_images=frames[1:], **options)
        pixels, _ = read(content, (8, 8), 3)
        assert corners(pixels) == [GREEN] * 4, format


def test_several_pictures_behind_a_jpeg() -> None:
    """What some cameras write, and Pillow calls MPO."""
    frames = [Image.new("RGB", (40, 40), c) for c in (GREEN, RED)]
    content = saved(frames[0], "MPO", save_all=True, append_images=frames[1:], quality=100)
    pixels, header = read(content, (8, 8), 3)
    assert header.format == "MPO" and np.abs(pixels[:, 4, 4].astype(int) - GREEN).max() <= 2


def test_grey_and_bits() -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for format in ("PNG", "BMP", "TIFF", "GIF"):
        pixels, header = read(saved(Image.fromarray(ramp), format), (16, 16), 1)
        assert header.grey and np.array_equal(pixels[0], ramp), format
        pixels, _ = read(saved(Image.fromarray(ramp), format), (16, 16), 3)
        assert np.array_equal(pixels, np.stack([ramp] * 3)), format
    bits = Image.fromarray(ramp > 100)
    for format in ("PNG", "TIFF", "BMP"):
        pixels, header = read(saved(bits, format), (16, 16), 1)
        assert header.grey and np.array_equal(pixels[0], np.where(ramp > 100, 255, 0)), format


def test_colour_as_grey_is_luma() -> None:
    pixels, header = read(saved(Image.new("RGB", (4, 4), (200, 100, 50)), "PNG"), (4, 4), 1)
    assert not header.grey
    assert int(pixels[0, 0, 0]) == round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)  # ITU-R 601


def test_palettes() -> None:
    image = Image.fromarray(QUARTERS).quantize(4)
    pixels, header = read(saved(image, "PNG"), (16, 16), 3)
    assert header.mode == "P" and not header.grey
    assert np.array_equal(pixels, QUARTERS.transpose(2, 0, 1))
    clear = image.getpixel((0, 0))  # the red quarter
    for format in ("PNG", "GIF"):
        pixels, _ = read(saved(image, format, transparency=clear), (16, 16), 3)
        assert corners(pixels) == [WHITE, GREEN, BLUE, WHITE], format
    # An opacity for each colour of the palette: red at 51 of 255.
    alphas = bytes(51 if k == clear else 255 for k in range(4))
    pixels, _ = read(saved(image, "PNG", transparency=alphas), (16, 16), 3)
    assert corners(pixels) == [(255, 204, 204), GREEN, BLUE, WHITE]


def test_a_palette_of_greys_is_grey() -> None:
    image = Image.fromarray(np.full((8, 8), 2, np.uint8), mode="P")
    image.putpalette([v for k in range(8) for v in (30 * k, 30 * k, 30 * k)])
    pixels, header = read(saved(image, "PNG"), (8, 8), 1)
    assert header.mode == "P" and header.grey and (pixels == 60).all()


def test_transparency_is_put_on_white() -> None:
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[..., :3] = (200, 100, 0)
    rgba[..., 3] = [[0], [51], [204], [255]]
    expected = [[255, 244, 211, 200], [255, 224, 131, 100], [255, 204, 51, 0]]
    for format, options in (("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True, "exact": True})):
        pixels, header = read(saved(Image.fromarray(rgba), format, **options), (4, 4), 3)
        assert header.mode == "RGBA" and pixels[:, :, 0].tolist() == expected, format
    la = rgba[..., [1, 3]]
    pixels, header = read(saved(Image.fromarray(la, "LA"), "PNG"), (4, 4), 1)
    assert header.mode == "LA" and header.grey and pixels[0, :, 0].tolist() == expected[1]
    # One colour that is transparent: of grey, of colour, and of 16 bits.
    grey = Image.fromarray(np.array([[10, 20]], np.uint8))
    assert read(saved(grey, "PNG", transparency=10), (1, 2), 1)[0].tolist() == [[[255, 20]]]
    pair = Image.fromarray(np.array([[RED, BLUE]], np.uint8))
    pixels, _ = read(saved(pair, "PNG", transparency=RED), (1, 2), 3)
    assert pixels.tolist() == [[[255, 0]], [[255, 0]], [[255, 255]]]
    deep = Image.fromarray(np.array([[2570, 5140]], np.uint16))
    assert read(saved(deep, "PNG", transparency=2570), (1, 2), 1)[0].tolist() == [[[255, 20]]]


def test_cmyk() -> None:
    cmyk = np.zeros((16, 16, 4), np.uint8)
    cmyk[:8, :8] = (0, 255, 255, 0)  # red
    cmyk[:8, 8:] = (255, 0, 255, 0)  # green
    cmyk[8:, :8] = (255, 255, 0, 0)  # blue
    cmyk[8:, 8:] = (0, 0, 0, 102)  # 40 % black
    for format, options in (("TIFF", {}), ("JPEG", {"quality": 100})):
        pixels, header = read(saved(Image.fromarray(cmyk, "CMYK"), format, **options), (16, 16), 3)
        assert header.mode == "CMYK"
        for got, expected in zip(corners(pixels), (RED, GREEN, BLUE, (153,) * 3), strict=True):
            assert np.abs(np.subtract(got, expected)).max() <= 2, format


@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bits(order: str) -> None:
    values = np.array([[0, 257, 25700], [32896, 65278, 65535]], np.uint16)
    expected = [[0, 1, 100], [128, 254, 255]]
    content = tiff(values, order)
    pixels, header = read(content, (2, 3), 1)
    assert header.grey and header.mode.startswith("I;16")
    assert pixels[0].tolist() == expected
    assert read(content, (2, 3), 3)[0].tolist() == [expected] * 3


def test_sixteen_bits_of_png() -> None:
    values = np.array([[0, 257, 25700], [32896, 65278, 65535]], np.uint16)
    pixels, header = read(saved(Image.fromarray(values), "PNG"), (2, 3), 1)
    assert header.grey and pixels[0].tolist() == [[0, 1, 100], [128, 254, 255]]
    # Colours of 16 bits: nearest to v / 257 within one.
    row = b"\0" + struct.pack(">6H", 0, 25700, 65535, 32896, 12850, 65278)
    pixels, _ = read(png(2, 1, zlib.compress(row), depth=16, colour=2), (1, 2), 3)
    expected = [[[0, 128]], [[100, 50]], [[255, 254]]]
    assert np.abs(pixels.astype(int) - np.array(expected)).max() <= 1


@pytest.mark.parametrize("order", ["<", ">"])
def test_wider_numbers_of_tiff(order: str) -> None:
    floats = np.array([[0.0, 0.5], [0.25, 1.0]], np.float32)
    white = White(fraction=1.0)
    pixels, header = read(tiff(floats, order, {339: (3, 3)}), (2, 2), 1, white=white)
    assert header.mode == "F" and pixels[0].tolist() == [[0, 128], [64, 255]]
    pixels, _ = read(tiff(200 * floats, order, {339: (3, 3)}), (2, 2), 1)
    assert pixels[0].tolist() == [[0, 100], [50, 200]]
    integers = np.array([[0, 25700], [257, 65535]], np.int32)
    pixels, header = read(tiff(integers, order, {339: (3, 2)}), (2, 2), 1)
    assert header.mode == "I" and pixels[0].tolist() == [[0, 100], [1, 255]]
    for bad in (np.float32(np.nan), np.float32(np.inf), np.float32(-1), np.float32(300)):
        with pytest.raises(Unreadable, match="floats from"):
            read(tiff(np.full((2, 2), bad), order, {339: (3, 3)}), (2, 2), 1)
    with pytest.raises(Unreadable, match="not 8 or 16 bits"):
        read(tiff(np.full((2, 2), 70000, np.int32), order, {339: (3, 2)}), (2, 2), 1)


STORED = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: np.rot90(x, 1),
    7: lambda x: np.rot90(x, 2).transpose(1, 0, 2),
    8: lambda x: np.rot90(x, -1),
}
"""How a camera stores an upright picture, by the meaning of the EXIF orientation: 6, say, is to
be shown turned clockwise by a quarter, so it is stored turned the other way."""


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_the_cameras_rotation_is_undone(format: str, orientation: int) -> None:
    upright = QUARTERS[:, :12]  # taller than wide
    image = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}
    if format == "TIFF":
        content = saved(image, format, tiffinfo={274: orientation})
    else:
        content = saved(image, format, exif=exif, **options.get(format, {}))
    pixels, header = read(content, (16, 12), 3)
    assert header.size == look(content).size == (16, 12)
    tolerance = 3 if format == "JPEG" else 0
    assert np.abs(pixels.astype(int) - upright.transpose(2, 0, 1)).max() <= tolerance


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_exif_behind_the_pixels_and_damaged_exif() -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    content = saved(Image.fromarray(QUARTERS), "PNG", exif=exif)
    start = content.index(b"eXIf") - 4
    end = start + 12 + struct.unpack(">I", content[start : start + 4])[0]
    behind = content[:start] + content[end:-12] + content[start:end] + content[-12:]
    assert corners(read(behind, (16, 16), 3)[0]) == [WHITE, BLUE, GREEN, RED]
    for damage in (b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0nonsense", b"Exif\0\0"):
        damaged = saved(Image.fromarray(QUARTERS), "JPEG", quality=100, exif=damage)
        pixels, _ = read(damaged, (16, 16), 3)
        assert corners(pixels)[3] == WHITE


def test_shrinking_does_not_alias() -> None:
    """The mean over areas of a checkerboard is flat grey; without antialiasing it is not."""
    board = (np.indices((257, 257)).sum(0) % 2 * 255).astype(np.uint8)
    for size, side in ((32, 256), (31, 257), (10, 250)):
        pixels, _ = read(saved(Image.fromarray(board[:side, :side]), "PNG"), (size, size), 1)
        inner = pixels[0, 1:-1, 1:-1].astype(int)
        assert np.abs(inner - 127.5).max() <= 2.5, (size, side)
    picked = board[:256:8, :256:8]
    assert np.abs(picked.astype(int) - 127.5).min() > 100, "the board can tell the difference"


def test_shrinking_is_the_mean_over_areas() -> None:
    """Of a smooth picture, every antialiasing kernel gives the mean over areas, nearly."""
    y, x = np.mgrid[0:192, 0:192] / 192
    smooth = 128 + 90 * np.sin(5 * x + 1) * np.cos(4 * y)
    pixels, _ = read(saved(Image.fromarray(smooth.round().astype(np.uint8)), "PNG"), (24, 24), 1)
    means = smooth.reshape(24, 8, 24, 8).mean((1, 3))
    assert np.abs(pixels[0] - means)[1:-1, 1:-1].max() < 1.5


@pytest.mark.parametrize("shape", [(100, 300), (300, 100), (96, 97)])
def test_crops_keep_the_centre(shape: tuple[int, int]) -> None:
    """A bright dot in the middle stays there, and what lies beside the square is cut off."""
    height, width = shape
    y, x = np.mgrid[0:height, 0:width]
    side = min(shape)
    dot = 200 * np.exp(-((y - (height - 1) / 2) ** 2 + (x - (width - 1) / 2) ** 2) / side)
    outside = (np.abs(y - (height - 1) / 2) > side / 2) | (np.abs(x - (width - 1) / 2) > side / 2)
    image = np.where(outside, 255, dot.round()).astype(np.uint8)
    pixels, _ = read(saved(Image.fromarray(image), "PNG"), (33, 33), 1)
    found = pixels[0].astype(float)
    where = np.mgrid[0:33, 0:33]
    centre = (where * found).sum((1, 2)) / found.sum()
    assert np.abs(centre - 16).max() < 0.1
    assert found[0].max() < 128 or shape == (96, 97)  # nothing of the white beside it
    assert found[:, 0].max() < 128


def test_crops_to_other_proportions() -> None:
    pixels, _ = read(saved(Image.fromarray(QUARTERS), "PNG"), (16, 8), 3)
    assert corners(pixels) == [RED, GREEN, BLUE, WHITE]
    tall = np.zeros((40, 10, 3), np.uint8)
    tall[15:25] = GREEN  # the central square
    pixels, _ = read(saved(Image.fromarray(tall), "PNG"), (10, 10), 3)
    assert np.array_equal(pixels, np.broadcast_to(np.array(GREEN)[:, None, None], (3, 10, 10)))


def test_pad() -> None:
    white = Image.new("RGB", (40, 20), WHITE)
    pixels, _ = read(saved(white, "PNG"), (20, 20), 3, "pad")
    assert (pixels[:, 5:15] == 255).all() and not pixels[:, :5].any() and not pixels[:, 15:].any()
    # One that is smaller is not enlarged.
    pixels, _ = read(saved(Image.new("L", (4, 2), 200), "PNG"), (8, 8), 1, "pad")
    assert (pixels[0, 3:5, 2:6] == 200).all() and int(pixels.sum()) == 8 * 200


def test_small_images_are_enlarged() -> None:
    pixels, header = read(saved(Image.new("RGB", (1, 1), (9, 8, 7)), "PNG"), (8, 8), 3)
    assert header.size == (1, 1)
    assert (pixels == np.array([9, 8, 7])[:, None, None]).all()
    assert resize(Image.new("L", (1, 3), 50), (4, 4), "crop").getextrema() == (50, 50)


def test_large_jpegs_are_decoded_small_and_right() -> None:
    y, x = np.mgrid[0:1200, 0:1600] / 1600
    smooth = np.stack([255 * x, 255 * y, 128 + 0 * x], 2).round().astype(np.uint8)
    pixels, header = read(saved(Image.fromarray(smooth), "JPEG", quality=95), (32, 32), 3)
    assert header.size == (1200, 1600)
    square = smooth[:, 200:1400].astype(float)
    grid = np.linspace(0, 1200, 33).round().astype(int)
    for k in (1, 15, 30):
        block = square[grid[k] : grid[k + 1], grid[k] : grid[k + 1]].mean((0, 1))
        assert np.abs(pixels[:, k, k] - block).max() < 3


def text_bomb(kind: bytes) -> tuple[bytes, bytes]:
    return kind, b"x\0\0" + zlib.compress(bytes(2**27))


NOISE = Image.effect_noise((64, 64), 90).convert("RGB")
BAD = {
    "empty": (b"", "the file is empty"),
    "text": (b"this is a text, not a picture\n" * 20, "no image of a known format"),
    "cut short": (saved(NOISE, "PNG")[:900], "truncated"),
    "cut jpeg": (saved(NOISE, "JPEG")[:900], "truncated"),
    "claims to be huge": (png(60000, 60000, zlib.compress(b"")), "too large"),
    "compresses well": (bomb(), "too large"),
    "just too large": (png(2**13, 2**14 + 1, zlib.compress(b"")), "too large"),
    "text bomb": (png(4, 4, zlib.compress(bytes(20)), chunks=(text_bomb(b"zTXt"),)), "too large"),
    "profile bomb": (png(4, 4, zlib.compress(b""), chunks=(text_bomb(b"iCCP"),)), None),
    "other format": (b"P6 4 4 255\n" + bytes(48), "no image of a known format"),
    "no pixels": (png(0, 0, zlib.compress(b"")), None),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", BAD)
def test_bad_files(name: str) -> None:
    content, reason = BAD[name]
    with pytest.raises(Unreadable, match=reason) as caught:
        read(content, (8, 8), 3)
    assert str(caught.value) and "\n" not in str(caught.value)


def test_the_largest_accepted() -> None:
    assert MOST_PIXELS == 2**27
    with pytest.raises(Unreadable) as caught:  # its header is fine, its pixels are missing
        read(png(8192, 8192, zlib.compress(b"")), (8, 8), 1)
    assert "too large" not in str(caught.value)
