"""`monge decode`: decode noise or latents to data, or interpolate between rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from monge.errors import UserError
from monge.verbs.arguments import Walk, load_run, walk
from monge.verbs.shown import tell


@dataclass(frozen=True)
class Decode(Walk):
    """Decode noise or latents to data, the inverse of monge encode.

    With --interpolate N, draw a picture of N frames from each row to the next, both ends included:
    on the sphere for noise, on a line for latents. A frame has the label of the nearer end.
    """

    run: Positional[Path]
    """Run folder, of the encoding run or of another run with latents of the same shape."""
    file: Positional[Path]
    """A file of monge encode, or an .npz with an array noise or latent (N, ...)."""
    n: Annotated[int | None, arg(aliases=["-n"])] = None
    """Only the first rows."""
    interpolate: int | None = None
    """Frames between consecutive rows."""
    final: Literal["auto", "none", "divide", "posterior_mean"] | None = None
    """After the last step."""
    out: Path | None = None
    """Folder; by default in RUN/decoded."""
    format: str | None = None
    """png, npz, csv, parquet, as for sample; several separated by commas; none: png for images,
    csv for tables."""


def act(arguments: Decode) -> dict[str, Any]:
    """Decode noise or latents."""
    from monge.sampling import encoded, images
    from monge.system.files import refuse_existing

    run = load_run(arguments.run, arguments.device, arguments.threads)
    formats = run.origin.check_formats(arguments.format.split(",") if arguments.format else None)
    found = encoded.load(arguments.file, run)
    if arguments.n is not None:
        if arguments.n < 1:
            raise UserError(f"the number of rows must be at least 1, not {arguments.n}")
        found = found[: arguments.n]
    between, settings = arguments.interpolate, {"final": arguments.final, **walk(arguments)}
    if between is not None and run.facts.kind != "image":
        raise UserError("--interpolate draws pictures, and this run's data are rows of a table")
    what = "" if between is None else "-between"
    out = arguments.out or run.folder / "decoded" / f"{arguments.file.stem}{what}"
    refuse_existing(out)
    if between is None:
        drawn = run.decode(found, **settings)
        written, info = drawn.save(out, formats), drawn.info
    else:
        pairs = run.interpolate(found, between, **settings)
        info = pairs[0].info
        digits = len(str(len(pairs)))
        written = [
            images.save_png(
                images.grid(pair.x, between), out / f"between-{k:0{digits}d}-{k + 1}.png"
            )
            for k, pair in enumerate(pairs)
        ]
    way = f" ({info['solver']}, {info['steps']} steps, guidance {info['guidance']:g})"
    tell(
        arguments,
        f"{len(found)} rows of {found.kind} decoded{way if found.kind == 'noise' else ''}: "
        f"{written[0]}",
    )
    files = {"files": [str(path) for path in written], "kind": found.kind}
    return {**info, **files, "n": len(found)}
