"""What a law measures, how it is broken, and the small tools that laws share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from monge.errors import CheckFailed, UserError
from monge.tensors import expand, stream
from monge.types import Cond, State, Time

SHAPES: tuple[tuple[int, ...], ...] = ((2,), (6,), (1, 8, 8), (3, 8, 8))
"""Shapes that are tried on a component that does not say which it takes, by `shape`."""


class Broken(CheckFailed):
    """A law that does not hold, with what was measured, where it is a number."""

    def __init__(
        self, message: str, measured: float | None = None, tolerance: float | None = None
    ) -> None:
        super().__init__(message)
        self.measured, self.tolerance = measured, tolerance


@dataclass(frozen=True)
class Measured:
    """A law that holds: the largest deviation, and what was allowed."""

    value: float
    tolerance: float


@dataclass(frozen=True)
class DoesNotApply:
    """A law that says nothing of this component, and why."""

    reason: str


Outcome = Measured | DoesNotApply


def within(what: str, deviation: Tensor | float, tolerance: float) -> Measured:
    """The largest absolute deviation, which may be `tolerance`; NaN never is.

    Raises:
        Broken: it is more.
    """
    value = float(torch.as_tensor(deviation, dtype=torch.float64).detach().abs().max())
    if not value <= tolerance:
        raise Broken(f"{what}: {value:.3g}, allowed {tolerance:.3g}", value, tolerance)
    return Measured(value, tolerance)


def holds(condition: bool, message: str) -> Measured:
    """Raises `Broken` with the message unless the condition holds."""
    if not condition:
        raise Broken(message)
    return Measured(0.0, 0.0)


def worst(*measured: Measured) -> Measured:
    """The one that came nearest to its tolerance."""
    return max(measured, key=lambda m: m.value / m.tolerance if m.tolerance else m.value)


def gap(a: Tensor, b: Tensor) -> Tensor:
    """|a - b|, relative to the largest |b| where that is above 1; NaN where shapes differ."""
    if a.shape != b.shape:
        return torch.tensor(torch.nan)
    return (a - b).abs() / b.detach().abs().max().clamp_min(1.0)


def normal(*shape: int, key: str = "x", dtype: torch.dtype = torch.float64) -> Tensor:
    """The same standard normal draws every time."""
    return torch.randn(shape, generator=stream(0, "conformance", key), dtype=torch.float64).to(
        dtype
    )


def derivative(f: Callable[[Tensor], Tensor], t: Tensor, h: Tensor | float) -> Tensor:
    """df/dt by central differences of fourth order; f may return a state for each time."""
    near, far = f(t + h) - f(t - h), f(t + 2 * h) - f(t - 2 * h)
    return (8 * near - far) / (12 * expand(torch.as_tensor(h, dtype=near.dtype), near))


def inside(domain: tuple[float, float], n: int, margin: float = 0.0) -> Tensor:
    """n equally spaced times of a domain, its ends included unless there is a margin."""
    lo, hi = domain
    cut = margin * (hi - lo)
    return torch.linspace(lo + cut, hi - cut, n, dtype=torch.float64).clamp(lo, hi)


@dataclass(frozen=True)
class Probe:
    """How to call a field or a map: states of its shape, in a precision it computes in."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    labelled: bool

    def states(self, n: int, key: str = "x") -> State:
        return normal(n, *self.shape, key=key, dtype=self.dtype)

    def cond(self, n: int) -> Cond:
        """Conditions for n examples, where the component needs them."""
        return {"label": torch.arange(n) % 2} if self.labelled else None

    def times(self, domain: tuple[float, float], n: int, margin: float = 0.0) -> Tensor:
        return inside(domain, n, margin).to(self.dtype)

    def tolerance(self, exact: float, single: float = 1e-4) -> float:
        """What is allowed in float64, or in float32 where the component computes in that."""
        return exact if self.dtype == torch.float64 else single


def probe(component: Any, call: Callable[[State, Cond], State]) -> Probe:
    """The first way to call that works, among shapes, precisions, with and without labels.

    Raises:
        Broken: none does; with the error of the most likely one.
    """
    known = shape_of(component)
    problem: Exception | None = None
    for shape in SHAPES if known is None else (known,):
        for dtype in (torch.float64, torch.float32):
            for labelled in (False, True):
                attempt = Probe(shape, dtype, labelled)
                try:
                    x = attempt.states(2)
                    if call(x, attempt.cond(2)).shape == x.shape:
                        return attempt
                    problem = problem or UserError(f"states {tuple(x.shape)} change their shape")
                except Exception as error:  # any failure of a stranger's code: try the next
                    problem = problem or error
    hint = "" if known is not None else "; set its attribute `shape` to that of one state"
    raise Broken(f"cannot be called: {type(problem).__name__}: {problem}{hint}") from problem


def shape_of(component: Any) -> tuple[int, ...] | None:
    """The shape of one state, where the component or something inside it says so."""
    if isinstance(component, (list, tuple)):
        return next((s for s in map(shape_of, component) if s is not None), None)
    shape = getattr(component, "shape", None)
    if isinstance(shape, (tuple, torch.Size)):
        return tuple(shape)
    if dataclasses.is_dataclass(component):
        inner: Mapping[str, Any] = {
            f.name: getattr(component, f.name) for f in dataclasses.fields(component)
        }
    elif hasattr(component, "target"):
        inner = {"target": component.target}
    else:
        return None
    candidates = [inner[k] for k in ("net", "field", "fields", "blocks", "target") if k in inner]
    return next((s for s in map(shape_of, candidates) if s is not None), None)


def rows(t: Time, index: Tensor) -> Time:
    """The times of some examples."""
    return t[index] if isinstance(t, Tensor) and t.ndim else t


def take(cond: Cond, index: Tensor) -> Cond:
    """The conditions of some examples."""
    return None if cond is None else {k: c[index] for k, c in cond.items()}
