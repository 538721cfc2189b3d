"""Advice: the setting that would reduce the largest term, found by trying it on a subsample."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from monge.fields import Counted, Guided
from monge.solvers import Euler, Heun
from monge.types import Cond, Latent, domain_of
from monge.verify.budget import Budget, Draws, early_stopping
from monge.verify.curves import with_steps
from monge.verify.pipeline import Pipeline
from monge.verify.terms import Points, as_points, root_mean_square

TRIED = 512
"""Examples of the subsample."""


@dataclass(frozen=True)
class Advice:
    """The largest term and what was found to reduce it.

    Attributes:
        term: its name.
        share: its part of the sum.
        change: the command-line settings to change; None where nothing was tried.
        predicted: the term after the change, from the subsample; None where it was not tried.
        text: all of it in a sentence.
    """

    term: str
    share: float
    change: str | None
    predicted: float | None
    text: str


def advise(pipeline: Pipeline, budget: Budget, draws: Draws, n_latent: int) -> Advice:
    """What to change first.

    Args:
        n_latent: numbers in a latent, for the autoencoder's part.
    """
    largest = max(budget.terms, key=lambda term: term.value)
    share = largest.value / budget.sum if budget.sum > 0 else 0.0
    few = _few(draws)
    found: tuple[str, float, str] | None = None
    if largest.value > 0:
        if largest.name == "discretisation":
            found = _more_steps(pipeline, few, budget.reference[:TRIED], largest.value)
        elif largest.name == "early stopping":
            found = _later_stop(pipeline, few)
        elif largest.name == "guidance":
            found = _less_guidance(pipeline, few)
        elif largest.name == "reconstruction":
            found = _more_latents(few, largest.value, n_latent)
    size = f"{largest.name} is {100 * share:.0f} % of the sum"
    if found is None:
        rest = {
            "velocity": "train for more steps, with a larger network, or on more data; what that "
            "would give cannot be tried here",
            "source": "choose a path that starts at N(0, I), such as linear or trigonometric",
        }.get(largest.name, "there is nothing to reduce")
        return Advice(largest.name, share, None, None, f"{size}: {rest}")
    change, predicted, what = found
    text = f"{size}: {what} would bring it from {largest.value:.3g} to {predicted:.3g}"
    return Advice(largest.name, share, change, predicted, text)


def _few(draws: Draws) -> Draws:
    def cut(cond: Cond) -> Cond:
        return None if cond is None else {k: c[:TRIED] for k, c in cond.items()}

    return Draws(
        draws.x0[:TRIED], cut(draws.cond), draws.z[:TRIED], cut(draws.z_cond), draws.x[:TRIED]
    )


def _more_steps(
    pipeline: Pipeline, draws: Draws, reference: Points, now: float
) -> tuple[str, float, str] | None:
    """The cheapest of more steps, and of Heun in Euler's place, that takes the term to a tenth,
    or the best that was tried."""
    n = len(pipeline.sampler.knots) - 1
    solvers = [pipeline.sampler.solver]
    if isinstance(solvers[0], Euler):
        solvers.append(Heun())
    tried = []
    for solver in solvers:
        for factor in (1, 2, 4):
            if solver is solvers[0] and factor == 1:
                continue
            counted = Counted(pipeline.sampler.field)
            flow = dataclasses.replace(
                pipeline.sampler,
                field=counted,
                solver=solver,
                grid=with_steps(pipeline.sampler.grid, factor * n),
            )
            gap = pipeline.data(pipeline.latents(flow, draws.x0, draws.cond)) - reference
            tried.append((counted.counts["rows"], root_mean_square(gap)[0], solver, factor * n))
    tried.sort(key=lambda each: each[0])
    chosen = next((t for t in tried if t[1] <= now / 10), min(tried, key=lambda t: t[1]))
    if chosen[1] >= now:
        return None
    _, predicted, solver, steps = chosen
    return f"--solver {solver} --steps {steps}", predicted, f"{steps} steps of {solver}"


def _later_stop(pipeline: Pipeline, draws: Draws) -> tuple[str, float, str] | None:
    rest = (1 - pipeline.end) / 4
    last = domain_of(pipeline.field)[1]
    stop = round(min(1 - rest, last), 6)
    if stop <= pipeline.end:
        return None
    grid = dataclasses.replace(pipeline.sampler.grid, stop=stop)  # type: ignore[type-var]
    later = pipeline.with_sampler(grid=grid)
    predicted = early_stopping(later, draws, seed=0).value
    return f"--grid {grid}", predicted, f"stopping at T = {stop:g}"


def _less_guidance(pipeline: Pipeline, draws: Draws) -> tuple[str, float, str] | None:
    halved = 1 + (pipeline.guidance - 1) / 2
    field = Guided(pipeline.field, halved)
    less = pipeline.with_sampler(field=field)
    gap = _gap(less, draws.x0, draws.cond)
    return f"--guidance {halved:g}", root_mean_square(gap)[0], f"guidance {halved:g}"


def _gap(pipeline: Pipeline, x0: Latent, cond: Cond) -> Points:
    guided = pipeline.data(pipeline.latents(pipeline.reference, x0, cond))
    return guided - pipeline.data(pipeline.latents(pipeline.unguided, x0, cond))


def _more_latents(draws: Draws, now: float, n_latent: int) -> tuple[str, float, str] | None:
    """Twice the numbers, scaled as the errors of principal components of the subsample scale."""
    x = as_points(draws.x)
    if 2 * n_latent >= min(len(x), x.shape[1]):
        return None
    half = len(x) // 2
    centre = x[:half].mean(0)
    axes = torch.linalg.svd(x[:half] - centre, full_matrices=False)[2]

    def error(k: int) -> float:
        rest = x[half:] - centre
        basis: Tensor = axes[: min(k, len(axes))]
        return root_mean_square(rest - rest @ basis.T @ basis)[0]

    if error(n_latent) == 0:
        return None
    predicted = now * error(2 * n_latent) / error(n_latent)
    what = "an autoencoder with twice the latent numbers, by the scaling of principal components,"
    return "--autoencoder with twice the channels", predicted, what
