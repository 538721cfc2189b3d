"""The laws of networks, given as a specification that builds one, or built.

The laws run on randomised weights: many networks start as zero, and zero obeys every law.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from monge.conformance.measuring import (
    Broken,
    DoesNotApply,
    Outcome,
    Probe,
    derivative,
    gap,
    holds,
    normal,
    probe,
    take,
    within,
    worst,
)
from monge.errors import UserError
from monge.networks.exact import ExactNetwork, ExactSpec
from monge.paths import Linear
from monge.targets.mixture import MixtureSpec
from monge.tensors import forward_mode, stream, sum_except_batch, value_and_divergence
from monge.types import Cond, State

N, CLASSES, VECTOR = 5, 3, 2

GOLDEN = {
    "transformer": 1_280_772,
    "mlp": 726_528,
    "lipschitz": 787_338,
    "piecewise": 3 * 726_528,
}
"""Parameters of the default settings for states (4, 8, 8) and 10 classes."""


@dataclass(frozen=True)
class Seat:
    """A network on one shape of states, its weights randomised, in float64."""

    network: nn.Module
    shape: tuple[int, ...]
    conditional: bool

    def states(self, key: str = "x") -> State:
        return normal(N, *self.shape, key=key)

    def cond(self) -> Cond:
        """A null label among the labels, where there are labels."""
        if not self.conditional:
            return None
        label = torch.arange(N) % (CLASSES + 1) - 1
        return {"label": label, "vector": normal(N, VECTOR, key="vector")}


def seats(component: Any) -> list[Seat]:
    """The networks that a specification builds, for vectors and for images; or a built one."""
    if isinstance(component, ExactSpec):
        component = ExactNetwork(MixtureSpec().build(), Linear(), "velocity")
    if isinstance(component, nn.Module):
        if isinstance(component, ExactNetwork):
            return [Seat(component, component.target.shape, False)]
        p: Probe = probe(component, lambda x, cond: component.to(x.dtype)(x, 0.5, cond))
        return [Seat(randomised(component), p.shape, False)]
    found, problem = [], None
    for shape in ((6,), (3, 8, 8)):
        try:
            network = component.build(shape, CLASSES, VECTOR)
        except UserError as error:
            problem = problem or error
            continue
        found.append(Seat(randomised(network), shape, True))
    if not found:
        raise Broken(f"it builds for none of the shapes (6,), (3, 8, 8): {problem}")
    return found


@torch.no_grad()
def randomised(network: nn.Module) -> nn.Module:
    """A copy in float64 with noise on all weights."""
    network = copy.deepcopy(network).double().eval()
    for k, parameter in enumerate(network.parameters()):
        parameter += 0.05 * normal(*parameter.shape, key=f"weights {k}")
    return network


def over_seats(component: Any, measure: Callable[[Seat], Any]) -> Outcome:
    return worst(*(measure(seat) for seat in seats(component)))


@torch.no_grad()
def law_output_is_like_the_state(component: Any) -> Outcome:
    """The output has the shape and dtype of the state, in float64 and float32, and is finite."""

    def measure(seat: Seat) -> Any:
        for dtype in (torch.float32, torch.float64):
            x = seat.states().to(dtype)
            cond = seat.cond()
            if cond is not None:
                cond = {**cond, "vector": cond["vector"].to(dtype)}
            out = seat.network.to(dtype)(x, 0.5, cond)
            same = out.shape == x.shape and out.dtype == dtype and bool(out.isfinite().all())
            holds(same, f"a state {tuple(x.shape)} {dtype} gives {tuple(out.shape)} {out.dtype}")
        return holds(bool(out.any()), "the output is zero whatever the weights are")

    return over_seats(component, measure)


@torch.no_grad()
def law_times_per_example(component: Any) -> Outcome:
    """A time may be a number, a tensor () or one for each example; and it matters."""

    def measure(seat: Seat) -> Any:
        x, cond = seat.states(), seat.cond()
        times = torch.linspace(0.1, 0.9, N, dtype=torch.float64)
        together = seat.network(x, times, cond)
        found = []
        for ask in (float, lambda t: t):
            alone = [
                seat.network(x[i : i + 1], ask(t), take(cond, torch.tensor([i])))
                for i, t in enumerate(times)
            ]
            found.append(within("difference", gap(together, torch.cat(alone)), 1e-10))
        moved = gap(seat.network(x, 0.1, cond), seat.network(x, 0.9, cond)).max()
        holds(bool(moved > 0), "the output does not depend on the time")
        return worst(*found)

    return over_seats(component, measure)


@torch.no_grad()
def law_batch_independence(component: Any) -> Outcome:
    """An example's output does not depend on the batch it is in, nor on the call."""

    def measure(seat: Seat) -> Any:
        x, cond = seat.states(), seat.cond()
        whole, order = seat.network(x, 0.4, cond), torch.tensor([3, 0])
        some = seat.network(x[order], 0.4, take(cond, order))
        again = seat.network(x, 0.4, cond)
        return worst(
            within("difference in another batch", gap(some, whole[order]), 1e-10),
            within("difference in a second call", gap(again, whole), 0.0),
        )

    return over_seats(component, measure)


def law_forward_derivatives(component: Any) -> Outcome:
    """Derivatives in the state and in time by forward mode are central differences."""

    def measure(seat: Seat) -> Any:
        x, cond, along = seat.states(), seat.cond(), seat.states("along")
        t, one = torch.tensor(0.4, dtype=torch.float64), torch.ones((), dtype=torch.float64)

        def at(h: Tensor) -> Tensor:
            return seat.network(x + h * along, t + 1e-3 * h, cond)

        zero = torch.zeros((), dtype=torch.float64)
        with forward_mode(), torch.no_grad():
            exact = torch.func.jvp(at, (zero,), (one,))[1]
            return within("difference", gap(exact, derivative(at, zero, 3e-3)), 1e-5)

    return over_seats(component, measure)


def law_gradients_of_derivatives(component: Any) -> Outcome:
    """Forward-mode derivatives have the gradients that central differences have."""

    def measure(seat: Seat) -> Any:
        x, cond, along, across = (
            seat.states(),
            seat.cond(),
            seat.states("along"),
            seat.states("across"),
        )
        zero, one = (f((), dtype=torch.float64) for f in (torch.zeros, torch.ones))

        def slopes(y: State) -> Tensor:
            with forward_mode():
                rate = torch.func.jvp(
                    lambda h: seat.network(y + h * along, 0.4, cond), (zero,), (one,)
                )[1]
            return sum_except_batch(rate.square())

        start = x.clone().requires_grad_()
        exact = torch.autograd.grad(slopes(start).sum(), start)[0]
        with torch.no_grad():
            expected = derivative(lambda h: slopes(x + h * across), zero, 3e-3)
        return within("difference", gap(sum_except_batch(exact * across), expected), 1e-5)

    return over_seats(component, measure)


@torch.no_grad()
def law_divergence(component: Any) -> Outcome:
    """The exact divergence, vectorised over coordinates, is the sum of central differences."""

    def measure(seat: Seat) -> Any:
        x, cond = seat.states()[:2], take(seat.cond(), torch.arange(2))
        if x[0].numel() > 16:
            return holds(True, "")

        def field(y: State) -> State:
            return seat.network(y, 0.4, cond)

        exact = value_and_divergence(field, x)[1]
        total = torch.zeros_like(exact)
        zero = torch.zeros((), dtype=torch.float64)
        for e in torch.eye(x[0].numel(), dtype=torch.float64).reshape(-1, 1, *seat.shape):
            slope = derivative(lambda h, e=e: field(x + h * e), zero, 3e-3)
            total = total + sum_except_batch(slope * e)
        return within("difference", gap(exact, total), 1e-5)

    return over_seats(component, measure)


@torch.no_grad()
def law_null_label(component: Any) -> Outcome:
    """Label -1 and a vector of NaN are no condition at all; other conditions matter."""

    def measure(seat: Seat) -> Any:
        x = seat.states()
        none = {
            "label": torch.full((N,), -1),
            "vector": torch.full((N, VECTOR), torch.nan, dtype=torch.float64),
        }
        empty = seat.network(x, 0.4, None)
        given = seat.network(x, 0.4, {**none, "label": torch.zeros(N, dtype=torch.int64)})
        holds(bool(gap(given, empty).max() > 0), "the label does not matter")
        given = seat.network(x, 0.4, {**none, "vector": normal(N, VECTOR)})
        holds(bool(gap(given, empty).max() > 0), "the vector does not matter")
        return within("difference", gap(seat.network(x, 0.4, none), empty), 1e-12)

    if not any(seat.conditional for seat in seats(component)):
        return DoesNotApply("it was built without conditions")
    return over_seats(component, measure)


def law_gradients_reach_all_weights(component: Any) -> Outcome:
    """Every parameter has a gradient: one without would stop distributed training."""

    if isinstance(component, (ExactNetwork, ExactSpec)):
        return DoesNotApply("it has no weights")

    def measure(seat: Seat) -> Any:
        cond = seat.cond()
        if cond is not None:  # all labels, the null ones too
            vector = cond["vector"].clone()
            vector[0] = torch.nan
            cond = {**cond, "vector": vector}
        weight = seat.states("weight")
        # At several times: a network may have a part for each piece of time.
        times = torch.linspace(0.05, 0.95, N, dtype=torch.float64)
        (seat.network(seat.states(), times, cond) * weight).sum().backward()
        still = [
            name
            for name, p in seat.network.named_parameters()
            if p.requires_grad and (p.grad is None or not p.grad.any())
        ]
        return holds(not still, f"no gradient reaches {', '.join(still[:5])}")

    return over_seats(component, measure)


def law_generator_decides_the_weights(component: Any) -> Outcome:
    """A specification builds equal networks from equal generators, whatever the global seed."""
    if isinstance(component, (nn.Module, ExactSpec)):
        return DoesNotApply("it is built already")
    shape = seats(component)[0].shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        first = component.build(shape, CLASSES, VECTOR, stream(0, "weights"))
        torch.manual_seed(2)
        again = component.build(shape, CLASSES, VECTOR, stream(0, "weights"))
    other = component.build(shape, CLASSES, VECTOR, stream(1, "weights"))

    def flat(network: nn.Module) -> Tensor:
        return torch.cat([p.detach().flatten() for p in network.parameters()])

    holds(bool(gap(flat(first), flat(other)).max() > 0), "another generator gives equal weights")
    return within("difference of the weights", gap(flat(first), flat(again)), 0.0)


def law_golden_size(component: Any) -> Outcome:
    """Under its default settings, a network of monge's has the printed number of parameters."""
    if repr(component) not in GOLDEN:
        return DoesNotApply("no number is printed for it")
    network = component.build((4, 8, 8), 10)
    size, golden = sum(p.numel() for p in network.parameters()), GOLDEN[repr(component)]
    return holds(size == golden, f"it has {size} parameters, not {golden}")
