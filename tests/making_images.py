"""Small image files and folders of them, different and known."""

from __future__ import annotations

import io
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def pixels_of(seed: int, side: int = 8, channels: int = 3) -> np.ndarray:
    """Noise (side, side, channels), another for every seed; grey is (side, side)."""
    shape = (side, side, 3) if channels == 3 else (side, side)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(pixels: np.ndarray, format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format, **options)
    return file.getvalue()


def write(path: Path, pixels: np.ndarray, format: str = "PNG") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(pixels, format))
    return path


def folder_of(
    root: Path, n: int, classes: tuple[str, ...] = (), side: int = 8, channels: int = 3
) -> Path:
    """n images 0000.png, ...; image i is `pixels_of(i)`, in the class folder i mod their number."""
    for i in range(n):
        home = root / classes[i % len(classes)] if classes else root
        write(home / f"{i:04d}.png", pixels_of(i, side, channels))
    return root


def bomb(side: int = 20_000) -> bytes:
    """A grey PNG of side x side black pixels: hundreds of megabytes from some hundred kilobytes."""
    squeeze = zlib.compressobj(1)
    data = b"".join(squeeze.compress(bytes(side + 1)) for _ in range(side)) + squeeze.flush()
    return png(side, side, data)


def png(
    width: int,
    height: int,
    data: bytes,
    *,
    depth: int = 8,
    colour: int = 0,
    chunks: tuple[tuple[bytes, bytes], ...] = (),
) -> bytes:
    """A PNG written chunk by chunk, whatever its header claims."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", data), (b"IEND", b"")]
    out = b"\x89PNG\r\n\x1a\n"
    for name, body in parts:
        out += struct.pack(">I", len(body)) + name + body
        out += struct.pack(">I", zlib.crc32(name + body))
    return out


def fresh(path: Path) -> Path:
    """An empty folder."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path
