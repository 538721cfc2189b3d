"""The final output of the verbs that train a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from monge.runs import schemas
from monge.runs.layout import COST
from monge.system.progress import counted
from monge.verbs.shown import Shown, tell

if TYPE_CHECKING:
    from monge.runs.run import Run


def trained(arguments: Shown, run: Run) -> dict[str, Any]:
    """Print the result of training and the next commands."""
    from monge.training import checkpoint

    done, asked = checkpoint.newest_step(run.folder), run.spec.steps
    if done is not None:
        tell(arguments, f"done     {done}{f' of {asked}' if asked else ''} steps")
    tell(arguments, f"run      {run.folder}")
    found: dict[str, Any] = {"run": str(run.folder), **cost(run.folder)}
    steps = ""
    if run.learned.few_steps:
        found["map_errors"] = _tell_map_errors(arguments, run)
        steps = " --steps 2"
    tell(arguments, f"report   {run.folder / 'report.html'}")
    tell(arguments, f"next     monge sample {run.folder}{steps}   monge evaluate {run.folder}")
    return found


def _tell_map_errors(arguments: Shown, run: Run) -> list[dict[str, Any]]:
    """Print the error of a map for each number of jumps."""
    from monge.runs import map_errors

    kept = map_errors.read(run.folder)
    if kept is None:
        return []
    tell(arguments, f"error    against {kept['reference']}, per latent coordinate:")
    for e in kept["errors"]:
        parts = [100 * e[key] for key in ("relative", "median", "quantile90")]
        at = f", guidance {e['guidance']:g}" if e["guidance"] != 1 else ""
        tell(
            arguments,
            f"  {counted(e['steps'], 'jump'):>8}{at}  rms {e['rms']:.3f}, "
            f"{parts[0]:.2f} % of the squared displacement (median {parts[1]:.2f}, 90 % quantile "
            f"{parts[2]:.2f})",
        )
    if kept["velocity_loss"] is not None:
        tell(
            arguments,
            f"  the held-out loss of that velocity is {kept['velocity_loss']:.3g}; monge evaluate "
            f"{run.folder} measures the samples",
        )
    return kept["errors"]


def cost(folder: Path) -> dict[str, Any]:
    """The cost of a run's training so far."""
    return schemas.read_if_there(folder, COST) or {}
