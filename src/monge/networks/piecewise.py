r"""A network for each piece of time, as the theory of minimax rates has them.

Near the data the velocity changes fast, in time and in space; the estimator of the theorem
therefore has one network for each interval of times, and intervals double in length with the
distance to the data. Knots are breakpoints of the field: no step of a solver crosses one.

References:
    | Flow matching achieves almost minimax rates (Fukumizu et al., 2024), Sec. 4
    |   -- https://arxiv.org/abs/2405.20879
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from monge.components import Component, build
from monge.errors import UserError
from monge.fields import take
from monge.system import own_code
from monge.tensors import stream
from monge.types import Cond, State, Time

MOST_PIECES = 16


@dataclass(frozen=True, repr=False)
class PiecewiseSpec(Component):
    """One network for each piece of time; the pieces halve in length towards the data at t = 1.

    Args:
        of: the network of a piece, its settings joined by +: ``piecewise:mlp:width=64+depth=2``.
        pieces: how many; with k of them the knots are 0, 1/2, 3/4, ..., 1 - 2^(1-k), 1.

    Raises:
        UserError: a network that no piece can be, or a number of pieces out of range.

    >>> PiecewiseSpec("mlp:width=8+depth=1", 3).knots
    (0.0, 0.5, 0.75, 1.0)
    """

    of: str = "mlp"
    pieces: int = 3

    name = "piecewise"
    positional = "of"

    def __post_init__(self) -> None:
        if not 2 <= self.pieces <= MOST_PIECES:
            raise UserError(
                f"network piecewise: pieces must be from 2 to {MOST_PIECES}, not {self.pieces}"
            )
        if own_code.is_own(self.of):
            raise UserError(
                "network piecewise takes networks of monge's: write a network of your own that "
                "has pieces"
            )
        if self.of.partition(":")[0] in ("piecewise", "exact"):
            raise UserError(
                f"network piecewise: its pieces cannot be {self.of.partition(':')[0]}: name "
                "another network"
            )
        if getattr(self.piece, "two_times", False) or getattr(self.piece, "guided", False):
            raise UserError(
                "network piecewise has one time and no guidance scale: leave out two_times and "
                "guided"
            )

    @property
    def piece(self) -> Any:
        """The settings of one piece."""
        return build("network", self.of.replace("+", ","))

    @property
    def knots(self) -> tuple[float, ...]:
        """The ends of the pieces, ascending from 0 to 1."""
        return (*(1 - 2.0**-k for k in range(self.pieces)), 1.0)

    def build(
        self,
        shape: tuple[int, ...],
        n_classes: int | None = None,
        n_vector: int = 0,
        rng: torch.Generator | None = None,
    ) -> Piecewise:
        """The untrained network for states of a shape; see `TransformerSpec.build`."""
        rng = stream(0, "weights") if rng is None else rng
        piece = self.piece
        made = [piece.build(shape, n_classes, n_vector, rng) for _ in range(self.pieces)]
        return Piecewise(made, self.knots)


class Piecewise(nn.Module):
    """``pieces[k]`` on [knots[k], knots[k + 1]), the last one with its end.

    Args:
        pieces: networks of the same states and conditions.
        knots: ascending, one more than there are pieces.
    """

    def __init__(self, pieces: Sequence[nn.Module], knots: tuple[float, ...]) -> None:
        super().__init__()
        if len(knots) != len(pieces) + 1 or any(a >= b for a, b in itertools.pairwise(knots)):
            raise UserError(
                f"{len(pieces)} networks need {len(pieces) + 1} ascending knots, not {knots}"
            )
        self.pieces = nn.ModuleList(pieces)
        self.knots = tuple(knots)

    @property
    def breakpoints(self) -> tuple[float, ...]:
        """The knots inside, where the output jumps."""
        return self.knots[1:-1]

    def restrict(self, lo: float, hi: float) -> Callable[[State, Time, Cond], State]:
        """The network of the piece that holds [lo, hi], at times up to both its ends."""
        return self.pieces[self._piece((lo + hi) / 2)]

    def forward(self, x: State, t: Time, cond: Cond = None) -> State:
        """The output at (x, t); arguments and errors as for `Transformer.forward`.

        With a time for each row every network is called, if on no row, so that each has a
        gradient; traced for export or compiling, each is called on all rows.
        """
        if not isinstance(t, Tensor):
            return self.pieces[self._piece(float(t))](x, t, cond)
        inner = torch.tensor(self.breakpoints, dtype=torch.float64, device=t.device)
        place = torch.bucketize(t.detach().double(), inner, right=True)
        if torch.compiler.is_compiling():
            return self._traced(x, t, cond, place)
        if t.ndim == 0:
            return self.pieces[int(place)](x, t, cond)
        rows = [(place == k).nonzero().squeeze(1) for k in range(len(self.pieces))]
        parts = [
            piece(x[own], t[own], take(cond, own))
            for piece, own in zip(self.pieces, rows, strict=True)
        ]
        return torch.cat(parts)[torch.argsort(torch.cat(rows))]

    def _traced(self, x: State, t: Tensor, cond: Cond, place: Tensor) -> State:
        """All networks on all rows, without a branch that depends on the times."""
        at = place.reshape(-1, *[1] * (x.ndim - 1)) if place.ndim else place
        found = self.pieces[0](x, t, cond)
        for k, piece in enumerate(list(self.pieces)[1:], 1):
            found = torch.where(at == k, piece(x, t, cond), found)
        return found

    def _piece(self, t: float) -> int:
        return sum(t >= knot for knot in self.breakpoints) if not math.isnan(t) else 0
