"""A cache entry of latents: means and log-variances, encoded once and read by rows.

The entry holds the latents of the bare autoencoder, before standardisation, so runs with the same
autoencoder and data share it. Its key is a hash of the autoencoder's weights and of the data's
content. Shards are written atomically; an interrupted encoding continues with the missing shards.
The processes of one command divide the shards; another command waits.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save as to_bytes
from torch import Tensor

from monge.autoencoders import AutoencoderModule, Standardised, statistics
from monge.data import cache
from monge.data.arrays import Examples, Pixels, Shards, damaged, map_file, mirrored
from monge.data.images import store
from monge.latents.batches import Latents, encode, encode_parts
from monge.system import processes
from monge.system.files import write_atomic
from monge.system.progress import Say, counting
from monge.tensors import CHUNK
from monge.types import Posterior

FORMAT_VERSION = 2
BLOCK_BYTES = 2**25
"""Approximate size of a shard of latents, in bytes."""

CHUNK_NUMBERS = 2**22
"""Most numbers encoded at once: 85 RGB images of 128 x 128."""


@dataclass(frozen=True)
class StoredLatents:
    """Posteriors of examples, mapped from files.

    Attributes:
        means, logvars: (N, *latent); logvars is None if the encoder is deterministic.
        shift, scale: latents are read as (z - shift) / scale.
    """

    means: Shards
    logvars: Shards | None
    shift: Tensor | None = None
    scale: Tensor | None = None

    def __len__(self) -> int:
        return len(self.means)

    def rows(self, index: Tensor) -> Posterior:
        """The posteriors of the given rows."""
        rows = index.cpu().numpy()
        mean = torch.from_numpy(self.means.take(rows))
        logvar = None if self.logvars is None else torch.from_numpy(self.logvars.take(rows))
        if self.shift is None or self.scale is None:
            return Posterior(mean, logvar)
        mean = (mean - self.shift) / self.scale
        return Posterior(mean, None if logvar is None else logvar - 2 * self.scale.log())

    def standardised(self, wrapper: Standardised) -> StoredLatents:
        """The same latents in the units of a wrapper."""
        mean, std = wrapper.mean.cpu().float(), wrapper.std.cpu().float()
        return StoredLatents(self.means, self.logvars, mean, std)


def latents_of(
    autoencoder: AutoencoderModule | Standardised,
    x: Examples,
    fingerprint: str,
    name: str,
    device: torch.device,
    say: Say,
    *,
    flip: bool = False,
    check: bool = False,
    together: bool = False,
) -> Posterior | StoredLatents:
    """The latents of examples by the bare autoencoder, encoded now or read from the cache.

    The latents of tensors stay in memory; those of `Pixels` are encoded into the cache.

    Args:
        fingerprint: of the data whose training part is x.
        name: of the data, for the entry's name.
        flip: append the latents of the mirror images.
        check: compare a cached entry with its hashes first.
        together: all processes call this function, and divide the work.

    Raises:
        UserError: the cache cannot be written or, with `check`, has changed.
    """
    bare = autoencoder.autoencoder if isinstance(autoencoder, Standardised) else autoencoder
    seen = mirrored(x) if flip else x
    if not isinstance(seen, Pixels):
        return encode(bare, seen, device, _chunk(seen))
    facts = {
        "format_version": FORMAT_VERSION,
        "autoencoder": weights_digest(bare),
        "data": fingerprint,
        "mirrored": flip,
    }
    folder = cache.folder_for("latents", name, facts)
    work = _Encoding(folder, bare, seen, device, f"{name} by {bare.spec!r}", say)
    if together and processes.world() > 1 and processes.share_folder(cache.root()):
        work.do_together()
    with cache.building(folder, say) as needed:
        if needed:
            work.finish(work.shards())
    if check:
        store.check(folder)
    return _open(folder)


def weights_digest(autoencoder: AutoencoderModule) -> str:
    """A hash of an autoencoder's component and weights."""
    digest = hashlib.sha256(repr(autoencoder.spec).encode())
    for key, tensor in sorted(autoencoder.state_dict().items()):
        digest.update(key.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def chunks(latents: Latents, size: int | None = None, n: int | None = None) -> Iterator[Posterior]:
    """The posteriors of the first n rows (None: all), `size` at a time (None: at most 1024)."""
    if size is None:
        numbers = latents.rows(torch.zeros(1, dtype=torch.int64)).mean.numel()
        size = max(1, min(1024, CHUNK_NUMBERS // (4 * numbers)))
    for rows in torch.arange(len(latents) if n is None else n).split(size):
        yield latents.rows(rows)


def standardised_by(
    autoencoder: AutoencoderModule, latents: Posterior | StoredLatents, reference: Tensor
) -> Standardised:
    """The autoencoder, wrapped with the mean and deviation of its latents."""
    mean, std = statistics(chunks(latents))
    like = next((t for t in autoencoder.state_dict().values() if t.is_floating_point()), reference)
    return Standardised(autoencoder, mean.to(like), std.to(like), reference.to(like))


def in_units_of(
    wrapper: Standardised, latents: Posterior | StoredLatents
) -> Posterior | StoredLatents:
    """Latents of the bare autoencoder, converted to the standardised units of its wrapper."""
    if isinstance(latents, StoredLatents):
        return latents.standardised(wrapper)
    mean, std = wrapper.mean.cpu(), wrapper.std.cpu()
    logvar = None if latents.logvar is None else latents.logvar - 2 * std.log()
    return Posterior((latents.mean - mean) / std, logvar)


@dataclass(frozen=True)
class _Encoding:
    """Fills an entry of the cache with the latents of images."""

    folder: Path
    bare: AutoencoderModule
    x: Pixels
    device: torch.device
    source: str
    say: Say

    def do_together(self) -> None:
        """Write the entry: each process writes its shards, the main process then ``entry.json``.

        The main process holds the lock. All processes return when the entry is complete.
        """
        with ExitStack() as stack:
            needed = True
            if processes.is_main():
                needed = stack.enter_context(cache.building(self.folder, self.say))
            if json.loads(processes.agreed(json.dumps(needed))):
                own = self.shards(processes.rank(), processes.world())
                parts = processes.gathered(json.dumps(own))
                if processes.is_main():
                    self.finish({k: v for part in parts for k, v in json.loads(part).items()})
        processes.wait()

    def shards(self, first: int = 0, every: int = 1) -> dict[str, str]:
        """The digests of shards first, first + every, ...; missing shards are written."""
        chunk, total = _chunk(self.x), len(self.x)
        numbers = int(np.prod(self.bare.latent_shape))
        size = max(1, BLOCK_BYTES // (8 * numbers) // chunk) * chunk
        own = [
            (self.folder / f"latents-{k:05d}.safetensors", start, min(start + size, total))
            for k, start in list(enumerate(range(0, total, size)))[first::every]
        ]
        done = sum(stop - start for path, start, stop in own if path.exists())
        digests = {}
        share = sum(stop - start for _, start, stop in own)
        with counting("encoding", share, self.say, done) as advance:
            for path, start, stop in own:
                if not path.exists():
                    parts = self.x.split(chunk, start, stop)
                    posterior = encode_parts(self.bare, parts, self.device, advance)
                    tensors = {"mean": posterior.mean.float().contiguous()}
                    if posterior.logvar is not None:
                        tensors["logvar"] = posterior.logvar.float().contiguous()
                    write_atomic(path, to_bytes(tensors))
                digests[path.name] = store.file_digest(path)
        return digests

    def finish(self, digests: Mapping[str, str]) -> None:
        """Write ``entry.json``, which completes the entry."""
        cache.write_entry(
            self.folder,
            {
                "format_version": FORMAT_VERSION,
                "source": self.source,
                "n": len(self.x),
                "shards": dict(sorted(digests.items(), key=lambda item: (len(item[0]), item))),
            },
        )


def _chunk(x: Examples) -> int:
    """The number of examples encoded at once."""
    return max(1, min(CHUNK, CHUNK_NUMBERS // int(np.prod(x.shape[1:]))))


def _open(folder: Path) -> StoredLatents:
    entry, parts = cache.read_entry(folder), []
    for name in entry["shards"]:
        parts.append(map_file(folder / name)[0])
        shapes = {part.shape for part in parts[-1].values()}
        fits = parts[-1].keys() == parts[0].keys() and "mean" in parts[0] and len(shapes) == 1
        if not fits or parts[-1]["mean"].shape[1:] != parts[0]["mean"].shape[1:]:
            raise damaged(folder / name, "it holds other arrays than latents")
    means = Shards([part["mean"] for part in parts])
    logvars = Shards([part["logvar"] for part in parts]) if "logvar" in parts[0] else None
    return StoredLatents(means, logvars)
