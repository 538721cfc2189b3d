"""`monge evaluate`: measure samples against held-out data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import arg

from monge.errors import UserError
from monge.runs import schemas
from monge.runs.layout import EVALUATION
from monge.system import row_sharing
from monge.verbs.arguments import Sampling, load_run, sampling
from monge.verbs.shown import note, tell, width

if TYPE_CHECKING:
    from monge.runs.run import Run


@dataclass(frozen=True)
class Evaluate(Sampling):
    """Measure samples against held-out data: the table, the pictures and the report."""

    n: Annotated[int, arg(aliases=["-n"])] = 1000
    """How many samples."""
    steps: str | None = None
    """Steps of the solver, or jumps of a map; none: the run's own. Several, such as 1,2,4,8,16, add
    a table of quality by number of steps, beside that of a map's teacher."""
    blocks: str | None = None
    """Of a chain: measure the model of the first blocks for each number, such as 1,2,4."""
    features: str | None = None
    """Also measure in the features of a network: lenet5:FILE.safetensors for grey images of 28 or
    32 pixels, resnet20:FILE.safetensors for RGB images of 32, MODULE.py:FACTORY or
    MODULE.py:FACTORY:FILE.safetensors for your own (images in [-1, 1] to features, or to features
    and logits), fid for Inception-v3 (needs the extra fid)."""
    target: str | None = None
    """Column of a table that models learn to predict from samples, tested on held-out rows; none:
    the label, or else the last category or number."""
    timings: bool = False
    """Print the seconds that each row of the table took."""


def act(arguments: Evaluate) -> dict[str, Any]:
    """Measure a run."""
    run = load_run(arguments.run, arguments.device, arguments.threads)
    with row_sharing.lead(*run.tasks()) as leading:
        return _evaluate(arguments, run) if leading else {}


def _evaluate(arguments: Evaluate, run: Run) -> dict[str, Any]:
    from monge.evaluation import step_curve
    from monge.evaluation.density import in_words
    from monge.evaluation.evaluate import evaluate_run

    if arguments.n < 20:
        raise UserError(f"an evaluation needs at least 20 samples, not {arguments.n}")
    steps = step_curve.parse_steps(arguments.steps)
    blocks = step_curve.parse_steps(arguments.blocks, "blocks")
    if blocks:
        run.learned.first(max(blocks))  # refuses too many blocks before sampling
    how = sampling(arguments, steps[0] if len(steps) == 1 else None)
    note(f"sampling {arguments.n} and evaluating")
    told = {"features": arguments.features, "target": arguments.target}
    result = evaluate_run(run, arguments.n, **told, **how)
    tell(arguments, result.text(width()))
    if arguments.timings:
        for rows, seconds in sorted(result.timings.items(), key=lambda each: -each[1]):
            tell(arguments, f"{seconds:8.2f} s  {rows}")
    for row in [row for row in result.table if "network" in row.protocol][:1]:
        settings = "; ".join(f"{key} {value}" for key, value in row.protocol.items())
        tell(arguments, f"{row.name}: {settings}.")
    found = schemas.read(run.folder, EVALUATION)
    if arguments.timings:
        found["timings"] = dict(result.timings)
    if found["density"]:
        tell(arguments, in_words(found["density"]))
    if len(steps) > 1:
        found["by_steps"] = _by_steps(arguments, run, steps)
    if blocks:
        found["by_blocks"] = _by_blocks(arguments, run, blocks)
    tell(arguments, f"report   {run.folder / 'report.html'}")
    return found


def _by_blocks(arguments: Evaluate, run: Run, blocks: list[int]) -> dict[str, Any]:
    """The quality of the first blocks of a chain."""
    from monge.evaluation import anytime
    from monge.metrics.feature_sources import load_network
    from monge.report.report import write_report

    network = None if arguments.features is None else load_network(arguments.features)
    note(f"the first {', '.join(map(str, blocks))} blocks")
    found = anytime.anytime_curve(run, blocks, arguments.n, seed=arguments.seed, network=network)
    tell(arguments, "\nQuality by number of blocks")
    tell(arguments, anytime.text(found))
    write_report(run.folder)
    return found


def _by_steps(arguments: Evaluate, run: Run, steps: list[int]) -> dict[str, Any]:
    """The quality by number of evaluations."""
    from monge.evaluation import step_curve
    from monge.metrics.feature_sources import load_network
    from monge.report.report import write_report

    network = None if arguments.features is None else load_network(arguments.features)
    how = {"seed": arguments.seed, "guidance": arguments.guidance, "network": network}
    note(f"sampling with {', '.join(map(str, steps))} steps")
    found = step_curve.step_curve(run, steps, arguments.n, **how)
    tell(arguments, "\nQuality by number of evaluations")
    tell(arguments, step_curve.text(found, width()))
    write_report(run.folder)
    return found
