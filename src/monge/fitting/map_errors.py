"""Measures the distance of a learned map from its flow, for several numbers of jumps.

Both start from the same noise. The flow is that of the map's velocity (a teacher's, with the same
guidance, or the map's own), integrated so finely that its error is negligible.
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
"""Steps of RK4 in the reference flow."""

N = 500

BEST_N = 256
"""Number of noises for comparing checkpoints; few, because training waits."""

BEST_STEPS = 12
"""Steps of RK4 in the reference flow for comparing checkpoints."""


@dataclass(frozen=True)
class MapError:
    """The error of a map with a number of jumps, in standardised latent units.

    Attributes:
        steps: number of jumps.
        rms: root mean square of |X^ - X| over samples, per coordinate.
        relative: E|X^ - X|^2 / E|X - x|^2.
        median, quantile90: of |X^ - X|^2 / E|X - x|^2 over samples.
        guidance: scale of map and flow.
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
        steps: numbers of jumps; None for the usual ones. A map that jumps only to the data is
            measured with one jump, since further jumps draw new noise.
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
    distance = max(float(torch.cat(moved).double().mean()), 1e-30)  # the displacement may be 0
    size = math.prod(run.autoencoder.latent_shape)
    found = []
    for k in steps:
        squared = torch.cat(errors[k]).double()
        middle, high = (squared / distance).quantile(torch.tensor([0.5, 0.9]).double()).tolist()
        mean = float(squared.mean())
        found.append(MapError(k, (mean / size) ** 0.5, mean / distance, middle, high, scale))
    return found


def keep_map_errors(run: Run, velocity_loss: float | None = None) -> list[MapError]:
    """Measure the errors of a map run, also at the ends of its guidance range, and write them.

    Args:
        velocity_loss: on held-out data, for a map that follows its own velocity.
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
    """Save the averaged weights as the best ones if the error of the map is the smallest so far.

    The error is the squared error in one jump, per latent coordinate. For a map without a teacher
    the held-out loss of its own velocity is added, as in the bound of Boffi et al. (2025), Prop.
    2.4; else a poor velocity that is easy to follow would win. The evaluation shows the best and
    the last weights.
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
