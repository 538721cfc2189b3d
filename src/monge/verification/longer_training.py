"""What training for longer would give: tried, in a copy of the run, where it does not take long."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from pathlib import Path

from monge.data.base import Data
from monge.fitting.train import train
from monge.networks.exact import ExactNetwork
from monge.runs import schemas
from monge.runs.layout import COST
from monge.runs.run import Run
from monge.training import checkpoint, journal
from monge.types import VelocityField
from monge.verification.advice import Trials

FEWEST = 4
"""At least the run's steps divided by this are taken, or none."""


def trials_of(run: Run, data: Data, most_s: float) -> Trials:
    """What can be tried of a run: its autoencoder's size, and up to twice its steps.

    Args:
        most_s: training time of the trial, by the time that the run's own steps took.
    """
    facts = schemas.read_if_there(run.folder, COST) or {}
    steps, seconds = int(facts.get("steps") or 0), float(facts.get("train_s") or 0.0)
    more = min(steps, int(most_s * steps / seconds)) if steps and seconds else 0
    possible = (
        more > 0
        and more >= steps / FEWEST
        and run.weights == "ema"
        and (run.folder / checkpoint.STATE).is_dir()
        and not isinstance(run.network, ExactNetwork)
    )

    def longer() -> tuple[str, VelocityField]:
        return f"--steps {steps + more}", _trained(run, data, steps + more)

    return Trials(
        run.spec.autoencoder,
        longer=longer if possible else None,
        training=_trend(run.folder),
        elsewhere=run.learned.velocity_elsewhere,
    )


def _trained(run: Run, data: Data, steps: int) -> VelocityField:
    """The field that the run's own command with so many steps would leave."""
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / run.folder.name
        shutil.copytree(run.folder, copy, ignore=shutil.ignore_patterns("samples", "evaluation"))
        spec = dataclasses.replace(run.spec, steps=steps, minutes=None, sample_every=steps)
        return train(spec, data, copy).field


def _trend(folder: Path) -> str:
    """How the training loss moved in the last fifth of the journal, in words."""
    rows = journal.read(folder / journal.NAME)
    losses = [row["loss"] for row in rows if isinstance(row.get("loss"), float)]
    fifth = len(losses) // 5
    if fifth < 2:
        return ""
    before, after = (sum(part) / fifth for part in (losses[-2 * fifth : -fifth], losses[-fifth:]))
    change = 100 * (after / before - 1)
    return f"its loss changed by {change:+.1f} % from the fourth to the last fifth of its steps"
