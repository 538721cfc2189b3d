"""Flow maps: train a network of two times to jump, by a rule that every flow map obeys.

The rules are in `monge.objectives.rules`, one identity a file. Rows with s != t learn by the rule's
residual; rows with s = t learn the velocity itself, from a teacher or by flow matching.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from monge.components import build
from monge.couplings import Coupling
from monge.errors import UserError
from monge.fields import guided
from monge.flows import MeanVelocity
from monge.objectives.base import Batch, Loss, Objective
from monge.objectives.flow_matching import FlowMatching, conditions
from monge.objectives.rules.base import Rows, Rule
from monge.paths import Path
from monge.tensors import expand
from monge.time_pairs import PairLaw
from monge.types import State, VelocityField

ADAPTIVE_FLOOR = 1e-3
"""Added to the squared residual that an adaptive weight divides by (MeanFlow, Sec. 4)."""


@dataclass(frozen=True)
class FlowMapMatching(Objective):
    """Trains `MeanVelocity(network, ...)`, the u of a flow map, by a rule.

    Attributes:
        rule: what the map is to obey where s != t.
        matching: the path, the output, the coupling, and the flow matching where s = t.
        law: of (s, t); None for the rule's own.
        teacher: the velocity field that a rule with a teacher follows.
        guidance: least and greatest guidance scale of the teacher, drawn for each row and given
            to the network as an input; None for a teacher as it is.
    """

    rule: Rule
    matching: FlowMatching
    law: PairLaw | None = None
    teacher: VelocityField | None = None
    guidance: tuple[float, float] | None = None

    learns = "flow map"

    def __post_init__(self) -> None:
        if self.rule.teacher != (self.teacher is not None):
            raise UserError(
                f"objective {self.rule.name} needs a teacher: monge distil RUN --objective ..."
                if self.rule.teacher
                else f"objective {self.rule.name} has no teacher: monge train ... --objective ..."
            )
        if self.guidance and not self.teacher:
            raise UserError("guidance as an input is distilled from a teacher: use monge distil")
        if self.pairs.only_to_data and not self.rule.one_end:
            raise UserError(
                f"objective {self.rule.name} compares jumps to different times, which pairs "
                f"{self.pairs} do not have: use an Eulerian rule or a consistency one for them"
            )
        if self.rule.diagonal == 0 and self.rule.follows_itself:
            raise UserError(
                f"objective {self.rule.name} learns its velocity where s = t: diagonal must be "
                "greater than 0"
            )

    @property
    def pairs(self) -> PairLaw:
        """The law of (s, t)."""
        return self.law or build("pairs", self.rule.pairs)

    @property
    def domain(self) -> tuple[float, float]:
        """The times that are trained."""
        lo, hi = self.matching.domain
        first, last = getattr(self.teacher, "domain", (0.0, 1.0))
        return max(lo, first), min(hi, last)

    @property
    def coupling(self) -> Coupling:  # type: ignore[override]
        """How noise and data are joined."""
        return self.matching.coupling

    def draw(self, batch: Batch, rng: torch.Generator, step: int = 0) -> Batch:
        """Adds x0, the times s and t, and the rule's own draws."""
        drawn = {**self.matching.draw(batch, rng)}
        n, device = len(drawn["x1"]), drawn["x1"].device
        s, t = self.pairs.draw(n, self.domain, rng, self.rule.span(step))
        drawn["fraction"] = self.rule.fraction(n, rng).to(device)
        # Spread evenly, so that processes and micro-batches have equal work.
        kept, first = 1 - self.rule.diagonal, 0.0
        if abs(n * kept - round(n * kept)) > 1e-6:  # right on average
            first = float(torch.rand((), generator=rng, dtype=torch.float64))
        edges = torch.floor(first + kept * torch.arange(n + 1, dtype=torch.float64) + 1e-9)
        on = edges[1:] == edges[:-1]
        times = drawn["t"].cpu().clamp(*self.domain)
        drawn["s"] = torch.where(on, times, s).to(device)
        drawn["t"] = torch.where(on, times, t).to(device)
        if self.guidance:
            lo, hi = self.guidance
            drawn["guidance"] = (lo + (hi - lo) * torch.rand(n, generator=rng)).to(device)
        return drawn

    def loss(self, network: nn.Module, batch: Batch) -> Loss:
        on = batch["s"] == batch["t"]
        rows = [on.nonzero().squeeze(1), (~on).nonzero().squeeze(1)]
        made, errors, clipped = [], [], []
        for index, error in zip(rows, (self._on_diagonal, self._off_diagonal), strict=True):
            if len(index):
                part = {name: x[index] for name, x in batch.items()}
                squared, scaled = error(network, part)
                made.append(self._weighted(network, part, squared))
                errors.append(squared.detach())
                clipped.append(scaled)
        order = torch.argsort(torch.cat([r for r in rows if len(r)]))
        squared = torch.cat(errors)[order]
        parts = {"map": squared * ~on / (1 - self.rule.diagonal)}
        if self.rule.diagonal:
            parts["velocity"] = squared * on / self.rule.diagonal
        if self.rule.clip:
            parts["clipped"] = torch.cat(clipped)[order].to(squared.dtype)
        return Loss(torch.cat(made)[order], parts)

    def _on_diagonal(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        if self.teacher is None:
            found = self.matching.loss(network, batch).per_example
        else:
            at = self._rows(network, batch)
            with torch.no_grad():
                target = at.velocity(at.x, at.s)
            found = (at.mean(at.x, at.s, at.s) - target).square().flatten(1).mean(1)
        return found, torch.zeros_like(found, dtype=torch.bool)

    def _off_diagonal(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """The squared residual of each row, and whether it was clipped."""
        at = self._rows(network, batch)
        if self.rule.clip:
            at = replace(at, limit=self.rule.clip)
        with _without_dropout(network):
            residuals = self.rule.residuals(at)
        total = sum(r.square().flatten(1).mean(1) for r in residuals)
        assert isinstance(total, Tensor)
        clipped = [over.to(total.device) for over in at.clipped]
        if self.rule.clip:
            # |r| beyond the limit counts linearly: its gradient keeps the size that it has there.
            over = ~(total.detach() <= at.limit**2)
            size = total.detach().sqrt().clamp(min=at.limit)
            total = torch.where(over, total * (at.limit / size), total)
            clipped.append(over)
        return total, torch.stack(clipped).any(0) if clipped else torch.zeros_like(total) > 0

    def _weighted(self, network: nn.Module, batch: Batch, squared: Tensor) -> Tensor:
        if self.rule.weight == "learned":
            w = network.log_variance(batch["s"], batch["t"])  # type: ignore[operator]
            return (-w).exp() * squared + w
        if self.rule.weight == "adaptive":
            return squared / (squared.detach() + ADAPTIVE_FLOOR)
        return squared

    def _rows(self, network: nn.Module, batch: Batch) -> Rows:
        path, s, t = self.matching.path, batch["s"], batch["t"]
        way = _way(path, batch)
        x, rate = way(s)
        u = MeanVelocity(network, path, self.matching.output)
        cond = {**(conditions(batch) or {})}
        if "guidance" in batch:
            cond["guidance"] = batch["guidance"]

        def mean(x: State, s: Tensor, t: Tensor) -> State:
            return u(x, s, t, cond or None)

        return Rows(
            x,
            rate,
            s,
            t,
            batch["fraction"],
            self.domain,
            mean,
            self._velocity(batch, mean),
            lambda r: way(r)[0],
            self.matching.output == "velocity" and _takes_duals(network),
            _hooked(network),
        )

    def _velocity(
        self, batch: Batch, mean: Callable[[State, Tensor, Tensor], State]
    ) -> Callable[[State, Tensor], State]:
        """The teacher's velocity for these rows, guided by their scales; or the network's own."""
        teacher, cond = self.teacher, conditions(batch)
        if teacher is None:
            return lambda x, t: mean(x, t, t)
        if "guidance" not in batch:
            return lambda x, t: teacher(x, t, cond)
        return lambda x, t: guided(teacher, batch["guidance"], x, t, cond)


def _way(path: Path, batch: Batch) -> Callable[[Tensor], tuple[State, State]]:
    """Where the rows of a batch are at times (B,), and how fast they move there.

    On the path from x0 to x1; or between the states at equal times that a batch brings as ``way``,
    (B, M, ...), those of a teacher whose own law at a time is not that of the path.
    """
    if "way" in batch:
        return lambda t: between(batch["way"], t)
    return lambda t: path.interpolate(batch["x0"], batch["x1"], t)


def between(way: Tensor, t: Tensor) -> tuple[State, State]:
    """States (B, M, ...) at M equal times of [0, 1], interpolated at t (B,), and their slope."""
    pieces = way.shape[1] - 1
    place = (t.to(way.dtype) * pieces).clamp(0, pieces)
    k = place.floor().long().clamp(max=pieces - 1)
    rows = torch.arange(len(way), device=way.device)
    start, end = way[rows, k], way[rows, k + 1]
    part = expand(place - k, start)
    return torch.lerp(start, end, part), (end - start) * pieces


def _takes_duals(network: nn.Module) -> bool:
    """Whether dual numbers go through a network as it is: no hooks, not compiled.

    Its own class says so: one derived from it may compute what they do not know.
    """
    known = vars(type(network)).get("duals", False) and not torch.compiler.is_compiling()
    return known and not _hooked(network)


def _hooked(network: nn.Module) -> bool:
    """Whether modules call others first or afterwards, as those of shards do."""
    return any(m._forward_pre_hooks or m._forward_hooks for m in network.modules())


@contextmanager
def _without_dropout(network: nn.Module) -> Iterator[None]:
    """The two sides of a residual see one network."""
    was = getattr(network, "training", False)
    if was:
        network.eval()
    try:
        yield
    finally:
        if was:
            network.train()
