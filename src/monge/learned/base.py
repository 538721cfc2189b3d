"""The interface of what has been learned: how it is trained, sampled, measured and exported."""

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
"""What stands for a solver where a learned map jumps."""


@runtime_checkable
class Settings(Protocol):
    """The settings of a run that say what is learned and how it is sampled; see `TrainSpec`."""

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
    """Which noise a chunk of samples starts from; see `tensors.noise`.

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
    """What is exported of a network, as a module of tensors alone.

    Attributes:
        module: ``forward(x, *times, *conditions)``.
        summary: what it computes.
        file: its usual name.
        times: the names of its times, each (B,); they lie in `domain`.
        ordered: whether they must ascend.
        guidance: least and greatest guidance scale, if that is an input after the conditions.
        facts: what else a user of it has to know.
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
    """A network, and how it carries noise to latents, in standardised latent units.

    A new kind is a class with the abstract methods, named by the `learns` of its objective.
    """

    network: nn.Module
    path: Path

    # In words

    title: ClassVar[str]
    """Of a model: "latent flow-matching model"."""

    summary: ClassVar[str]
    """A paragraph of the model card."""

    who: ClassVar[str] = "this run"
    """What a row of a table calls it."""

    few_steps: ClassVar[bool] = False
    """Whether it is made to be sampled in few steps."""

    guided_as_trained: ClassVar[bool] = False
    """Whether its guidance was fixed, or given a range, when it was trained."""

    on_path: ClassVar[bool] = True
    """Whether its states at a time have the law of the path at that time. A map is distilled from
    draws of the path if so, else from states of the teacher's own flow."""

    fixed_steps: ClassVar[bool] = False
    """Whether the number of steps of a sample was fixed in training."""

    default_steps: ClassVar[int] = 20
    """Steps of a sample where no grid is given."""

    # How it is trained

    follows_teacher: ClassVar[bool] = False
    """Whether each step of training evaluates the teacher, in the precision of training."""

    @classmethod
    def check(cls, settings: Settings, teacher: bool) -> None:
        """Refuse settings that mean nothing for this kind.

        Raises:
            UserError: such settings, by name.
        """
        if settings.pairs != "auto":
            raise UserError(
                f"objective {settings.objective} has no pairs of times: leave out pairs"
            )

    @classmethod
    def default_network(cls, network: str, few: str) -> str:
        """The default network of this kind: the text of one for the shape of the latents.

        Args:
            few: settings for few training examples; empty where there are enough.
        """
        return with_settings(network, few)

    @classmethod
    def network_of(cls, component: Component, settings: Settings) -> Component:
        """A network component with what this kind needs of it."""
        return component

    @classmethod
    @abc.abstractmethod
    def objective(
        cls, settings: Settings, matching: FlowMatching, teacher: Learned | None
    ) -> Objective:
        """What trains it.

        Args:
            matching: the path, coupling, times and output of the settings.

        Raises:
            UserError: settings that do not fit, or a teacher that is missing or has no use.
        """

    @classmethod
    def build(cls, make: Callable[[], nn.Module], facts: Mapping[str, Any]) -> nn.Module:
        """The untrained network of a run.

        Args:
            make: one network of the specification.
            facts: what the run has kept, among others by `facts`.
        """
        return make()

    @classmethod
    def facts(cls, objective: Objective) -> dict[str, Any]:
        """What a run keeps of its objective for `restored`, as JSON has it."""
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
        """It, from a trained network and what its run knows.

        Args:
            facts: those of `facts`, among others.
            conditional: whether there are labels or conditions.
            teacher: loads what it was distilled from.
        """

    # Velocities

    @property
    @abc.abstractmethod
    def field(self) -> VelocityField:
        """Its velocity field without guidance.

        Raises:
            UserError: it has none.
        """

    @abc.abstractmethod
    def velocity(self, guidance: float | None = None) -> VelocityField:
        """Its own velocity field at a guidance scale; None for the usual one.

        Raises:
            UserError: it has none, or not at this scale.
        """

    def followed(self, guidance: float | None = None) -> VelocityField:
        """The velocity field whose flow its samples are to follow: a teacher's, or its own.

        Raises:
            UserError: it has no velocity, and no teacher.
        """
        return self.velocity(guidance)

    def first(self, n: int) -> Learned:
        """The first n blocks, where it has several.

        Raises:
            UserError: it has none, or not so many.
        """
        raise UserError("this is no chain of blocks: leave out blocks")

    # Sampling

    cheapest: ClassVar[str]
    """The solver that evaluates the network once a step."""

    @classmethod
    @abc.abstractmethod
    def sampling(cls, settings: Settings) -> tuple[str, float]:
        """The usual solver and guidance scale, in words of a run's settings."""

    @abc.abstractmethod
    def flow(
        self,
        steps: int | None = None,
        solver: str | None = None,
        grid: str | None = None,
        guidance: float | None = None,
    ) -> Walk:
        """The flow map that samples: the usual settings, with those given here instead.

        Raises:
            UserError: settings that do not fit.
        """

    def guidance_of(self, flow: Walk, guidance: float | None = None) -> float:
        """The guidance scale of a flow that was made with this one; 1 where there is none."""
        return 1.0

    def deterministic(self, guidance: float | None = None) -> Walk:
        """The usual flow where it draws no noise of its own on the way; else one that does not."""
        return self.flow(guidance=guidance)

    def carried(self, flow: Walk, x0: State, draw: Draw, cond: Cond = None) -> State:
        """Noise carried to the end of a flow's domain."""
        return flow(x0, *flow.domain, cond)

    @abc.abstractmethod
    def evaluations(self, flow: Walk, rows: int) -> int:
        """On how many rows the network was evaluated to carry `rows` of them by this flow."""

    def without_inverse(self, flow: Walk) -> str | None:
        """Why data cannot be carried back to noise by this flow; None where it can."""
        return None

    # Measuring

    error_steps: tuple[int, ...] = ()
    """Numbers of jumps whose distance from the flow that it follows is worth measuring."""

    guidance_scales: tuple[float, ...] = (1.0,)
    """Guidance scales at which that is done."""

    reference: ClassVar[str] = "its own velocity"

    velocity_elsewhere: ClassVar[str] = ""
    """Why longer training does not mend the velocity that it follows; empty where it does."""

    def examined(
        self, guidance: float | None = None, **flow: Any
    ) -> tuple[Walk, VelocityField, PairLaw | None]:
        """What `verify` decomposes: the flow that samples, its velocity field without guidance, and
        the times between which its laws as a map hold, if it is one."""
        return self.flow(guidance=guidance, **flow), self.field, None

    def without_budget(self) -> str | None:
        """Why `verify` does not add its errors up to one W2 budget; None where it does."""
        return None

    def without_density(self, solver: str | None = None) -> str | None:
        """Why samples drawn as usual have no log-density; None where they have one."""
        return None

    def without_asked_density(
        self,
        solver: str | None = None,
        steps: int | None = None,
        grid: str | None = None,
        probes: int | None = None,
    ) -> str | None:
        """Why there is no log-density by just these settings; None where there is."""
        return self.without_density(solver)

    @abc.abstractmethod
    def log_density(
        self, flow: Walk, z: Latent, cond: Cond, probes: int | None, seed: int, first: int
    ) -> Density:
        """log-density of latents at the end of a flow.

        Args:
            probes: of Hutchinson's estimator; None for what is exact.
            first: number of the first example, whose probes are its own.
        """

    # Export

    @abc.abstractmethod
    def program(self) -> Program:
        """What is exported of it.

        Raises:
            UserError: nothing can be.
        """

    def evaluate(self, x: State, times: tuple[Tensor, ...], cond: Cond = None) -> State:
        """What `program` computes, by the library itself; a velocity, unless a kind says else."""
        return self.field(x, times[0], cond)

    def without_scheduler(self) -> str | None:
        """Why diffusers' Euler scheduler cannot draw its samples; None where it can."""
        return "it is not sampled by the steps of an Euler scheduler"


def with_settings(component: str, *settings: str) -> str:
    """A component's text with more settings."""
    more = ",".join(filter(None, settings))
    return f"{component}{',' if ':' in component else ':'}{more}" if more else component
