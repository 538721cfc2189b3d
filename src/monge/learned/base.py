"""`Learned`, the interface of a trained model: training, sampling, measuring and export."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

from torch import Tensor, nn

from monge.components import Component
from monge.errors import UserError
from monge.flows import Density, Walk
from monge.objectives.base import Objective
from monge.objectives.flow_matching import FlowMatching
from monge.paths import Kind, Path
from monge.time_pairs import PairLaw
from monge.types import Cond, Latent, State, VelocityField

JUMPS = "map"
"""The solver's name for the jumps of a learned map."""


@runtime_checkable
class Settings(Protocol):
    """The settings of a run for learning and sampling; see `TrainSpec`."""

    @property
    def objective(self) -> str: ...
    @property
    def pairs(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def output(self) -> Kind: ...
    @property
    def solver(self) -> str: ...
    @property
    def grid(self) -> str: ...
    @property
    def guidance(self) -> float: ...
    @property
    def guidance_range(self) -> tuple[float, float]: ...
    @property
    def steps(self) -> int | None: ...


@dataclass(frozen=True)
class Draw:
    """The noise of a chunk of samples; see `tensors.noise`.

    Attributes:
        seed: of all samples.
        first, last: the chunk is examples first .. last - 1.
        shape: of a latent.
    """

    seed: int
    first: int
    last: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Program:
    """A network for export, as a module with only tensors as inputs.

    Attributes:
        module: ``forward(x, *times, *conditions)``.
        summary: a sentence on its output.
        file: its default file name.
        times: the names of its times, each (B,); they lie in `domain`.
        ordered: whether they must ascend.
        guidance: least and greatest guidance scale, if the scale is an input after the conditions.
        facts: further facts for its users.
    """

    module: Callable[[tuple[str, ...]], nn.Module]
    summary: str
    file: str
    times: tuple[str, ...]
    domain: tuple[float, float]
    ordered: bool = False
    guidance: tuple[float, float] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


class Learned(abc.ABC):
    """A trained network that carries noise to latents, in standardised latent units.

    A new kind is a class with these abstract methods, named by the `learns` of its objective.
    """

    network: nn.Module
    path: Path

    # In words

    title: ClassVar[str]
    """The name of the kind: "latent flow-matching model"."""

    summary: ClassVar[str]
    """A paragraph for the model card."""

    who: ClassVar[str] = "this run"
    """Its name in a row of a table."""

    few_steps: ClassVar[bool] = False
    """Whether it is meant for sampling in few steps."""

    guided_as_trained: ClassVar[bool] = False
    """Whether its guidance scale, or the range of scales, was fixed in training."""

    on_path: ClassVar[bool] = True
    """Whether its states at a time have the law of the path at that time. If so, a map is distilled
    from draws of the path, else from states of the teacher's flow."""

    fixed_steps: ClassVar[bool] = False
    """Whether the number of steps of a sample was fixed in training."""

    default_steps: ClassVar[int] = 20
    """Steps of a sample if no grid is given."""

    # How it is trained

    follows_teacher: ClassVar[bool] = False
    """Whether each step of training evaluates the teacher, in the precision of training."""

    eager: ClassVar[str] = ""
    """The reason why its loss is not compiled; empty where it may be."""

    @classmethod
    def check(cls, settings: Settings, teacher: bool) -> None:
        """Refuse settings that this kind does not use.

        Raises:
            UserError: the names of such settings.
        """
        if settings.pairs != "auto":
            raise UserError(
                f"objective {settings.objective} has no pairs of times: leave out pairs"
            )

    @classmethod
    def default_network(cls, network: str, few: str) -> str:
        """The text of the default network of this kind for the shape of the latents.

        Args:
            few: settings for few training examples; empty for enough examples.
        """
        return with_settings(network, few)

    @classmethod
    def network_of(cls, component: Component, settings: Settings) -> Component:
        """A network component with the settings that this kind needs."""
        return component

    @classmethod
    @abc.abstractmethod
    def objective(
        cls, settings: Settings, matching: FlowMatching, teacher: Learned | None
    ) -> Objective:
        """The objective that trains it.

        Args:
            matching: the path, coupling, times and output of the settings.

        Raises:
            UserError: settings that do not fit, or a missing or useless teacher.
        """

    @classmethod
    def build(cls, make: Callable[[], nn.Module], facts: Mapping[str, Any]) -> nn.Module:
        """The untrained network of a run.

        Args:
            make: builds one network of the specification.
            facts: the run's recorded facts, including those of `facts`.
        """
        return make()

    @classmethod
    def facts(cls, objective: Objective) -> dict[str, Any]:
        """The facts of an objective that a run records for `restored`, as JSON values."""
        return {}

    @classmethod
    @abc.abstractmethod
    def restored(
        cls,
        network: nn.Module,
        settings: Settings,
        facts: Mapping[str, Any],
        conditional: bool,
        teacher: Callable[[], Learned] | None,
    ) -> Learned:
        """Restore it from a trained network and its run's records.

        Args:
            facts: the run's recorded facts, including those of `facts`.
            conditional: whether there are labels or conditions.
            teacher: loads the model from which it was distilled.
        """

    # Velocities

    @property
    @abc.abstractmethod
    def field(self) -> VelocityField:
        """The velocity field without guidance.

        Raises:
            UserError: there is no velocity field.
        """

    @abc.abstractmethod
    def velocity(self, guidance: float | None = None) -> VelocityField:
        """Its own velocity field at a guidance scale; None for the default scale.

        Raises:
            UserError: there is no velocity field, or not at this scale.
        """

    def followed(self, guidance: float | None = None) -> VelocityField:
        """The velocity field whose flow its samples approximate: a teacher's, or its own.

        Raises:
            UserError: there is no velocity field and no teacher.
        """
        return self.velocity(guidance)

    def first(self, n: int) -> Learned:
        """The model of the first n blocks.

        Raises:
            UserError: there are no blocks, or fewer.
        """
        raise UserError("this is no chain of blocks: leave out blocks")

    # Sampling

    cheapest: ClassVar[str]
    """The solver with one evaluation of the network per step."""

    @classmethod
    @abc.abstractmethod
    def sampling(cls, settings: Settings) -> tuple[str, float]:
        """The default solver and guidance scale, as in a run's settings."""

    @abc.abstractmethod
    def flow(
        self,
        steps: int | None = None,
        solver: str | None = None,
        grid: str | None = None,
        guidance: float | None = None,
    ) -> Walk:
        """The flow map for sampling; None means the default setting.

        Raises:
            UserError: settings that do not fit.
        """

    def guidance_of(self, flow: Walk, guidance: float | None = None) -> float:
        """The guidance scale of a flow made with this argument; 1 without guidance."""
        return 1.0

    def deterministic(self, guidance: float | None = None) -> Walk:
        """The default flow if it adds no noise between steps; else a flow that adds none."""
        return self.flow(guidance=guidance)

    def carried(self, flow: Walk, x0: State, draw: Draw, cond: Cond = None) -> State:
        """Noise carried to the end of a flow's domain."""
        return flow(x0, *flow.domain, cond)

    @abc.abstractmethod
    def evaluations(self, flow: Walk, rows: int) -> int:
        """The number of rows that the network evaluated to carry `rows` rows by this flow."""

    def without_inverse(self, flow: Walk) -> str | None:
        """Why this flow cannot carry data back to noise; None if it can."""
        return None

    # Measuring

    error_steps: tuple[int, ...] = ()
    """Numbers of jumps for which the distance from its flow is measured."""

    guidance_scales: tuple[float, ...] = (1.0,)
    """Guidance scales of these measurements."""

    reference: ClassVar[str] = "its own velocity"

    velocity_elsewhere: ClassVar[str] = ""
    """Why longer training does not improve the velocity that it follows; empty if it does."""

    def examined(
        self, guidance: float | None = None, **flow: Any
    ) -> tuple[Walk, VelocityField, PairLaw | None]:
        """The flow for sampling, its velocity field without guidance and, for a map, the law of
        its times: the parts that `verify` examines."""
        return self.flow(guidance=guidance, **flow), self.field, None

    def without_budget(self) -> str | None:
        """Why `verify` gives no single W2 budget; None if it does."""
        return None

    def without_density(self, solver: str | None = None) -> str | None:
        """Why samples with the default settings have no log-density; None if they have one."""
        return None

    def without_asked_density(
        self,
        solver: str | None = None,
        steps: int | None = None,
        grid: str | None = None,
        probes: int | None = None,
    ) -> str | None:
        """Why there is no log-density with these settings; None if there is."""
        return self.without_density(solver)

    @abc.abstractmethod
    def log_density(
        self, flow: Walk, z: Latent, cond: Cond, probes: int | None, seed: int, first: int
    ) -> Density:
        """The log-density of latents at the end of a flow.

        Args:
            probes: of Hutchinson's estimator; None for the exact trace.
            first: number of the first example; the probes depend on it.
        """

    # Export

    @abc.abstractmethod
    def program(self) -> Program:
        """The module for export.

        Raises:
            UserError: the kind cannot be exported.
        """

    def evaluate(self, x: State, times: tuple[Tensor, ...], cond: Cond = None) -> State:
        """The output of `program`, computed by the library; a velocity unless overridden."""
        return self.field(x, times[0], cond)

    def without_scheduler(self) -> str | None:
        """Why diffusers' Euler scheduler cannot draw its samples; None if it can."""
        return "it is not sampled by the steps of an Euler scheduler"


def with_settings(component: str, *settings: str) -> str:
    """A component's text with further settings."""
    more = ",".join(filter(None, settings))
    return f"{component}{',' if ':' in component else ':'}{more}" if more else component
