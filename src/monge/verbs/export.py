"""`monge export`: write a run in a format for other programs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from monge.verbs.arguments import load_run
from monge.verbs.shown import tell


@dataclass(frozen=True)
class Export:
    """Write a run for other programs: as a .pt2 program of torch, or as a diffusers folder.

    pt2: the velocity v(x, t[, label]), or of a map the jump X(x, s, t[, label][, guidance]), of
    standardised latents, for batches of any size, on monge's clock (t = 0 noise, t = 1 data).
    Needs only torch: torch.export.load(FILE).module(). Its member export.json records shapes,
    labels and domain. No member is a pickle: the traced inputs, which torch would pickle, are left
    empty.

    diffusers: a folder for DiffusionPipeline.from_pretrained(FOLDER, trust_remote_code=True),
    with diffusers' Euler scheduler on its own clock (sigma = 1 - t). diffusers has no transformer
    like monge's, so the folder's modules import monge.

    The export is compared with the run first: beyond 1e-5 nothing is written (exit code 3).
    """

    run: Positional[Path]
    """Run folder."""
    format: Literal["pt2", "diffusers"] = "pt2"
    """pt2 or diffusers."""
    out: Path | None = None
    """File or folder; by default in RUN/export."""
    threads: int | None = None
    """CPU threads."""
    trust_code: bool = False
    """Execute the components in files that the run keeps in code/, if it has any: only for a run of
    your own, or of somebody you trust."""
    json: bool = False
    """Print the result as JSON."""


def act(arguments: Export) -> dict[str, Any]:
    """Export a run."""
    from monge.export.run import export_run

    run = load_run(arguments.run, "cpu", arguments.threads)
    out, found = export_run(run, arguments.format, arguments.out)
    tell(arguments, f"exported {out}")
    tell(arguments, f"differs from the run by {found['largest_difference']:.1e} at most")
    return {"file": str(out), **found}
