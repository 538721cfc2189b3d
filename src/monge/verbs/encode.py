"""`monge encode`: encode data as the noise or the latents of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from monge.verbs.arguments import Walk, load_run, walk
from monge.verbs.shown import note, tell


@dataclass(frozen=True)
class Encode(Walk):
    """Encode data as noise: by the autoencoder, then by the flow backwards.

    Encodes all examples of SOURCE (as for train: a folder of any number of images, or a file of at
    least 10 examples) in their order, with their labels if the run has labels. A map can be
    reversed if it was trained both ways: monge distil RUN --pairs triangle:both=true. The error of
    the round trip is printed.
    """

    run: Positional[Path]
    """Run folder."""
    source: Positional[str]
    """The data, as for train."""
    to: Literal["noise", "latent"] = "noise"
    """noise, or latent: the standardised latents of the autoencoder."""
    limit: int | None = None
    """Most examples: spread over a folder, the first ones of other sources."""
    out: Path | None = None
    """File, an .npz with noise or latent, label, names; by default in RUN/encoded."""


def act(arguments: Encode) -> dict[str, Any]:
    """Encode data."""
    from monge.system.files import refuse_existing

    run = load_run(arguments.run, arguments.device, arguments.threads)
    name = Path(arguments.source).stem or "data"
    out = arguments.out or run.folder / "encoded" / f"{name}-{arguments.to}.npz"
    refuse_existing(out)
    found = run.encode(
        arguments.source, arguments.to, limit=arguments.limit, say=note, **walk(arguments)
    )
    found.save(out)
    tell(arguments, f"{len(found)} rows of {arguments.to}: {out}")
    if "round_trip_rms" in found.info:
        way = f"{found.info['solver']}, {found.info['steps']} steps each way"
        tell(arguments, f"back again: {found.info['round_trip_rms']:.2g} rms per latent ({way})")
    return {"file": str(out), "n": len(found), **found.info}
