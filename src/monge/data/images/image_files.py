"""Reads an image file of any format, mode and orientation as pixels of the requested size.

Grey images of any depth, palettes, CMYK and transparency become grey or RGB of 8 bits: values of
more than 8 bits are scaled by the white of their source (of 16-bit colour Pillow reads the high
bytes), transparent images are put on white, the first frame of an animation is taken, and the
camera's rotation (EXIF) is undone. Large images are converted in strips, so the conversion takes
little more memory than the image.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import ExifTags, Image

from monge.data.images.array_images import white_of

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP")
"""Formats that are read, recognised by content and not by name. JPEG includes MPO, a JPEG
followed by further pictures, which some cameras write."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".gif", ".tif", ".tiff", ".bmp")
"""Suffixes of image files in folders."""

MOST_PIXELS = 2**27
"""Larger images are refused before decoding: most likely a decompression bomb."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transposition that undoes each value of the EXIF orientation."""

GREY_MODES = ("1", "L", "LA", "La", "I", "F", "I;16", "I;16L", "I;16B", "I;16N")

Fit = Literal["crop", "pad"]


class Unreadable(Exception):
    """An image cannot be read; the message gives the reason."""


@dataclass(frozen=True)
class White:
    """The value of white in grey images of more than 8 bits; the same for a whole source.

    Attributes:
        whole: in whole numbers of 16 or 32 bits: 255, 1023, 4095, 16383 or 65535.
        fraction: in floating-point numbers: 1 or 255.
    """

    whole: int = 65535
    fraction: float = 255.0


BRIGHTEST = White()


class Brighter(Exception):
    """An image has values above the current white; `white` is the white that it needs."""

    def __init__(self, white: White) -> None:
        super().__init__(str(white))
        self.white = white


@dataclass(frozen=True)
class Header:
    """The header of an image file.

    Attributes:
        format: Pillow's name of the format.
        mode: Pillow's mode before any conversion.
        size: height and width after the camera's rotation is undone.
        grey: whether the image has no colour.
        deep: whether its values have more than 8 bits.
    """

    format: str
    mode: str
    size: tuple[int, int]
    grey: bool
    deep: bool = False


def read(
    content: bytes,
    size: tuple[int, int],
    channels: int,
    fit: Fit = "crop",
    white: White = BRIGHTEST,
) -> tuple[np.ndarray, Header]:
    """The image of a file as (channels, height, width) uint8, and its header.

    Args:
        size: height and width of the result.
        channels: 1 for grey, 3 for RGB, 4 for RGBA.
        white: of grey values with more than 8 bits.

    Raises:
        Unreadable: no image of a known format, truncated, damaged, or too large.
        Brighter: values above `white`.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            header = _header(image)
            if image.format == "JPEG":
                # Large photographs are decoded at a half, a quarter or an eighth of their size.
                image.draft(image.mode, (2 * max(size), 2 * max(size)))
            image.load()  # first, because PNG may store the EXIF after the pixels
            turn = _turn(image)
            upright = image if turn is None else image.transpose(turn)
            if channels == len("RGBA"):
                pixels = _with_transparency(upright, size, fit, white)
            else:
                fitted = resize(_eight_bits(upright, white), size, fit)
                pixels = np.asarray(fitted.convert("L" if channels == 1 else "RGB"))
    except (Unreadable, Brighter):
        raise
    except Exception as error:  # decoders raise a dozen kinds on damaged files
        raise Unreadable(_reason(content, error)) from None
    return (pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)), header


def look(content: bytes) -> Header:
    """The header of an image file; the image is not decoded.

    Raises:
        Unreadable: no image of a known format, or too large.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            return _header(image)
    except Unreadable:
        raise
    except Exception as error:
        raise Unreadable(_reason(content, error)) from None


def white_in(content: bytes) -> White:
    """The lowest white that an image allows.

    Raises:
        Unreadable: as in `read`.
    """
    try:
        read(content, (1, 1), 1, white=DARKEST)
    except Brighter as found:
        return found.white
    return DARKEST


DARKEST = White(255, 1.0)


def brighter(one: White, other: White) -> White:
    """The higher of two whites, for both kinds of values."""
    return White(max(one.whole, other.whole), max(one.fraction, other.fraction))


def resize(image: Image.Image, size: tuple[int, int], fit: Fit) -> Image.Image:
    """An image of 8 bits per channel, resized to a height and width with antialiasing.

    Args:
        fit: crop takes the largest central part of the right proportions; pad shrinks the whole
            image if it is too large, and centres it on black.
    """
    height, width = size
    if image.size == (width, height):
        return image
    if fit == "pad":
        scale = min(1.0, width / image.width, height / image.height)
        inner = (max(1, round(scale * image.width)), max(1, round(scale * image.height)))
        shrunk = image if inner == image.size else image.resize(inner, Image.Resampling.BICUBIC)
        padded = Image.new(image.mode, (width, height))
        padded.paste(shrunk, ((width - inner[0]) // 2, (height - inner[1]) // 2))
        return padded
    scale = min(image.width / width, image.height / height)
    left, top = (image.width - scale * width) / 2, (image.height - scale * height) / 2
    box = (left, top, left + scale * width, top + scale * height)
    return image.resize((width, height), Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)


def _header(image: Image.Image) -> Header:
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise Unreadable(f"{width} x {height} pixels: too large to be decoded safely")
    palette = image.getpalette() if image.mode == "P" else None
    grey = image.mode in GREY_MODES
    if palette:
        grey = palette[0::3] == palette[1::3] == palette[2::3]
    sideways = _turn(image) in (TURNS[5], TURNS[6], TURNS[7], TURNS[8])
    size = (width, height) if sideways else (height, width)
    deep = image.mode.startswith(("I", "F"))
    return Header(str(image.format), image.mode, size, grey, deep)


def _turn(image: Image.Image) -> Image.Transpose | None:
    """The transposition that undoes the camera's rotation; None for none or for damaged EXIF."""
    if image.format == "TIFF":  # Pillow rotates TIFF itself
        return None
    if image.format == "PNG" and not image.info.keys() & {"exif", "Raw profile type exif", "xmp"}:
        return None  # Pillow would decode the whole image to find a later EXIF
    try:
        return TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        return None


def _with_transparency(
    image: Image.Image, size: tuple[int, int], fit: Fit, white: White
) -> np.ndarray:
    """The image (height, width, 4); fully transparent pixels are white."""
    full = image.convert("RGBA") if image.has_transparency_data else _eight_bits(image, white)
    pixels = np.array(resize(full.convert("RGBA"), size, fit))  # resizing weighs by opacity
    pixels[pixels[..., 3] == 0, :3] = 255
    return pixels


STRIP = 2**22
"""Pixels converted at once."""


def _eight_bits(image: Image.Image, white: White) -> Image.Image:
    """The image in mode L or RGB, with transparent parts on white."""
    target = "L" if image.mode in GREY_MODES else "RGB"
    if image.mode == target and not image.has_transparency_data:
        return image
    height = max(1, STRIP // image.width)
    if image.height <= height:
        return _converted(image, target, white)
    whole = Image.new(target, image.size)
    for top in range(0, image.height, height):
        strip = image.crop((0, top, image.width, min(top + height, image.height)))
        strip.info = image.info
        whole.paste(_converted(strip, target, white), (0, top))
    return whole


def _converted(image: Image.Image, target: str, white: White) -> Image.Image:
    if image.mode.startswith("I"):
        values = np.asarray(image.convert("I"))
        if isinstance(clear := image.info.get("transparency"), int):
            values = np.where(values == clear, white.whole, values)
        if values.min() < 0 or values.max() > 65535:
            raise Unreadable(f"integers from {values.min()} to {values.max()}: not 8 or 16 bits")
        if (needed := white_of(int(values.max()))) > white.whole:
            raise Brighter(White(needed, white.fraction))
        return Image.fromarray((values * (255 / white.whole)).round().astype(np.uint8))
    if image.mode == "F":
        values = np.asarray(image)
        low, high = float(values.min()), float(values.max())
        if not (low >= 0 and high <= 255):
            raise Unreadable(f"floats from {low:g} to {high:g}: neither 0 to 1 nor 0 to 255")
        if high > 1 >= white.fraction:
            raise Brighter(White(white.whole, 255.0))
        return Image.fromarray((values * (255 / white.fraction)).round().astype(np.uint8))
    if image.has_transparency_data:
        full = image.convert("RGBA")
        ground = Image.new("RGBA", full.size, "white")
        return Image.alpha_composite(ground, full).convert(target)
    return image.convert(target)


def _reason(content: bytes, error: Exception) -> str:
    if not content:
        return "the file is empty"
    if isinstance(error, Image.UnidentifiedImageError):
        return "no image of a known format"
    if isinstance(error, Image.DecompressionBombError):
        return "too large to be decoded safely"
    return str(error).partition("\n")[0] or type(error).__name__
