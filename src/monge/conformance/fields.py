"""The laws of velocity fields v(x, t, cond)."""

from __future__ import annotations

import itertools

import torch

from monge.conformance.measuring import (
    DoesNotApply,
    Outcome,
    Probe,
    derivative,
    gap,
    holds,
    inside,
    probe,
    take,
    within,
    worst,
)
from monge.fields import restrict
from monge.tensors import forward_mode
from monge.types import VelocityField, breakpoints_of, domain_of

N = 9


def interior_time(velocity: VelocityField) -> float:
    lo, hi = domain_of(velocity)
    return 0.55 * lo + 0.45 * hi


def probe_field(velocity: VelocityField) -> Probe:
    t = interior_time(velocity)
    return probe(velocity, lambda x, cond: velocity(x, t, cond))


def law_declares_its_times(velocity: VelocityField) -> Outcome:
    """The domain is an interval of [0, 1], the breakpoints increase inside it."""
    lo, hi = domain_of(velocity)
    holds(0 <= lo < hi <= 1, f"the domain {lo}, {hi} is no interval of [0, 1]")
    points = (lo, *breakpoints_of(velocity), hi)
    increasing = all(a < b for a, b in itertools.pairwise(points))
    return holds(increasing, f"the breakpoints {points[1:-1]} do not increase inside {lo}, {hi}")


def law_velocity_is_like_the_state(velocity: VelocityField) -> Outcome:
    """Over the whole domain, ends included, the velocity has the state's shape and is finite."""
    p = probe_field(velocity)
    x, cond = p.states(N), p.cond(N)
    for t in inside(domain_of(velocity), 5).tolist():
        v = velocity(x, t, cond)
        same = v.shape == x.shape and v.dtype == x.dtype
        holds(same, f"a state {tuple(x.shape)} {x.dtype} gives {tuple(v.shape)} {v.dtype}")
        holds(bool(v.isfinite().all()), f"the velocity at t = {t:g} is not finite")
    return within("change of the state it was given", gap(x, p.states(N)), 0.0)


def law_times_per_example(velocity: VelocityField) -> Outcome:
    """A time may be a number, a tensor () or one for each example, with the same result."""
    p = probe_field(velocity)
    x, cond = p.states(N), p.cond(N)
    times = p.times(domain_of(velocity), N)
    together = velocity(x, times, cond)
    found = []
    for name, ask in (("float", float), ("()", lambda t: t)):
        alone = [
            velocity(x[i : i + 1], ask(t), take(cond, torch.tensor([i])))
            for i, t in enumerate(times)
        ]
        error = gap(together, torch.cat(alone))
        found.append(within(f"difference of (B,) from {name}", error, p.tolerance(1e-10)))
    return worst(*found)


def law_batch_independence(velocity: VelocityField) -> Outcome:
    """An example's velocity does not depend on the batch it is in, nor on the call."""
    p = probe_field(velocity)
    x, cond, t = p.states(N), p.cond(N), interior_time(velocity)
    whole = velocity(x, t, cond)
    order = torch.tensor([4, 0, 8, 2])
    some = velocity(x[order], t, take(cond, order))
    return worst(
        within("difference in another batch", gap(some, whole[order]), p.tolerance(1e-10)),
        within("difference in a second call", gap(velocity(x, t, cond), whole), 0.0),
    )


def law_differentiable(velocity: VelocityField) -> Outcome:
    """The forward-mode derivative in x, which divergences need, is the central difference."""
    p = probe_field(velocity)
    x, cond, t = p.states(N), p.cond(N), interior_time(velocity)
    along = p.states(N, "along")
    with forward_mode():
        exact = torch.func.jvp(lambda y: velocity(y, t, cond), (x,), (along,))[1]
    step = 1e-3 if p.dtype == torch.float64 else 3e-2
    zero = torch.zeros((), dtype=p.dtype)
    difference = derivative(lambda h: velocity(x + h * along, t, cond), zero, step)
    return within("difference", gap(exact, difference), p.tolerance(1e-6, 1e-2))


def law_pieces_are_the_field(velocity: VelocityField) -> Outcome:
    """Between breakpoints the field is the piece that `restrict` gives, which reaches both ends."""
    points = breakpoints_of(velocity)
    if not points and not hasattr(velocity, "restrict"):
        return DoesNotApply("it has one piece")
    p = probe_field(velocity)
    lo, hi = domain_of(velocity)
    x, cond = p.states(N), p.cond(N)
    found = []
    for a, b in itertools.pairwise((lo, *points, hi)):
        piece = restrict(velocity, a, b)
        t = 0.4 * a + 0.6 * b
        error = gap(piece(x, t, cond), velocity(x, t, cond))
        found.append(within(f"difference on ({a:g}, {b:g})", error, p.tolerance(1e-12)))
        for end, beside in ((a, a + 1e-6 * (b - a)), (b, b - 1e-6 * (b - a))):
            jump = gap(piece(x, end, cond), velocity(x, beside, cond))
            found.append(within(f"jump of the piece at {end:g}", jump, p.tolerance(1e-2, 1e-2)))
    return worst(*found)
