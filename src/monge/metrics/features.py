"""Feature networks by name, and what they make of sets of images.

A network is written ``NAME:FILE``, the name of a row of `NETWORKS` and the file that it reads:
``lenet5:weights.safetensors``. A network from elsewhere is one row more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_bytes
from torch import Tensor, nn

from monge.errors import UserError, nearest
from monge.metrics.feature_networks import LeNet5, ResNet20
from monge.metrics.labels import Labels, as_labels
from monge.metrics.samples import Rows, Samples

DIGITS = tuple(str(k) for k in range(10))
CIFAR10 = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
COLOURS: Mapping[int, str] = {1: "grey", 3: "RGB"}


class ImageSet(Protocol):
    """Images (N, C, H, W) in [-1, 1] that come in parts: a tensor, or images kept on disk."""

    @property
    def shape(self) -> Sequence[int]: ...

    def split(self, split_size: int, /) -> Iterable[Tensor]: ...

    def __getitem__(self, rows: Tensor, /) -> Tensor: ...


@dataclass(frozen=True)
class FeatureSet:
    """What a feature network makes of a set of images.

    Args:
        x: (n, d), features.
        predicted: (n,), the class that the network sees.
        label: (n,), the class that was asked for or is true, -1 for none, numbered as the
            network's; None where there is none to compare with.
    """

    x: Samples
    predicted: Labels
    label: Labels | None = None


@dataclass(frozen=True)
class FeatureNetwork:
    """A network in whose features images are compared.

    Args:
        name: as in `NETWORKS`.
        module: from images in [-1, 1] to (features, logits).
        channels: that it takes, 1 or 3.
        sides: of the square images that it takes.
        classes: the names of its classes.
        weights: the first 12 hexadecimal digits of the SHA-256 of its file.
    """

    name: str
    module: nn.Module
    channels: int
    sides: tuple[int, ...]
    classes: tuple[str, ...]
    weights: str

    def require(self, shape: Sequence[int]) -> None:
        """Images of a shape (C, H, W) can be given to it.

        Raises:
            UserError: no images, or images of other colours or of another size.
        """
        taken = " or ".join(f"{side} x {side}" for side in self.sides)
        wanted = f"{self.name} takes {COLOURS[self.channels]} images of {taken} pixels"
        if len(shape) != 3:
            raise UserError(f"{wanted}; these examples have shape {tuple(shape)}: they are none")
        channels, height, width = shape
        if channels != self.channels:
            found = COLOURS.get(channels, f"of {channels} channels")
            raise UserError(f"{wanted}, one in {self.channels} channels; these are {found}")
        if height != width or height not in self.sides:
            raise UserError(f"{wanted}; these have {height} x {width}")

    @torch.no_grad()
    def features(
        self,
        images: ImageSet,
        rows: Rows | None = None,
        chunk: int = 256,
        device: torch.device | str = "cpu",
    ) -> FeatureSet:
        """Features (N, d) and predicted classes of images (N, C, H, W) in [-1, 1], on the CPU.

        Args:
            rows: of the images, those that are wanted; all by default.
            chunk: how many are in memory at a time.

        Raises:
            UserError: images of other colours or of another size.
        """
        self.require(images.shape[1:])
        module = self.module.to(device)
        parts, classes = [], []
        wanted = images.split(chunk) if rows is None else (images[r] for r in rows.split(chunk))
        for part in wanted:
            x, logits = module(part.to(device, torch.float32))
            parts.append(x.cpu())
            classes.append(logits.argmax(1).cpu())
        return FeatureSet(torch.cat(parts), torch.cat(classes))

    def labelled(self, found: FeatureSet, label: Tensor | None, names: Sequence[str]) -> FeatureSet:
        """The same set with labels of other names, matched to the network's classes.

        Names match the names of classes, or else, where all are digits, their numbers. Where a
        name matches none the set stays without labels: nothing could be said of it.

        Args:
            label: (n,), indices of names, -1 for none.
        """
        numbers = {str(k): k for k in range(len(self.classes))}
        by_name = {name: k for k, name in enumerate(self.classes)}
        for known in (by_name, numbers):
            if label is not None and names and set(names) <= known.keys():
                label = as_labels(label, f"labels for {self.name}", len(found.x))
                own = torch.tensor([*(known[name] for name in names), -1])  # -1 stays -1
                return replace(found, label=own[label])
        return found


Read = Callable[[str, str], FeatureNetwork]
"""Makes a network of the name it has in `NETWORKS` and the text after the colon."""


def _published(
    build: Callable[[], nn.Module],
    channels: int,
    sides: tuple[int, ...],
    classes: tuple[str, ...],
) -> Read:
    """Reads published weights into a network of ours."""

    def read(name: str, text: str) -> FeatureNetwork:
        module = build()
        digest = _read_weights(module, Path(text), name)
        return FeatureNetwork(name, module, channels, sides, classes, digest)

    return read


NETWORKS: Mapping[str, Read] = {
    "lenet5": _published(LeNet5, 1, (28, 32), DIGITS),
    "resnet20": _published(ResNet20, 3, (32,), CIFAR10),
}
"""The feature networks that can be named."""


def load_network(text: str) -> FeatureNetwork:
    """The network that a text ``NAME:FILE`` names, in evaluation mode.

    Raises:
        UserError: an unknown name, or a file that is missing, damaged or of another network.
    """
    name, _, file = text.partition(":")
    if name not in NETWORKS:
        raise UserError(f"no feature network {name!r} in {text!r}: {nearest(name, NETWORKS)}")
    if not file:
        raise UserError(
            f"feature network {name!r} needs its file of weights: {name}:FILE.safetensors"
        )
    return NETWORKS[name](name, file)


def _read_weights(module: nn.Module, path: Path, name: str) -> str:
    """Fills a module from a safetensors file; the start of the SHA-256 of the file."""
    if path.suffix != ".safetensors":
        raise UserError(
            f"weights of {name}: {path} is no .safetensors file; other formats can run code when "
            "they are read, so convert it"
        )
    try:
        content = path.read_bytes()
        tensors = from_bytes(content)
    except OSError as error:
        raise UserError(f"cannot read the weights of {name}, {path}: {error.strerror}") from None
    except SafetensorError as error:
        raise UserError(f"{path} is damaged, or no safetensors file: {error}") from None
    # Counts of batches seen are no weights; published files have them or not.
    expected = {k: t for k, t in module.state_dict().items() if not _is_count(k)}
    given = {k: t for k, t in tensors.items() if not _is_count(k)}
    odd = sorted(expected.keys() ^ given.keys())
    if odd:
        missing = sum(k in expected for k in odd)
        raise UserError(
            f"{path} does not hold the weights of {name}: {missing} of {len(expected)} tensors are "
            f"missing, {len(odd) - missing} are unknown (first: {odd[0]})"
        )
    for key, tensor in expected.items():
        if given[key].shape != tensor.shape:
            raise UserError(
                f"{path} does not hold the weights of {name}: {key} has shape "
                f"{tuple(given[key].shape)}, expected {tuple(tensor.shape)}"
            )
    module.load_state_dict(given, strict=False)
    module.eval().requires_grad_(False)
    return hashlib.sha256(content).hexdigest()[:12]


def _is_count(key: str) -> bool:
    return key.endswith("num_batches_tracked")
