"""Networks trained inside a cell of a study, by the loop of `monge train`, without a folder."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from monge.fields import Predict
from monge.flows import Integrated
from monge.objectives.base import Batch, Objective
from monge.solvers import RK4
from monge.targets.base import Target
from monge.tensors import as_time, noise, stream, sum_except_batch
from monge.times import Grid, TimeLaw
from monge.training.loop import LoopSpec, fit
from monge.types import State

BATCH = 128


@dataclass
class Examples:
    """The batches of a training: rows of fixed examples, or fresh draws of a law.

    Attributes:
        source: (N, D), from which each batch takes rows with replacement, or a law.
        objective: adds its own draws.
        seed: of all draws.
        size: rows of a batch.
    """

    source: Tensor | Target
    objective: Objective
    seed: int
    size: int = BATCH

    def draw(self, step: int) -> Batch:
        rng = stream(self.seed, "batch", step)
        if isinstance(self.source, Target):
            x1 = self.source.sample(self.size, rng)
        else:
            x1 = self.source[torch.randint(len(self.source), (self.size,), generator=rng)]
        return self.objective.draw({"x1": x1.float()}, rng, step)


@dataclass(frozen=True, repr=False)
class Until(TimeLaw):
    """Uniform times in the first part of the domain: the objective's domain is cut at `part`."""

    part: float = 1.0

    name = "until"

    def unit(self, n: int, rng: torch.Generator) -> Tensor:
        return self.part * torch.rand(n, generator=rng)


def train(
    network: nn.Module,
    examples: Examples,
    steps: int,
    *,
    lr: float = 3e-3,
    every: int | None = None,
    look: Callable[[nn.Module, int], None] | None = None,
    schedule: str = "cosine",
) -> nn.Module:
    """The averaged network after so many steps, in evaluation mode.

    Args:
        every, look: `look` is called with the averaged network and the steps done every so often.
    """
    spec = LoopSpec(
        steps=steps, lr=lr, warmup=min(100, steps // 5), ema=0.99, device="cpu",
        precision="float32", save_every_s=None, sample_every=every, log_every=10**9,
        schedule=schedule, seed=examples.seed % 2**31,  # type: ignore[arg-type]
    )  # fmt: skip
    return fit(network, examples.objective.loss, examples, spec, on_sample=look, quiet=True).ema


class Best:
    """Keeps the network with the least error among those that it looks at."""

    def __init__(self, error: Callable[[nn.Module], float]) -> None:
        self.error = error
        self.least = float("inf")
        self.step = 0
        self.network: nn.Module | None = None

    def __call__(self, network: nn.Module, step: int) -> None:
        found = self.error(network)
        if found < self.least:
            self.least, self.step, self.network = found, step, copy.deepcopy(network)


def excess(field: Predict, law: Target, z: Tensor, domain: tuple[float, float], seed: int) -> float:
    """E|v^ - v|^2 at x_t of the law, summed over coordinates, t uniform on the domain.

    Args:
        z: (N, D), fresh samples of the law, one time each.
    """
    rng = stream(seed, "excess")
    lo, hi = domain
    # Equal parts of the domain, a time in each: less noise than independent times.
    part = (torch.arange(len(z), dtype=torch.float64) + torch.rand(len(z), generator=rng)) / len(z)
    t = lo + (hi - lo) * part
    x0 = noise(seed, 0, len(z), tuple(z.shape[1:]), "excess").to(z)
    x = field.path.interpolate(x0, z, t)[0]
    exact = law.field(field.path)
    with torch.no_grad():
        gap = field(x.float(), t.float()).double() - exact(x, t)
    return float(sum_except_batch(gap.square()).mean())


def nodes(n: int, dim: int, seed: int, reach: float = 5.0) -> tuple[Tensor, Tensor]:
    """Noises (n, D) and their weights: equal places on the line, draws in more dimensions."""
    if dim > 1:
        return noise(seed, 0, n, (dim,), "nodes").double(), torch.full((n,), 1 / n).double()
    z = torch.linspace(-reach, reach, n, dtype=torch.float64)[:, None]
    weights = (-0.5 * z[:, 0].square()).exp()
    return z, weights / weights.sum()


def exact_ends(law: Target, z: Tensor, steps: int = 60) -> Tensor:
    """Where the exact flow carries noises at t = 1: by quantiles on the line, else by RK4."""
    from monge.paths import Linear
    from monge.times import Uniform

    if law.dim == 1:
        return law.quantile(z)
    return Integrated(law.field(Linear()), RK4(), Uniform(steps))(z, 0.0, 1.0)


def walk(field: Predict, grid: Grid, z: Tensor, times: Sequence[float]) -> list[State]:
    """Where the learned flow carries noises at ascending times, RK4 on the grid, float64."""
    flow = Integrated(_Fine(field), RK4(), grid)
    with torch.no_grad():
        return list(flow.states(z, times))


@dataclass(frozen=True)
class _Fine:
    """A float32 field between states in float64, as the solver has them."""

    field: Predict

    @property
    def domain(self) -> tuple[float, float]:
        return self.field.domain

    @property
    def breakpoints(self) -> tuple[float, ...]:
        return tuple(getattr(self.field, "breakpoints", ()))

    def restrict(self, lo: float, hi: float) -> object:
        inner = getattr(self.field, "restrict", None)
        return self if inner is None else _Fine(inner(lo, hi))

    def __call__(self, x: State, t: object, cond: object = None) -> State:
        return self.field(x.float(), as_time(t, x).float(), None).double()  # type: ignore[arg-type]


def root_mean_square(gap: Tensor, weights: Tensor) -> float:
    """The root of the weighted mean of |gap|^2, (N, D) and (N,)."""
    return float((weights @ gap.square().sum(1)).clamp_min(0).sqrt())
