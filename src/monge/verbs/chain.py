"""`monge chain`: fit a flow block by block, with a density after every block."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tyro.conf import Positional

from monge.data.reading import Reading
from monge.errors import UserError
from monge.runs.spec import TrainSpec
from monge.verbs.shown import say, tell

if TYPE_CHECKING:
    from monge.objectives.chain import ChainSpec
    from monge.runs.run import Run

CHAIN = ("blocks", "refine", "reparametrise", "merge", "block", "gamma", "time", "growth", "solver")
"""Flags that are settings of the objective, with their names in the objective."""

SHARED = (
    *("data", "network", "autoencoder", "autoencoder_steps", "path", "coupling", "flip"),
    *("steps", "minutes", "batch", "micro_batch", "lr", "schedule", "warmup", "weight_decay"),
    *("clip", "ema", "seed", "precision", "device", "threads", "save_every"),
    *("log_every", "changed_data"),
)
"""Flags that are settings of a run."""


@dataclass(frozen=True, kw_only=True)
class Chain(Reading):
    """Fit a flow block by block: each block carries the output of the earlier blocks nearer to
    noise. Every prefix has a density. Run the same command again to continue.

    jko descends the divergence to the noise, with the exact change of volume (tables, small
    latents). local-flow-matching learns each block by a regression (images, large latents).
    """

    data: Positional[str]
    """Source of the data, as for train."""
    objective: str = "jko"
    """jko or local-flow-matching; with :stop=.., eta=.., free=true|false, warm=true|false,
    autonomous=true|false, steps=.. (of the solver in a block), growth=.., largest=..,
    diffusion=.. (time of a diffusion of the data before the first block); of jko
    divergence=auto|exact|hutchinson|difference, probes=.., gradient=backpropagation|adjoint."""
    blocks: str = "auto"
    """Number of blocks before the free one; auto: until E|x - Tx|^2 / E|Tx|^2 < stop (0.01), at
    most 8."""
    gamma: float | None = None
    """Size of the first JKO step; none: 1."""
    time: float | None = None
    """Time of the first Ornstein-Uhlenbeck step of local-flow-matching; none: 0.25."""
    growth: float | None = None
    """Ratio of the sizes of consecutive steps; none: 1 for jko, 1.5 for local-flow-matching."""
    block: Literal["ode", "residual"] | None = None
    """ode: the flow of a velocity; residual: x + f(x) with its exact determinant, up to 16
    dimensions."""
    solver: str | None = None
    """Solver of the blocks, in training, pushing, sampling and densities: rk4, euler, ..."""
    refine: int | None = None
    """Rounds after the first that split each block in two."""
    merge: int | None = None
    """Rounds after the others that replace two neighbouring blocks by one."""
    reparametrise: int | None = None
    """Rounds after the first that choose new step sizes, so that all blocks move equally far."""
    network: str = "auto"
    """Network of a block: mlp:width=..,depth=.., transformer:size=.., or auto."""
    autoencoder: str = "auto"
    """As for train."""
    autoencoder_steps: int | None = None
    """Training steps of a new autoencoder."""
    path: str = "linear"
    """Path of local-flow-matching: linear or trigonometric."""
    coupling: str = "independent"
    """Coupling of a free block of local-flow-matching: independent, or ot:plan=.."""
    flip: Literal["auto", "yes", "no"] = "auto"
    """Learn the mirror images too."""
    steps: int | None = None
    """Training steps of each block."""
    minutes: float | None = None
    """Training time of the whole chain, divided equally among its largest number of blocks."""
    batch: int = 256
    """Examples per step."""
    micro_batch: int | Literal["auto"] = "auto"
    """Examples per forward pass; auto: as many as fit."""
    lr: float = 1e-3
    """Peak learning rate."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate after the warm-up."""
    warmup: int = 100
    """Steps of linear warm-up of each block."""
    weight_decay: float = 0.0
    """AdamW's weight decay."""
    clip: float | None = 1.0
    """Largest gradient norm; none: unlimited."""
    ema: float = 0.999
    """Decay of the weights' moving average."""
    seed: int = 0
    """Seed of everything random."""
    precision: Literal["auto", "float32", "bf16", "float64"] = "auto"
    """Precision of training; auto: float32 for jko, whose divergences need it."""
    device: str = "auto"
    """auto, cpu, cuda, mps."""
    threads: int | None = None
    """CPU threads."""
    save_every: int = 500
    """Steps between checkpoints."""
    log_every: int = 20
    """Steps between log lines."""
    changed_data: bool = False
    """Continue with other examples than those of the start of the chain."""
    out: Path | None = None
    """Run folder; by default runs/<data>-<8 hex of the settings>."""
    trust_code: bool = False
    """Execute the run's own components in code/."""
    json: bool = False
    """Print the result as JSON."""


def act(arguments: Chain) -> dict[str, Any]:
    """Fit a chain, or continue."""
    from monge.fitting.train import train as train_run

    run = train_run(spec_of(arguments), out=arguments.out, say=say())
    return _told(arguments, run)


def spec_of(arguments: Chain) -> TrainSpec:
    """The specification of a run.

    Raises:
        UserError: an objective that trains no chain, or flags that the objective lacks.
    """
    objective = _objective(arguments)
    names = [f.name for f in dataclasses.fields(Reading)]
    given = {name: getattr(arguments, name) for name in (*names, *SHARED)}
    if objective.name == "jko" and given["precision"] == "auto":
        given["precision"] = "float32"
    return TrainSpec(**given, objective=repr(objective))


def _objective(arguments: Chain) -> ChainSpec:
    from monge.components import build
    from monge.objectives.chain import ChainSpec

    found = build("objective", arguments.objective)
    if not isinstance(found, ChainSpec):
        raise UserError(
            f"objective {found.name} trains no chain: give jko or local-flow-matching, or use "
            f"monge train {arguments.data} --objective {found.name}"
        )
    changes = {name: getattr(arguments, name) for name in CHAIN if name != "blocks"}
    changes = {name: value for name, value in changes.items() if value is not None}
    if arguments.blocks != "auto":
        try:
            changes["blocks"] = int(arguments.blocks)
        except ValueError:
            raise UserError(f"--blocks takes auto or a number, not {arguments.blocks!r}") from None
    known = {f.name for f in dataclasses.fields(found)}
    for name in changes:
        if name not in known:
            raise UserError(f"objective {found.name} has no {name}: leave out --{name}")
    return dataclasses.replace(found, **changes)


def _told(arguments: Chain, run: Run) -> dict[str, Any]:
    """Print the fitted blocks and the next commands."""
    from monge.learned.chain import BLOCKS
    from monge.verbs.trained import cost

    blocks = run.facts.learned[BLOCKS]
    tell(arguments, f"run      {run.folder}")
    tell(arguments, "block    size    W2 moved   E|x-Tx|^2/E|Tx|^2   seconds")
    for k, block in enumerate(blocks, 1):
        size = "free" if block["size"] is None else f"{block['size']:.3g}"
        tell(
            arguments,
            f"{k:5}  {size:>6}  {block['moved']:10.4f}  {block['ratio']:17.5f}  "
            f"{block['train_s']:8.0f}",
        )
    tell(arguments, f"report   {run.folder / 'report.html'}")
    tell(
        arguments,
        f"next     monge sample {run.folder}   monge verify {run.folder}   "
        f"monge density {run.folder} ROWS.csv",
    )
    return {"run": str(run.folder), "blocks": blocks, **cost(run.folder)}
