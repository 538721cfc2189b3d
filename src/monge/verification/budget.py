"""The budget: every term of W2(samples, data), their sum, and lower bounds to hold it against."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from monge.errors import UserError
from monge.metrics.samples import random_rows
from monge.metrics.wasserstein import exact_w2_squared
from monge.paths import Path
from monge.system.progress import Say, quiet
from monge.targets.wasserstein import early_stopping as closed_early_stopping
from monge.tensors import noise, stream
from monge.types import Cond, Latent, State
from monge.verification import lower_bounds as lower
from monge.verification.pipeline import Pipeline, in_chunks
from monge.verification.terms import (
    Points,
    Term,
    as_points,
    coupled,
    median_length,
    root_mean_square,
    spread_of,
    switched,
    total,
    zero,
)

MOST_PLUG_IN = 1000
"""Examples of each side in the exact plug-in W2, which is displayed beside the budget."""


@dataclass(frozen=True)
class Known:
    """Real examples to hold a pipeline against.

    Attributes:
        x: held-out data (N, ...), none of them trained on.
        cond: their conditions.
        train: training data, for the floor: real, and independent of `x`.
        train_cond: their conditions.
        home: the reconstruction term on the law that the autoencoder was trained on, where that
            is another.
    """

    x: State
    cond: Mapping[str, Tensor] | None = None
    train: State | None = None
    train_cond: Mapping[str, Tensor] | None = None
    home: float | None = None


@dataclass(frozen=True)
class Draws:
    """What all terms share: noise, the conditions of the samples, and latents of real examples."""

    x0: Latent
    cond: Cond
    z: Latent
    z_cond: Cond
    x: State


@dataclass(frozen=True)
class Budget:
    """The terms, what they add up to, and what the total is at least.

    Attributes:
        terms: in the order from samples to data.
        sum, sum_stderr: an upper bound of W2(samples, data) where every term is one.
        lower: lower bounds of W2(samples, data), by name: (value, stderr).
        plug_in: W2 between as many samples and held-out examples, and the floor, which is the
            same of training examples; displayed, never compared with the sum.
        known: whether the true field is known, so that the inequality is a theorem.
        reference: the samples of the fine solution, (n, d).
    """

    terms: list[Term]
    sum: float
    sum_stderr: float
    lower: dict[str, tuple[float, float]]
    plug_in: float
    floor: float
    n_plug_in: int
    known: bool
    reference: Points

    @property
    def violations(self) -> list[str]:
        """Lower bounds above the sum, at three standard errors; none if all is well.

        Squares are compared: those of the bounds are estimated with a normal error, roots near
        zero are not.
        """
        found = []
        for name, (value, stderr) in self.lower.items():
            error = math.hypot(lower.error_of_square(value, stderr), 2 * self.sum * self.sum_stderr)
            if value**2 - self.sum**2 > 3 * error + 1e-9 * (1 + self.sum) ** 2:
                found.append(f"{name} {value:.4g} +- {stderr:.2g} exceeds the sum {self.sum:.4g}")
        return found


def draw(pipeline: Pipeline, known: Known, cond: Cond, n: int, seed: int) -> Draws:
    """n noises with the given conditions (n,), and the latents of up to n real examples."""
    rows = random_rows(len(known.x), n, stream(seed, "verify", "heldout"))
    x = known.x[rows]
    z = pipeline.encoded(x)
    x0 = noise(seed, 0, n, tuple(z.shape[1:]), "verify", "noise").to(z)
    cond = None if cond is None else {k: c.to(z.device) for k, c in cond.items()}
    z_cond = (
        None if known.cond is None else {k: c[rows].to(z.device) for k, c in known.cond.items()}
    )
    return Draws(x0, cond, z, z_cond, x)


def budget(
    pipeline: Pipeline, known: Known, draws: Draws, seed: int = 0, say: Say = quiet
) -> Budget:
    """All terms of the pipeline's budget.

    Args:
        known: real examples.
        draws: of `draw`.
        say: told which term is next.
    """
    x0, cond = draws.x0, draws.cond
    n, real = len(x0), as_points(draws.x)
    spread = spread_of(real)
    say("discretisation: the sampler against a fine solution")
    z_n = pipeline.latents(pipeline.sampler, x0, cond)
    z_ref = pipeline.latents(pipeline.reference, x0, cond)
    samples, ref = pipeline.data(z_n), pipeline.data(z_ref)
    terms = [_discretisation(pipeline, draws, (z_n, z_ref), (samples, ref), spread)]
    if pipeline.guidance == 1:
        z_own, own = z_ref, ref
        terms.append(zero("guidance", "the sampler is not guided", n))
    else:
        say("guidance: the guided flow against the field itself")
        z_own = pipeline.latents(pipeline.unguided, x0, cond)
        own = pipeline.data(z_own)
        terms.append(
            coupled(
                "guidance", (ref, own), (z_ref, z_own),
                "guided and unguided flow from the same noise",
                f"guidance {pipeline.guidance:g} (1 is none)",
            )
        )  # fmt: skip
    source, x0_true, own_true, z_own_true, cond_true = _source(pipeline, draws, z_own, own)
    terms.append(source)
    say("velocity: the learned field against the true one")
    terms.append(_velocity(pipeline, draws, known, x0_true, cond_true, own_true, z_own_true, seed))
    terms.append(early_stopping(pipeline, draws, seed))
    say("reconstruction: held-out data against its decoded latents")
    terms.append(_reconstruction(pipeline, draws, known))
    value, stderr = total(terms)
    say("lower bounds and the plug-in distance")
    bounds = lower.bounds(samples, real, seed)
    plug_in, floor, m = _plug_in(samples, real, known, seed)
    known_field = pipeline.truth is not None
    return Budget(terms, value, stderr, bounds, plug_in, floor, m, known_field, ref)


def _discretisation(
    pipeline: Pipeline,
    draws: Draws,
    latents: tuple[Latent, Latent],
    data: tuple[Points, Points],
    spread: float,
) -> Term:
    """The sampler against the reference; the reference's own error by halving its steps."""
    few = slice(0, 128)
    cond = None if draws.cond is None else {k: c[few] for k, c in draws.cond.items()}
    grid = pipeline.reference.grid
    coarse = type(pipeline.reference)(
        pipeline.reference.field,
        pipeline.reference.solver,
        type(grid)(grid.n // 2, stop=grid.stop),  # type: ignore[call-arg]
    )
    half = pipeline.data(pipeline.latents(coarse, draws.x0[few], cond))
    own_error = root_mean_square(half - data[1][few])[0] / (2**pipeline.reference.solver.order - 1)
    gap = data[0] - data[1]
    sampler = pipeline.sampler
    return coupled(
        sampler.error,
        data,
        latents,
        sampler.against,
        f"{sampler.label}, {len(sampler.knots) - 1} {sampler.unit}",
        median=median_length(gap),
        switched=switched(gap, spread),
        reference_error=own_error,
    )


def _source(
    pipeline: Pipeline, draws: Draws, z_own: Latent, own: Points
) -> tuple[Term, Latent, Points, Latent, Cond]:
    """The flow from N(0, I) against the flow from the path's own source; and the latter."""
    alpha, sigma = _at(pipeline.path, pipeline.begin, draws.z)
    if float(alpha) == 0:
        return (
            zero("source", f"the path {pipeline.path} starts at N(0, I)", len(draws.x0)),
            draws.x0, own, z_own, draws.cond,
        )  # fmt: skip
    m = min(len(draws.x0), len(draws.z))
    x0 = alpha * draws.z[:m] + sigma * draws.x0[:m]
    cond = None if draws.z_cond is None else {k: c[:m] for k, c in draws.z_cond.items()}
    from_noise = z_own[:m]
    if cond is not None:  # both walks take the condition of the example that one starts from
        from_noise = pipeline.latents(pipeline.unguided, draws.x0[:m], cond)
    z_true = pipeline.latents(pipeline.unguided, x0, cond)
    pairs = pipeline.data(from_noise), pipeline.data(z_true)
    term = coupled(
        "source", pairs, (from_noise, z_true),
        "started at x0 and at alpha_0 z + sigma_0 x0, same noise",
        f"path {pipeline.path}: alpha = {float(alpha):.3g} at t = {pipeline.begin:g}",
    )  # fmt: skip
    return term, x0, pairs[1], z_true, cond


def _at(path: Path, t: float, like: Tensor) -> tuple[Tensor, Tensor]:
    alpha, sigma, _, _ = path.coefficients(t, like)
    return alpha, sigma


def _velocity(
    pipeline: Pipeline,
    draws: Draws,
    known: Known,
    x0: Latent,
    cond: Cond,
    own: Points,
    z_own: Latent,
    seed: int,
) -> Term:
    if pipeline.exact is not None:
        z_true = pipeline.latents(pipeline.exact, x0, cond)
        true = pipeline.data(z_true)
        return coupled(
            "velocity", (own, true), (z_own, z_true),
            "learned and true flow from the same noise", "training: steps, network, data",
            best_pairing=math.sqrt(exact_w2_squared(own[:MOST_PLUG_IN], true[:MOST_PLUG_IN])),
        )  # fmt: skip
    decoded = pipeline.data(_finished(pipeline, draws, _stopped(pipeline, draws, seed)))
    m = min(len(own), len(decoded), MOST_PLUG_IN)
    value = exact_w2_squared(own[:m], decoded[:m])
    floor = _real_floor(pipeline, known, decoded[:m], seed)
    excess = max(value - floor, 0.0)
    groups = torch.arange(m) % 10
    kept = [exact_w2_squared(own[:m][groups != k], decoded[:m][groups != k]) for k in range(10)]
    error = math.sqrt(9 / 10 * float((torch.tensor(kept) - sum(kept) / 10).square().sum()))
    root = math.sqrt(excess)
    return Term(
        "velocity",
        root,
        error / (2 * root) if root > 0 else math.sqrt(error),
        "estimate",
        "plug-in W2² of flow samples to held-out x_T, less that of real examples",
        "training: steps, network, data",
        m,
        extra={"plug_in": math.sqrt(value), "floor": math.sqrt(floor)},
    )


def _stopped(pipeline: Pipeline, draws: Draws, seed: int) -> State:
    """Held-out latents taken to T with fresh noise; themselves at T = 1."""
    if pipeline.end == 1:
        return draws.z
    e = noise(seed, 0, len(draws.z), tuple(draws.z.shape[1:]), "verify", "stop").to(draws.z)
    alpha, sigma = _at(pipeline.path, pipeline.end, draws.z)
    return alpha * draws.z + sigma * e


def _finished(pipeline: Pipeline, draws: Draws, x: State) -> Latent:
    """States at T through the final map."""
    if pipeline.end == 1:
        return x
    finish = pipeline.finish()
    return in_chunks(lambda y, part: finish(y, pipeline.end, part), x, draws.z_cond)


def _real_floor(pipeline: Pipeline, known: Known, decoded: Points, seed: int) -> float:
    """W2² between as many training examples, reconstructed, and the held-out ones."""
    if known.train is None:
        half = len(decoded) // 2
        return exact_w2_squared(decoded[:half], decoded[half : 2 * half])
    rows = random_rows(len(known.train), len(decoded), stream(seed, "verify", "floor"))
    z = pipeline.encoded(known.train[rows])
    m = min(len(z), len(decoded))
    return exact_w2_squared(pipeline.data(z[:m]), decoded[:m])


def early_stopping(pipeline: Pipeline, draws: Draws, seed: int) -> Term:
    n = len(draws.z)
    if pipeline.end == 1:
        return zero("early stopping", "the sampler goes on to t = 1", n)
    x, z = _stopped(pipeline, draws, seed), draws.z
    there = _finished(pipeline, draws, x)
    value = _early_value(pipeline, draws, x, there)
    return coupled(
        "early stopping", (pipeline.data(there), pipeline.data(z)), (there, z),
        "final(alpha_T z + sigma_T e) and z, the noise coupling",
        f"stop at T = {pipeline.end:g}, final map {pipeline.final}",
        along_the_flow=value, exact_latent=_exact_early_value(pipeline),
    )  # fmt: skip


def _exact_early_value(pipeline: Pipeline) -> float | None:
    """W2 between the latents at T and at 1, where it is closed: on the line and for Gaussians."""
    if pipeline.truth is None or pipeline.final == "posterior_mean":
        return None
    try:
        return closed_early_stopping(
            pipeline.truth, pipeline.path, pipeline.end, divided=pipeline.final == "divide"
        )
    except UserError:
        return None


def _early_value(pipeline: Pipeline, draws: Draws, x: State, there: Latent) -> float | None:
    """The same distance along the exact flow from T onwards, where that is known."""
    exact = pipeline.exact
    if exact is None or pipeline.end >= exact.domain[1]:
        return None
    last = exact.domain[1]
    end = in_chunks(lambda y, part: exact(y, pipeline.end, last, part), x, draws.z_cond)
    return root_mean_square(pipeline.data(there) - pipeline.data(end))[0]


def _reconstruction(pipeline: Pipeline, draws: Draws, known: Known) -> Term:
    value, stderr = root_mean_square(pipeline.data(draws.z) - as_points(draws.x))
    extra: dict[str, float | str | None] = {}
    if known.home is not None:
        extra = {"at_home": known.home, "domain_shift": value - known.home}
    return Term(
        "reconstruction", value, stderr, "upper", "held-out examples and their reconstructions",
        "autoencoder: its channels, down-sampling and training", len(draws.x), None, extra,
    )  # fmt: skip


def _plug_in(samples: Points, real: Points, known: Known, seed: int) -> tuple[float, float, int]:
    """W2 of samples and of training examples to held-out ones, all in equal number."""
    train = real if known.train is None else as_points(known.train)
    m = min(len(samples), len(real), len(train), MOST_PLUG_IN)
    if known.train is None:
        m //= 2
    rows = random_rows(len(train), m, stream(seed, "verify", "plug-in"))
    chosen = train[rows] if known.train is not None else real[m : 2 * m]
    value = exact_w2_squared(samples[:m], real[:m])
    return math.sqrt(value), math.sqrt(exact_w2_squared(chosen, real[:m])), m
