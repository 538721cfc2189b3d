"""Models made elsewhere: a callable with its own clock and output, as a field of ours.

A foreign callable is ``f(x, t)`` or ``f(x, t, label)`` on states (B, ...) and times (B,). Its
clock says where its time 0 is: ``noise`` as here, or ``data`` as in DDPM, EDM and diffusers,
whose time runs from data to noise. Reversing time turns the sign of a velocity; data, noise and
score mean the same on either clock.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from monge.errors import UserError, reason
from monge.fields import Predict
from monge.paths import Kind, Path
from monge.tensors import as_time
from monge.types import Cond, State, Time

Clock = Literal["noise", "data"]
"""What lies at the foreign time 0."""


@dataclass(frozen=True)
class Foreign:
    """A foreign callable in a network's seat: ``net(x, t, cond)`` on our clock.

    Args:
        f: ``f(x, t)``, or ``f(x, t, label)`` with labels (B,), -1 for none.
        clock: what lies at its time 0.
        output: what it returns.
        time_scale: what its time is at the end, for instance 1000; velocities are per unit of
            our time all the same, as those of diffusers are.
    """

    f: Callable[..., Any]
    clock: Clock = "noise"
    output: Kind = "velocity"
    time_scale: float = 1.0

    name = "foreign"

    @property
    def takes_label(self) -> bool:
        """Whether it has a third argument."""
        call = self.f.forward if isinstance(self.f, torch.nn.Module) else self.f
        try:
            parameters = inspect.signature(call).parameters.values()
        except (TypeError, ValueError):
            return False
        kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        return sum(p.kind in kinds for p in parameters) >= 3

    def __call__(self, x: State, t: Time, cond: Cond = None) -> State:
        time = as_time(t, x).to(x.dtype).expand(len(x))
        time = time if self.clock == "noise" else 1 - time
        arguments: list[Tensor] = [x, self.time_scale * time]
        if self.takes_label and cond is not None and "label" in cond:
            arguments.append(cond["label"])
        found = self.f(*arguments)
        if not isinstance(found, Tensor) or found.shape != x.shape:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise UserError(
                f"the component returns {shape} for states of shape {tuple(x.shape)}: it should "
                "return a tensor of the same shape"
            )
        reversed_velocity = self.clock == "data" and self.output == "velocity"
        return -found if reversed_velocity else found


def field_of(
    f: Callable[..., Any],
    path: Path,
    clock: Clock,
    output: Kind,
    like: Tensor,
    time_scale: float = 1.0,
) -> Predict:
    """The velocity field of a foreign callable, tried once.

    Args:
        like: states (B, ...) of the kind it takes.

    Raises:
        UserError: it fails, or does not return what it should.
    """
    field = Predict(Foreign(f, clock, output, time_scale), path, output)
    lo, hi = field.domain
    try:
        with torch.no_grad():
            found = field(like, (lo + hi) / 2)
    except UserError:
        raise
    except Exception as error:  # whatever a stranger's code raises
        raise UserError(
            f"the component fails on states of shape {tuple(like.shape)} {like.dtype} and times "
            f"({len(like)},): {type(error).__name__}: {reason(error)}"
        ) from error
    if not bool(found.isfinite().all()):
        raise UserError("the component returns numbers that are not finite at the middle time")
    return field
