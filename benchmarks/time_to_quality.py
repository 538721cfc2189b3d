"""Seconds of training to a given quality: our recipe beside a plain one.

Both train the network of the digits recipe on latents of one fixed autoencoder (whose training,
the same for both, is not counted) and are looked at now and then, off the clock. The plain
recipe is what a newcomer writes: tanh-GELU, attention without QK-norm, an average of the weights
without warm-up, independent coupling, uniform times, and the images of each step encoded anew.
Uniform times and the independent coupling are our defaults too (docs/defaults.md says why); the
rows "ours, but ..." change one thing of ours at a time. Energy distance in latent space, n = 359.
Run with `python -m benchmarks.time_to_quality`; ten minutes on two cores.

With `--mnist mnist.npz --lenet WEIGHTS.safetensors` it is MNIST, and the Frechet distance of 2,000
samples to the reconstructions of 2,000 test images in LeNet-5 features: an hour on a busy machine
for `--only ours plain`.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from benchmarks import study
from benchmarks.latent_cache import EncodedEachStep
from benchmarks.measure import Row, Rows, clock, mean, parser, show
from benchmarks.study import Study, Variant
from monge.metrics.feature_sources import load_network
from monge.metrics.frechet import frechet_distance
from monge.metrics.two_sample import energy_distance
from monge.recipes import mnist
from monge.training.ema import Average

GOAL = 0.02
"""Squared energy distance between latents, numbers of variance 1; real data scatters about 0."""

STEPS = 600
MNIST_N = 2000
MNIST_STEPS = 3000
EVERY = 20
MNIST_EVERY = 200
SEEDS = 3
NO_WARM_UP = 10**9
"""A step so late that the average's warm-up is over."""


@dataclass(frozen=True)
class Recipe:
    """A variant, and what is not in its specification."""

    variant: Variant = field(default_factory=Variant)
    encode_each_step: bool = False
    ema_warm_up: bool = True


CONSTANT: dict[str, Any] = {"schedule": "constant"}
"""So that a quality is reached when it is reached, not when the cosine ends."""


def plain(network: torch.nn.Module) -> None:
    """Change our transformer to the plain one."""
    study.without_qk_norm(network)
    study.with_tanh_gelu(network)


RECIPES = {
    "ours": Recipe(Variant(CONSTANT)),
    "plain": Recipe(Variant(CONSTANT, plain), encode_each_step=True, ema_warm_up=False),
    "ours, but images encoded each step": Recipe(Variant(CONSTANT), encode_each_step=True),
    "ours, but no EMA warm-up": Recipe(Variant(CONSTANT), ema_warm_up=False),
    "ours, but tanh-GELU": Recipe(Variant(CONSTANT, study.with_tanh_gelu)),
    "ours, but no QK-norm": Recipe(Variant(CONSTANT, study.without_qk_norm)),
    "ours, but logit-normal times": Recipe(Variant({**CONSTANT, "times": "logit_normal"})),
}


Distance = Callable[[Tensor], float]
"""How far sampled latents are from held-out data."""


def seconds_to(
    goal: float, of: Study, distance: Distance, recipe: Recipe, seed: int, steps: int, every: int
) -> float | None:
    """Seconds of training until the distance is at most the goal; None if it never is."""
    batches = None
    if recipe.encode_each_step:
        objective = study.objective_of(of, recipe.variant)
        cond = {} if of.data.train_label is None else {"label": of.data.train_label}
        batches = EncodedEachStep(
            of.autoencoder, of.data.train, objective, of.spec.batch, seed, cond
        )
    spent, average = 0.0, None
    start = clock()
    for n, engine in enumerate(study.training(of, recipe.variant, seed, steps, batches)):
        if not recipe.ema_warm_up:
            average = average or Average(engine.network, of.spec.ema)
            average.update(n + NO_WARM_UP)
        if (n + 1) % every == 0:
            spent += clock() - start
            z = study.sample(of, (average or engine.average).look(), seed, grid="uniform:n=10")
            reached = distance(z)
            print(f"{n + 1} steps, {spent:.1f} s: {reached:.4g}", file=sys.stderr, flush=True)
            if reached <= goal:
                return spent
            start = clock()
    return None


def compare(
    of: Study,
    distance: Distance,
    goal: float,
    seeds: int,
    steps: int,
    every: int = EVERY,
    only: Sequence[str] = tuple(RECIPES),
) -> Rows:
    """A row for each recipe; they take turns, seed by seed."""
    found: dict[str, list[float | None]] = {name: [] for name in only}
    for seed in range(seeds):
        for name in only:
            found[name].append(seconds_to(goal, of, distance, RECIPES[name], seed, steps, every))
            print(f"seed {seed}, {name}: {found[name][-1]} s", file=sys.stderr, flush=True)
    return {f"seconds to {goal}, {name}": _row(times, steps) for name, times in found.items()}


def _row(times: list[float | None], steps: int) -> Row:
    reached = [t for t in times if t is not None]
    missed = f"{len(times) - len(reached)} of {len(times)} runs did not get there in {steps} steps"
    if not reached:
        return Row(None, unit="s", n=len(times), note=missed)
    note = missed if len(reached) < len(times) else ""
    return mean(reached, "s, mean ± s.e.", note=note)


def run(rounds: int = SEEDS) -> Rows:
    """On digits, with at most `SEEDS` seeds."""
    of = study.prepare()
    return compare(of, lambda z: energy_distance(z, of.heldout), GOAL, min(rounds, SEEDS), STEPS)


def run_mnist(file: str, weights: str, goal: float, seeds: int, only: Sequence[str]) -> Rows:
    """On MNIST, with the transformer of the digits and an autoencoder of fewer steps."""
    changes = {"network": study.SPEC.network, "batch": 128, "autoencoder_steps": 1500}
    spec = dataclasses.replace(mnist.SPEC, data=file, **changes)
    of = study.prepare(spec, MNIST_N)
    network = load_network(f"lenet5:{weights}").module

    @torch.no_grad()
    def features(z: Tensor) -> Tensor:
        return torch.cat([network(of.autoencoder.decode(part))[0] for part in z.split(256)])

    real = features(of.heldout)

    def distance(z: Tensor) -> float:
        return frechet_distance(features(z), real)

    return compare(of, distance, goal, seeds, MNIST_STEPS, MNIST_EVERY, only)


if __name__ == "__main__":
    made = parser(__doc__)
    made.add_argument("--mnist", help="MNIST as an npz file (see `monge recipes show mnist`)")
    made.add_argument("--lenet", help="weights of LeNet-5, .safetensors")
    made.add_argument("--goal", type=float, default=10.0, help="Frechet distance on MNIST")
    made.add_argument("--only", nargs="+", default=list(RECIPES), choices=RECIPES, metavar="NAME")
    made.set_defaults(rounds=SEEDS)
    given = made.parse_args()
    if (given.mnist is None) != (given.lenet is None):
        made.error("--mnist and --lenet go together")
    if given.mnist:
        rows = run_mnist(given.mnist, given.lenet, given.goal, given.rounds, given.only)
        show("time to quality on MNIST", rows)
    else:
        show("time to quality on digits", run(given.rounds))
