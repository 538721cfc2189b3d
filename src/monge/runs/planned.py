"""What the minutes of a run became: a number of steps, which its configuration then gives.

The configuration of a run that was given minutes holds the steps in their place, so that it trains
the same run again on any machine. ``plan.json`` keeps the minutes, so that the same command goes on
with the run.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from monge.runs import schemas
from monge.runs.folder import in_full
from monge.runs.layout import AUTOENCODER, CONFIG, PLAN
from monge.runs.spec import TrainSpec, to_yaml
from monge.system.files import write_atomic, write_json
from monge.training import journal


def keep(folder: Path, spec: TrainSpec, steps: int) -> None:
    """Write the steps that the minutes became into a run's configuration."""
    if spec.minutes is None or spec.steps is not None:
        return
    encoder_steps = spec.autoencoder_steps
    if encoder_steps is None:
        rows = journal.read(folder / AUTOENCODER / journal.NAME)
        encoder_steps = max((row["step"] for row in rows if "step" in row), default=None)
    found = {"minutes": spec.minutes, "steps": steps, "autoencoder_steps": encoder_steps}
    write_json(folder / PLAN, found)
    settled = dataclasses.replace(spec, steps=steps, minutes=None, autoencoder_steps=encoder_steps)
    write_atomic(folder / CONFIG, to_yaml(in_full(settled)))


def as_planned(spec: TrainSpec, folder: Path) -> TrainSpec:
    """A specification that gives minutes, with what they became in its folder, if they did.

    Raises:
        UserError: the file that says so is damaged.
    """
    path = folder / PLAN
    if spec.minutes is None or not path.is_file():
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
