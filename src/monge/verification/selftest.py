"""The verification verified: terms and slopes on laws that are known exactly.

monge verify --selftest
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from monge.fields import Final
from monge.flows import Integrated
from monge.paths import Linear, Path
from monge.solvers import RK4, Euler, Heun, Solver
from monge.targets.base import ExactField, Target
from monge.targets.coordinates import box, hypercube
from monge.targets.gaussian import Gaussian
from monge.targets.mixture import GaussianMixture
from monge.tensors import as_time, expand, stream
from monge.times import Uniform
from monge.types import Cond, State, Time, VelocityField
from monge.verification.budget import Budget, Known, budget, draw, early_stopping
from monge.verification.pipeline import Pipeline
from monge.verification.terms import Term, root_mean_square


@dataclass(frozen=True)
class Check:
    """A number that the theory predicts, and what was measured.

    Attributes:
        expected, tolerance: None where the number is only reported.
    """

    name: str
    measured: float
    expected: float | None = None
    tolerance: float | None = None

    @property
    def holds(self) -> bool:
        if self.expected is None or self.tolerance is None:
            return True
        return abs(self.measured - self.expected) <= self.tolerance

    @property
    def text(self) -> str:
        if self.expected is None:
            return f"     {self.name}: {self.measured:.3f} (reported)"
        sign = "ok  " if self.holds else "FAIL"
        return f"{sign} {self.name}: {self.measured:.3f}, {self.expected:g} ± {self.tolerance:g}"


@dataclass(frozen=True)
class Disturbed:
    """A field plus eps times a smooth field of root mean square size about sqrt(d / 2)."""

    exact: ExactField
    eps: float

    @property
    def domain(self) -> tuple[float, float]:
        return self.exact.domain

    @property
    def breakpoints(self) -> tuple[float, ...]:
        return ()

    def __call__(self, x: State, t: Time, cond: Cond = None) -> State:
        wave = torch.cos(x.roll(1, dims=1) + 2 * expand(as_time(t, x), x))
        return self.exact(x, t, cond) + self.eps * wave


def gaussian(dim: int) -> Gaussian:
    """A Gaussian with a full covariance, of condition number about ten."""
    rng = stream(1, "selftest", dim)
    root = torch.randn(dim, dim, generator=rng, dtype=torch.float64) / math.sqrt(dim)
    mean = torch.randn(dim, generator=rng, dtype=torch.float64)
    return Gaussian(mean, root @ root.T + 0.3 * torch.eye(dim, dtype=torch.float64))


def overlapping(dim: int) -> GaussianMixture:
    """Four modes that overlap: as far apart in more than eight dimensions as in eight."""
    means = torch.randn(4, dim, generator=stream(2, "selftest", dim), dtype=torch.float64)
    return GaussianMixture(0.7 * math.sqrt(min(1, 8 / dim)) * means, torch.tensor(0.5))


def separated(dim: int) -> GaussianMixture:
    """Two modes far apart: means at 3 and -3, deviation 0.3."""
    means = torch.zeros(2, dim, dtype=torch.float64)
    means[:, 0] = torch.tensor([-3.0, 3.0])
    return GaussianMixture(means, torch.tensor(0.09))


MAKERS: dict[str, Callable[[int], Target]] = {"gaussian": gaussian, "mixture": overlapping}


def pipeline_of(
    target: Target,
    field: VelocityField | None = None,
    *,
    path: Path | None = None,
    solver: Solver | None = None,
    steps: int = 20,
    stop: float = 1.0,
    final: Final = "none",
    encode: Callable[[Tensor, int], Tensor] = lambda x, _: x,
    decode: Callable[[Tensor], Tensor] = lambda z: z,
    fine: int = 64,
) -> Pipeline:
    """A target's field, or another one, sampled with few steps; latents are data."""
    path = path or Linear()
    field = field or target.field(path)
    sampler = Integrated(field, solver or Heun(), Uniform(steps, stop=stop))
    return Pipeline(field, path, sampler, final, encode, decode, target, fine)


def measured(
    found: Pipeline,
    target: Target,
    n: int,
    seed: int = 0,
    data: Callable[[Tensor], Tensor] = lambda z: z,
) -> Budget:
    """The budget against n fresh samples of the target, decoded by `data`."""
    rng = stream(seed, "selftest", "known")
    known = Known(data(target.sample(n, rng)), train=data(target.sample(n, rng)))
    return budget(found, known, draw(found, known, None, n, seed), seed)


def term(found: Budget, name: str) -> Term:
    return next(t for t in found.terms if t.name == name)


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """The least-squares slope of log y over log x."""
    a, b = torch.tensor([x, y], dtype=torch.float64).log()
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / a.square().sum())


def velocity_checks(
    dims: Sequence[int], n: int, sizes: Sequence[float], fine: int
) -> Iterator[Check]:
    """An injected error is recovered, against both fields solved in many more steps."""
    for name, make in MAKERS.items():
        for dim in dims:
            target = make(dim)
            exact, values = target.field(Linear()), []
            rng = stream(5, "selftest", dim)
            x0 = torch.randn(n, dim, generator=rng, dtype=torch.float64)
            many = Uniform(5 * fine)
            there = Integrated(exact, RK4(), many)(x0, 0.0, 1.0)
            for eps in sizes:
                wrong = Disturbed(exact, eps)
                truth = root_mean_square(Integrated(wrong, RK4(), many)(x0, 0.0, 1.0) - there)[0]
                values.append(
                    term(
                        measured(pipeline_of(target, wrong, fine=fine), target, n), "velocity"
                    ).value
                )
                yield Check(
                    f"velocity term over truth, {name} d = {dim}, eps = {eps:g}",
                    values[-1] / truth, 1.0, 0.05,
                )  # fmt: skip
            yield Check(
                f"slope of the velocity term in eps, {name} d = {dim}",
                slope(sizes, values), 1.0, 0.05,
            )  # fmt: skip
    target = separated(2)
    apart = (Disturbed(target.field(Linear()), eps) for eps in sizes)
    values = [
        term(measured(pipeline_of(target, wrong, fine=fine), target, n), "velocity").value
        for wrong in apart
    ]
    yield Check("slope of the velocity term in eps, separated modes", slope(sizes, values))


def discretisation_checks(
    cases: Sequence[tuple[str, int]], n: int, steps: Sequence[int]
) -> Iterator[Check]:
    """Euler and Heun on the median displacement.

    Args:
        cases: names of `MAKERS` and dimensions.
        steps: of Euler; Heun, whose error falls to its order later, takes twice as many.
    """
    for name, dim in cases:
        target = MAKERS[name](dim)
        tolerance = 0.05 if name == "gaussian" or dim == 2 else 0.15
        for solver in (Euler(), Heun()):
            taken = [k * solver.order for k in steps]
            medians, switches = [], 0.0
            for k in taken:
                made = pipeline_of(target, solver=solver, steps=k, fine=16)
                extra = term(measured(made, target, n), "discretisation").extra or {}
                medians.append(float(extra["median"] or 0))
                switches = max(switches, float(extra["switched"] or 0))
            what = f"{solver} on {name} d = {dim}"
            yield Check(
                f"slope of the median error in steps, {what}",
                slope(taken, medians), -float(solver.order), tolerance,
            )  # fmt: skip
            yield Check(f"largest share of switched samples, {what}", switches)


def stopping_checks(
    targets: dict[str, tuple[Target, float]], n: int, rest: Sequence[float]
) -> Iterator[Check]:
    """The value of early stopping, exact on the line: 1 raw, and as the law says divided by alpha.

    Args:
        targets: a law on the line and its slope when divided by alpha.
        rest: 1 - T.
    """
    finals: tuple[Final, Final] = ("none", "divide")
    for name, (target, divided) in targets.items():
        for final, expected in zip(finals, (1.0, divided), strict=True):
            values = []
            for d in rest:
                made = pipeline_of(target, stop=1 - d, final=final)
                known = Known(target.sample(n, stream(0, "selftest", "known")))
                found = early_stopping(made, draw(made, known, None, n, seed=0), seed=0)
                values.append(float((found.extra or {})["exact_latent"] or 0))
            what = "raw" if final == "none" else "divided by alpha"
            yield Check(
                f"slope of early stopping in 1 - T, {name}, {what}",
                slope(rest, values), expected, 0.1,
            )  # fmt: skip


def shift_checks(n: int) -> Iterator[Check]:
    """A shift of the data inside a linear decoder's span changes nothing, outside has slope 1."""
    target = gaussian(2)
    turned = torch.randn(5, 5, generator=stream(0, "selftest", "q"), dtype=torch.float64)
    basis = torch.linalg.qr(turned)[0]
    span, normal = basis[:, :2], basis[:, 2]
    found = pipeline_of(target, encode=lambda x, _: x @ span, decode=lambda z: z @ span.T)

    def reconstruction(shift: Tensor) -> float:
        data = measured(found, target, n, data=lambda z: z @ span.T + shift)
        return term(data, "reconstruction").value

    yield Check(
        "reconstruction after a shift inside the span", reconstruction(3 * span[:, 0]), 0.0, 1e-9
    )
    sizes = (0.1, 0.3, 1.0)
    values = [reconstruction(s * normal) for s in sizes]
    yield Check("slope of reconstruction in a shift outside", slope(sizes, values), 1.0, 1e-6)


def stopped_laws() -> dict[str, tuple[Target, float]]:
    """Laws on the line with the slope of early stopping divided by alpha."""
    return {
        "gaussian": (Gaussian(torch.zeros(1), torch.tensor(0.49)), 2.0),
        "mixture": (GaussianMixture(torch.tensor([[-1.0], [1.0]]), torch.tensor(0.25)), 2.0),
        "box": (box(1), 1.5),
        "atoms": (hypercube(1), 1.0),
    }


def _velocity(full: bool) -> Iterator[Check]:
    if full:
        return velocity_checks((2, 8, 32), 2000, (0.02, 0.06, 0.2), fine=64)
    return velocity_checks((2, 8), 300, (0.02, 0.2), fine=32)


def _discretisation(full: bool) -> Iterator[Check]:
    if full:
        cases = [(name, dim) for name in MAKERS for dim in (2, 8, 32)]
        return discretisation_checks(cases, 2000, (64, 128, 256))
    return discretisation_checks([("gaussian", 2), ("mixture", 8)], 300, (32, 64))


def _stopping(full: bool) -> Iterator[Check]:
    return stopping_checks(
        stopped_laws(), 2000 if full else 100, (0.04, 0.02, 0.01) if full else (0.02, 0.01)
    )


def _shift(full: bool) -> Iterator[Check]:
    return shift_checks(2000 if full else 300)


GROUPS: dict[str, Callable[[bool], Iterator[Check]]] = {
    "velocity": _velocity,
    "discretisation": _discretisation,
    "early stopping": _stopping,
    "domain shift": _shift,
}
"""What is checked, at full size or at that of a test."""
