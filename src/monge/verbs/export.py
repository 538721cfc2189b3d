"""`monge export`: a run in a format of other programs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from monge.verbs.arguments import load_run
from monge.verbs.shown import tell


@dataclass(frozen=True)
class Export:
    """A run for programs without monge's verbs: a .pt2 program of torch, or a diffusers folder.

    pt2: the velocity v(x, t[, label]), or of a map the jump X(x, s, t[, label][, guidance]), of
    standardised latents, for batches of any size, on monge's clock (t = 0 noise, t = 1 data).
    Needs torch alone: torch.export.load(FILE).module(). Its member export.json says shapes,
    labels and domain. No member is a pickle: the one that torch pickles, the inputs it was traced
    with, is left empty.

    diffusers: a folder for DiffusionPipeline.from_pretrained(FOLDER, trust_remote_code=True),
    with diffusers' Euler scheduler on its own clock (sigma = 1 - t). diffusers has no transformer
    like monge's, so the folder's modules import monge.

    Either is compared with the run before it appears: beyond 1e-5 nothing is written (exit code 3).
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
    """A run in another format."""
    from monge.export.run import export_run

    run = load_run(arguments.run, "cpu", arguments.threads)
    out, found = export_run(run, arguments.format, arguments.out)
    tell(arguments, f"exported {out}")
    tell(arguments, f"differs from the run by {found['largest_difference']:.1e} at most")
    return {"file": str(out), **found}
