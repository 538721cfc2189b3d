"""Arguments that several verbs share, and their conversion to settings of the library."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

if TYPE_CHECKING:
    from monge.runs.run import Run


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """Settings of sampling, device and threads."""

    solver: str | None = None
    """euler, midpoint, heun, rk3, rk4, dopri5:rtol=..,atol=.."""
    grid: str | None = None
    """uniform:n=.., shifted:n=..,shift=.., geometric:n=..,stop=.."""
    guidance: float | None = None
    """Classifier-free guidance scale; 1 is none."""
    final: Literal["auto", "none", "divide", "posterior_mean"] | None = None
    """After the last step."""
    seed: int = 0
    """Sample i depends on (seed, i) alone."""
    device: str = "auto"
    """auto, cpu, cuda, mps."""
    threads: int | None = None
    """CPU threads."""
    trust_code: bool = False
    """Execute the components in files that the run keeps in code/, if it has any: only for a run of
    your own, or of somebody you trust."""
    json: bool = False
    """Print the result as JSON."""


@dataclass(frozen=True)
class Sampling(Sampler):
    """A run, the settings of sampling, and the number of samples."""

    run: Positional[Path]
    """Run folder."""
    n: Annotated[int, arg(aliases=["-n"])] = 64
    """How many samples."""


@dataclass(frozen=True, kw_only=True)
class Walk:
    """Settings of the flow between data and noise, device and threads."""

    label: str | None = None
    """One label for all rows; none: the label of each row."""
    steps: int | None = None
    """Solver steps, or jumps of a map; none: the run's own."""
    solver: str | None = None
    """euler, midpoint, heun, rk3, rk4, dopri5:rtol=..,atol=..; for a map: integrates its
    velocity."""
    grid: str | None = None
    """uniform:n=.., shifted:n=..,shift=.., geometric:n=..,stop=.."""
    guidance: float | None = None
    """Classifier-free guidance scale; use the same for encoding and decoding; 1 is none."""
    device: str = "auto"
    """auto, cpu, cuda, mps."""
    threads: int | None = None
    """CPU threads."""
    trust_code: bool = False
    """Execute the components in files that the run keeps in code/, if it has any: only for a run of
    your own, or of somebody you trust."""
    json: bool = False
    """Print the result as JSON."""


def sampling(arguments: Sampler, steps: Any) -> dict[str, Any]:
    """The library's settings of sampling."""
    names = ("solver", "grid", "guidance", "final", "seed")
    return {"steps": steps, **{name: getattr(arguments, name) for name in names}}


def walk(arguments: Walk) -> dict[str, Any]:
    """The library's settings of encoding and decoding."""
    names = ("label", "steps", "solver", "grid", "guidance")
    return {name: getattr(arguments, name) for name in names}


def load_run(folder: Path, device: str, threads: int | None) -> Run:
    """The run in a folder, on the requested device and threads."""
    from monge.runs.layout import CONFIG
    from monge.runs.restore import set_threads
    from monge.runs.run import Run
    from monge.system import lock, processes

    set_threads(threads)
    if processes.is_main() and (folder / CONFIG).is_file():
        lock.tidy(folder)
    return Run.load(folder, device)
