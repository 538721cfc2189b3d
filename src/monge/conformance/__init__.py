"""The laws that every component obeys: monge's own, and yours.

>>> from monge.paths import Linear
>>> check(Linear()).passed
True

Each family has a file of laws, plain functions of a component: the docstring states the law, the
return value is what was measured, and a law that does not hold raises `Broken`. What a component
is follows from its base class, or from how it is called: v(x, t, cond) is a velocity field,
X(x, s, t, cond) a flow map.
"""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from monge.autoencoders import AutoencoderModule, AutoencoderSpec
from monge.components import Component
from monge.conformance import (
    autoencoders,
    couplings,
    fields,
    flows,
    networks,
    paths,
    solvers,
    targets,
    times,
)
from monge.conformance.measuring import Broken, DoesNotApply, Measured
from monge.conformance.report import Law, Report, Row, apply, laws_of
from monge.couplings import Coupling
from monge.errors import UserError
from monge.paths import Path
from monge.solvers import Solver
from monge.system.loading import load
from monge.targets.base import Target, TargetSpec
from monge.times import Grid, TimeLaw

__all__ = ["LAWS", "Broken", "DoesNotApply", "Measured", "Report", "Row", "check", "load"]

LAWS: dict[str, list[Law]] = {
    "path": laws_of(paths),
    "coupling": laws_of(couplings),
    "times": [law for law in laws_of(times) if "TimeLaw" in str(inspect.signature(law))],
    "grid": [law for law in laws_of(times) if "Grid" in str(inspect.signature(law))],
    "solver": laws_of(solvers),
    "field": laws_of(fields),
    "flow": laws_of(flows),
    "autoencoder": laws_of(autoencoders),
    "network": laws_of(networks),
    "target": laws_of(targets),
}
"""The laws of each family."""

BASES: dict[str, tuple[type, ...]] = {
    "path": (Path,),
    "coupling": (Coupling,),
    "times": (TimeLaw,),
    "grid": (Grid,),
    "solver": (Solver,),
    "autoencoder": (AutoencoderSpec, AutoencoderModule),
    "target": (TargetSpec, Target),
}
"""The base classes of each family."""


def check(component: Any) -> Report:
    """All laws of a component's family, applied to it.

    Raises:
        UserError: nothing in monge is like it.
    """
    family = family_of(component)
    return Report(_name_of(component), family, tuple(apply(law, component) for law in LAWS[family]))


def _name_of(component: Any) -> str:
    """What a report calls a component, whatever its own `repr` does."""
    plain = type(component).__name__
    if isinstance(component, nn.Module):
        return plain
    if name := getattr(component, "__name__", None):
        return str(name)
    if getattr(component, "name", plain) == Component.name:  # it has none of its own
        return plain
    try:
        return plain if type(component).__repr__ is object.__repr__ else repr(component)
    except Exception:  # a stranger's
        return plain


def family_of(component: Any) -> str:
    """What a component is, by its base class, its methods, or how it is called.

    Raises:
        UserError: nothing in monge is like it.
    """
    for family, bases in BASES.items():
        if isinstance(component, bases):
            return family
    if all(hasattr(component, name) for name in ("encode", "decode", "latent_shape")):
        return "autoencoder"
    called = component.forward if isinstance(component, nn.Module) else component
    names = _parameters(called)
    if names[1:3] == ["s", "t"]:
        return "flow"
    if len(names) >= 2:
        return "network" if isinstance(component, nn.Module) else "field"
    if isinstance(component, Component) and hasattr(component, "build"):
        return "network"
    if hasattr(component, "learns"):
        raise UserError(
            f"{type(component).__name__} is an objective, for which there are no laws: monge train "
            "--objective tries it on a few rows before it trains"
        )
    raise UserError(
        f"{_name_of(component)} is no component that monge knows: derive it from "
        + ", ".join(base.__name__ for bases in BASES.values() for base in bases)
        + ", give it build(shape, n_classes, n_vector) for a network, or make it a function "
        "v(x, t, cond) or X(x, s, t, cond)"
    )


def _parameters(called: Any) -> list[str]:
    """The names of what a function takes; none where it is none, or does not tell."""
    try:
        return list(inspect.signature(called).parameters) if callable(called) else []
    except (TypeError, ValueError):
        return []


def __dir__() -> list[str]:
    return __all__
