"""Latents in the cache: those of the autoencoder, encoded once, whole or absent, never half."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from forked import kill_when, start, wait
from making_images import folder_of
from monge.autoencoders import AutoencoderModule, Standardised
from monge.components import build
from monge.data import cache
from monge.data.arrays import Pixels, Shards, mirrored
from monge.data.base import Data
from monge.data.sources import load
from monge.errors import UserError
from monge.latents import cache as latent_cache
from monge.latents.cache import (
    StoredLatents,
    chunks,
    in_units_of,
    latents_of,
    standardised_by,
)
from monge.system.progress import Say, quiet
from monge.tensors import stream
from monge.types import Posterior

CPU = torch.device("cpu")
N = 60
CONV = "down=2,channels=2,width=8,blocks=1"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of each test's own, with shards of 4 latents."""
    monkeypatch.setattr(latent_cache, "CHUNK", 4)
    monkeypatch.setattr(latent_cache, "BLOCK_BYTES", 1)
    monkeypatch.setenv("MONGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def data(tmp_path: Path) -> Data:
    return load(str(folder_of(tmp_path / "photos", N)))


def autoencoder(spec: str = "conv", seed: int = 0) -> AutoencoderModule:
    """Untrained; its noise is made to vary with the image and the place."""
    settings = CONV if spec == "conv" else ""
    model = build("autoencoder", f"{spec}:{settings}".rstrip(":")).build(
        (3, 8, 8), rng=stream(seed, "weights")
    )
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            p += 0.1 * torch.randn(p.shape, generator=stream(seed, "more", i))
    return model.eval()


def encoded(
    data: Data,
    bare: AutoencoderModule | Standardised,
    flip: bool = False,
    check: bool = False,
    say: Say = quiet,
) -> StoredLatents:
    x, mark = data.train, data.fingerprint
    found = latents_of(bare, x, mark, data.name, CPU, say, flip=flip, check=check)
    assert isinstance(found, StoredLatents)
    return found


@torch.no_grad()
def direct(data: Data, bare: AutoencoderModule, flip: bool = False) -> Posterior:
    return bare.encode((mirrored(data.train) if flip else data.train)[:])


def whole(latents: StoredLatents) -> Posterior:
    return latents.rows(torch.arange(len(latents)))


def the_entry(home: Path) -> Path:
    (found,) = (home / "latents").iterdir()
    return found


def contents(entry: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(entry.iterdir())}


def assert_same(found: Posterior, expected: Posterior) -> None:
    torch.testing.assert_close(found.mean, expected.mean, atol=1e-5, rtol=1e-5)
    assert (found.logvar is None) == (expected.logvar is None)
    if found.logvar is not None:
        torch.testing.assert_close(found.logvar, expected.logvar, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("spec", ["conv", "identity"])
@pytest.mark.parametrize("flip", [False, True])
def test_they_are_the_autoencoders(data: Data, home: Path, spec: str, flip: bool) -> None:
    """In many shards as in one; the latter half is of the mirror images."""
    bare = autoencoder(spec)
    found = encoded(data, bare, flip)
    n = len(data.train)
    assert len(found) == (2 * n if flip else n)
    assert len(list(the_entry(home).glob("latents-*"))) == -(-len(found) // 4)
    assert_same(whole(found), direct(data, bare, flip))
    rows = torch.tensor([n - 1, 0, 5, 5, len(found) - 1])
    expected = direct(data, bare, flip)
    assert torch.equal(found.rows(rows).mean, whole(found).mean[rows])
    if flip:
        flipped = data.train[:].flip(-1)
        with torch.no_grad():
            assert_same(Posterior(whole(found).mean[n:]), Posterior(bare.encode(flipped).mean))
        assert not torch.allclose(expected.mean[:n], expected.mean[n:])


def test_they_are_mapped_and_cannot_be_written(data: Data) -> None:
    found = encoded(data, autoencoder())
    assert found.logvars is not None
    for part in (*found.means.parts, *found.logvars.parts):
        assert isinstance(part, np.memmap) and part.mode == "r" and not part.flags.writeable


def test_what_they_depend_on(data: Data, home: Path) -> None:
    bare = autoencoder()
    encoded(data, bare)
    first = the_entry(home)
    listed = [e for e in cache.entries() if e.kind == "latents"]
    assert [(e.name, e.n, e.whole) for e in listed] == [(first.name, len(data.train), True)]
    wrapped = standardised_by(bare, encoded(data, bare), data.train[:2])
    encoded(data, wrapped)
    assert the_entry(home) == first, "the wrapper's latents are the bare one's in other units"
    others = [
        lambda: encoded(data, bare, flip=True),
        lambda: encoded(data, autoencoder(seed=1)),
        lambda: encoded(data, autoencoder("identity")),
    ]
    for k, other in enumerate(others):
        other()
        assert len(list((home / "latents").iterdir())) == 2 + k
    fewer = Pixels(data.train.shards, data.train.rows[:8], data.train.digests)
    latents_of(bare, fewer, "another fingerprint", data.name, CPU, quiet)
    assert len(list((home / "latents").iterdir())) == 5


def test_a_change_of_one_weight_is_another_autoencoder() -> None:
    bare = autoencoder()
    before = latent_cache.weights_digest(bare)
    assert before == latent_cache.weights_digest(autoencoder())
    with torch.no_grad():
        next(bare.parameters()).flatten()[0] += 1e-6
    assert latent_cache.weights_digest(bare) != before


def test_tensors_stay_in_memory(data: Data, home: Path) -> None:
    bare = autoencoder()
    found = latents_of(bare, data.train[:], "x", "x", CPU, quiet, flip=True)
    assert isinstance(found, Posterior) and not (home / "latents").exists()
    assert_same(found, direct(data, bare, flip=True))


@pytest.mark.parametrize("spec", ["conv", "identity"])
@pytest.mark.parametrize("flip", [False, True])
def test_streamed_statistics_are_the_direct_ones(data: Data, spec: str, flip: bool) -> None:
    """Mean and deviation of the sampled latents, per channel; then latents in those units."""
    bare = autoencoder(spec)
    found = encoded(data, bare, flip)
    wrapped = standardised_by(bare, found, data.train[:2])
    expected = direct(data, bare, flip)
    mean = expected.mean.double().mean((0, 2, 3), keepdim=True)[0]
    variance = expected.mean.double().var((0, 2, 3), correction=0, keepdim=True)[0]
    if expected.logvar is not None:
        variance = variance + expected.logvar.double().exp().mean((0, 2, 3), keepdim=True)[0]
    torch.testing.assert_close(wrapped.mean.double(), mean, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(wrapped.std.double(), variance.sqrt(), atol=1e-6, rtol=1e-6)
    with torch.no_grad():
        assert_same(
            whole(in_units_of(wrapped, found)),  # type: ignore[arg-type]
            wrapped.encode((mirrored(data.train) if flip else data.train)[:]),
        )


def test_statistics_of_a_large_mean(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mean of a thousand deviations: sums of squares would lose them in float32."""
    rng = np.random.default_rng(0)
    values = (1000 + rng.normal(size=(5000, 2, 4, 4))).astype(np.float32)
    posterior = Posterior(torch.from_numpy(values))
    parts = Shards([values[:1234], values[1234:]])
    for latents in (posterior, StoredLatents(parts, None)):
        mean, std = latent_cache.statistics(chunks(latents))
        torch.testing.assert_close(mean, posterior.mean.double().mean((0, 2, 3), True)[0])
        direct = posterior.mean.double().std((0, 2, 3), correction=0, keepdim=True)[0]
        torch.testing.assert_close(std, direct, rtol=1e-9, atol=0)


def test_chunks_cover_the_first_rows_once(data: Data) -> None:
    found = encoded(data, autoencoder())
    for n in (None, 1, 7, len(found)):
        parts = [p.mean for p in chunks(found, 5, n)]
        assert torch.equal(torch.cat(parts), whole(found).mean[:n])


def test_killed_many_times_it_ends_as_if_it_had_not_been(data: Data, home: Path) -> None:
    bare = autoencoder()
    encoded(data, bare, flip=True)
    entry = the_entry(home)
    expected = contents(entry)
    assert len(expected) == -(-2 * len(data.train) // 4) + 1
    for left in entry.iterdir():
        left.unlink()

    def shards() -> int:
        return len(list(entry.glob("latents-*")))

    kills, before = 0, []
    for target in (1, 3, 4, 9, 15, 20):
        status = kill_when(
            start(lambda: encoded(data, bare, flip=True)), lambda t=target: shards() >= t
        )
        kills += status == -9
        kept = {p: p.stat().st_mtime_ns for p in entry.glob("latents-*")}
        assert all(kept[p] == when for p, when in before), "what was done is not done again"
        before = list(kept.items())
        assert status == 0 or not (entry / cache.ENTRY).exists()
    assert kills >= 4
    (entry / ".tmp-1-latents-00003.safetensors").write_bytes(b"half a shard")
    assert wait(start(lambda: encoded(data, bare, flip=True))) == 0
    assert contents(entry) == expected


def test_two_processes_encode_once(data: Data, home: Path, tmp_path: Path) -> None:
    bare = autoencoder()
    real: Callable[[torch.Tensor], Posterior] = bare.encode

    def counted(x: torch.Tensor) -> Posterior:
        with open(tmp_path / f"encoded-{os.getpid()}", "a") as file:
            file.write("x" * len(x))
        time.sleep(0.005)
        return real(x)

    bare.encode = counted  # type: ignore[method-assign]

    def work() -> None:
        lines: list[str] = []
        assert_same(whole(encoded(data, bare, say=lines.append)), direct(data, autoencoder()))
        (tmp_path / f"said-{os.getpid()}").write_text("\n".join(lines))

    pids = [start(work), start(work)]
    assert [wait(pid) for pid in pids] == [0, 0]
    (maker,) = [pid for pid in pids if (tmp_path / f"encoded-{pid}").exists()]
    assert len((tmp_path / f"encoded-{maker}").read_text()) == len(data.train)
    (waiter,) = set(pids) - {maker}
    assert f"waiting for process {maker}" in (tmp_path / f"said-{waiter}").read_text()


def test_a_flipped_bit_is_found_on_request(data: Data, home: Path) -> None:
    bare = autoencoder()
    encoded(data, bare, check=True)
    shard = the_entry(home) / "latents-00003.safetensors"
    content = bytearray(shard.read_bytes())
    content[-9] ^= 1
    shard.write_bytes(content)
    encoded(data, bare)  # not looked for
    with pytest.raises(UserError) as caught:
        encoded(data, bare, check=True)
    assert str(shard) in str(caught.value)
    assert f"monge cache clear {shard.parent.name}" in str(caught.value)
    assert cache.clear([shard.parent.name]) == ([shard.parent.name], [])
    assert_same(whole(encoded(data, bare, check=True)), direct(data, bare))


@pytest.mark.parametrize(
    "damage", ["cut", "cut header", "empty", "gone", "noise", "others", "no logvar", "entry"]
)
def test_damage_is_told_with_its_remedy(data: Data, home: Path, damage: str) -> None:
    bare = autoencoder()
    encoded(data, bare)
    entry = the_entry(home)
    shard = entry / "latents-00002.safetensors"
    content = shard.read_bytes()
    if damage == "entry":
        (entry / cache.ENTRY).write_text("{}")
    elif damage == "gone":
        shard.unlink()
    elif damage in ("others", "no logvar"):
        name = "mean" if damage == "no logvar" else "pixels"
        save_file({name: np.zeros((4, 2, 4, 4), np.float32)}, shard)
    else:
        kept = {"cut": content[:-1], "cut header": content[:40], "empty": b"", "noise": bytes(500)}
        shard.write_bytes(kept[damage])
    with pytest.raises(UserError) as caught:
        encoded(data, bare)
    assert str(entry) in str(caught.value)
    assert f"monge cache clear {entry.name}" in str(caught.value)
    cache.clear([entry.name])
    assert_same(whole(encoded(data, bare)), direct(data, bare))


def test_a_full_disk(data: Data, home: Path) -> None:
    bare = autoencoder()

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (900, 900))  # of a shard of more than 1 kB
        with pytest.raises(UserError, match=r"cannot write .* make room"):
            encoded(data, bare)

    assert wait(start(work)) == 0
    assert not list(the_entry(home).iterdir())
    assert_same(whole(encoded(data, bare)), direct(data, bare))


def test_large_images_are_encoded_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latent_cache, "CHUNK", 256)

    def of_side(side: int) -> Pixels:
        return Pixels(Shards([np.zeros((2, 3, side, side), np.uint8)]))

    sizes = [latent_cache._chunk(of_side(side)) for side in (8, 64, 128, 512, 2048)]
    assert sizes == [256, 256, 85, 5, 1]
