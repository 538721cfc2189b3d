r"""Couplings: which source sample is joined to which data sample.

Every coupling here keeps the two marginals exact, so that flow matching still has the data as
its target; what it changes is how straight the paths are.

References:
    | Minibatch OT couplings (Tong et al., 2023) -- https://arxiv.org/abs/2302.00482
    | OT within a class, for conditions (Cheng & Schwing, 2025) -- https://arxiv.org/abs/2503.10636
"""

from __future__ import annotations

import abc
import importlib.util
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from monge.components import Component
from monge.errors import UserError
from monge.types import State

__all__ = [
    "Coupling",
    "Independent",
    "MinibatchOT",
    "optimal_permutation",
]


MOST_BY_LAP = 512
"""Points that are matched by `lap`, which lets no other thread of Python run meanwhile: of 256
points, 2 ms, where scipy takes 4; of 1,024 as many as scipy, 0.1 s."""


class Coupling(Component, abc.ABC):
    """Draws a source sample for each data sample."""

    gaussian: bool = True
    """Whether x0 given x1 is N(0, I); only then is the velocity a score in disguise."""

    plan_batch: int | None = None
    """Rows that are paired together, or None where each row is on its own."""

    @abc.abstractmethod
    def pair(self, x1: State, label: Tensor | None, rng: torch.Generator) -> tuple[State, State]:
        """(x0, x1): source samples and the data samples they are joined to, both (B, ...)."""


def source_like(x1: State, rng: torch.Generator) -> State:
    """Standard normal draws shaped like x1, by the given CPU generator."""
    # Drawn in float32 whatever the state's type, so that a float64 run sees the same numbers.
    drawn = torch.randn(x1.shape, generator=rng, dtype=torch.float32)
    return drawn.to(device=x1.device, dtype=x1.dtype)


@dataclass(frozen=True, repr=False)
class Independent(Coupling):
    """x0 and x1 independent: the coupling of plain flow matching."""

    name = "independent"

    def pair(self, x1: State, label: Tensor | None, rng: torch.Generator) -> tuple[State, State]:
        return source_like(x1, rng), x1


@dataclass(frozen=True, repr=False)
class MinibatchOT(Coupling):
    """Within each group of `plan` rows, source samples are permuted to the least squared cost.

    A permutation, so each noise and each datum is used once. With labels, only rows of one
    class are matched with each other; otherwise the source would depend on the class.

    Attributes:
        plan: rows per group. Larger than the training batch is allowed: the loop then draws
            several steps at once.
    """

    plan: int = 256

    name = "ot"
    gaussian = False

    def __post_init__(self) -> None:
        if self.plan < 2:
            raise UserError(f"coupling ot: plan must be at least 2 rows, not {self.plan}")

    @property
    def plan_batch(self) -> int | None:  # type: ignore[override]
        return self.plan

    def pair(self, x1: State, label: Tensor | None, rng: torch.Generator) -> tuple[State, State]:
        x0 = source_like(x1, rng)
        order = torch.empty(len(x1), dtype=torch.int64)
        for rows in torch.arange(len(x1)).split(self.plan):
            for group in _by_class(rows, label):
                order[group] = group[optimal_permutation(x0[group], x1[group])]
        return x0[order.to(x0.device)], x1


def _by_class(rows: Tensor, label: Tensor | None) -> list[Tensor]:
    if label is None:
        return [rows]
    labels = label.cpu()[rows]
    return [rows[labels == k] for k in labels.unique()]


def optimal_permutation(x0: State, x1: State) -> Tensor:
    """The permutation p minimising sum_i |x0[p[i]] - x1[i]|^2: row i of x1 takes x0[p[i]].

    Exact, by the Jonker-Volgenant algorithm: of `lap` for few points where it is installed, else
    of scipy. Both find the same, unless several permutations are optimal.
    """
    # |a - b|^2 = |a|^2 + |b|^2 - 2ab, and the first two are the same for every permutation.
    cost = (-(x1.flatten(1).double() @ x0.flatten(1).double().T)).cpu().numpy()
    if len(cost) > MOST_BY_LAP or not importlib.util.find_spec("lap"):
        from scipy.optimize import linear_sum_assignment

        return torch.from_numpy(linear_sum_assignment(cost)[1])
    import lap

    _, column_of_row, _ = lap.lapjv(cost - cost.min())
    return torch.from_numpy(np.asarray(column_of_row, dtype=np.int64))


def __dir__() -> list[str]:
    return __all__
