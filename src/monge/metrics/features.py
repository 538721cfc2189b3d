"""What a feature network makes of a set of images; `feature_sources` says where it is from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from monge.errors import UserError, reason
from monge.metrics.labels import Labels, as_labels
from monge.metrics.samples import Rows, Samples

COLOURS: Mapping[int, str] = {1: "grey", 3: "RGB"}


@runtime_checkable
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
        predicted: (n,), the class that the network sees; None where it knows no classes.
        label: (n,), the class that was asked for or is true, -1 for none, numbered as the
            network's; None where there is none to compare with.
    """

    x: Samples
    predicted: Labels | None
    label: Labels | None = None


@dataclass(frozen=True)
class FeatureNetwork:
    """A network in whose features images are compared.

    Args:
        name: for the rows of the table.
        module: from images (B, C, H, W) in [-1, 1] to features (B, d), or to (features, logits).
        channels: that it takes, 1 or 3; None where it says so itself.
        sides: of the square images that it takes; empty where it says so itself.
        classes: the names of its classes; empty where it knows none.
        settings: of the protocol: which weights, which preparation.
    """

    name: str
    module: nn.Module
    channels: int | None = None
    sides: tuple[int, ...] = ()
    classes: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)

    def require(self, shape: Sequence[int]) -> None:
        """Images of a shape (C, H, W) can be given to it.

        Raises:
            UserError: no images, or images of other colours or of another size.
        """
        if self.channels is None:
            self._try(shape)
            return
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
    def _try(self, shape: Sequence[int]) -> None:
        """Two black images, so that what the network cannot take is told before the work."""
        if len(shape) != 3:
            raise UserError(
                f"{self.name} takes images; these examples have shape {tuple(shape)}: they are none"
            )
        like = next(self.module.parameters(), torch.zeros(()))
        black = torch.full((2, *shape), -1.0, device=like.device)
        try:
            found = self.module(black)
        except Exception as error:  # a stranger's code raises anything
            raise UserError(
                f"feature network {self.name} fails on images of shape {tuple(shape)} in [-1, 1]: "
                f"{type(error).__name__}: {reason(error)}"
            ) from error
        self._parts(found, 2)

    def _parts(self, found: object, n: int) -> tuple[Tensor, Tensor | None]:
        """Features (n, d) and logits, from what the network returned for n images."""
        parts = found if isinstance(found, (tuple, list)) else (found, None)
        if len(parts) == 1:
            parts = (parts[0], None)
        x, logits = parts if len(parts) == 2 else (None, None)
        fits = isinstance(x, Tensor) and x.is_floating_point() and x.ndim > 1 and len(x) == n
        if fits and logits is not None:
            fits = isinstance(logits, Tensor) and logits.ndim == 2 and len(logits) == n
        if not fits:
            shapes = [tuple(p.shape) if isinstance(p, Tensor) else type(p).__name__ for p in parts]
            raise UserError(
                f"feature network {self.name} returned {shapes} for {n} images: it should return "
                f"features ({n}, d), or the pair of features and logits ({n}, classes)"
            )
        assert isinstance(x, Tensor)
        return x.flatten(1), logits

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
            x, logits = self._parts(module(part.to(device, torch.float32)), len(part))
            parts.append(x.float().cpu())
            if logits is not None:
                classes.append(logits.argmax(1).cpu())
        return FeatureSet(torch.cat(parts), torch.cat(classes) if classes else None)

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
