"""The velocity field, or the jump of a map, as a program that torch alone can run.

`torch.export.save` writes a zip archive: weights as raw bytes, the graph and its tables as JSON.
One member is pickled, the inputs it was traced with, which nothing needs; it is left empty here,
and torch reads an empty one as none. So the archive holds no pickle, which is checked.
"""

from __future__ import annotations

import io
import json
import pickletools
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from monge.autoencoders import Standardised, marginals
from monge.errors import CheckFailed
from monge.objectives.column_masks import KNOWN
from monge.runs.folder import monge_version
from monge.runs.run import Run
from monge.sampling.known_columns import knows_columns
from monge.system.files import write_atomic
from monge.tensors import stream

FORMAT_VERSION = 1

FACTS = "export.json"
"""The archive's member that says what the program is; see `facts`."""

SAMPLE_INPUTS = "/data/sample_inputs/"
"""Where torch puts the inputs that a program was traced with."""

BATCHES = (1, 2, 5, 16)
"""Batch sizes at which the program is compared with the run."""


def write(run: Run, path: Path, tolerance: float) -> dict[str, Any]:
    """Write the program of a run; returns what its export.json says.

    Raises:
        CheckFailed: the program differs from the run, or this torch would pickle a part of it.
    """
    known = facts(run)
    content = archive(program(run), known)
    if found := pickles(content):
        raise CheckFailed(f"this version of torch pickles {', '.join(found)}: nothing was written")
    loaded = torch.export.load(io.BytesIO(content)).module()
    errors = [difference(run, loaded, n) for n in BATCHES]
    if max(errors) > tolerance:
        raise CheckFailed(
            f"the exported program differs from the run by {max(errors):.1e}, more than "
            f"{tolerance:g}: nothing was written"
        )
    write_atomic(path, content)
    return {**known, "largest_difference": max(errors)}


def conditions_of(run: Run) -> tuple[str, ...]:
    """The conditions that the network takes, in the order of the program's inputs."""
    given = {
        "label": bool(run.label_names),
        "vector": bool(run.facts.n_vector),
        KNOWN: knows_columns(run),
        "guidance": run.learned.program().guidance is not None,
    }
    return tuple(name for name, taken in given.items() if taken)


def facts(run: Run) -> dict[str, Any]:
    """What a user of the program has to know, as JSON."""
    shape = list(run.autoencoder.latent_shape)
    exported = run.learned.program()
    lo, hi = exported.domain
    guidance = exported.guidance or (1.0, 1.0)
    told = {
        "label": "int64 (B,), an index into labels, -1 for none",
        "vector": f"float32 (B, {run.facts.n_vector}), standardised, NaN for none",
        KNOWN: f"float32 (B, {', '.join(map(str, shape))}): known latents, NaN for unknown ones",
        "guidance": f"float32 (B,), {guidance[0]:g} to {guidance[1]:g}",
    }
    inputs = {
        "x": f"float32 (B, {', '.join(map(str, shape))})",
        **dict.fromkeys(exported.times, "float32 (B,)"),
        **{name: told[name] for name in conditions_of(run)},
    }
    known: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "program": exported.summary,
        "inputs": inputs,
        "output": inputs["x"],
        "clock": "t = 0 is noise N(0, I), t = 1 is data",
        "domain": [lo, hi],
        "units": "standardised latents",
        "latent_shape": shape,
        "labels": list(run.label_names),
        "data": run.facts.name,
        "autoencoder": _kind(run.autoencoder),
        "path": run.spec.path,
        "monge": monge_version(),
        "torch": torch.__version__,
    }
    known |= exported.facts
    if isinstance(run.autoencoder, Standardised):
        for name in ("mean", "std"):
            known[f"latent_{name}"] = getattr(run.autoencoder, name).flatten().tolist()
        inner = run.autoencoder.autoencoder.architecture or {}
        if curves := inner.get(marginals.KEY):  # knots of each column's normal score
            known[marginals.KEY] = curves
    return known


def _kind(autoencoder: Any) -> str:
    bare = autoencoder.autoencoder if isinstance(autoencoder, Standardised) else autoencoder
    return bare.spec.name


def program(run: Run) -> ExportedProgram:
    """The run's field or map as a graph, for batches of any size."""
    module = run.learned.program().module(conditions_of(run)).eval()
    x, times, given = _inputs(run, 3)
    any_size = {0: Dim("batch", min=1)}
    shapes = (any_size, *(any_size for _ in times))
    if given:  # the shapes of what goes into *given are one tuple, or nothing at all
        shapes = (*shapes, tuple(any_size for _ in given))
    with torch.no_grad():
        graph = torch.export.export(
            module, (x, *times, *given), dynamic_shapes=shapes, strict=False
        )
    # Where this code lies on this machine is nobody else's concern.
    for part in graph.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)
    return graph


def _inputs(run: Run, n: int) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Random inputs of a program: the state, its time or two times, and the conditions."""
    rng = stream(n, "export")
    exported = run.learned.program()
    lo, hi = exported.domain
    x = torch.randn((n, *run.autoencoder.latent_shape), generator=rng)
    times = torch.rand((len(exported.times), n), generator=rng)
    if exported.ordered:
        times = times.sort(0).values
    low, high = exported.guidance or (1.0, 1.0)
    scale = low + (high - low) * float(torch.rand((), generator=rng))
    drawn = {
        "label": torch.randint(-1, max(1, len(run.label_names)), (n,), generator=rng),
        "vector": torch.randn((n, run.facts.n_vector), generator=rng),
        KNOWN: torch.where(torch.rand(x.shape, generator=rng) < 0.5, x, torch.nan),
        "guidance": torch.full((n,), scale),
    }
    return x, list(lo + (hi - lo) * times), [drawn[name] for name in conditions_of(run)]


@torch.no_grad()
def difference(run: Run, exported: Any, n: int) -> float:
    """The largest difference from the run on n random inputs, relative to the largest number."""
    x, times, given = _inputs(run, n)
    cond = dict(zip(conditions_of(run), given, strict=True))
    expected = run.learned.evaluate(x, tuple(times), cond or None)
    error = (exported(x, *times, *given) - expected).abs().max()
    return float(error / expected.abs().max().clamp_min(1.0))


def archive(graph: ExportedProgram, known: dict[str, Any]) -> bytes:
    """The bytes of a .pt2 file of a program, without pickles."""
    buffer, cleaned = io.BytesIO(), io.BytesIO()
    torch.export.save(graph, buffer, extra_files={FACTS: json.dumps(known, indent=1)})
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(cleaned, "w") as new:
        for name in old.namelist():
            content = b"" if SAMPLE_INPUTS in name else old.read(name)
            new.writestr(zipfile.ZipInfo(name), content)
    return cleaned.getvalue()


def pickles(content: bytes) -> list[str]:
    """The members of a .pt2 archive that are pickles, or archives that may hold some."""
    with zipfile.ZipFile(io.BytesIO(content)) as members:
        return [name for name in members.namelist() if _is_pickle(members.read(name))]


def _is_pickle(content: bytes) -> bool:
    if zipfile.is_zipfile(io.BytesIO(content)):
        return True
    try:
        *_, (_, _, end) = pickletools.genops(content)
    except ValueError:  # its bytes are no opcodes
        return False
    return end == len(content) - 1 and content[:1] == b"\x80"
