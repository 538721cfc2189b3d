"""The laws of flow maps X(x, s, t, cond)."""

from __future__ import annotations

import torch

from monge.conformance.measuring import (
    DoesNotApply,
    Outcome,
    Probe,
    gap,
    holds,
    inside,
    probe,
    take,
    within,
    worst,
)
from monge.errors import UserError
from monge.flows import inverse, tangent
from monge.types import FlowMap, domain_of

N = 4


def probe_flow(flow: FlowMap) -> Probe:
    s, t = inside(domain_of(flow), 2, margin=0.3).tolist()
    return probe(flow, lambda x, cond: flow(x, s, t, cond))


def knots_of(flow: FlowMap) -> tuple[float, ...] | None:
    """Where the map says that it composes exactly."""
    return getattr(flow, "knots", None)


def law_identity(flow: FlowMap) -> Outcome:
    """From a time to the same time nothing moves, for numbers and for times per example."""
    p = probe_flow(flow)
    x, cond = p.states(N), p.cond(N)
    times = p.times(domain_of(flow), N)
    found = [gap(flow(x, times, times, cond), x)]
    found += [gap(flow(x, t, t, cond), x) for t in times.double().tolist()]
    return within("movement", torch.stack(found), p.tolerance(1e-12, 1e-5))


def law_state_is_like_the_state(flow: FlowMap) -> Outcome:
    """All the way through the domain, both ways, the state keeps its shape and is finite."""
    p = probe_flow(flow)
    x, cond = p.states(N), p.cond(N)
    lo, hi = domain_of(flow)
    for s, t in ((lo, hi), (hi, lo)):
        y = flow(x, s, t, cond)
        same = y.shape == x.shape and y.dtype == x.dtype
        holds(same, f"a state {tuple(x.shape)} {x.dtype} becomes {tuple(y.shape)} {y.dtype}")
        holds(bool(y.isfinite().all()), f"the state carried from {s:g} to {t:g} is not finite")
    return within("change of the state it was given", gap(x, p.states(N)), 0.0)


def law_times_per_example(flow: FlowMap) -> Outcome:
    """Times per example, forwards and backwards at once, are separate calls."""
    p = probe_flow(flow)
    x, cond = p.states(N), p.cond(N)
    s, t = p.times(domain_of(flow), N), p.times(domain_of(flow), N, margin=0.05).flip(0)
    together = flow(x, s, t, cond)
    alone = [
        flow(x[i : i + 1], float(s[i]), float(t[i]), take(cond, torch.tensor([i])))
        for i in range(N)
    ]
    return within("difference", gap(together, torch.cat(alone)), p.tolerance(1e-10))


def law_batch_independence(flow: FlowMap) -> Outcome:
    """Chunked equals whole: where an example goes does not depend on its batch."""
    p = probe_flow(flow)
    x, cond = p.states(N), p.cond(N)
    lo, hi = domain_of(flow)
    whole = flow(x, lo, hi, cond)
    order = torch.tensor([3, 0])
    some = flow(x[order], lo, hi, take(cond, order))
    return worst(
        within("difference in another batch", gap(some, whole[order]), p.tolerance(1e-12)),
        within("difference in a second call", gap(flow(x, lo, hi, cond), whole), 0.0),
    )


def law_composes_at_its_knots(flow: FlowMap) -> Outcome:
    """Stopping at a knot on the way, forwards or backwards, changes nothing."""
    knots = knots_of(flow)
    if not knots or len(knots) < 3:
        return DoesNotApply("it names no knots inside")
    p = probe_flow(flow)
    x, cond = p.states(N), p.cond(N)
    middle = knots[len(knots) // 2]
    found = []
    for s, t in ((knots[0], knots[-1]), (knots[-1], knots[0])):
        stopped = flow(flow(x, s, middle, cond), middle, t, cond)
        error = gap(stopped, flow(x, s, t, cond))
        found.append(within(f"difference from {s:g} to {t:g}", error, p.tolerance(1e-12)))
    return worst(*found)


def law_inverse(flow: FlowMap) -> Outcome:
    """A map that names knots has an exact inverse."""
    if knots_of(flow) is None:
        return DoesNotApply("it names no knots; a learned map need not be invertible")
    p = probe_flow(flow)
    x, cond = p.states(N), p.cond(N)
    s, t = inside(domain_of(flow), 2, margin=0.1).tolist()
    back = inverse(flow, p.tolerance(1e-13, 1e-5))(flow(x, s, t, cond), t, s, cond)
    return within("distance from the start", gap(back, x), p.tolerance(1e-10, 1e-3))


def law_tangent(flow: FlowMap) -> Outcome:
    """The tangent field is the rate at which the map leaves the identity."""
    p = probe_flow(flow)
    x, cond = p.states(N), p.cond(N)
    velocity = tangent(flow)
    h = 1e-4 if p.dtype == torch.float64 else 1e-2
    found = []
    lo, hi = domain_of(flow)
    for t in (lo + (hi - lo) * u for u in (0.1317, 0.4691, 0.8373)):  # beside any breakpoint
        difference = (flow(x, t, t + h, cond) - flow(x, t, t - h, cond)) / (2 * h)
        error = gap(velocity(x, t, cond), difference)
        found.append(within(f"difference at t = {t:g}", error, p.tolerance(1e-3, 1e-1)))
    return worst(*found)


def law_refuses_times_outside(flow: FlowMap) -> Outcome:
    """A time outside the domain is refused by an error that names the domain."""
    if not hasattr(flow, "domain"):
        return DoesNotApply("it declares no domain")
    p = probe_flow(flow)
    lo, hi = domain_of(flow)
    for s, t in ((lo, hi + 0.1), (lo - 0.1, hi)):
        try:
            flow(p.states(2), s, t, p.cond(2))
        except UserError as error:
            named = f"{lo:g}" in str(error) and f"{hi:g}" in str(error)
            holds(named, f"the error does not name the domain {lo:g}, {hi:g}: {error}")
        else:
            holds(False, f"it went from {s:g} to {t:g}; its domain is {lo:g}, {hi:g}")
    return holds(True, "")


def law_differentiable(flow: FlowMap) -> Outcome:
    """Gradients reach the state where the map starts."""
    p = probe_flow(flow)
    x, cond = p.states(N).requires_grad_(), p.cond(N)
    s, t = inside(domain_of(flow), 2, margin=0.2).tolist()
    flow(x, s, t, cond).sum().backward()
    reached = x.grad is not None and bool(x.grad.isfinite().all())
    return holds(reached, "no finite gradient of the state")
