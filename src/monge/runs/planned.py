"""What a run settles when it begins: the number of its steps, and whether it is compiled.

The configuration of a run with a time limit holds the steps instead, so that it trains the same
run on any machine. ``plan.json`` records the minutes, so that the same command continues the run.
The configuration of a run that was compiled records that.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from monge.runs import schemas
from monge.runs.folder import in_full, read_config
from monge.runs.layout import AUTOENCODER, CONFIG, PLAN
from monge.runs.spec import TrainSpec, to_yaml
from monge.system.files import write_atomic, write_json
from monge.training import journal


def keep(folder: Path, spec: TrainSpec, steps: int) -> None:
    """Write the planned steps in place of the minutes into a run's configuration."""
    if spec.minutes is None or spec.steps is not None:
        return
    encoder_steps = spec.autoencoder_steps
    if encoder_steps is None:
        rows = journal.read(folder / AUTOENCODER / journal.NAME)
        encoder_steps = max((row["step"] for row in rows if "step" in row), default=None)
    found = {"minutes": spec.minutes, "steps": steps, "autoencoder_steps": encoder_steps}
    write_json(folder / PLAN, found)
    settled = dataclasses.replace(spec, steps=steps, minutes=None, autoencoder_steps=encoder_steps)
    write_atomic(folder / CONFIG, to_yaml(in_full(_as_compiled(settled, folder))))


def keep_compiled(folder: Path, spec: TrainSpec) -> None:
    """Write into a run's configuration that it is compiled."""
    write_atomic(folder / CONFIG, to_yaml(in_full(dataclasses.replace(spec, compile="on"))))


def _as_compiled(spec: TrainSpec, folder: Path) -> TrainSpec:
    """A specification that leaves compiling open, with what its folder says of it."""
    if spec.compile != "auto" or not os.path.isfile(folder / CONFIG):
        return spec
    return dataclasses.replace(spec, compile=read_config(folder).compile)


def as_planned(spec: TrainSpec, folder: Path) -> TrainSpec:
    """A specification with what its folder settled: the steps for its minutes, and compiling.

    Raises:
        UserError: the file of the plan is damaged.
    """
    spec, path = _as_compiled(spec, folder), folder / PLAN
    if spec.minutes is None or not os.path.isfile(path):
        return spec
    found = schemas.read(folder, PLAN)
    minutes, steps, encoder_steps = (
        found[name] for name in ("minutes", "steps", "autoencoder_steps")
    )
    if spec.autoencoder_steps is None:
        spec = dataclasses.replace(spec, autoencoder_steps=encoder_steps)
    if spec.steps is None and spec.minutes == minutes:
        spec = dataclasses.replace(spec, steps=steps, minutes=None)
    return spec
