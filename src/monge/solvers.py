r"""ODE solvers: explicit Runge-Kutta methods as tableaux, and an adaptive embedded pair.

A solver advances a tuple of tensors (a state and its running integrals) whose first axes agree;
times and steps are floats, or one per example. `order` is a claim that a test fits.

References:
    | Hairer, Norsett & Wanner, Solving Ordinary Differential Equations I, Sec. II.1, II.4, II.5
    | Dormand & Prince (1980), A family of embedded Runge-Kutta formulae
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, final

import torch
from torch import Tensor

from monge.components import Component
from monge.errors import UserError
from monge.tensors import expand

__all__ = [
    "RK3",
    "RK4",
    "Dopri5",
    "Euler",
    "Heun",
    "Midpoint",
    "RungeKutta",
    "Solver",
]

Tuple: TypeAlias = tuple[Tensor, ...]

RightHandSide: TypeAlias = Callable[[Tuple, "Tensor | float", "Tensor | None"], Tuple]
"""f(y, t, rows): the derivatives of y at t; `rows` are the examples y holds, None for all."""


class Solver(Component, abc.ABC):
    """Advances y from s to t, both floats or per example."""

    order: int

    adaptive: bool = False
    """Whether `advance` chooses its own steps, to a tolerance."""

    @abc.abstractmethod
    def advance(self, f: RightHandSide, y: Tuple, s: Tensor | float, t: Tensor | float) -> Tuple:
        """y at t, from y at s, by one step or as many as the solver wants."""


def _weighted(weights: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    """The sum of slopes with weights of which one, at least, is not zero."""
    total = None
    for w, k in zip(weights, slopes, strict=True):
        if w:
            total = w * k if total is None else torch.add(total, k, alpha=w)
    assert total is not None
    return total


def _moved(
    y: Tuple, h: list[Tensor] | float, weights: tuple[float, ...], slopes: list[Tuple]
) -> Tuple:
    """y + h * the sum of weighted slopes; h is a float, or shaped like each part of y."""
    if not any(weights):
        return y
    columns = zip(*slopes, strict=True)
    if isinstance(h, list):
        return tuple(
            torch.addcmul(part, step, _weighted(weights, list(k)))
            for part, step, k in zip(y, h, columns, strict=True)
        )
    moved = []
    for part, column in zip(y, columns, strict=True):
        for w, k in zip(weights, column, strict=True):
            part = torch.add(part, k, alpha=h * w) if w else part
        moved.append(part)
    return tuple(moved)


def _shaped(h: Tensor, y: Tuple) -> list[Tensor]:
    """Steps, one per example, shaped and typed to multiply each part of y."""
    return [expand(h, part).to(part.dtype) for part in y]


class RungeKutta(Solver, abc.ABC):
    """One step of an explicit method with stages `a`, weights `b` and nodes c = row sums of a."""

    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]

    @property
    def evaluations_per_step(self) -> int:
        return len(self.b)

    @final
    def advance(self, f: RightHandSide, y: Tuple, s: Tensor | float, t: Tensor | float) -> Tuple:
        h = t - s
        step = _shaped(h, y) if isinstance(h, Tensor) else h
        slopes: list[Tuple] = []
        for row in self.a:
            c = sum(row)
            # The last node is t itself, not s + h, so that a domain's end is met exactly.
            node = t if c == 1 else s + c * h
            slopes.append(f(_moved(y, step, row, slopes), node, None))
        return _moved(y, step, self.b, slopes)


@dataclass(frozen=True, repr=False)
class Euler(RungeKutta):
    """Order 1, one evaluation per step."""

    name = "euler"
    order = 1
    a = ((),)
    b = (1.0,)


@dataclass(frozen=True, repr=False)
class Midpoint(RungeKutta):
    """Order 2, two evaluations per step; never evaluates the end of the step."""

    name = "midpoint"
    order = 2
    a = ((), (1 / 2,))
    b = (0.0, 1.0)


@dataclass(frozen=True, repr=False)
class Heun(RungeKutta):
    """Order 2, the explicit trapezoid: two evaluations per step."""

    name = "heun"
    order = 2
    a = ((), (1.0,))
    b = (1 / 2, 1 / 2)


@dataclass(frozen=True, repr=False)
class RK3(RungeKutta):
    """Order 3, Heun's third-order method: three evaluations per step."""

    name = "rk3"
    order = 3
    a = ((), (1 / 3,), (0.0, 2 / 3))
    b = (1 / 4, 0.0, 3 / 4)


@dataclass(frozen=True, repr=False)
class RK4(RungeKutta):
    """Order 4, the classical method: four evaluations per step."""

    name = "rk4"
    order = 4
    a = ((), (1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0))
    b = (1 / 6, 1 / 3, 1 / 3, 1 / 6)


_DOPRI_C = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_DOPRI_A = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_DOPRI_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


@dataclass(frozen=True, repr=False)
class Dopri5(Solver):
    """Dormand-Prince 5(4) with a step size for each example.

    An example's steps depend on nothing but itself, so results do not depend on its batch.
    Examples that have arrived are no longer evaluated.

    Attributes:
        rtol, atol: local error per step, root mean square over the coordinates of an example.
        max_steps: evaluations of one example are at most 6 times this; beyond it, an error.
    """

    rtol: float = 1e-5
    atol: float = 1e-5
    max_steps: int = 1000

    name = "dopri5"
    order = 5
    adaptive = True

    def __post_init__(self) -> None:
        if not (self.rtol > 0 and self.atol > 0):
            raise UserError(f"solver dopri5: rtol and atol must be positive, not {self}")

    def advance(self, f: RightHandSide, y: Tuple, s: Tensor | float, t: Tensor | float) -> Tuple:
        batch, device = len(y[0]), y[0].device
        dtype = torch.promote_types(y[0].dtype, torch.float32)
        now = torch.as_tensor(s, dtype=dtype, device=device).expand(batch).clone()
        end = torch.as_tensor(t, dtype=dtype, device=device).expand(batch).clone()
        rows = torch.nonzero(now != end).squeeze(1)
        if len(rows) == 0:
            return y
        result = [part.clone() for part in y]
        # Below, everything holds the unfinished examples only; `rows` says which those are.
        if len(rows) < batch:
            y, now, end = tuple(part[rows] for part in y), now[rows], end[rows]
        nodes = now.new_tensor(_DOPRI_C[1:]).unsqueeze(1)
        slope = f(y, now, rows)
        h = self._first_step(f, y, slope, now, end, rows)
        for _ in range(self.max_steps):
            left = end - now
            last = left.abs() <= h.abs()
            h = torch.where(last, left, h)
            new_y, new_slope, error = self._attempt(f, y, slope, now + nodes * h, h, rows)
            accept = error <= 1
            arrived, all_accepted = accept & last, bool(accept.all())
            if all_accepted:
                y, slope, now = new_y, new_slope, now + h
            else:
                keep = [expand(accept, part) for part in y]
                y = tuple(torch.where(k, n, o) for k, n, o in zip(keep, new_y, y, strict=True))
                slope = tuple(
                    torch.where(k, n, o) for k, n, o in zip(keep, new_slope, slope, strict=True)
                )
                now = torch.where(accept, now + h, now)
            # The usual controller: aim at 0.9 of the tolerance, change by 0.2 to 10 times.
            h = h * (0.9 * error.clamp_min(1e-10) ** (-1 / 5)).clamp(0.2, 10.0)
            if arrived.any():
                going, done = torch.nonzero(~arrived).squeeze(1), torch.nonzero(arrived).squeeze(1)
                for whole, part in zip(result, y, strict=True):
                    whole[rows[done]] = part[done]
                if len(going) == 0:
                    return tuple(result)
                rows, now, end, h = rows[going], now[going], end[going], h[going]
                y, slope = tuple(p[going] for p in y), tuple(k[going] for k in slope)
            if not all_accepted:
                self._refuse_vanished(h, now)
        raise UserError(
            f"solver dopri5: {len(rows)} of {batch} examples have not arrived after "
            f"{self.max_steps} steps: raise rtol/atol or max_steps, or stop earlier"
        )

    def _refuse_vanished(self, h: Tensor, now: Tensor) -> None:
        stuck = h.abs() < 16 * torch.finfo(now.dtype).eps * now.abs().clamp_min(1e-3)
        if stuck.any():
            raise UserError(
                f"solver dopri5: the step size vanished at t = {float(now[stuck][0]):.6g}: "
                f"raise rtol/atol ({self.rtol:g}/{self.atol:g}), use float64, or stop earlier"
            )

    def _attempt(
        self, f: RightHandSide, y: Tuple, slope: Tuple, nodes: Tensor, h: Tensor, rows: Tensor
    ) -> tuple[Tuple, Tuple, Tensor]:
        """A step and its scaled error (accept below 1); the last stage starts the next step.

        `nodes` are the times of the stages, (6, B).
        """
        slopes, stage, step = [slope], y, _shaped(h, y)
        for node, row in zip(nodes.unbind(), _DOPRI_A[1:], strict=True):
            stage = _moved(y, step, row, slopes)
            slopes.append(f(stage, node, rows))
        error = [
            size * _weighted(_DOPRI_ERROR, list(k))
            for size, k in zip(step, zip(*slopes, strict=True), strict=True)
        ]
        scale = [
            self.atol + self.rtol * torch.maximum(old.abs(), new.abs())
            for old, new in zip(y, stage, strict=True)
        ]
        error_norm = _norm([e / c for e, c in zip(error, scale, strict=True)])
        # A non-finite attempt is a rejected one; the step shrinks until it is finite again.
        return stage, slopes[-1], torch.nan_to_num(error_norm, nan=math.inf, posinf=math.inf)

    def _first_step(
        self, f: RightHandSide, y: Tuple, slope: Tuple, now: Tensor, end: Tensor, rows: Tensor
    ) -> Tensor:
        """Hairer, Norsett & Wanner, Sec. II.4: a first step from the size of f and its change."""
        scale = [self.atol + self.rtol * part.abs() for part in y]
        size = _norm([part / c for part, c in zip(y, scale, strict=True)])
        speed = _norm([k / c for k, c in zip(slope, scale, strict=True)])
        left = end - now
        span, towards = left.abs(), left.sign()
        h = torch.where((size < 1e-5) | (speed < 1e-5), 1e-6, 0.01 * size / speed)
        h = torch.minimum(h, span) * towards
        trial = _moved(y, _shaped(h, y), (1.0,), [slope])
        change = [
            (new - k) / c for new, k, c in zip(f(trial, now + h, rows), slope, scale, strict=True)
        ]
        bend = torch.maximum(_norm(change) / h.abs(), speed)
        next_h = torch.where(bend <= 1e-15, (h.abs() * 1e-3).clamp_min(1e-6), (0.01 / bend) ** 0.2)
        return torch.minimum(torch.minimum(100 * h.abs(), next_h), span) * towards


def _norm(parts: list[Tensor]) -> Tensor:
    """Root mean square over all coordinates of an example, (B,)."""
    flat = [part.reshape(len(part), -1) for part in parts]
    flat = flat[0] if len(flat) == 1 else torch.cat(flat, 1)
    dtype = torch.promote_types(flat.dtype, torch.float32)
    return torch.linalg.vector_norm(flat, dim=1, dtype=dtype) / flat.shape[1] ** 0.5


def __dir__() -> list[str]:
    return __all__
