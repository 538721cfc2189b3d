"""How far a learned map is from the flow that it is to be, for every number of jumps.

Both start from the same noise; the flow is that of the velocity that the map follows (a teacher's,
guided as the map is, or the map's own), integrated so finely that its error does not count.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
from safetensors.torch import save as to_bytes
from torch import Tensor

from monge.flows import Integrated
from monge.runs import schemas
from monge.runs.layout import BEST, MAP_ERROR
from monge.runs.map_errors import FORMAT_VERSION
from monge.runs.run import Run
from monge.solvers import RK4
from monge.system.files import write_atomic, write_json
from monge.tensors import CHUNK, noise
from monge.times import Uniform

REFERENCE_STEPS = 32
"""Of RK4, in the flow that a map is held against."""

N = 500

BEST_N = 256
"""Noises by which checkpoints are compared: while training, so few and coarsely."""

BEST_STEPS = 12
"""Of RK4, in the flow that they are compared with."""


@dataclass(frozen=True)
class MapError:
    """The error of a map with some number of jumps, in standardised latent units.

    Attributes:
        steps: jumps.
        rms: root mean square of |X^ - X| over samples, per coordinate.
        relative: E|X^ - X|^2 / E|X - x|^2.
        median, quantile90: of |X^ - X|^2 / E|X - x|^2 over samples.
        guidance: scale of both.
    """

    steps: int
    rms: float
    relative: float
    median: float
    quantile90: float
    guidance: float


@torch.no_grad()
def map_errors(
    run: Run,
    steps: tuple[int, ...] | None = None,
    n: int = N,
    seed: int = 0,
    guidance: float | None = None,
    reference_steps: int = REFERENCE_STEPS,
) -> list[MapError]:
    """The error of a map run for each number of jumps, from n noises.

    Args:
        steps: numbers of jumps; None for all that are worth it. Of a map that jumps to the data
            only that is one: more of them draw new noise.
    """
    learned = run.learned
    steps = tuple(k for k in steps or learned.error_steps if k in learned.error_steps)
    maps = {k: learned.flow(grid=repr(Uniform(k)), guidance=guidance) for k in steps}
    scale = learned.guidance_of(maps[steps[0]], guidance)
    lo, hi = maps[steps[0]].domain
    reference = Integrated(learned.followed(guidance), RK4(), Uniform(reference_steps))
    labels, given = run.draw_conditions(n, None, None, seed)
    cond = run.condition(labels, given) or {}
    moved: list[Tensor] = []
    errors: dict[int, list[Tensor]] = {k: [] for k in steps}
    for first in range(0, n, CHUNK):
        rows = slice(first, min(first + CHUNK, n))
        own = {k: c[rows].to(run.device) for k, c in cond.items()} or None
        x = noise(seed, rows.start, rows.stop, run.autoencoder.latent_shape, "map error")
        x = x.to(next(run.network.parameters()))
        end = reference(x, lo, hi, own)
        moved.append((end - x).square().flatten(1).sum(1).cpu())
        for k, flow in maps.items():
            errors[k].append((flow(x, lo, hi, own) - end).square().flatten(1).sum(1).cpu())
    distance = max(float(torch.cat(moved).double().mean()), 1e-30)  # a flow may stand still
    size = math.prod(run.autoencoder.latent_shape)
    found = []
    for k in steps:
        squared = torch.cat(errors[k]).double()
        middle, high = (squared / distance).quantile(torch.tensor([0.5, 0.9]).double()).tolist()
        mean = float(squared.mean())
        found.append(MapError(k, (mean / size) ** 0.5, mean / distance, middle, high, scale))
    return found


def keep_map_errors(run: Run, velocity_loss: float | None = None) -> list[MapError]:
    """Measure the errors of a map run, at the ends of its guidance too, and write them.

    Args:
        velocity_loss: on held-out data, of a map that follows its own velocity.
    """
    found = [e for scale in run.learned.guidance_scales for e in map_errors(run, guidance=scale)]
    write_json(
        run.folder / MAP_ERROR,
        {
            "format_version": FORMAT_VERSION,
            "n": N,
            "reference": f"{run.learned.reference}, rk4 {REFERENCE_STEPS} steps",
            "velocity_loss": velocity_loss,
            "units": "standardised latents",
            "errors": [asdict(e) for e in found],
        },
    )
    return found


def keep_if_best(run: Run, step: int, velocity_loss: float = 0.0) -> None:
    """Keep the averaged weights, beside the last, where the map is better than ever before.

    That is its squared error in one jump, per latent coordinate. A map without a teacher follows a
    velocity that is learned too: its loss on held-out data is added, as in the bound of
    Boffi et al. (2025), Prop. 2.4; else a map of a poor velocity, which is easily followed, would
    be the best. The evaluation shows both, so that a good checkpoint is not picked in silence.
    """
    path = run.folder / BEST
    kept = schemas.read_if_there(run.folder, BEST)
    before = math.inf if kept is None else kept["score"]
    error = map_errors(run, (1,), BEST_N, reference_steps=BEST_STEPS)[0]
    score = error.rms**2 + velocity_loss
    if score < before:
        write_atomic(run.folder / "best.safetensors", to_bytes(run.network.state_dict()))
        found = {"step": step, "score": score, "relative": error.relative, "n": BEST_N}
        write_json(path, {"format_version": 1, **found})
