"""Advice: the setting that would reduce the largest term, found by trying it on a subsample."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from monge.fields import Counted, Guided
from monge.flows import Integrated
from monge.solvers import Euler, Heun
from monge.types import Cond, Latent, VelocityField, domain_of
from monge.verification.budget import Budget, Draws, early_stopping
from monge.verification.curves import with_steps
from monge.verification.pipeline import Pipeline
from monge.verification.terms import Points, Term, as_points, root_mean_square

TRIED = 512
"""Examples of the subsample."""


CERTAIN = 2.0
"""Standard errors that are taken off a term before terms are compared for blame."""

WORTH = 0.95
"""A change that leaves more of the term than this is not advised."""


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


@dataclass(frozen=True)
class Trials:
    """What can be tried of the parts that are trained.

    Attributes:
        autoencoder: its component text; None where there is none.
        n_latent: numbers in a latent.
        train: training data, (n, d).
        longer: goes on training, and returns the settings that do so and the new field; None
            where that would take too long, or cannot be done.
        training: what is known of the field's training, where nothing is tried: a clause.
        elsewhere: why longer training of this model does not mend the velocity that it follows.
    """

    autoencoder: str | None = None
    n_latent: int = 0
    train: Points | None = None
    longer: Callable[[], tuple[str, VelocityField]] | None = None
    training: str = ""
    elsewhere: str = ""


def advise(pipeline: Pipeline, budget: Budget, draws: Draws, trials: Trials) -> Advice:
    """What to change first: of the term that is certainly largest."""
    largest = max(budget.terms, key=lambda term: term.value)
    named = max(budget.terms, key=lambda term: term.value - CERTAIN * term.stderr)
    if named.value == 0:
        named = largest
    share = named.value / budget.sum if budget.sum > 0 else 0.0
    size = f"{named.name} is {100 * share:.0f} % of the sum"
    if named is not largest:
        size += f" ({largest.name}, {largest.value:.2g} ± {largest.stderr:.2g}, is too uncertain)"
    change, predicted, what = _tried(pipeline, budget, draws, trials, named)
    if predicted is None:
        return Advice(named.name, share, None, None, f"{size}: {what}")
    text = f"{size}: {what} would bring it from {named.value:.3g} to {predicted:.3g}"
    return Advice(named.name, share, change, predicted, text)


Tried = tuple[str | None, float | None, str]
"""Settings, the term with them, and in words; or, where nothing helps, why."""


def _tried(pipeline: Pipeline, budget: Budget, draws: Draws, trials: Trials, term: Term) -> Tried:
    few, now = _few(draws), term.value
    found: Tried | None = None
    if now == 0:
        return None, None, "there is nothing to reduce"
    if term.name == "discretisation":
        found = _more_steps(pipeline, few, budget.reference[:TRIED], now)
    elif term.name == "map":
        found = _more_jumps(pipeline, few, budget.reference[:TRIED], now)
    elif term.name == "early stopping":
        found = _later_stop(pipeline, few)
    elif term.name == "guidance":
        found = _less_guidance(pipeline, few)
    elif term.name == "reconstruction":
        found = _more_latents(few, now, trials)
    elif term.name == "velocity" and trials.elsewhere:
        return None, None, trials.elsewhere
    elif term.name == "velocity":
        return _longer_training(pipeline, few, now, trials)
    rest = {
        "source": "choose a path that starts at N(0, I), such as linear or trigonometric",
        "reconstruction": "train the autoencoder for longer, or give it more latent numbers",
        "map": "more jumps do not reduce it; distil for more steps",
    }.get(term.name, "none of the changes that were tried reduces it")
    return found or (None, None, rest)


def _few(draws: Draws) -> Draws:
    def cut(cond: Cond) -> Cond:
        return None if cond is None else {k: c[:TRIED] for k, c in cond.items()}

    return Draws(
        draws.x0[:TRIED], cut(draws.cond), draws.z[:TRIED], cut(draws.z_cond), draws.x[:TRIED]
    )


def _more_steps(pipeline: Pipeline, draws: Draws, reference: Points, now: float) -> Tried | None:
    """The cheapest of more steps, and of Heun in Euler's place, that takes the term to a tenth,
    or the best that was tried."""
    assert isinstance(pipeline.sampler, Integrated)
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


def _more_jumps(pipeline: Pipeline, draws: Draws, reference: Points, now: float) -> Tried | None:
    """The number of jumps, up to eight times as many, with the least error of those tried."""
    n = len(pipeline.sampler.knots) - 1
    tried = []
    for flow in pipeline.sampler.jumps((2 * n, 4 * n, 8 * n)):
        gap = pipeline.data(pipeline.latents(flow, draws.x0, draws.cond)) - reference
        tried.append((root_mean_square(gap)[0], len(flow.knots) - 1))
    if not tried:
        return None
    predicted, jumps = min(tried)
    return (f"--steps {jumps}", predicted, f"{jumps} jumps") if predicted < now else None


def _later_stop(pipeline: Pipeline, draws: Draws) -> Tried | None:
    rest = (1 - pipeline.end) / 4
    last = domain_of(pipeline.field)[1]
    stop = round(min(1 - rest, last), 6)
    if stop <= pipeline.end:
        return None
    grid = dataclasses.replace(pipeline.sampler.grid, stop=stop)  # type: ignore[type-var]
    later = pipeline.with_sampler(grid=grid)
    predicted = early_stopping(later, draws, seed=0).value
    return f"--grid {grid}", predicted, f"stopping at T = {stop:g}"


def _less_guidance(pipeline: Pipeline, draws: Draws) -> Tried | None:
    halved = 1 + (pipeline.guidance - 1) / 2
    field = Guided(pipeline.field, halved)
    less = pipeline.with_sampler(field=field)
    gap = _gap(less, draws.x0, draws.cond)
    return f"--guidance {halved:g}", root_mean_square(gap)[0], f"guidance {halved:g}"


def _gap(pipeline: Pipeline, x0: Latent, cond: Cond) -> Points:
    guided = pipeline.data(pipeline.latents(pipeline.reference, x0, cond))
    return guided - pipeline.data(pipeline.latents(pipeline.unguided, x0, cond))


def _more_latents(draws: Draws, now: float, trials: Trials) -> Tried | None:
    """Principal components, fitted on training data and measured on held-out, where they halve the
    term; else twice the numbers, scaled as the errors of principal components scale."""
    if trials.autoencoder is None or trials.train is None:
        return None
    x, train, n = as_points(draws.x), trials.train, trials.n_latent
    most = min(len(train) - 1, x.shape[1] - 1)
    centre = train.mean(0)
    axes: Tensor = torch.linalg.svd(train - centre, full_matrices=False)[2]

    def error(k: int) -> float:
        rest, basis = x - centre, axes[:k]
        return root_mean_square(rest - rest @ basis.T @ basis)[0]

    linear = trials.autoencoder.startswith("pca")
    for k in (3 * n // 2, 2 * n):
        if k <= most and error(k) <= now / 2:
            # Principal components are vectors, for which the network of a grid is no good choice.
            network = " --network auto" if draws.z.ndim > 2 else ""
            change = f"--autoencoder pca:dim={k}{network}"
            return change, error(k), f"principal components, {k} of them,"
    if 2 * n > most or error(n) == 0:
        return None
    if linear:
        return f"--autoencoder pca:dim={2 * n}", error(2 * n), "twice the principal components"
    doubled = re.sub(r"channels=(\d+)", lambda m: f"channels={2 * int(m[1])}", trials.autoencoder)
    if doubled == trials.autoencoder:
        return None
    what = "twice the channels, as the errors of principal components scale,"
    return f"--autoencoder {doubled}", now * error(2 * n) / error(n), what


def _longer_training(pipeline: Pipeline, draws: Draws, now: float, trials: Trials) -> Tried:
    """More steps, which are taken, where the truth is known: the term is then measured."""
    rest = "train for more steps, with a larger network, or on more data"
    if trials.longer is None or pipeline.exact is None:
        why = f"; {trials.training}" if trials.training else ""
        return None, None, f"{rest}; what that would give was not tried{why}"
    change, field = trials.longer()
    there = pipeline.data(pipeline.latents(pipeline.exact, draws.x0, draws.cond))
    found = pipeline.data(pipeline.latents(pipeline.solved(field), draws.x0, draws.cond))
    predicted = root_mean_square(found - there)[0]
    if predicted > WORTH * now:
        what = f"{change} was tried and leaves {predicted:.3g} of {now:.3g}"
        return None, None, f"{what}: train a larger network, or on more data"
    return change, predicted, f"{change}, which was tried,"
