"""`monge autoencoder`: train an autoencoder alone."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from monge.data.reading import Reading
from monge.runs.spec import TrainSpec
from monge.verbs.shown import say, tell


@dataclass(frozen=True, kw_only=True)
class Autoencoder(Reading):
    """Train an autoencoder alone; use it elsewhere with `monge train ... --autoencoder OUT`."""

    data: Positional[str]
    """Source of the data, as for train."""
    out: Path | None = None
    """Folder; by default runs/autoencoder-<data>-<8 hex of the settings>."""
    autoencoder: str = "auto"
    """conv:down=..,channels=..,width=..,blocks=..,kl=..,lr=.., pca:dim=.., identity, auto."""
    init_from: str | None = None
    """Fine-tune the autoencoder of this run, or of this folder."""
    flip: Literal["auto", "yes", "no"] = "auto"
    """Learn the mirror images too; auto: for fewer than 500 images in colour."""
    steps: int | None = None
    """Training steps; none: until they no longer help."""
    seed: int = 0
    """Seed of everything random."""
    device: str = "auto"
    """auto, cpu, cuda, mps."""
    threads: int | None = None
    """CPU threads."""
    json: bool = False
    """Print the result as JSON."""


def act(arguments: Autoencoder) -> dict[str, Any]:
    """Train an autoencoder alone."""
    from monge.fitting.train import train_autoencoder

    shared = ("data", "autoencoder", "init_from", "flip", "seed", "device", "threads")
    names = [f.name for f in dataclasses.fields(Reading)]
    spec = TrainSpec(
        autoencoder_steps=arguments.steps,
        **{name: getattr(arguments, name) for name in (*names, *shared)},
    )
    folder, quality = train_autoencoder(spec, arguments.out, say())
    tell(arguments, f"autoencoder  {folder}")
    tell(arguments, f"next         monge train SOURCE --autoencoder {folder}")
    return {"autoencoder": str(folder), **quality}
