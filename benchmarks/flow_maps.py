"""Flow maps of laws that are known: which objective learns to jump, in how much time.

``mixture``: four equal modes of standard deviation 0.5 in 16 dimensions, means on the sphere of
radius 3, or, with ``--far``, 3 N(0, I). A perceptron of two times (4 x 256, batch 1,024) learns
from fresh samples for so many seconds of processor time; then 4,000 noises go to data in one jump
and along the exact flow. The error is E|X^ - X|^2 / E|X - x|^2, with its 90 % quantile and the part
of the points that land in another mode's basin.

``checkerboard``: the eight squares of a 4 x 4 board on [-1, 1]^2, MLP 4 x 256, batch 4,096; the
Kullback-Leibler divergence of a 50 x 50 histogram of 64,000 samples by 1, 2, 4, 8 and 16 jumps, and
its floor, that of as many samples of the law. Rules that need a teacher are given what flow
matching learned with the same seed and number of steps.

``costs``: the processor time of a step of each objective on the transformer of the digits recipe
(batch 128), beside the sum of its parts, each measured in the same rounds: forward and backward
(f), forward alone (e), forward and backward with a derivative that is constant (h) and one that is
differentiated too (g). The derivative alone, without gradient, is shown by dual numbers (d) and by
`torch.func.jvp` (j).

Run with `python -m benchmarks.flow_maps mixture --seconds 200`; rows by name after it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from monge import dual_numbers
from monge.components import build
from monge.fields import Predict
from monge.flows import Composed, Integrated, LearnedMap, MeanVelocity
from monge.learned import Draw
from monge.learned.flow_map import renoised
from monge.networks.mlp import MLPSpec
from monge.networks.transformer import TransformerSpec
from monge.objectives.base import Batch, Objective
from monge.objectives.flow_map import FlowMapMatching
from monge.objectives.flow_matching import FlowMatching
from monge.paths import Linear
from monge.solvers import RK4, Euler, Heun
from monge.targets.mixture import GaussianMixture
from monge.tensors import forward_mode, noise, stream
from monge.times import Uniform
from monge.training.engine import Engine
from monge.training.schedule import learning_rate
from monge.training.spec import LoopSpec
from monge.types import VelocityField

PATH = Linear()

YARDSTICK = "flow_matching"

MIXTURE = (
    "lagrangian",
    "lagrangian:stop=full",
    "lagrangian:stop=none",
    "lagrangian source",
    "eulerian",
    "progressive",
    "self-lagrangian",
    "self-eulerian",
    "self-semigroup",
    "meanflow",
)
"""Objectives, each with a law of (s, t) after a space, if it is not the objective's own."""


@dataclass
class Fresh:
    """Batches of fresh samples of a law, with the objective's draws."""

    sample: Callable[[int, torch.Generator], Tensor]
    objective: Objective
    size: int
    seed: int = 0

    def draw(self, step: int) -> Batch:
        rng = stream(self.seed, "batch", step)
        x1 = self.sample(self.size, rng).float()
        return self.objective.draw({"x1": x1}, rng, step)


def objective_of(
    row: str, teacher: VelocityField | None, steps: int | None = None
) -> FlowMatching | FlowMapMatching:
    """The objective that a row names, in a run of so many steps."""
    name, _, pairs = row.partition(" ")
    if name == YARDSTICK:
        return FlowMatching(path=PATH)
    rule = build("objective", name).planned(steps)
    law = build("pairs", pairs) if pairs else None
    return FlowMapMatching(rule, FlowMatching(path=PATH), law, teacher if rule.teacher else None)


def trained(
    batches: Fresh,
    dim: int,
    *,
    steps: int | None = None,
    seconds: float | None = None,
    lr: float = 1e-3,
    width: int = 256,
    seed: int = 0,
    look: Callable[[nn.Module, int, float], None] | None = None,
) -> tuple[nn.Module, int, float]:
    """The averaged network after so many steps or seconds of processor time; and both.

    `look` is given the same after a fifth of the steps.
    """
    objective = batches.objective
    anchor = objective.rule.anchor if isinstance(objective, FlowMapMatching) else "start"
    spec = MLPSpec(width=width, depth=4, embed=64, two_times=True, time_scale=20, anchor=anchor)
    network = spec.build((dim,), rng=stream(seed, "weights"))
    loop = LoopSpec(steps=steps or 1, lr=lr, ema=0.999, seed=seed)
    engine = Engine(
        Accelerator(cpu=True), network.train(), batches.objective.loss, batches.size, loop
    )
    start = time.process_time()
    if steps is None:
        assert seconds is not None
        for n in range(20):
            engine.step(n, 0.0, batches.draw(n))
        steps = max(50, int(seconds / ((time.process_time() - start) / 20)))
    for n in range(steps):
        engine.step(n, learning_rate(n, lr, warmup=100, steps=steps), batches.draw(n))
        if look and n + 1 == steps // 5:
            stopped = time.process_time()
            look(engine.average.look(), n + 1, stopped - start)
            start += time.process_time() - stopped
    return engine.averaged(), steps, time.process_time() - start


def mixture_of(far: bool) -> GaussianMixture:
    """Four equal modes in 16 dimensions."""
    means = torch.randn(4, 16, generator=stream(0, "means"), dtype=torch.float64)
    if not far:
        means = means / means.norm(dim=1, keepdim=True)
    return GaussianMixture(3 * means, torch.tensor(0.25, dtype=torch.float64))


@torch.no_grad()
def one_jump(network: nn.Module, target: GaussianMixture, n: int = 4000) -> dict[str, float]:
    """The error of one jump from n noises."""
    x = noise(1, 0, n, (target.dim,), "noise")
    exact = Integrated(target.field(PATH), RK4(), Uniform(200))
    end = exact(x.double(), 0.0, 1.0)
    found = LearnedMap(MeanVelocity(network, PATH))(x, 0.0, 1.0).double()
    squared = (found - end).square().sum(1) / (end - x).square().sum(1).mean()

    def mode(z: Tensor) -> Tensor:
        return torch.cdist(z, target.means).argmin(1)

    wrong = mode(found) != mode(end)
    return {
        "error": float(squared.mean()),
        "q90": float(squared.quantile(0.9)),
        "wrong": float(wrong.double().mean()),
    }


def mixture(rows: list[str], far: bool, seconds: float, lr: float) -> None:
    """A line for each row."""
    target = mixture_of(far)
    print(
        f"means {'3 N(0, I)' if far else 'on a sphere of radius 3'}, {seconds:g} s each, lr {lr:g}"
    )
    for row in rows:
        objective = objective_of(row, target.field(PATH))
        batches = Fresh(target.sample, objective, 1024)
        network, steps, spent = trained(batches, 16, seconds=seconds, lr=lr)
        found = one_jump(network, target)
        print(
            f"{row:40} {steps:6} steps {spent:5.0f} s  error {100 * found['error']:6.2f} %  "
            f"q90 {100 * found['q90']:6.2f} %  wrong mode {100 * found['wrong']:5.2f} %",
            flush=True,
        )


BOARD = (YARDSTICK, "self-lagrangian", "self-eulerian", "self-semigroup", "meanflow")

BOARD_BATCH = 4096
BINS = 50
SHOWN = 64_000


def board(n: int, rng: torch.Generator) -> Tensor:
    """Samples of the checkerboard on [-1, 1]^2."""
    column = torch.randint(0, 4, (n,), generator=rng)
    row = 2 * torch.randint(0, 2, (n,), generator=rng) + column % 2
    cell = torch.stack((column, row), 1)
    return (cell + torch.rand(n, 2, generator=rng, dtype=torch.float64)) / 2 - 1


def histogram(x: Tensor) -> Tensor:
    """Counts in `BINS` x `BINS` cells of [-1, 1]^2; what lies outside counts nowhere."""
    inside = (x.abs() <= 1).all(1)
    index = ((x[inside] + 1) / 2 * BINS).long().clamp(max=BINS - 1)
    return torch.bincount(index[:, 0] * BINS + index[:, 1], minlength=BINS**2).double()


def law_of_cells() -> Tensor:
    """The exact probability of each cell of the histogram."""
    edges = torch.linspace(-1, 1, BINS + 1, dtype=torch.float64)
    found = torch.zeros(BINS, BINS, dtype=torch.float64)
    for k in range(4):
        low, high = k / 2 - 1, (k + 1) / 2 - 1
        within = (torch.minimum(edges[1:], torch.tensor(high)) - edges[:-1].clamp(min=low)).clamp(
            min=0
        )
        for r in (k % 2, k % 2 + 2):
            below, above = r / 2 - 1, (r + 1) / 2 - 1
            other = (
                torch.minimum(edges[1:], torch.tensor(above)) - edges[:-1].clamp(min=below)
            ).clamp(min=0)
            found += torch.outer(within, other) / 0.25 / 8
    return found.flatten()


def divergence(x: Tensor) -> float:
    """KL(law || histogram); half a count in each cell keeps it finite."""
    p, counts = law_of_cells(), histogram(x) + 0.5
    q = counts / (len(x) + 0.5 * BINS**2)
    kept = p > 0
    return float((p[kept] * (p[kept] / q[kept]).log()).sum())


def checkerboard(rows: list[str], steps: int, lr: float, seeds: list[int]) -> None:
    """A line for each row and seed, and one a fifth of the way there."""
    floor = divergence(board(SHOWN, stream(5, "floor")))
    print(f"KL of {SHOWN} samples of the law itself: {floor:.4f}", flush=True)
    taught = [row for row in rows if row != YARDSTICK and build("objective", row).teacher]
    for seed in seeds:
        teacher = None
        if taught or YARDSTICK in rows:
            teacher = Predict(_learn_board(YARDSTICK, None, steps, lr, seed), PATH)
        for row in rows:
            if row != YARDSTICK:
                _learn_board(row, teacher if row in taught else None, steps, lr, seed)


def _learn_board(
    row: str, teacher: VelocityField | None, steps: int, lr: float, seed: int
) -> nn.Module:
    objective = objective_of(row, teacher, steps)

    def look(network: nn.Module, step: int, spent: float) -> None:
        found = " ".join(f"{kl:.3f}" for kl in by_evaluations(network, objective))
        print(
            f"{row:24} seed {seed} {step:6} steps of {steps}, "
            f"{step * BOARD_BATCH / 1e6:5.1f} million samples seen, {spent:6.0f} s  "
            f"KL by 1, 2, 4, 8, 16: {found}",
            flush=True,
        )

    batches = Fresh(board, objective, BOARD_BATCH, seed)
    network, _, spent = trained(batches, 2, steps=steps, lr=lr, seed=seed, look=look)
    look(network, steps, spent)
    return network.requires_grad_(False)


@torch.no_grad()
def by_evaluations(network: nn.Module, objective: FlowMatching | FlowMapMatching) -> list[float]:
    """The divergence after 1, 2, 4, 8 and 16 evaluations."""
    x = noise(1, 0, SHOWN, (2,), "noise")
    found = []
    for n in (1, 2, 4, 8, 16):
        if isinstance(objective, FlowMatching):
            solver, steps = (Euler(), 1) if n == 1 else (Heun(), n // 2)
            ends = Integrated(Predict(network, PATH), solver, Uniform(steps))(x, 0.0, 1.0)
        else:
            flow = Composed(LearnedMap(MeanVelocity(network, PATH)), Uniform(n))
            if objective.pairs.only_to_data:
                ends = renoised(flow, PATH, x, Draw(1, 0, SHOWN, (2,)))
            else:
                ends = flow(x, 0.0, 1.0)
        found.append(divergence(ends.double()))
    return found


COSTS = {
    "flow_matching": "f",
    "lagrangian": "g+e",
    "lagrangian:derivative=difference": "3f+e",
    "lagrangian:stop=full": "h+e",
    "lagrangian:stop=full,derivative=difference": "f+3e",
    "eulerian": "h+e",
    "progressive": "f+6e",
    "consistency": "f+3e",
    "self-lagrangian": "g+e",
    "self-lagrangian:derivative=difference": "3f+e",
    "self-lagrangian:stop=full": "h+e",
    "self-eulerian": "h+e",
    "self-semigroup": "f+2e",
    "shortcut": "f+2e",
    "meanflow": "h",
    "improved-meanflow": "h+e",
    "flow-map-matching": "f+g",
    "flow-map-matching:derivative=difference": "4f",
    "consistency-training": "f+e",
}
"""What each objective evaluates on rows with s != t; a teacher is a network of the same size. Rows
with s = t, of which there are as many as the objective says, cost f, and e for a teacher."""


def costs(rounds: int) -> None:
    """A line for each objective."""
    shape, n = (2, 4, 4), 128
    spec = TransformerSpec(width=128, depth=4, heads=4, patch=2, two_times=True)
    network, teacher = (spec.build(shape, 10).train() for _ in range(2))
    with torch.no_grad():
        for p in (*network.parameters(), *teacher.parameters()):
            p.add_(0.02 * torch.randn(p.shape, generator=stream(0, "weights")))
    field = Predict(teacher.requires_grad_(False), PATH)
    x1 = torch.randn(n, *shape, generator=stream(0, "x1"))
    label = torch.randint(0, 10, (n,), generator=stream(0, "label"))
    made = {}
    for text in COSTS:
        objective = objective_of(text, field)
        batch = objective.draw({"x1": x1, "label": label}, stream(0, "draw"))
        made[text] = (objective, batch)
    _, batch = made["lagrangian"]

    def parts_of(rows: int) -> dict[str, Callable[[], object]]:
        x, s, t = x1[:rows], batch["s"][:rows], batch["t"][:rows]
        cond, one = {"label": label[:rows]}, torch.ones(rows)

        def at(x: Tensor, s: Tensor, t: Tensor) -> Tensor:
            return network(x, t, cond, s)

        def duals_of(constant: bool) -> tuple[Tensor, Tensor]:
            if constant:
                return dual_numbers.jvp(at, (x, s, t), (x, one, None), constant=True)
            return dual_numbers.jvp(at, (x, s, t), (None, None, one))

        def slope() -> tuple[Tensor, Tensor]:
            with forward_mode():
                return torch.func.jvp(at, (x, s, t), (x, one, 0 * one))  # type: ignore

        def quietly(f: Callable[[], object]) -> Callable[[], object]:
            return torch.no_grad()(f)

        return {
            "f": lambda: network(x, t, cond, s).square().mean().backward(),
            "e": quietly(lambda: network(x, t, cond, s)),
            "h": lambda: sum(duals_of(constant=True)).square().mean().backward(),  # type: ignore
            "g": lambda: sum(y.square().mean() for y in duals_of(constant=False)).backward(),  # type: ignore
            "d": quietly(lambda: duals_of(constant=True)),
            "j": quietly(slope),
        }

    sizes = (n, 3 * n // 4, n // 2, n // 4)
    parts = {(name, k): f for k in sizes for name, f in parts_of(k).items()}
    steps = {
        text: (lambda o=o, b=b: o.loss(network, b).per_example.mean().backward())
        for text, (o, b) in made.items()
    }
    spent: dict[Any, list[float]] = {name: [] for name in (*parts, *steps)}
    for _ in range(rounds + 1):  # the first is not counted
        for name, run in (*parts.items(), *steps.items()):
            start = time.process_time()
            run()
            spent[name].append(1e3 * (time.process_time() - start))
    found = {name: statistics.median(times[1:]) for name, times in spent.items()}
    for k in sizes:
        print(f"{k} rows: " + ", ".join(f"{name} {found[name, k]:.1f} ms" for name in "fehgdj"))
    for text, formula in COSTS.items():
        rule = getattr(made[text][0], "rule", None)
        on = round(n * rule.diagonal) if rule is not None else 0
        theory = _sum(formula, {name: found[name, n - on] for name in "fehg"})
        if rule is not None and on:
            theory += found["f", on] + (found["e", on] if rule.teacher else 0.0)
        print(
            f"{text:44} {n - on:4} rows {formula:8} {found[text] / found['f', n]:5.2f} f  "
            f"{found[text]:6.1f} ms  expected {theory:6.1f} ms  ratio {found[text] / theory:.2f}"
        )


def _sum(formula: str, found: dict[str, float]) -> float:
    """The value of a sum of parts, each with a count before it."""
    return sum(int(part[:-1] or 1) * found[part[-1]] for part in formula.split("+"))


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> None:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    made.add_argument("study", choices=("mixture", "checkerboard", "costs"))
    made.add_argument("rows", nargs="*")
    made.add_argument("--far", action="store_true")
    made.add_argument("--seconds", type=float, default=200.0)
    made.add_argument("--steps", type=int, default=3000)
    made.add_argument("--lr", type=float, default=2e-3)
    made.add_argument("--seeds", type=_numbers, default=[0], help="such as 0,1")
    made.add_argument("--rounds", type=int, default=9)
    given = made.parse_intermixed_args()
    if given.study == "costs":
        costs(given.rounds)
    elif given.study == "mixture":
        mixture(given.rows or list(MIXTURE), given.far, given.seconds, given.lr)
    else:
        checkerboard(given.rows or list(BOARD), given.steps, given.lr, given.seeds)


if __name__ == "__main__":
    main()
