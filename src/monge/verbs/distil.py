"""`monge distil`: turn a trained run into a flow map of few steps."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from monge.verbs.shown import say
from monge.verbs.trained import trained


@dataclass(frozen=True)
class Distil:
    """Turn a trained run into a flow map that samples in one to sixteen steps instead of fifty.

    The map inherits the run's autoencoder, network, data and labels. It can be sampled with any
    number of steps; its error against the teacher is printed for each. Run again to continue.

    Without a teacher: monge train SOURCE --objective self-lagrangian.
    """

    run: Positional[Path]
    """Folder of the trained run, the teacher."""
    objective: str = "lagrangian"
    """lagrangian, eulerian, progressive, consistency, continuous-consistency; with
    :stop=none|convex|full, derivative=auto|jvp|difference, diagonal=.., clip=.., anneal=..,
    weight=none|learned|adaptive; or reflow, for a straighter flow instead of a map."""
    pairs: str = "auto"
    """Law of the times (s, t): triangle, triangle:both=true (backwards too), source:part=..,
    logit_spans:mean=..,std=.., to_data, dyadic:levels=..; auto: the objective's own."""
    guidance: str | None = None
    """Guidance of the teacher: a scale, or a range such as 1..3 to choose from in sampling; none:
    the teacher's."""
    network: str = "auto"
    """auto: the teacher's network with a second time, starting from its weights."""
    steps: int | None = None
    """Training steps; none: as many as the teacher's."""
    minutes: float | None = None
    """Training time."""
    batch: int | None = None
    """Examples per step; none: the teacher's."""
    micro_batch: int | Literal["auto"] | None = None
    """Examples per forward pass; auto: as many as fit; none: as the teacher was trained."""
    lr: float | None = None
    """Peak learning rate; none: the teacher's."""
    ema: float | None = None
    """Decay of the weights' moving average; none: the teacher's."""
    precision: Literal["auto", "float32", "bf16", "float64"] | None = None
    """Precision of training; none: the teacher's."""
    compile: Literal["auto", "on", "off"] = "auto"
    """As for train; of reflow alone, as flow maps are never compiled."""
    shard: bool = False
    """Distribute weights, average and optimiser state over the processes (FSDP)."""
    save_every: int | None = None
    """Steps between checkpoints; none: the teacher's."""
    sample_every: int | None = None
    """Steps between sample grids and measurements of the map's error; none: the teacher's."""
    seed: int | None = None
    """Seed of everything random; none: the teacher's."""
    out: Path | None = None
    """Run folder; by default runs/<data>-<8 hex of the settings>."""
    device: str = "auto"
    """auto, cpu, cuda, mps."""
    threads: int | None = None
    """CPU threads."""
    trust_code: bool = False
    """Execute the components in files that the run keeps in code/, if it has any: only for a run of
    your own, or of somebody you trust."""
    json: bool = False
    """Print the result as JSON."""


def act(arguments: Distil) -> dict[str, Any]:
    """Distil a run into a map, or continue."""
    from monge.fitting.distil import distil as distil_run

    skipped = ("run", "out", "json", "trust_code")
    names = [f.name for f in dataclasses.fields(arguments) if f.name not in skipped]
    settings = {name: getattr(arguments, name) for name in names}
    # A flag that is not given keeps the teacher's setting.
    settings["shard"] = settings["shard"] or None
    run = distil_run(arguments.run, arguments.out, say=say(), **settings)
    return trained(arguments, run)
