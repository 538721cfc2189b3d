r"""What a certified Lipschitz constant proves of a flow: a bound of the velocity term.

For a learned field with the one-sided constant L_t, and eps_t^2 the mean squared error of the
field under the true law of x_t, Groenwall's lemma gives

.. math:: W_2 \le \int_0^T \exp\Bigl(\int_t^T L_s \, ds\Bigr) \, \varepsilon_t \, dt .

L is certified for all states, times and conditions. eps is measured: three standard errors are
added to its square in each piece of time, and Cauchy-Schwarz bounds its integral there. Integrals
of L are upper sums: of each piece the larger value of its two ends, a bound for rates that are
monotone or convex in time. The rate of an output velocity is constant, that of a data prediction
on the linear path is (L - 1) / (1 - t).

A network's constants at single times are lower, but nothing is proved between those times: the
bound that they give by interpolation is displayed as an estimate.

References:
    | Error bounds for flow matching (Benton et al., 2023) -- https://arxiv.org/abs/2305.16860
    | Latent flow matching with transformers (Jiao et al., 2024) -- https://arxiv.org/abs/2404.02538
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from monge.errors import UserError
from monge.fields import Predict
from monge.networks.bounds import Certificate
from monge.networks.certificate import certificate, velocity_certificate
from monge.types import Cond
from monge.verification.adversarial import steepest
from monge.verification.curves import FieldError, growth_bound
from monge.verification.pipeline import Pipeline

PIECES = 400
"""Of the upper sums of L, over the whole domain."""

SURE = 3.0
"""Standard errors that are added to the squared error of a piece of time."""

SEARCHED = 16
"""States from which each search starts."""


@dataclass(frozen=True)
class Certified:
    """What is proved of a field, and what was found of it.

    Attributes:
        times: (T,) of the curves, which are certified at these times.
        norm, rate: the certified Lipschitz constant and one-sided constant at each time.
        largest: a Lipschitz constant for all times of the domain.
        found: the largest Jacobian norm that adversarial search finds at these times.
        growth: exp of the integral of the one-sided constant that holds at all times.
        bound: the velocity term's bound, in latent units; None without errors of the field.
        interpolated: the same with the rates of the curves: an estimate of a smaller bound.
        bins: the part of each piece of time in the bound.
        layers: the derivation of the network's bound at all times, layer by layer.
    """

    times: list[float]
    norm: list[float]
    rate: list[float]
    largest: float
    found: float
    growth: float
    bound: float | None
    interpolated: float | None
    bins: list[float]
    layers: list[dict[str, Any]]


def certified(
    pipeline: Pipeline,
    errors: Sequence[FieldError],
    times: Sequence[float],
    x0: Tensor,
    cond: Cond,
    ascent: int = 20,
) -> Certified | str:
    """What the certificate of a pipeline's field proves; why not, where there is none.

    Args:
        errors: of the field against the optimal one, by piece of time.
        times: of the curves.
        x0: noises; states on their trajectories are where searches start.
        ascent: steps of each search.
    """
    field = pipeline.field
    if not isinstance(field, Predict) or not isinstance(field.net, nn.Module):
        return "no certificate: the field is not that of a network"
    try:
        always = certificate(field.net)
    except UserError as error:
        return str(error)
    lo, hi = pipeline.begin, pipeline.end
    knots = [lo + (hi - lo) * k / PIECES for k in range(PIECES + 1)]
    curve = [velocity_certificate(field, t, always) for t in knots]
    rates = _pieces([c.one_sided for c in curve])
    end = errors[-1].hi if errors else hi
    bins = [velocity_part(error, rates, (lo, hi), end) for error in errors]
    at = [velocity_certificate(field, t) for t in times]
    return Certified(
        list(times),
        [c.euclidean for c in at],
        [c.one_sided for c in at],
        max(c.euclidean for c in curve),
        _searched(pipeline, times, x0, cond, ascent),
        _exp(integral(rates, (lo, hi), lo, hi)),
        sum(bins) if bins else None,
        growth_bound(errors, times, [c.one_sided for c in at]) if errors else None,
        bins,
        derivation(always),
    )


def derivation(known: Certificate) -> list[dict[str, Any]]:
    """The factors of a certificate, layer by layer."""
    return [dataclasses.asdict(step) for step in known.steps]


def velocity_part(
    error: FieldError, rates: Sequence[float], domain: tuple[float, float], end: float
) -> float:
    """The bound of int exp(int_t^end L) eps_t dt over a piece of time.

    Args:
        rates: upper bounds of L on equal pieces of the domain.
    """
    starts = [error.lo, error.hi]
    width = (domain[1] - domain[0]) / len(rates)
    starts += [t for k in range(len(rates)) if error.lo < (t := domain[0] + k * width) < error.hi]
    growth = max(integral(rates, domain, t, end) for t in starts)
    square = max(error.excess, 0.0) + SURE * error.stderr
    return (error.hi - error.lo) * math.sqrt(square) * _exp(growth)


def integral(
    rates: Sequence[float], domain: tuple[float, float], start: float, end: float
) -> float:
    """The integral from start to end of what is constant on equal pieces of the domain."""
    lo, hi = domain
    width = (hi - lo) / len(rates)
    total = 0.0
    for k, rate in enumerate(rates):
        a, b = max(start, lo + k * width), min(end, lo + (k + 1) * width)
        total += rate * max(b - a, 0.0)
    return total


def _pieces(ends: Sequence[float]) -> list[float]:
    """The larger of the two ends of each piece."""
    return [max(a, b) for a, b in itertools.pairwise(ends)]


def _exp(x: float) -> float:
    return math.exp(x) if x < 700 else math.inf


def _searched(
    pipeline: Pipeline, times: Sequence[float], x0: Tensor, cond: Cond, ascent: int
) -> float:
    """The largest Jacobian norm that ascent finds, from states on trajectories at each time."""
    few = None if cond is None else {k: c[:SEARCHED] for k, c in cond.items()}
    now, state, most = pipeline.begin, x0[:SEARCHED], 0.0
    for t in times:
        state = pipeline.unguided(state, now, t, few).detach() if t > now else state
        now = t
        found = steepest(lambda y, t=t: pipeline.field(y, t, few), state, steps=ascent)
        most = max(most, float(found.max()))
    return most


def in_words(found: dict[str, Any] | str | None, observed: dict[str, Any]) -> list[str]:
    """Lines for the terminal; none where the network has no certificate.

    Args:
        observed: the Lipschitz section of a report.
    """
    if found is None or isinstance(found, str):
        return []
    bound, between = (
        "unknown" if found[name] is None else f"{found[name]:.4g}"
        for name in ("bound", "interpolated")
    )
    return [
        f"certified velocity bound {bound} in latent units: the flow stretches errors by at most "
        f"{found['growth']:.4g}; {between} by constants certified at {len(found['times'])} times, "
        "an estimate",
        f"Lipschitz constant of the field: certified {found['largest']:.4g}, largest Jacobian norm "
        f"found by search {found['found']:.4g}; amplification of the flow "
        f"{observed['amplification']:.4g}",
    ]
