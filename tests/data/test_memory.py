"""Reading and encoding take the same memory whatever the number of images.

The limit is one on the process's own data, RLIMIT_DATA: heap and private mappings. RLIMIT_AS
would count the shards too, which are mapped shared and read-only: their pages are the system's
file cache, which it takes back when it likes. For the same reason what is measured is RssAnon,
not the resident set. Both are taken above what the process had after a first small source, so
that libraries, weights and stacks of threads do not count; and malloc is told to give back what
is freed, so that what is measured is what is held.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from making_images import encoded, pixels_of
from making_parquet import write_parquet
from monge.data.images import decoding

CHILD = Path(__file__).with_name("under_a_limit.py")
SIDE = 128
BYTES = 3 * SIDE**2

if not Path("/proc/self/status").exists():
    pytest.skip("memory is measured by Linux's /proc", allow_module_level=True)


def photographs() -> list[bytes]:
    """JPEG files of 64 different images, about 15 kB each."""
    small = (Image.fromarray(pixels_of(i, 48)) for i in range(64))
    return [encoded(np.asarray(image.resize((SIDE, SIDE))), "JPEG", quality=90) for image in small]


def write_source(kind: str, path: Path, n: int) -> Path:
    files = photographs()
    if kind == "parquet":
        contents = [files[i % len(files)] for i in range(n)]
        return write_parquet(path.with_suffix(".parquet"), contents, row_group_size=25)
    path.mkdir()
    for i in range(n):
        (path / f"{i:06d}.jpg").write_bytes(files[i % len(files)])
    return path


def measured(folder: Path, limit: int, shard: int, sizes: list[int]) -> dict[str, Any]:
    """What the child tells of folders and of parquet files of so many images."""
    names = [(kind, n) for kind in ("folder", "parquet") for n in sizes]
    sources = [write_source(kind, folder / f"{kind} {n}", n) for kind, n in names]
    warm = write_source("parquet", folder / "warm", 64)
    environment = {
        **os.environ,
        "MONGE_CACHE": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "1",
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "ARROW_DEFAULT_MEMORY_POOL": "system",
        "RUST_BACKTRACE": "0",  # safetensors out of memory would wait for itself
    }
    command = [sys.executable, str(CHILD), str(limit), str(shard), str(warm), *map(str, sources)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "limit, shard",
    [
        pytest.param(7 * 2**20, 2**19, id="7 MB"),
        pytest.param(3 * 2**26, decoding.BLOCK_BYTES, id="192 MB", marks=pytest.mark.slow),
    ],
)
def test_ten_times_the_limit(limit: int, shard: int, tmp_path: Path) -> None:
    """Ten times its limit of pixels: read, encoded, and no more held than of a quarter of them.

    The limit is exact; the peaks are looked up a thousand times a second, so one may be missed.
    """
    many = -(-10 * limit // BYTES)
    found = measured(tmp_path, limit, shard, [many // 4, many])
    for few, all_ in (found["read"][:2], found["read"][2:]):
        print(few, all_)
        assert all_["pixels"] >= 10 * limit
        assert 0 < all_["peak"] < limit
        assert all_["peak"] < few["peak"] + limit / 3
    assert found["held"] == "MemoryError", "the limit is one"
