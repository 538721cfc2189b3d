"""A few rows through the components of a user's own, before anything is written.

A path that returns one tensor, or a network that changes the shape, would otherwise fail in the
midst of training. What is tried is what the base classes promise; the laws are for `monge check`.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from monge.components import build
from monge.data.base import Data
from monge.fitting.objective import make_objective
from monge.objectives.base import Loss, Objective
from monge.runs.folder import texts_of
from monge.runs.spec import TrainSpec
from monge.sampling.facts import n_vector_of
from monge.system import own_code
from monge.system.own_faults import blamed, expect, fault, said
from monge.tensors import stream
from monge.types import Posterior

ROWS = 16
"""Of a batch that is tried: enough for an objective that treats a part of the rows apart."""

FITTED = 1000
"""Examples to which an autoencoder that needs no training steps is fitted."""


def try_parts(spec: TrainSpec, data: Data) -> None:
    """Put a few rows through the parts of a run that are of the user's own, but for its network.

    Raises:
        UserError: one that fails or returns what it must not, by file, class and line.
    """
    for family, tried in TRIALS.items():
        if own_code.is_own(text := getattr(spec, family)):
            with blamed(anywhere=True), torch.random.fork_rng(devices=[]):
                tried(build(family, text), data, data.shape)


def try_training(spec: TrainSpec, data: Data, shape: tuple[int, ...]) -> None:
    """One loss and its gradient, where a component of the run is of the user's own.

    Args:
        shape: of the latents.

    Raises:
        UserError: a component that fails or returns what it must not.
    """
    if not any(map(own_code.is_own, texts_of(spec))) or spec.network == "exact":
        return
    with blamed(anywhere=True), torch.random.fork_rng(devices=[]):
        network = _built_network(spec, data, shape)
        if spec.teacher is None:
            _try_loss(make_objective(spec, data).first_trained(), network, data, shape)


def _try_path(path: Any, data: Data, shape: tuple[int, ...]) -> None:
    lo, hi = path.domain
    times = torch.linspace(lo, hi, 7)[1:-1]
    expect(path, "scales", path.scales(times), [times, times])


def _try_coupling(coupling: Any, data: Data, shape: tuple[int, ...]) -> None:
    x1 = torch.randn(ROWS, *shape, generator=stream(0, "trial"))
    label = None if data.train_label is None else torch.zeros(ROWS, dtype=torch.int64)
    expect(coupling, "pair", coupling.pair(x1, label, stream(0, "trial")), [x1, x1])


def _try_times(times: Any, data: Data, shape: tuple[int, ...]) -> None:
    expect(times, "unit", [times.unit(5, stream(0, "trial"))], [torch.zeros(5)])


def _try_pairs(pairs: Any, data: Data, shape: tuple[int, ...]) -> None:
    expect(pairs, "unit", pairs.unit(5, stream(0, "trial")), [torch.zeros(5)] * 2)


def _try_grid(grid: Any, data: Data, shape: tuple[int, ...]) -> None:
    inside = torch.linspace(0, 1, 5, dtype=torch.float64)[1:-1]
    expect(grid, "warp", [grid.warp(inside)], [inside])
    points = grid.points()
    if any(not a < b for a, b in itertools.pairwise(points)):
        raise fault(grid, "warp", f"does not increase: the grid has the points {points}")


def _try_solver(solver: Any, data: Data, shape: tuple[int, ...]) -> None:
    x = torch.randn(ROWS, *shape, generator=stream(0, "trial"))

    def decay(y: tuple[Tensor, ...], t: Any, rows: Any) -> tuple[Tensor, ...]:
        return tuple(-part for part in y)

    expect(solver, "advance", solver.advance(decay, (x,), 0.25, 0.5), [x])


def built_autoencoder(autoencoder: Any, data_shape: tuple[int, ...]) -> Any:
    """What an autoencoder's component builds; one of the user's own is an autoencoder indeed."""
    built: Any = autoencoder.build(data_shape)
    if not own_code.is_own(autoencoder.name):
        return built
    if not isinstance(built, nn.Module):
        raise fault(autoencoder, "build", f"returns {said(built)}; it builds a torch.nn.Module")
    for name in ("encode", "decode", "data_shape", "latent_shape"):
        if not hasattr(built, name):
            raise fault(built, name, "is missing, which every autoencoder has")
    if tuple(built.data_shape) != tuple(data_shape):  # type: ignore[arg-type]
        raise fault(built, "data_shape", f"is {built.data_shape}, but the data are {data_shape}")
    return built


def _try_autoencoder(autoencoder: Any, data: Data, shape: tuple[int, ...]) -> None:
    built: Any = built_autoencoder(autoencoder, data.shape)
    if hasattr(built, "fit"):
        built.fit(data.train[torch.arange(min(len(data.train), FITTED))])
    x = data.train[torch.arange(min(len(data.train), ROWS))]
    z = torch.zeros(len(x), *built.latent_shape)
    with torch.no_grad():
        posterior = built.eval().encode(x)
        if not isinstance(posterior, Posterior):
            raise fault(built, "encode", f"returns {said(posterior)}; it returns a Posterior")
        expect(built, "encode", [posterior.mean], [z])
        expect(built, "decode", [built.decode(posterior.mean)], [x])


TRIALS: dict[str, Callable[[Any, Data, tuple[int, ...]], None]] = {
    "path": _try_path,
    "coupling": _try_coupling,
    "times": _try_times,
    "pairs": _try_pairs,
    "grid": _try_grid,
    "solver": _try_solver,
    "autoencoder": _try_autoencoder,
}


class _Watched(nn.Module):
    """A network whose outputs are looked at."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        found = self.network(x, *args, **kwargs)
        expect(self.network, "forward", [found], [x])
        return found


def _built_network(spec: TrainSpec, data: Data, shape: tuple[int, ...]) -> nn.Module:
    """The network that a run would train; one of the user's own is a network indeed."""
    component, rng = build("network", spec.network), stream(spec.seed, "weights")
    network = component.build(shape, len(data.label_names) or None, n_vector_of(data), rng)
    if not own_code.is_own(spec.network):
        return network
    if not isinstance(network, nn.Module):
        raise fault(component, "build", f"returns {said(network)}; it builds a torch.nn.Module")
    if not any(p.requires_grad for p in network.parameters()):
        raise fault(component, "build", "builds a network that has no parameters to train")
    return _Watched(network)


def _watched(objective: Objective) -> Objective:
    """The objective, the residuals of whose rule are looked at if it is of the user's own."""
    rule = getattr(objective, "rule", None)
    if rule is None or not own_code.is_own(rule.name):
        return objective

    def residuals(at: Any) -> Any:
        found = rule.residuals(at)
        if not isinstance(found, tuple):
            raise fault(rule, "residuals", f"returns {said(found)}; it returns a tuple of tensors")
        expect(rule, "residuals", found, [at.x] * len(found))
        return found

    watched = copy.copy(rule)
    object.__setattr__(watched, "residuals", residuals)  # it is frozen
    return dataclasses.replace(objective, rule=watched)  # type: ignore[type-var]


def _try_loss(objective: Objective, network: nn.Module, data: Data, shape: tuple[int, ...]) -> None:
    rows = torch.arange(ROWS) % len(data.train)
    batch = {"x1": torch.randn(ROWS, *shape, generator=stream(0, "trial"))}
    batch |= data.conditions("train", rows)
    loss = _watched(objective).loss(network, objective.draw(batch, stream(0, "trial", "draw")))
    if not isinstance(loss, Loss):
        raise fault(objective, "loss", f"returns {said(loss)}; it returns a Loss")
    expect(objective, "loss", [loss.per_example], [torch.zeros(ROWS)])
    loss.per_example.sum().backward()
