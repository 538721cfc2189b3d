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
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from monge.autoencoders import Standardised
from monge.errors import CheckFailed
from monge.files import write_atomic
from monge.flows import MeanVelocity
from monge.paths import Path as InterpolationPath
from monge.runs import jumps
from monge.runs.export import TOLERANCE
from monge.runs.folder import monge_version
from monge.runs.run import Run
from monge.tensors import expand, stream

FORMAT_VERSION = 1

FACTS = "export.json"
"""The archive's member that says what the program is; see `facts`."""

SAMPLE_INPUTS = "/data/sample_inputs/"
"""Where torch puts the inputs that a program was traced with."""

BATCHES = (1, 2, 5, 16)
"""Batch sizes at which the program is compared with the run."""


class _Conditioned(nn.Module):
    """A network, what it outputs, and the names of the conditions that follow the times."""

    def __init__(
        self, net: nn.Module, path: InterpolationPath, output: Any, conditions: tuple[str, ...]
    ) -> None:
        super().__init__()
        self.net, self.path, self.output, self.conditions = net, path, output, conditions

    def cond(self, given: tuple[Tensor, ...]) -> dict[str, Tensor] | None:
        return dict(zip(self.conditions, given, strict=True)) or None


class Velocity(_Conditioned):
    """v(x, t, *conditions)."""

    def forward(self, x: Tensor, t: Tensor, *given: Tensor) -> Tensor:
        return self.path.to_velocity(self.output, self.net(x, t, self.cond(given)), x, t)


class Jump(_Conditioned):
    """X(x, s, t, *conditions): where x at time s is at time t, in one evaluation."""

    def forward(self, x: Tensor, s: Tensor, t: Tensor, *given: Tensor) -> Tensor:
        u = MeanVelocity(self.net, self.path, self.output)
        return x + expand(t - s, x) * u(x, s, t, self.cond(given))


def write(run: Run, path: Path) -> dict[str, Any]:
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
    if max(errors) > TOLERANCE:
        raise CheckFailed(
            f"the exported program differs from the run by {max(errors):.1e}, more than "
            f"{TOLERANCE:g}: nothing was written"
        )
    write_atomic(path, content)
    return {**known, "largest_difference": max(errors)}


def conditions_of(run: Run) -> tuple[str, ...]:
    """The conditions that the network takes, in the order of the program's inputs."""
    given = {
        "label": bool(run.label_names),
        "vector": bool(run.facts.get("n_vector")),
        "guidance": run.spec.is_map and jumps.takes_guidance(run.spec),
    }
    return tuple(name for name, taken in given.items() if taken)


def facts(run: Run) -> dict[str, Any]:
    """What a user of the program has to know, as JSON."""
    shape = list(run.autoencoder.latent_shape)
    lo, hi = jumps.domain(run) if run.spec.is_map else run.field.domain
    guidance = run.spec.guidance_range
    told = {
        "label": "int64 (B,), an index into labels, -1 for none",
        "vector": f"float32 (B, {run.facts.get('n_vector')}), standardised, NaN for none",
        "guidance": f"float32 (B,), {guidance[0]:g} to {guidance[1]:g}",
    }
    times = ("s", "t") if run.spec.is_map else ("t",)
    inputs = {
        "x": f"float32 (B, {', '.join(map(str, shape))})",
        **dict.fromkeys(times, "float32 (B,)"),
        **{name: told[name] for name in conditions_of(run)},
    }
    known: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "program": "flow map: where x at time s is at time t"
        if run.spec.is_map
        else "velocity: dx/dt",
        "inputs": inputs,
        "output": inputs["x"],
        "clock": "t = 0 is noise N(0, I), t = 1 is data",
        "domain": [lo, hi],
        "units": "standardised latents",
        "latent_shape": shape,
        "labels": list(run.label_names),
        "data": run.facts["name"],
        "autoencoder": _kind(run.autoencoder),
        "path": run.spec.path,
        "monge": monge_version(),
        "torch": torch.__version__,
    }
    if run.spec.is_map:
        known["backwards"] = jumps.pairs_of(run.spec).backwards
    if isinstance(run.autoencoder, Standardised):
        for name in ("mean", "std"):
            known[f"latent_{name}"] = getattr(run.autoencoder, name).flatten().tolist()
    return known


def _kind(autoencoder: Any) -> str:
    bare = autoencoder.autoencoder if isinstance(autoencoder, Standardised) else autoencoder
    return bare.spec.name


def program(run: Run) -> ExportedProgram:
    """The run's field or map as a graph, for batches of any size."""
    kind = Jump if run.spec.is_map else Velocity
    module = kind(run.network, run.path, run.spec.output, conditions_of(run)).eval()
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
    lo, hi = jumps.domain(run) if run.spec.is_map else run.field.domain
    x = torch.randn((n, *run.autoencoder.latent_shape), generator=rng)
    times = torch.rand((2 if run.spec.is_map else 1, n), generator=rng)
    if run.spec.is_map and not jumps.pairs_of(run.spec).backwards:
        times = times.sort(0).values
    low, high = run.spec.guidance_range
    scale = low + (high - low) * float(torch.rand((), generator=rng))
    drawn = {
        "label": torch.randint(-1, max(1, len(run.label_names)), (n,), generator=rng),
        "vector": torch.randn((n, run.facts.get("n_vector", 0)), generator=rng),
        "guidance": torch.full((n,), scale),
    }
    return x, list(lo + (hi - lo) * times), [drawn[name] for name in conditions_of(run)]


@torch.no_grad()
def difference(run: Run, exported: Any, n: int) -> float:
    """The largest difference from the run on n random inputs, relative to the largest number."""
    x, times, given = _inputs(run, n)
    cond = dict(zip(conditions_of(run), given, strict=True))
    if run.spec.is_map:
        scale = float(cond["guidance"][0]) if "guidance" in cond else None
        expected = jumps.learned_map(run, scale)(x, times[0], times[1], cond or None)
    else:
        expected = run.field(x, times[0], cond or None)
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
